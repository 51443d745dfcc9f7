"""Sealed runs: one process without doors and without a server inside, whose end and report are read from outside."""

from __future__ import annotations

import asyncio
import os
import sys
import sysconfig
import textwrap

import psutil
import pytest

from tests.integration.sandbox_scene import open_folder
from trunkline.errors import SandboxError
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.types import Command, SandboxLimits, SealedRun

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
async def sandboxes(anyio_backend):
    async with IsolatedSandboxes.open(SandboxConfig()) as sandboxes:
        yield sandboxes


def python(code: str, *, timeout_s: float = 30.0, stdin: bytes = b"", **options) -> SealedRun:
    argv = (f"{sys.base_prefix}/bin/python3", "-I", "-S", "-c", textwrap.dedent(code))
    return SealedRun(Command(argv, timeout_s=timeout_s, stdin=stdin), **options)


@pytest.fixture
def tree():
    with open_folder() as folder:
        (folder / "a").mkdir()
        (folder / "a" / "word").write_text("below")
        (folder / "b").mkdir()
        (folder / "b" / "word").write_text("above")
        (folder / "a" / "kept").write_text("kept")
        for path in folder.rglob("*"):
            path.chmod(0o777 if path.is_dir() else 0o666)
        yield folder


async def test_status_output_stdin_and_report_come_back(sandboxes):
    code = """
        import os, sys
        print(sys.stdin.read()[::-1]); print("err", file=sys.stderr)
        os.write(int(os.environ["TRUNKLINE_REPORT_FD"]), b"told")
        sys.exit(7)
    """
    ran = await sandboxes.run_sealed(python(code, stdin=b"abc"))
    assert (ran.command.status, ran.command.stdout, ran.command.stderr, ran.report) == (7, b"cba\n", b"err\n", b"told")
    assert (ran.is_report_cut, ran.spent, ran.command.is_timeout) == (False, "", False)


async def test_later_trees_lie_on_top_and_what_is_written_is_thrown_away(sandboxes, tree):
    run = python(
        "print(open('word').read(), open('kept').read()); open('word','w').write('x'); open('new','w')", trees=(tree / "a", tree / "b")
    )
    for _ in range(2):
        ran = await sandboxes.run_sealed(run)
        assert (ran.command.stdout, ran.command.stderr) == (b"above kept\n", b"")
    assert sorted(path.name for path in (tree / "a").iterdir()) == ["kept", "word"]


async def test_changes_and_collected_files_come_back_if_asked(sandboxes, tree):
    code = "import os; open('word','w').write('new'); os.remove('kept'); open('/logs/reward.txt','w').write('1')"
    ran = await sandboxes.run_sealed(python(code, trees=(tree / "a",), keeps_changes=True, collects="/logs"))
    assert [(change.path, change.kind, change.content) for change in ran.changes] == [("kept", "deleted", b""), ("word", "file", b"new")]
    assert [(change.path, change.content) for change in ran.collected] == [("reward.txt", b"1")]
    assert (tree / "a" / "kept").read_text() == "kept"


async def test_there_is_no_network_no_door_no_package_and_no_other_descriptor(sandboxes, tree):
    code = """
        import os, socket
        print(sorted(set(map(int, os.listdir("/proc/self/fd"))) - {0, 1, 2, int(os.environ["TRUNKLINE_REPORT_FD"])})[1:])
        print(os.path.exists("/run/doors"), os.getpid(), [name for _, name in socket.if_nameindex()])
        try: import pytest
        except ImportError: print("no package")
        for path in ("/shown/word", "/usr/x", "/x"):
            try: open(path, "w")
            except OSError: print("read-only")
    """
    ran = await sandboxes.run_sealed(python(code, shown=((tree / "b", "/shown"),)))
    assert ran.command.stdout.decode().splitlines() == ["[]", "False 1 ['lo']", "no package", *["read-only"] * 3], ran


async def test_packages_of_the_interpreter_cannot_be_seen(sandboxes):
    code = """
        import os, sysconfig, sys
        found = [name for place in ("purelib", "platlib") for name in os.listdir(sysconfig.get_path(place))]
        found += [place for place in ("/usr/lib/python3/dist-packages",) if os.path.isdir(place) and os.listdir(place)]
        print(found)
    """
    assert any(os.scandir(sysconfig.get_path("purelib", vars={"base": sys.base_prefix}))), "nothing there that could be hidden"
    assert (await sandboxes.run_sealed(python(code))).command.stdout == b"[]\n"


async def test_what_it_leaves_running_is_dead_when_its_end_is_told(sandboxes):
    mark = "trunkline-left-behind"
    code = f"""
        import os, subprocess, sys
        subprocess.Popen([sys.executable, "-c", "import os, time; os.setsid(); time.sleep(600)", "{mark}"], start_new_session=True)
        os.write(int(os.environ["TRUNKLINE_REPORT_FD"]), b"started")
    """
    ran = await sandboxes.run_sealed(python(code))
    assert (ran.command.status, ran.report) == (0, b"started")
    assert not [process.pid for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or [])]


async def test_too_long_too_much_memory_and_too_much_disk_end_it_with_the_cause(sandboxes):
    late = await sandboxes.run_sealed(python("import os; os.write(1, b'begun'); import time; time.sleep(600)", timeout_s=1.0))
    assert (late.command.is_timeout, late.command.stdout, late.spent) == (True, b"begun", "")
    small = SandboxLimits(memory_bytes=64 * 2**20, disk_bytes=2**20)
    fat = await sandboxes.run_sealed(python("x = b'x' * 2**28", limits=small))
    assert fat.command.status != 0 and ("memory" in fat.spent or sandboxes.cgroups.version == "none")
    code = "import time\nfor n in range(10**6): open(f'/logs/{n}','wb').write(b'x' * 2**16); time.sleep(0.001)"
    full = await sandboxes.run_sealed(python(code, limits=small, collects="/logs"))
    assert "it wrote" in full.spent


async def test_a_flood_of_output_and_report_is_cut_and_said_to_be(sandboxes):
    code = """
        import os
        fd = int(os.environ["TRUNKLINE_REPORT_FD"])
        for _ in range(64): os.write(fd, b"r" * 2**16); os.write(1, b"o" * 2**16)
        os.write(1, b"end")
    """
    ran = await sandboxes.run_sealed(python(code, max_report_bytes=1000))
    assert (ran.report, ran.is_report_cut) == (b"r" * 1000, True)
    assert ran.command.num_stdout == 2**22 + 3 and ran.command.stdout.endswith(b"end") and b"left out" in ran.command.stdout
    assert len(ran.command.stdout) < 2**20 + 100


async def test_a_command_that_is_not_there_and_a_cancelled_one_leave_nothing(sandboxes):
    missing = await sandboxes.run_sealed(SealedRun(Command(("no-such-program",), timeout_s=10)))
    assert missing.command.status == 127 and b"no-such-program" in missing.command.stderr
    with pytest.raises(SandboxError, match="did not start"):
        await sandboxes.run_sealed(SealedRun(Command(("true",), timeout_s=10, cwd="/nowhere")))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sandboxes.run_sealed(python("import time; time.sleep(600)")), 0.5)
    assert not list((sandboxes.host.state / "attempts").iterdir())


def test_a_run_without_a_timeout_is_refused():
    with pytest.raises(ValueError, match="timeout"):
        SealedRun(Command(("true",)))
