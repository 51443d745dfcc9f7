"""Sealed runs in containers, and a task whose files are in its image, from its Dockerfile to the verdict, in a real Docker engine."""

from __future__ import annotations

import asyncio
import signal
import textwrap
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.slow.dockerd import BARE_IMAGE, IMAGE, import_images, running_dockerd
from trunkline.errors import CommandNotStarted, SandboxError, TaskError
from trunkline.sandbox.catalog import open_sandboxes
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.container import ContainerSandboxes
from trunkline.sandbox.docker_engine import OWNER
from trunkline.tasks.swe.container_task import ContainerTask
from trunkline.types import Command, FileChange, SandboxLimits, SealedResult, SealedRun, Work

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
ENOUGH_S = 120.0
CONFIG = SandboxConfig(kind="container", image=IMAGE, memory_bytes=256 * 2**20)


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
def nothing_is_left(engine: docker.APIClient) -> Iterator[None]:
    """After each test: no container, no image of a set of ours."""
    yield
    assert engine.containers(all=True) == []
    assert engine.images(filters={"label": OWNER}) == []


def sealed(command: Command, **options: Any) -> SealedResult:
    """One run in containers of the common image."""
    found: list[SealedResult] = []

    async def main() -> None:
        async with asyncio.timeout(ENOUGH_S), open_sandboxes(CONFIG) as sandboxes:
            assert isinstance(sandboxes, ContainerSandboxes)
            found.append(await sandboxes.run_sealed(SealedRun(command, **options)))

    asyncio.run(main())
    return found[0]


def python(code: str, *, timeout_s: float = 30, **options: Any) -> Command:
    return Command(("python3", "-c", textwrap.dedent(code)), timeout_s=timeout_s, **options)


