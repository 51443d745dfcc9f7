"""Sandboxes that spend all they can get: processes, memory, disk, descriptors, output. The host and a neighbour go on unharmed."""

from __future__ import annotations

import asyncio
import signal
import time

import psutil
import pytest

from tests.integration.sandbox_scene import created, marked, new_mark, outer_process, printed, python, python_command, shell, until
from trunkline.errors import CommandNotStarted, LimitExceeded, SandboxError
from trunkline.types import Command

pytestmark = pytest.mark.anyio
MIB = 2**20


def own_memory():
    """Resident bytes of this process."""
    return psutil.Process().memory_info().rss


# --- processes --------------------------------------------------------------------------------------------------------

FORK_BOMB = """
    import os
    while True:
        try:
            os.fork()
        except OSError:
            pass
"""


async def test_a_fork_bomb_stays_in_its_sandbox_and_ends_with_it(sandboxes, box):
    mark = new_mark()
    async with created(sandboxes, num_processes=50, cpus=0.5) as bombed:
        await bombed.start(python_command(FORK_BOMB, mark, timeout_s=None))
        assert await until(lambda: len(marked(mark)) >= 30)
        assert await asyncio.wait_for(printed(box, "print('fine')"), 60) == "fine"
        assert len(marked(mark)) <= 50
        try:
            result = await asyncio.wait_for(bombed.run(Command(("true",), timeout_s=5)), 60)
            assert result.status in (0, -signal.SIGKILL)
        except CommandNotStarted as error:
            assert "Resource temporarily unavailable" in str(error)
        await asyncio.wait_for(bombed.destroy(), 60)
    assert await until(lambda: not marked(mark))


async def test_a_fork_bomb_is_ended_by_its_timeout_and_the_sandbox_goes_on(sandboxes):
    mark = new_mark()
    async with created(sandboxes, num_processes=50, cpus=0.5) as bombed:
        result = await asyncio.wait_for(python(bombed, FORK_BOMB, mark, timeout_s=1.5), 60)
        assert result.is_timeout
        assert await until(lambda: not marked(mark))
        assert await shell(bombed, "echo fine") == "fine"


# --- memory -----------------------------------------------------------------------------------------------------------


async def spent(box, command):
    """How a command ends that spends its sandbox's memory: its status, or the error."""
    try:
        result = await asyncio.wait_for(box.run(command), 60)
        return "timeout" if result.is_timeout else result.status
    except LimitExceeded as error:
        return str(error)


IN_MANY_PROCESSES = """
    import os, sys, time
    for _ in range(20):
        if os.fork() == 0:
            held = bytearray(b"x") * 2**25
            time.sleep(60)
    while os.wait()[1] == 0:
        pass
    sys.exit(1)
"""
MEMORY_BOMBS = {
    "private": "held = []\nwhile True: held.append(bytearray(b'x') * 2**22)",
    "shared": "import mmap\nheld = []\nwhile True:\n    held.append(mmap.mmap(-1, 2**22)); held[-1].write(b'x' * 2**22)",
    "in many processes": IN_MANY_PROCESSES,
}


@pytest.mark.parametrize("code", MEMORY_BOMBS.values(), ids=MEMORY_BOMBS)
async def test_a_memory_bomb_ends_in_its_sandbox(sandboxes, box, code):
    before = own_memory()
    async with created(sandboxes, memory_bytes=128 * MIB) as bombed:
        end = await spent(bombed, python_command(code, timeout_s=30.0))
        assert end in (-signal.SIGKILL, 1) or "memory" in str(end), end  # 1: MemoryError, where no cgroup kills
        assert await shell(box, "echo fine") == "fine"
    assert own_memory() - before < 50 * MIB
    if sandboxes.cgroups.version != "none":
        assert any("for memory" in act.detail for act in bombed.acts if act.op == "limit")


async def test_shared_memory_files_are_bounded(sandboxes, box):
    code = """
        size = 0
        try:
            with open("/dev/shm/bomb", "wb", buffering=0) as file:
                while True:
                    size += file.write(b"x" * 2**20)
        except OSError as error:
            print(error.strerror, size >> 20)
    """
    assert await printed(box, code) == "No space left on device 64"
    assert await shell(box, "rm /dev/shm/bomb; echo fine") == "fine"


# --- disk -------------------------------------------------------------------------------------------------------------

DELETED = """
    import os, sys, time
    for index in range(100):
        file = open(f"deleted{index}", "wb")
        os.unlink(file.name)
        file.write(b"x" * 2**20)
        file.flush()
        globals()[f"held{index}"] = file
    time.sleep(60)
"""
DISK_BOMBS = {
    "many files": "i=0; while true; do i=$((i+1)); head -c 1M /dev/zero > big$i; done",
    "in home and tmp": "i=0; while true; do i=$((i+1)); head -c 1M /dev/zero > ~/big$i; head -c 1M /dev/zero > /tmp/big$i; done",
    "below closed directories": "mkdir -p a/b; cd a/b; head -c 15M /dev/zero > one; head -c 15M /dev/zero > two; chmod 000 . ..; sleep 60",
    "below closed directories that change all the time": (
        "mkdir -p a/b; cd a/b; for i in 1 2 3; do head -c 10M /dev/zero > $i; done; chmod 000 ../b/1; cd ..; mkdir c; chmod 000 c;"
        "(while true; do touch b/x; rm b/x; done) & sleep 60"
    ),
    "by names": "mkdir n; cd n; i=0; while true; do i=$((i+1)); : > $i; done",
    "by directories": "i=0; while true; do i=$((i+1)); mkdir d$i; done",
    "deleted and still open": f"exec python3 -c '{DELETED.replace(chr(10) + '    ', chr(10))}'",
}


