"""Sandboxes as containers, in a real Docker engine that the tests start themselves: the same verbs, walls, limits and cleanliness."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.slow.dockerd import BARE_IMAGE, IMAGE, import_images, running_dockerd
from trunkline.errors import CommandNotStarted, ConfigError, FileAccessError, LimitExceeded, SandboxError, SandboxUnavailable
from trunkline.sandbox.catalog import open_sandboxes
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.container import ContainerSandboxes
from trunkline.sandbox.docker_engine import NAMESPACE, OWNER, SET
from trunkline.types import Command, Door, FileChange, SandboxLimits

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
ENOUGH_S = 120.0
CONFIG = SandboxConfig(kind="container", image=IMAGE, memory_bytes=256 * 2**20)
HTTP_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\nconnection: close\r\n\r\nfrom outside"


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.APIClient]:
    """An engine of our own at DOCKER_HOST, with the images."""
    with running_dockerd() as address, pytest.MonkeyPatch.context() as patch:
        import_images(address)
        patch.setenv("DOCKER_HOST", address)
        api = docker.DockerClient(address).api
        yield api
        api.close()


@pytest.fixture(autouse=True)
def nothing_is_left(engine: docker.APIClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After each test: no container, no image of ours, no file of ours."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield
    assert engine.containers(all=True) == []
    assert engine.images(all=True, filters={"label": OWNER}) == []
    assert {image["RepoTags"][0] for image in engine.images(all=True)} == {IMAGE, BARE_IMAGE}
    assert not list(tmp_path.glob("trunkline-*"))


def within(work: Callable[[ContainerSandboxes], Awaitable[None]], config: SandboxConfig = CONFIG) -> None:
    """Runs `work` on open sandboxes."""

    async def main() -> None:
        async with asyncio.timeout(ENOUGH_S), open_sandboxes(config) as sandboxes:
            assert isinstance(sandboxes, ContainerSandboxes)
            await work(sandboxes)

    asyncio.run(main())


def python(code: str, **options: Any) -> Command:
    return Command(("python3", "-c", textwrap.dedent(code)), **options)


def opening(config: SandboxConfig) -> None:
    async def nothing(sandboxes: ContainerSandboxes) -> None:
        pass

    within(nothing, config)


def test_a_command_has_its_directory_environment_stdin_status_and_streams() -> None:
    async def work(sandboxes: ContainerSandboxes) -> None:
        assert sandboxes.kind.startswith("container (docker 2")
        sandbox = await sandboxes.create(await sandboxes.prepare(None))
        shown = await sandbox.run(
            Command.shell("pwd; cat; echo $HOME $OWN $FROM_IMAGE; id -u; echo no >&2; exit 3", environment={"OWN": "1"}, stdin=b"in\n")
        )
        assert (shown.status, shown.stdout, shown.stderr) == (3, b"/workspace\nin\n/home/agent 1 yes\n1000\n", b"no\n")
        assert (await sandbox.run(Command(("/bin/sh", "-c", "pwd; touch ~/here /tmp/here"), cwd="/home"))).stdout == b"/home\n"
        with pytest.raises(CommandNotStarted, match="No such file"):
            await sandbox.run(Command(("no-such-program",)))

    within(work)


def test_a_command_ends_with_its_time_and_long_output_keeps_both_ends() -> None:
    async def work(sandboxes: ContainerSandboxes) -> None:
        sandbox = await sandboxes.create(await sandboxes.prepare(None))
        late = await sandbox.run(Command.shell("echo begun; sleep 60 & sleep 60", timeout_s=0.5))
        assert (late.is_timeout, late.status, late.stdout) == (True, -signal.SIGKILL, b"begun\n")
        long = await sandbox.run(python("print('a' * 5000 + 'b' * 5000, end='')", max_output_bytes=100))
        assert long.num_stdout == 10_000
        assert long.stdout == b"a" * 50 + b"\n[9900 bytes left out here]\n" + b"b" * 50

    within(work)


def test_files_are_written_read_and_listed_and_a_missing_one_is_refused() -> None:
    async def work(sandboxes: ContainerSandboxes) -> None:
        sandbox = await sandboxes.create(await sandboxes.prepare(None))
        await sandbox.files.write("src/run.sh", b"#!/bin/sh\necho ran\n", mode=0o755)
        assert (await sandbox.run(Command(("src/run.sh",)))).stdout == b"ran\n"
        assert await sandbox.files.read("/workspace/src/run.sh") == b"#!/bin/sh\necho ran\n"
        assert [(entry.name, entry.kind, entry.num_bytes) for entry in await sandbox.files.list("src")] == [("run.sh", "file", 19)]
        with pytest.raises(FileAccessError, match="No such file"):
            await sandbox.files.read("missing")
        with pytest.raises(FileAccessError, match="Permission denied"):
            await sandbox.files.write("/etc/own", b"")

    within(work)


def test_a_service_runs_in_the_background_until_it_is_stopped() -> None:
    async def work(sandboxes: ContainerSandboxes) -> None:
        sandbox = await sandboxes.create(await sandboxes.prepare(None))
        service = await sandbox.start(Command.shell("echo up; sleep 600"))
        while (await service.peek()) != (None, b"up\n"):
            await asyncio.sleep(0.01)
        assert (await service.stop()).status == -signal.SIGKILL

    within(work)


def test_two_sandboxes_of_one_workspace_do_not_see_each_other(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "shared").write_text("base")
    (tmp_path / "repository" / "link").symlink_to("/etc/hostname")

    async def work(sandboxes: ContainerSandboxes) -> None:
        workspace = await sandboxes.prepare(tmp_path / "repository")
        (tmp_path / "repository" / "shared").write_text("changed later")
        one, other = await asyncio.gather(sandboxes.create(workspace), sandboxes.create(workspace))
        await one.files.write("shared", b"of one")
        await one.files.write("/tmp/own", b"")
        assert await other.files.read("shared") == b"base"
        assert await other.files.list("/tmp") == ()
        shown = await other.run(Command.shell("ls -a; cat link"))
        assert shown.stdout == b".\n..\nlink\nshared\nsandbox\n", "links are copied as links"

    within(work)


def test_a_snapshot_restores_the_files_and_not_the_processes() -> None:
    async def work(sandboxes: ContainerSandboxes) -> None:
        sandbox = await sandboxes.create(await sandboxes.prepare(None))
        await sandbox.files.write("state", b"first")
        await sandbox.files.write("/home/agent/notes", b"kept")
        await sandbox.start(Command.shell("while true; do echo x >> ticks; sleep 0.01; done"))
        snapshot = await sandbox.snapshot()
        await sandbox.files.write("state", b"second")
        await sandbox.destroy()
        restored = await sandboxes.create(snapshot)
        assert await restored.files.read("state") == b"first"
        assert await restored.files.read("/home/agent/notes") == b"kept"
        ticks = await restored.files.read("ticks")
        await asyncio.sleep(0.1)
        assert await restored.files.read("ticks") == ticks
        assert [change.path for change in await restored.files.diff()] == ["state", "ticks"], "it differs from the workspace as before"

    within(work)


def test_a_fork_goes_its_own_way_and_the_source_goes_on() -> None:
    async def work(sandboxes: ContainerSandboxes) -> None:
        sandbox = await sandboxes.create(await sandboxes.prepare(None))
        await sandbox.files.write("state", b"common")
        service = await sandbox.start(Command.shell("while true; do echo x; sleep 0.01; done"))
        fork = await sandboxes.fork(sandbox)
        await fork.files.write("state", b"forked")
        assert await sandbox.files.read("state") == b"common"
        again = await sandboxes.fork(fork)
        await fork.destroy()
        assert await again.files.read("state") == b"forked"
        _, before = await service.peek()
        await asyncio.sleep(0.2)
        assert len((await service.peek())[1]) > len(before), "what stood still goes on"

    within(work)


def test_a_diff_tells_what_differs_from_the_workspace(tmp_path: Path) -> None:
    base = tmp_path / "repository"
    for name in ("edited", "same", "gone", "folder/one", "folder/two", "whole/inner/file", "becomes_folder", "mode", "emptied/one"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(name)
        (base / name).chmod(0o644)
    os.link(base / "same", base / "second_name")
    (base / "link").symlink_to("edited")

    async def work(sandboxes: ContainerSandboxes) -> None:
        sandbox = await sandboxes.create(await sandboxes.prepare(base))
        assert await sandbox.files.diff() == ()
        script = """
            echo -n new > edited; echo -n same > same; rm gone; rm -r whole; chmod 755 mode; rm link; ln -s same link
            rm becomes_folder; mkdir -m 700 becomes_folder; echo -n x > becomes_folder/x; mkfifo pipe
            rm -r folder; mkdir folder; echo -n three > folder/three; rm emptied/one; mkdir new; echo -n y > new/y; chmod 0 new/y
            echo -n weird > "$(printf 'a\\377b')"
        """
        assert (await sandbox.run(Command.shell(script))).status == 0
        await sandbox.files.write("/home/agent/outside", b"")
        assert await sandbox.files.diff() == tuple(
            sorted(
                (
                    FileChange("a\udcffb", "file", 0o644, b"weird"),
                    FileChange("becomes_folder", "directory", 0o700),
                    FileChange("becomes_folder/x", "file", 0o644, b"x"),
                    FileChange("edited", "file", 0o644, b"new"),
                    FileChange("emptied/one", "deleted"),
                    FileChange("folder/one", "deleted"),
                    FileChange("folder/three", "file", 0o644, b"three"),
                    FileChange("folder/two", "deleted"),
                    FileChange("gone", "deleted"),
                    FileChange("link", "symlink", content=b"same"),
                    FileChange("mode", "file", 0o755, b"mode"),
                    FileChange("new", "directory", 0o755),
                    FileChange("new/y", "file", 0, b"y"),
                    FileChange("pipe", "other", 0o644),
                    FileChange("whole", "deleted"),
                ),
                key=lambda change: change.path,
            )
        )

    within(work)


def test_nothing_leads_out_but_a_door(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HTTP_ANSWER)
        writer.close()

    async def work(sandboxes: ContainerSandboxes) -> None:
        door = tmp_path / "door.sock"
        async with await asyncio.start_unix_server(serve, door), await asyncio.start_server(serve, "127.0.0.1", 0) as ours:
            door.chmod(0o666)
            port = ours.sockets[0].getsockname()[1]
            workspace = await sandboxes.prepare(None)
            sandbox = await sandboxes.create(workspace, doors=(Door("test", 8700, door),))
            ask = python("import urllib.request as r; print(r.urlopen('http://127.0.0.1:8700/').read().decode(), end='')")
            assert (await sandbox.run(ask)).stdout == b"from outside"
            connect = python(
                """
                import socket, sys
                for address in (("192.0.2.1", 80), ("127.0.0.1", int(sys.argv[1]))):
                    print(socket.socket().connect_ex(address))
                """
            )
            shown = await sandbox.run(Command((*connect.argv, str(port))))
            assert shown.stdout == b"101\n111\n", "no network to reach the one, no such port on a loopback of its own"
            assert (await (await sandboxes.create(workspace)).run(ask)).status == 1, "a sandbox has the doors that it was given"

    within(work)


def test_a_command_has_no_powers_and_cannot_reach_the_server() -> None:
    async def work(sandboxes: ContainerSandboxes) -> None:
        sandbox = await sandboxes.create(await sandboxes.prepare(None))
        shown = await sandbox.run(
            python(
                """
                import ctypes, os, socket
                status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
                print(status["CapEff"], status["CapBnd"], status["NoNewPrivs"], status["Seccomp"])
                print(ctypes.CDLL(None, use_errno=True).unshare(0x10000000), ctypes.get_errno())
                for act in (lambda: open("/proc/1/mem"), lambda: socket.socket(socket.AF_UNIX).connect("/run/control")):
                    try:
                        act()
                    except OSError as error:
                        print(error.strerror)
                os.kill(1, 9)
                print("still here")
                """
            )
        )
        nothing = b"0" * 16
        walls = b"%b %b 1 2\n-1 1\nPermission denied\nConnection refused\nstill here\n" % (nothing, nothing)
        assert shown.stdout == walls, shown.stderr.decode()

    within(work)


def test_a_process_that_takes_more_memory_is_killed_and_the_sandbox_lives() -> None:
    async def work(sandboxes: ContainerSandboxes) -> None:
        sandbox = await sandboxes.create(await sandboxes.prepare(None), limits=SandboxLimits(memory_bytes=64 * 2**20))
        assert (await sandbox.run(python("bytearray(2**29)"))).status == -signal.SIGKILL
        assert (await sandbox.run(Command(("true",)))).status == 0
        await sandbox.destroy()
        assert ("limit", "the kernel killed processes of it for memory") in [(act.op, act.detail) for act in sandbox.acts]

    within(work)


def test_processes_are_no_more_than_allowed() -> None:
    async def work(sandboxes: ContainerSandboxes) -> None:
        sandbox = await sandboxes.create(await sandboxes.prepare(None), limits=SandboxLimits(num_processes=16))
        code = """
            import os, time
            for count in range(100):
                try:
                    if not os.fork():
                        time.sleep(60)
                except BlockingIOError:
                    break
            print(count)
        """
        assert int((await sandbox.run(python(code, timeout_s=5))).stdout) == 14, "beside the server and the command itself"

    within(work)


@pytest.mark.parametrize(
    ("limits", "words"),
    [(SandboxLimits(disk_bytes=2**22), "bytes to disk"), (SandboxLimits(wall_s=1.5), "lived for its 1.5 s")],
    ids=["disk", "wall time"],
)
def test_a_sandbox_that_spends_a_limit_is_ended_and_says_so(limits: SandboxLimits, words: str) -> None:
    async def work(sandboxes: ContainerSandboxes) -> None:
        sandbox = await sandboxes.create(await sandboxes.prepare(None), limits=limits)
        with pytest.raises(LimitExceeded, match=words):
            await sandbox.run(python("for name in range(16): open(str(name), 'wb').write(bytes(2**20))\nimport time; time.sleep(60)"))
        with pytest.raises(LimitExceeded, match=words):
            await sandbox.files.list()

    within(work)


def test_nothing_is_copied_of_a_sandbox_whose_files_are_larger_than_its_disk() -> None:
    async def work(sandboxes: ContainerSandboxes) -> None:
        sandbox = await sandboxes.create(await sandboxes.prepare(None), limits=SandboxLimits(disk_bytes=2**30))
        await sandbox.run(python("for name in range(8): open(str(name), 'wb').truncate(2**30)"))
        with pytest.raises(LimitExceeded, match="bytes"):
            await sandbox.snapshot()

    within(work)


def test_destroy_leaves_nothing_and_twice_is_as_good_as_once(engine: docker.APIClient) -> None:
    async def work(sandboxes: ContainerSandboxes) -> None:
        workspace = await sandboxes.prepare(None)
        sandbox = await sandboxes.create(workspace)
        snapshot = await sandbox.snapshot()
        await sandbox.start(Command.shell("sleep 600"))
        assert len(engine.containers(all=True)) == 1
        await asyncio.gather(sandbox.destroy(), sandbox.destroy())
        await sandbox.destroy()
        assert engine.containers(all=True) == []
        with pytest.raises(SandboxError, match="was destroyed"):
            await sandbox.run(Command(("true",)))
        await sandboxes.discard(workspace)
        await sandboxes.discard(snapshot)
        assert engine.images(all=True, filters={"label": SET}) == [], "a workspace goes once nothing builds on it"

    within(work)


def test_a_cancelled_creation_leaves_no_container(engine: docker.APIClient) -> None:
    async def work(sandboxes: ContainerSandboxes) -> None:
        workspace = await sandboxes.prepare(None)
        for delay_s in (0.0, 0.03, 0.1, 0.3):
            creation = asyncio.create_task(sandboxes.create(workspace))
            await asyncio.sleep(delay_s)
            creation.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await (await creation).destroy()
            assert engine.containers(all=True) == []
        assert not sandboxes.alive

    within(work)


def test_what_a_killed_owner_left_is_removed_by_the_next(engine: docker.APIClient) -> None:
    code = """
        import asyncio, sys
        from trunkline.sandbox.catalog import open_sandboxes
        from trunkline.sandbox.config import SandboxConfig

        async def main():
            async with open_sandboxes(SandboxConfig(kind="container", image=sys.argv[1])) as sandboxes:
                sandbox = await sandboxes.create(await sandboxes.prepare(None))
                await sandbox.snapshot()
                print("ready", flush=True)
                await asyncio.sleep(600)

        asyncio.run(main())
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), IMAGE], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == b"ready\n"

        async def beside(sandboxes: ContainerSandboxes) -> None:
            assert len(engine.containers()) == 1, "a living owner keeps its own"

        within(beside)
        owner.kill()
    assert len(engine.containers(all=True)) == 1
    assert len(engine.images(all=True, filters={"label": OWNER})) == 2

    async def work(sandboxes: ContainerSandboxes) -> None:
        assert engine.containers(all=True) == []
        assert engine.images(all=True, filters={"label": OWNER}) == []

    within(work)