def put(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_sealed_process_has_its_trees_what_is_shown_and_a_report(tmp_path: Path) -> None:
    below = put(tmp_path / "below", {"one": "below", "folder/kept": "k", "hidden/x": "x"})
    above = put(tmp_path / "above", {"one": "above", "folder/new": "n", "hidden": "a file now"})
    tests = put(tmp_path / "tests", {"test.py": "seen"})
    (tests / "test.py").chmod(0o666)
    code = """
        import os, socket, sys
        print(os.getcwd(), os.getuid(), sorted(os.listdir()), sorted(os.listdir("folder")), open("one").read(), open("hidden").read())
        print(sys.stdin.read(), os.environ["OWN"], os.environ["HOME"], os.environ["FROM_IMAGE"])
        for path in ("one", "new", "/home/agent/x", "/tmp/x"):
            open(path, "w").write("may")
        for act in (lambda: open("/verdict/tests/test.py", "w"), lambda: open("/verdict/tests/more", "w")):
            try:
                act()
            except PermissionError:
                print("read-only", open("/verdict/tests/test.py").read())
        print(socket.socket().connect_ex(("192.0.2.1", 80)), file=sys.stderr)
        os.write(int(os.environ["TRUNKLINE_REPORT_FD"]), b"reported")
        sys.exit(3)
    """
    command = python(code, stdin=b"in", environment={"OWN": "1"})
    result = sealed(command, trees=(below, above), shown=((tests, "/verdict/tests"),))
    assert result.command.stdout.decode().splitlines() == [
        "/workspace 1000 ['folder', 'hidden', 'one'] ['kept', 'new'] above a file now",
        "in 1 /home/agent yes",
        "read-only seen",
        "read-only seen",
    ]
    assert (result.command.status, result.command.stderr, result.report, result.spent) == (3, b"101\n", b"reported", "")
    assert (below / "one").read_text() == "below"


def test_what_it_collects_and_changes_comes_back(tmp_path: Path) -> None:
    tree = put(tmp_path / "tree", {"edited": "a", "gone": "b", "same": "c"})
    script = "echo new > edited; rm gone; echo 1 > /logs/verifier/reward.txt; ln -s /etc/passwd /logs/verifier/link"
    result = sealed(Command.shell(script, timeout_s=30), trees=(tree,), collects="/logs/verifier", keeps_changes=True)
    assert [(change.path, change.kind, change.content) for change in result.collected] == [
        ("link", "symlink", b"/etc/passwd"),
        ("reward.txt", "file", b"1\n"),
    ]
    assert result.changes == (FileChange("edited", "file", 0o644, b"new\n"), FileChange("gone", "deleted"))


def test_long_output_keeps_both_ends_and_a_long_report_its_beginning() -> None:
    code = "import os; print('a' * 5000 + 'b' * 5000, end=''); os.write(9, b'r' * 100)"
    result = sealed(python(code, max_output_bytes=100), max_report_bytes=10)
    assert result.command.stdout == b"a" * 50 + b"\n[... 9900 bytes left out ...]\n" + b"b" * 50
    assert (result.command.num_stdout, result.report, result.is_report_cut) == (10_000, b"r" * 10, True)


def test_a_sealed_process_ends_with_its_time_and_all_that_it_started() -> None:
    result = sealed(Command.shell("echo begun; sleep 600 & sleep 600", timeout_s=1))
    assert (result.command.is_timeout, result.command.status, result.command.stdout) == (True, -signal.SIGKILL, b"begun\n")
    left = "(sleep 1; echo 1 > /logs/reward) > /dev/null 2>&1 & echo 0 > /logs/reward"
    result = sealed(Command.shell(left, timeout_s=30), collects="/logs")
    assert (result.command.status, [change.content for change in result.collected]) == (0, [b"0\n"])


@pytest.mark.parametrize(
    ("code", "limits", "words"),
    [
        ("bytearray(2**29)", SandboxLimits(memory_bytes=64 * 2**20), "the kernel killed processes of it at 67,108,864 bytes"),
        (
            "import time\nfor name in range(64): open(str(name), 'wb').write(bytes(2**20))\ntime.sleep(60)",
            SandboxLimits(disk_bytes=2**24),
            "it may write 16,777,216",
        ),
        (
            "for name in range(4): open(f'/logs/{name}', 'wb').truncate(2**23)",
            SandboxLimits(disk_bytes=2**23, num_files=100),
            "the files that it left are more",
        ),
    ],
    ids=["memory", "disk", "holes"],
)
def test_a_spent_limit_ends_a_sealed_process_and_is_said(code: str, limits: SandboxLimits, words: str) -> None:
    result = sealed(python(code), limits=limits, collects="/logs")
    assert words in result.spent
    assert result.command.status == -signal.SIGKILL


def test_a_program_that_is_missing_is_no_result() -> None:
    with pytest.raises(CommandNotStarted, match="no program 'nowhere'"):
        sealed(Command(("nowhere",), timeout_s=30))


def test_cancelled_it_leaves_no_container(engine: docker.APIClient) -> None:
    async def main() -> None:
        async with asyncio.timeout(ENOUGH_S), open_sandboxes(CONFIG) as sandboxes:
            assert isinstance(sandboxes, ContainerSandboxes)
            running = asyncio.create_task(sandboxes.run_sealed(SealedRun(Command.shell("sleep 600", timeout_s=600))))
            while not engine.containers():
                await asyncio.sleep(0.05)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert engine.containers(all=True) == []

    asyncio.run(main())


TASK = {
    "task.toml": '[task]\nname = "org/answer"\n[verifier]\ntimeout_sec = 30\n',
    "instruction.md": "Write 42 into answer.txt.",
    "environment/Dockerfile": f"""
FROM {IMAGE}
COPY app /app
RUN echo built > /app/made.txt && mkdir /app/.git && echo secret > /app/.git/x
WORKDIR /app
""",
    "environment/app/answer.txt": "?\n",
    "environment/app/code.py": "ANSWER = 41\n",
    "solution/solve.sh": "cd /app\ncp /solution/right.py code.py\npython3 -c 'import code; print(code.ANSWER)' > answer.txt\n",
    "solution/right.py": "ANSWER = 42\n",
    "tests/test.sh": "#!/bin/sh\ncd /app\npython3 /tests/judge.py > /logs/verifier/reward.json\n",
    "tests/judge.py": "import json\nprint(json.dumps({'reward': int(open('answer.txt').read().strip() == '42')}))\n",
}


def opened(folder: Path, work: Callable[[ContainerTask], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(ENOUGH_S), ContainerTask.open(folder, CONFIG) as task:
            await work(task)

    asyncio.run(main())


def test_a_task_of_an_image_gives_its_oracle_1_and_nothing_0(tmp_path: Path) -> None:
    async def work(opened: ContainerTask) -> None:
        names = sorted(path.name for path in opened.task.workspace.iterdir())
        assert names == ["answer.txt", "code.py", "made.txt"], "the history of the image is not for the agent"
        oracle = await opened.oracle_changes()
        assert sorted(change.path for change in oracle if change.kind == "file") == ["answer.txt", "code.py"]
        verifier = opened.verifier(oracle)
        values = [(await verifier.verify(Work("", changes)))[0].value for changes in (oracle, (), (FileChange("made.txt", "deleted"),))]
        assert values == [1, 0, 0]

    opened(put(tmp_path / "task", TASK), work)


def test_what_an_agent_does_in_its_container_is_judged_in_another(tmp_path: Path) -> None:
    async def work(opened: ContainerTask) -> None:
        sandbox = await opened.sandboxes.create(await opened.sandboxes.prepare(opened.task.workspace))
        done = await sandbox.run(Command.shell("cat /app/made.txt; echo 42 > /app/answer.txt; rm made.txt", timeout_s=30))
        assert done.stdout == b"built\n"
        changes = await sandbox.files.diff()
        await sandbox.destroy()
        assert {change.path: change.kind for change in changes} == {"answer.txt": "file", "made.txt": "deleted"}
        (reward,) = await opened.verifier().verify(Work("", changes))
        assert reward.value == 1

    opened(put(tmp_path / "task", TASK), work)


def test_an_image_that_exists_is_used_and_one_that_does_not_is_named(tmp_path: Path, engine: docker.APIClient) -> None:
    folder = put(tmp_path / "task", TASK)
    list(engine.build(path=str(folder / "environment"), tag="own-image:1", rm=True))
    (folder / "environment/Dockerfile").unlink()
    (folder / "task.toml").write_text('[environment]\ndocker_image = "own-image:1"\nworkdir = "/app"\n')

    async def work(opened: ContainerTask) -> None:
        assert (opened.task.workspace / "made.txt").read_text() == "built\n"

    opened(folder, work)
    (folder / "task.toml").write_text('[environment]\ndocker_image = "no-such:1"\n')
    with pytest.raises(SandboxError, match="no image 'no-such:1'.*docker pull no-such:1"):
        opened(folder, work)


@pytest.mark.parametrize(
    ("dockerfile", "words"),
    [
        (f"FROM {IMAGE}\nRUN echo said-this; false\n", r"cannot build[\s\S]*said-this"),
        (f"FROM {IMAGE}\n", "the agent would work on / of"),
        (f"FROM {BARE_IMAGE}\nWORKDIR /app\n", "cannot build"),
    ],
    ids=["a command fails", "no directory", "no tools"],
)
def test_an_image_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, dockerfile: str, words: str) -> None:
    async def work(opened: ContainerTask) -> None:
        raise AssertionError("it opened")

    with pytest.raises(SandboxError, match=words):
        opened(put(tmp_path / "task", TASK | {"environment/Dockerfile": dockerfile}), work)


def test_a_task_that_needs_more_than_a_container_is_refused(tmp_path: Path) -> None:
    async def work(opened: ContainerTask) -> None:
        raise AssertionError("it opened")

    with pytest.raises(TaskError, match="environment/docker-compose.yaml"):
        opened(put(tmp_path / "task", TASK | {"environment/docker-compose.yaml": ""}), work)
    with pytest.raises(TaskError, match="a container has only verifier = 'script'"):
        opened(put(tmp_path / "two", TASK | {"task.toml": '[metadata.trunkline]\nverifier = "pytest"\n'}), work)