@pytest.mark.parametrize("script", DISK_BOMBS.values(), ids=DISK_BOMBS)
async def test_a_disk_bomb_ends_its_sandbox(sandboxes, script):
    async with created(sandboxes, disk_bytes=20 * MIB, num_files=300) as bombed:
        with pytest.raises(LimitExceeded, match="it may (write|make)"):
            await asyncio.wait_for(bombed.run(Command.shell(script)), 60)
        assert any(act.op == "limit" for act in bombed.acts)
    assert not bombed.folder.exists()


async def test_one_file_is_never_larger_than_the_disk_limit(sandboxes):
    async with created(sandboxes, disk_bytes=20 * MIB) as bombed:
        status, size = (await shell(bombed, "head -c 100M /dev/zero > big 2>/dev/null; echo $?; stat -c %s big")).split()
        assert status != "0" and int(size) <= 20 * MIB


async def test_the_disk_is_watched_also_while_the_server_inside_is_held(sandboxes, monkeypatch):
    monkeypatch.setattr("trunkline.sandbox.watchdog.MAX_INTERVAL_S", 1.0)
    code = """
        import contextlib, os, signal, time
        started, index = time.monotonic(), 0
        while True:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGSTOP)  # also what is on its way to exec, for which the server waits
            if time.monotonic() - started > 2:
                index += 1
                with open(f"big{index % 1000}", "wb") as file:
                    file.write(b"x" * 2**20)
    """
    async with created(sandboxes, disk_bytes=20 * MIB) as bombed:
        await bombed.start(python_command(code, timeout_s=None))
        with pytest.raises(LimitExceeded, match="it may write"):
            async with asyncio.timeout(60):
                while True:
                    await bombed.run(Command(("true",), timeout_s=1.0))


async def test_files_that_claim_more_than_they_hold_fill_neither_disk_nor_memory(sandboxes):
    before = own_memory()
    async with created(sandboxes, disk_bytes=64 * MIB, num_files=1000) as bombed:
        await shell(bombed, "for i in $(seq 40); do truncate -s 60M sparse$i; done; dd if=/dev/zero of=one bs=1M count=20 status=none")
        await shell(bombed, "for i in $(seq 100); do ln one link$i; done")
        with pytest.raises(SandboxError, match="more than"):
            await bombed.files.diff()
        child = await sandboxes.fork(bombed)
        assert int(await shell(child, "du -sm . | cut -f1")) < 30
        await child.destroy()
        await shell(bombed, "rm sparse*")
        changes = {change.path: change for change in await bombed.files.diff()}
        assert len(changes) == 101 and changes["link7"].content is changes["one"].content
    assert own_memory() - before < 300 * MIB


# --- descriptors, output, answers -------------------------------------------------------------------------------------


async def test_a_flood_of_descriptors_hits_its_own_process_only(sandboxes, box):
    code = """
        import os
        held = []
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            print(error.strerror, len(held) < 64)
    """
    async with created(sandboxes, num_open_files=64) as flooded:
        assert await printed(flooded, code) == "Too many open files True"
        assert await shell(flooded, "echo fine") == await shell(box, "echo fine") == "fine"


async def test_a_gigabyte_of_output_costs_this_process_next_to_nothing(box):
    before = own_memory()
    result = await box.run(Command.shell("head -c 1G /dev/zero; head -c 10M /dev/zero >&2", timeout_s=120))
    assert (result.status, result.num_stdout, result.num_stderr) == (0, 2**30, 10 * MIB)
    assert len(result.stdout) < 2**20 + 100
    assert own_memory() - before < 30 * MIB


async def test_output_that_a_service_never_stops_writing_costs_the_server_next_to_nothing(sandboxes):
    async with created(sandboxes) as box:
        service = await box.start(Command(("yes", "for ever"), max_output_bytes=1000))
        server = outer_process(box).children()[0]
        await asyncio.sleep(1.0)
        started = time.monotonic()
        assert await shell(box, "echo fine") == "fine" and time.monotonic() - started < 10
        assert server.memory_info().rss < 60 * MIB
        assert len((await service.peek())[1]) < 1100
        assert (await service.stop()).num_stdout > 10 * MIB


async def test_a_listing_too_long_to_send_is_refused_and_the_sandbox_goes_on(sandboxes):
    code = """
        import os
        os.mkdir(b"names")
        os.chdir(b"names")
        open(b"first", "w").close()
        for index in range(10_050):
            os.link(b"first", b"%05d" % index + b"\\xff\\n" * 120)
    """
    async with created(sandboxes, num_files=50_000) as box:
        await printed(box, code)
        with pytest.raises(SandboxError, match="Argument list too long"):
            await box.files.list("names")
        await shell(box, "cd names; find . -name '000*' -delete")
        assert len(await box.files.list("names")) == 9_951