def test_containers_of_another_namespace_of_processes_are_left_alone(engine: docker.APIClient) -> None:
    foreign = engine.create_container(IMAGE, "true", labels={OWNER: "999999-1", NAMESPACE: "1"})["Id"]
    try:
        opening(CONFIG)
    finally:
        engine.remove_container(foreign)


def test_a_missing_image_is_refused_with_the_command_that_fetches_it() -> None:
    with pytest.raises(SandboxUnavailable, match="no image 'no-such:image'.*docker pull no-such:image"):
        opening(SandboxConfig(kind="container", image="no-such:image"))
    with pytest.raises(SandboxUnavailable, match="set sandbox.image"):
        opening(SandboxConfig(kind="container"))


def test_an_image_without_python_is_refused_with_the_remedy() -> None:
    with pytest.raises(SandboxUnavailable, match=r'"python3".*not found[\s\S]*python3, 3.9 or newer'):
        opening(SandboxConfig(kind="container", image=BARE_IMAGE))


def test_without_an_engine_the_error_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(SandboxUnavailable, match=r"none.sock[\s\S]*start dockerd[\s\S]*isolated"):
        opening(CONFIG)


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(SandboxUnavailable, match=r"trunkline\[container\]"):
        opening(CONFIG)


def test_directories_of_this_host_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sandbox.toolchain"):
        opening(CONFIG.model_copy(update={"toolchain": (tmp_path,)}))


def test_a_workspace_is_made_of_a_directory_alone(tmp_path: Path) -> None:
    async def work(sandboxes: ContainerSandboxes) -> None:
        with pytest.raises(SandboxError, match="missing"):
            await sandboxes.prepare(tmp_path / "missing")
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(tmp_path / "socket"))
        with contextlib.suppress(FileNotFoundError):
            sandbox = await sandboxes.create(await sandboxes.prepare(tmp_path))
        assert "socket" not in [entry.name for entry in await sandbox.files.list()]

    within(work)
