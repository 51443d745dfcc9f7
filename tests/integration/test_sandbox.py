"""Commands, services, limits of time and the end of an isolated sandbox, run for real."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys

import pytest

from tests.integration.sandbox_scene import created, marked, new_mark, open_folder, outer_process, printed, python, shell, until
from trunkline.errors import CommandNotStarted, LimitExceeded, SandboxError
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.types import Command

pytestmark = pytest.mark.anyio
SLEEP = "import time; time.sleep(600)"


# --- commands ---------------------------------------------------------------------------------------------------------


async def test_a_command_gives_its_status_and_both_streams(box):
    result = await box.run(Command(("python3", "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")))
    assert (result.status, result.stdout, result.stderr) == (7, b"out\n", b"err\n")
    assert (result.num_stdout, result.num_stderr, result.is_timeout) == (4, 4, False)
    assert 0 < result.seconds < 60


async def test_a_command_killed_by_a_signal_has_minus_its_number_as_status(box):
    assert (await box.run(Command.shell("kill -SEGV $$"))).status == -signal.SIGSEGV


async def test_a_shell_command_runs_in_the_workspace_or_in_its_directory(box):
    assert await shell(box, "mkdir -p a/b; pwd") == "/workspace"
    assert await shell(box, "pwd", cwd="a/b") == "/workspace/a/b"
    assert await shell(box, "pwd", cwd="/tmp") == "/tmp"


async def test_a_command_gets_its_own_variables_and_they_win(box):
    assert await shell(box, 'echo "$HOME $NEW"', environment={"HOME": "/tmp", "NEW": "x y"}) == "/tmp x y"


async def test_home_temporary_directory_and_path_lead_to_what_a_command_may_use(box):
    assert await shell(box, 'echo "$HOME $TMPDIR"; touch "$HOME/a" "$TMPDIR/b"; command -v sh python3 >/dev/null') == "/home/agent /tmp"


async def test_what_commands_make_has_the_same_modes_whatever_the_hosts_umask(sandboxes):
    own = os.umask(0o077)
    try:
        async with created(sandboxes) as box:
            assert await shell(box, "mkdir d; touch f; umask; stat -c %a d f") == "0022\n755\n644"
    finally:
        os.umask(own)


async def test_no_variable_of_the_host_is_seen_by_any_process_inside(sandboxes, monkeypatch):
    monkeypatch.setenv("HOST_SECRET", "not-for-agents")
    async with created(sandboxes) as box:
        assert "HOST_SECRET" not in await shell(box, "env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'")
        assert await shell(box, "env | cut -d= -f1 | sort | tr '\\n' ' '") == "HOME LANG PATH PWD TERM TMPDIR USER"


async def test_five_megabytes_of_stdin_arrive_and_then_it_ends(box):
    stdin = os.urandom(5_000_000)
    code = "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    assert await printed(box, code, stdin=stdin) == hashlib.sha256(stdin).hexdigest()


async def test_a_command_need_not_read_its_stdin(box):
    assert await shell(box, "echo done", stdin=b"x" * 5_000_000) == "done"


async def test_a_timeout_kills_the_whole_session_and_says_so(box):
    mark = new_mark()
    text = f'echo started; python3 -c "{SLEEP}" {mark} & python3 -c "{SLEEP}" {mark}'
    result = await box.run(Command.shell(text, timeout_s=1.0))
    assert (result.status, result.is_timeout, result.stdout) == (-signal.SIGKILL, True, b"started\n")
    assert await until(lambda: not marked(mark))


async def test_a_timeout_also_ends_a_session_that_forks_without_end(box):
    mark = new_mark()
    hop = """
        import os, time
        if os.fork():
            time.sleep(600)
        while True:
            if os.fork():
                os._exit(0)
    """
    result = await python(box, hop, mark, timeout_s=1.0)
    assert result.is_timeout
    assert await until(lambda: not marked(mark), within_s=5)


async def test_output_over_the_cap_keeps_both_ends_and_says_how_much_is_missing(box):
    code = "import sys; sys.stdout.write('a' * 500_000 + 'z' * 500_000); sys.stderr.write('short')"
    result = await python(box, code, max_output_bytes=1000)
    assert result.stdout == b"a" * 500 + b"\n[999000 bytes left out here]\n" + b"z" * 500
    assert (result.num_stdout, result.stderr, result.num_stderr) == (1_000_000, b"short", 5)


async def test_output_that_is_not_text_arrives_as_it_is(box):
    code = "import sys; sys.stdout.buffer.write(bytes(range(256))); sys.stderr.buffer.write(b'\\xff\\x00')"
    result = await python(box, code)
    assert (result.stdout, result.stderr) == (bytes(range(256)), b"\xff\x00")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (Command(("no-such-program",)), "No such file"),
        (Command(("/workspace",)), "Permission denied"),
        (Command(("true",), cwd="/no/such/directory"), "No such file"),
        (Command(("true",), cwd="nul\0byte"), "Invalid argument"),
        (Command(("echo", "nul\0byte")), "Invalid argument"),
        (Command(("echo", "x" * 2**20)), "Argument list too long"),
        (Command(("true",), environment={"A=B": "c"}), "Invalid argument"),
        (Command(()), "argv is empty"),
    ],
)
async def test_a_command_that_cannot_start_says_why(box, command, reason):
    with pytest.raises(CommandNotStarted, match=reason):
        await box.run(command)
    with pytest.raises(CommandNotStarted, match=reason):
        await box.start(command)
    assert await shell(box, "echo fine") == "fine"


async def test_twenty_commands_run_at_once_and_each_gets_its_own_answer(box):
    text = "echo $0; while [ $(ls start-* | wc -l) -lt 20 ]; do sleep 0.02; touch start-$0; done; echo $0"
    results = await asyncio.gather(*(box.run(Command(("/bin/sh", "-c", text, str(i)), timeout_s=60)) for i in range(20)))
    assert [result.stdout.decode().split() for result in results] == [[str(i)] * 2 for i in range(20)]


async def test_a_background_child_outlives_its_finished_command(box):
    result = await box.run(Command.shell("(sleep 0.5; echo late > note) & echo first"))
    assert (result.stdout, result.seconds < 0.5) == (b"first\n", True)
    assert await shell(box, "while ! [ -s note ]; do sleep 0.05; done; cat note") == "late"


async def test_cancelling_a_command_kills_it(box):
    mark = new_mark()
    running = asyncio.create_task(python(box, SLEEP, mark))
    assert await until(lambda: marked(mark))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await until(lambda: not marked(mark))
    assert await shell(box, "echo fine") == "fine"


async def test_cores_are_held_where_there_are_cgroups(sandboxes):
    if sandboxes.cgroups.version == "none":
        pytest.skip("no cgroups for this user: only root may make them on this host")
    async with created(sandboxes, cpus=0.2) as box:
        used = await printed(box, "import time\nend = time.time() + 1.5\nwhile time.time() < end: pass\nprint(time.process_time())")
    assert float(used) < 0.8


# --- services ---------------------------------------------------------------------------------------------------------


async def test_a_service_is_seen_while_it_runs_and_ends_when_it_is_stopped(box):
    service = await box.start(Command.shell("echo up; echo problem >&2; exec sleep 600"))
    while (await service.peek())[1] != b"up\nproblem\n":
        await asyncio.sleep(0.02)
    assert (await service.peek())[0] is None
    ended = await service.stop()
    assert (ended.status, ended.stdout) == (-signal.SIGKILL, b"up\nproblem\n")
    assert await service.stop() == ended
    assert await service.peek() == (-signal.SIGKILL, b"up\nproblem\n")


async def test_a_service_that_ended_by_itself_tells_its_status(box):
    service = await box.start(Command.shell("echo bye; exit 3"))
    while (await service.peek())[0] is None:
        await asyncio.sleep(0.02)
    assert await service.peek() == (3, b"bye\n")
    assert (await service.stop()).status == 3


async def test_a_services_timeout_ends_it(box):
    service = await box.start(Command.shell("sleep 600", timeout_s=0.5))
    while (await service.peek())[0] is None:
        await asyncio.sleep(0.02)
    assert (await service.stop()).is_timeout


# --- the record -------------------------------------------------------------------------------------------------------


async def test_acts_are_recorded_with_status_bytes_and_seconds(sandboxes):
    async with created(sandboxes) as box:
        await box.run(Command.shell("sleep 0.2; echo four; exit 4"))
        await box.files.write("note", b"12345")
        await box.files.read("note")
        with pytest.raises(CommandNotStarted):
            await box.run(Command(("no-such-program",)))
    creation, command, write, read, failed, end = box.acts
    assert (creation.op, creation.detail) == ("create", f"{sandboxes.kind}; doors: none")
    assert (command.op, command.detail, command.status, command.num_bytes) == ("run", "/bin/sh -c sleep 0.2; echo four; exit 4", 4, 5)
    assert command.seconds >= 0.2
    assert [(act.op, act.detail, act.num_bytes) for act in (write, read)] == [("write", "note", 5), ("read", "note", 5)]
    assert "no-such-program -> CommandNotStarted" in failed.detail
    assert end.op == "destroy"


# --- ends -------------------------------------------------------------------------------------------------------------


async def test_destroying_twice_is_as_good_as_once(sandboxes):
    async with created(sandboxes) as box:
        await asyncio.gather(box.destroy(), box.destroy())
        await box.destroy()
        assert not box.folder.exists()


async def test_a_destroyed_sandbox_refuses_everything(sandboxes):
    async with created(sandboxes) as box:
        service = await box.start(Command(("sleep", "600")))
        await box.destroy()
        verbs = (box.run(Command(("true",))), box.start(Command(("true",))), box.files.read("a"), box.files.write("a", b""))
        for verb in (*verbs, box.files.list(), box.files.diff(), box.snapshot(), sandboxes.fork(box), service.peek(), service.stop()):
            with pytest.raises(SandboxError, match="destroyed"):
                await verb


async def test_a_command_running_when_its_sandbox_is_destroyed_ends_with_an_error(sandboxes):
    async with created(sandboxes) as box:
        running = asyncio.create_task(box.run(Command(("sleep", "600"))))
        await asyncio.sleep(0.1)
        await box.destroy()
        with pytest.raises(SandboxError, match="destroyed"):
            await asyncio.wait_for(running, 10)


async def test_a_sandbox_out_of_wall_time_ends_with_limit_exceeded(sandboxes):
    mark = new_mark()
    async with created(sandboxes, wall_s=1.0) as box:
        with pytest.raises(LimitExceeded, match="lived for its 1 s"):
            await asyncio.wait_for(python(box, SLEEP, mark), 20)
        with pytest.raises(LimitExceeded, match="lived for its 1 s"):
            await box.run(Command(("true",)))
        assert await until(lambda: not marked(mark))
    assert [act.op for act in box.acts if act.op in ("limit", "destroy")] == ["limit", "destroy"]


async def test_killing_the_outer_process_ends_what_runs_inside_with_an_error(sandboxes):
    mark = new_mark()
    async with created(sandboxes) as box:
        running = asyncio.create_task(python(box, SLEEP, mark))
        assert await until(lambda: marked(mark))
        outer_process(box).kill()
        with pytest.raises(SandboxError, match="has ended"):
            await asyncio.wait_for(running, 20)
        with pytest.raises(SandboxError, match="has ended"):
            await box.files.read("a")
        assert await until(lambda: not marked(mark))


# --- openings ---------------------------------------------------------------------------------------------------------


async def test_two_openings_of_one_process_do_not_disturb_each_other(sandboxes):
    with open_folder() as folder, open_folder() as elsewhere:
        config = SandboxConfig(directory=folder)
        async with IsolatedSandboxes.open(config), IsolatedSandboxes.open(config) as second:
            for place in (folder, elsewhere):
                async with created(second) as box, IsolatedSandboxes.open(SandboxConfig(directory=place)):
                    await box.files.write("note", b"still here")
                    assert await shell(box, "cat note") == "still here"
                async with created(second) as other:
                    assert await shell(other, "echo new") == "new"
        assert [*folder.iterdir(), *elsewhere.iterdir()] == []


async def test_without_user_namespaces_opening_refuses_with_the_remedy_and_the_alternatives():
    code = """
import asyncio, sys
from pathlib import Path
from trunkline.errors import SandboxUnavailable
from trunkline.sandbox.catalog import open_sandboxes
from trunkline.sandbox.config import SandboxConfig

async def main():
    try:
        async with open_sandboxes(SandboxConfig(directory=Path(sys.argv[1]))):
            print("opened")
    except SandboxUnavailable as error:
        print("refused:", error)

asyncio.run(main())
"""
    with open_folder() as folder:
        inner = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
        command = ["unshare", "--user", "--map-root-user", "sh", "-c", inner, "sh", sys.executable, "-c", code, str(folder)]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=environment)
        told = (await asyncio.wait_for(process.communicate(), 120))[0].decode()
        assert told.startswith("refused:")
        for words in ("user.max_user_namespaces", "apparmor_restrict_unprivileged_userns", 'kind="container"', 'kind="unsafe"'):
            assert words in told
        assert list(folder.iterdir()) == []
