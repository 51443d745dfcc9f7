"""The journal against real crashes: a writer killed in the middle of its work, and a disk that takes no more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from trunkline.pool.journal_reader import JournalReader

# Records episodes of 3 calls, 16 at a time, and names each record on stdout once it is acknowledged.
WRITER = """
    import asyncio, resource, sys
    from trunkline.errors import JournalError
    from trunkline.pool.journal import Journal
    from trunkline.types import *

    path, max_file_bytes = sys.argv[1], int(sys.argv[2])

    def call(episode, number, parent):
        context = parent.prompt_ids + parent.generation.token_ids if parent else ()
        generation = Generation((7, number), (-0.5, -1.5), "stop", (VersionSpan(0, 2, PolicyVersion(1, 0)),))
        prompt = context + tuple(range(200))
        identity = f"{episode}.{number}", "s"
        parent_id = parent.completion_id if parent else None
        return Completion(*identity, prompt, generation, SamplingParams(4), 0, 1, parent_id, len(context))

    async def attempt(journal, group, number):
        episode_id = f"g{group:06d}-a{number:02d}"
        nodes = (MessageNode(Message("user", "x" * 500), None), MessageNode(Message("assistant", "yes"), 0))
        calls = []
        for turn in range(3):
            calls.append(call(episode_id, turn, calls[-1] if calls else None))
            await journal.record_completion(episode_id, calls[-1], () if turn else nodes)
            print("call", episode_id, turn, flush=True)
        reward = (Reward("outcome", 1.0, "yes"),)
        episode = Episode(episode_id, f"g{group:06d}", "t", number, "finished", tuple(calls), nodes, reward)
        await journal.record_episode(episode)
        print("episode", episode_id, 3, flush=True)

    async def main():
        journal = Journal.open(path)
        if max_file_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
        try:
            for group in range(100_000):
                await asyncio.gather(*(attempt(journal, group, number) for number in range(16)))
        except JournalError as error:
            assert str(journal.failed.exception()) == str(error)
            print(error, file=sys.stderr)
            for record in (journal.record_published(PolicyVersion(1, 1)), journal.record_group("g", 0, None)):
                try:
                    await record
                    sys.exit("a failed journal took a record")
                except JournalError:
                    pass
            await journal.close()
            sys.exit(3)

    asyncio.run(main())
"""


def start_writer(path: Path, *, max_file_bytes: int = 0) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(max_file_bytes)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_on_record(path: Path, acknowledged: list[str]) -> None:
    """Every acknowledged line is there; whole lines only, because the writer may have been killed inside one."""
    with JournalReader.open(path) as record:
        ended = {episode.episode_id: episode for episode in record.episodes()}
        for line in acknowledged:
            kind, episode_id, number = line.split()
            if kind == "episode":
                assert len(ended[episode_id].completions) == int(number)
            else:
                completion = record.read_completions(episode_id)[int(number)]
                assert completion.prompt_ids[-200:] == tuple(range(200))
                assert completion.generation.token_ids == (7, int(number))


@pytest.mark.parametrize("num_acknowledged", [1, 40, 333])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, num_acknowledged: int) -> None:
    path = tmp_path / "journal.sqlite"
    writer = start_writer(path)
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline() for _ in range(num_acknowledged)]
    os.kill(writer.pid, signal.SIGKILL)
    rest, _ = writer.communicate()
    acknowledged += [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    assert_on_record(path, acknowledged)
    assert writer.returncode == -signal.SIGKILL


def test_a_run_that_was_killed_goes_on_with_its_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    for _ in range(2):
        writer = start_writer(path)
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline() for _ in range(20)]
        writer.kill()
        writer.communicate()
    assert_on_record(path, acknowledged)
    with JournalReader.open(path) as record:
        assert len({episode.episode_id for episode in record.episodes()}) == len(list(record.episodes()))


def test_a_full_disk_fails_every_waiter_with_the_cause_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """The limit on file size is what the kernel answers for a file system that takes no more of this file."""
    path = tmp_path / "journal.sqlite"
    writer = start_writer(path, max_file_bytes=600_000)
    output, errors = writer.communicate(timeout=60)
    assert writer.returncode == 3, errors
    assert str(path) in errors
    assert "check the disk" in errors
    acknowledged = output.splitlines()
    assert len(acknowledged) > 50
    assert_on_record(path, acknowledged)
