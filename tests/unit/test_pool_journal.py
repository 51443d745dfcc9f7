"""The journal's promises: exact round trips, each token once, errors that say what to do."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trunkline.errors import ConfigError, JournalError
from trunkline.pool.journal import Journal
from trunkline.pool.journal_reader import JournalReader
from trunkline.pool.journal_rows import from_json, to_json
from trunkline.pool.journal_schema import connect_to_write
from trunkline.types import (
    CallFacts,
    Completion,
    Episode,
    EpisodeStatus,
    Failure,
    Generation,
    Message,
    MessageNode,
    PolicyVersion,
    Reward,
    RoutedExperts,
    SamplingParams,
    SandboxAct,
    Task,
    ToolCall,
    VersionSpan,
)

TASK = Task("lookup/7", "lookup", "one_hop", (Message("user", "Say yes"),), {"answer": ["yes", 1.5, None], "depth": {"a": 1}})


@contextlib.asynccontextmanager
async def journal_at(path: Path) -> AsyncIterator[Journal]:
    journal = Journal.open(path)
    try:
        yield journal
    finally:
        await journal.close()


def a_completion(completion_id: str, prompt: tuple[int, ...], sampled: tuple[int, ...], *, parent: Completion | None = None) -> Completion:
    generation = Generation(sampled, tuple(-0.1 * i for i in sampled), "stop", (VersionSpan(0, len(sampled), PolicyVersion(1, 3)),))
    return Completion(
        completion_id=completion_id,
        session_id="s0",
        prompt_ids=prompt,
        generation=generation,
        sampling=SamplingParams(8),
        prompt_node=0,
        reply_node=1,
        parent_id=parent.completion_id if parent else None,
        num_shared=len(parent.prompt_ids) + parent.num_sampled if parent else 0,
    )


def an_episode(episode_id: str = "g000000-a00", *, completions: tuple[Completion, ...] = ()) -> Episode:
    nodes = (MessageNode(Message("user", "Say yes"), None), MessageNode(Message("assistant", "yes"), 0))
    return Episode(episode_id, "g000000", "lookup/7", 0, "finished", completions, nodes, (Reward("outcome", 1.0, "it is yes"),))


# --- round trip -------------------------------------------------------------------------------------------------------

token_ids = st.integers(-(2**31), 2**31 - 1)
# Any text at all, lone surrogates included: agents and file names bring them.
texts = st.text(st.characters(), max_size=12) | st.just("\ud800 lone")
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=texts,
    tool_calls=st.lists(st.builds(ToolCall, texts, texts, texts), max_size=2).map(tuple),
    tool_call_id=st.none() | texts,
)
versions = st.builds(PolicyVersion, st.integers(1, 3), st.integers(0, 10**6))
samplings = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 4096),
    temperature=st.floats(0, 2),
    top_p=st.floats(0, 1),
    seed=st.integers(0, 2**64 - 1),
    stop_token_ids=st.lists(token_ids, max_size=3).map(tuple),
)

routes = st.builds(
    lambda first, num_layers, top_k, row: RoutedExperts(first, num_layers, top_k, row * num_layers * top_k),
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.integers(1, 3),
    st.binary(max_size=8).map(lambda ids: ids + ids),
)


@st.composite
def generations(draw: st.DrawFn) -> Generation:
    ids = tuple(draw(st.lists(token_ids, max_size=6)))
    logprobs = tuple(draw(st.lists(st.floats(allow_nan=False), min_size=len(ids), max_size=len(ids))))
    cut = draw(st.integers(0, len(ids)))
    spans = (VersionSpan(0, cut, draw(versions)), VersionSpan(cut, len(ids), draw(versions)))
    return Generation(ids, logprobs, draw(st.sampled_from(["stop", "length", "abort"])), spans, draw(st.none() | routes))


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    """A tree of calls, each a new branch or the extension of an earlier one, whole or in part."""
    completions: list[Completion] = []
    nodes = [MessageNode(message, parent) for parent, message in enumerate(draw(st.lists(messages, min_size=1, max_size=6)), start=-1)]
    nodes = [replace(node, parent=None) if node.parent == -1 else node for node in nodes]
    for number in range(draw(st.integers(0, 5))):
        parent = draw(st.none() | st.sampled_from(completions)) if completions else None
        context = parent.prompt_ids + parent.generation.token_ids if parent else ()
        num_shared = draw(st.integers(0, len(context)))
        completion = Completion(
            completion_id=f"c{number}",
            session_id=draw(texts.filter(lambda text: "\ud800" not in text)),
            prompt_ids=context[:num_shared] + tuple(draw(st.lists(token_ids, max_size=6))),
            generation=draw(generations()),
            sampling=draw(samplings),
            prompt_node=0,
            reply_node=len(nodes) - 1,
            parent_id=parent.completion_id if parent else None,
            num_shared=num_shared,
            drop_reason=draw(st.none() | st.just("greedy")),
        )
        completions.append(completion)
    statuses: list[EpisodeStatus] = ["finished", "deadline", "failed"]
    status = draw(st.sampled_from(statuses))
    return Episode(
        episode_id="g000012-a03-r1",
        group_id="g000012",
        task_id="t",
        attempt=3,
        status=status,
        completions=tuple(completions),
        messages=tuple(nodes),
        rewards=() if status == "failed" else (Reward("outcome", draw(st.floats(0, 1)), draw(texts)),),
        failure=None if status == "finished" else Failure("agent", "Crash", draw(texts)),
        duration_s=draw(st.floats(0, 1e6)),
        acts=tuple(draw(st.lists(st.builds(SandboxAct, texts, texts, st.none() | st.integers(-64, 255), st.floats(0, 1e3)), max_size=3))),
        patch=draw(texts),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(episode=episodes(), num_messages=st.integers(0, 6))
def test_an_episode_reads_back_exactly(episode: Episode, num_messages: int) -> None:
    """Recorded call by call, with some messages at the first call and the rest at the end."""

    async def record(path: Path) -> None:
        async with journal_at(path) as journal:
            early = episode.messages[:num_messages]
            for completion in episode.completions:
                await journal.record_completion(episode.episode_id, completion, early)
                early = ()
            await journal.record_episode(episode)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite"
        asyncio.run(record(path))
        with JournalReader.open(path) as record_:
            assert record_.read_episode(episode.episode_id) == episode
            assert list(record_.episodes()) == [episode]


def test_groups_read_back_with_the_last_try_of_each_attempt(tmp_path: Path) -> None:
    failed = replace(an_episode(), status="failed", rewards=(), failure=Failure("infra", "Lost", "the sandbox is gone"))
    again = replace(an_episode(), episode_id="g000000-a00-r1")
    second = replace(an_episode(), episode_id="g000000-a01", attempt=1)

    async def record() -> None:
        async with journal_at(tmp_path / "j") as journal:
            await journal.record_group("g000001", 1, TASK)
            await journal.record_group("g000000", 0, TASK)
            for episode in (failed, second, again):
                await journal.record_episode(episode)
            await journal.record_consumed(["g000000"], step=4, reason="trained")

    asyncio.run(record())
    with JournalReader.open(tmp_path / "j") as record_:
        first, unfinished = record_.groups()
        assert (first.index, first.task, first.episodes) == (0, TASK, (again, second))
        assert (unfinished.group_id, unfinished.episodes) == ("g000001", ())
        assert record_.consumed() == [("g000000", 4, "trained")]
        assert [episode.episode_id for episode in record_.episodes()] == ["g000000-a00", "g000000-a01", "g000000-a00-r1"]


def test_each_token_and_each_message_is_stored_once(tmp_path: Path) -> None:
    root = a_completion("c0", tuple(range(1000)), (5, 6))
    leaf = a_completion("c1", (*range(1000), 5, 6, 7), (8,), parent=root)
    episode = an_episode(completions=(root, leaf))

    async def record() -> None:
        async with journal_at(tmp_path / "j") as journal:
            await journal.record_completion(episode.episode_id, root, episode.messages)
            await journal.record_completion(episode.episode_id, leaf, ())
            await journal.record_episode(episode)

    asyncio.run(record())
    with contextlib.closing(sqlite3.connect(tmp_path / "j")) as connection:
        sizes = connection.execute("SELECT length(new_prompt_ids) / 4, length(token_ids) / 4 FROM calls ORDER BY rowid").fetchall()
        assert sizes == [(1000, 2), (1, 1)]
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (2,)


def test_calls_of_an_episode_that_never_ended_are_on_record(tmp_path: Path) -> None:
    root = a_completion("c0", (1, 2), (3,))

    async def record() -> None:
        async with journal_at(tmp_path / "j") as journal:
            await journal.record_completion("g000000-a00", root, an_episode().messages)

    asyncio.run(record())
    with JournalReader.open(tmp_path / "j") as record_:
        assert record_.read_completions("g000000-a00") == (root,)
        with pytest.raises(ConfigError, match="no ended episode"):
            record_.read_episode("g000000-a00")


def test_each_opening_is_an_incarnation_and_the_newest_record_counts(tmp_path: Path) -> None:
    async def record(reward: float) -> int:
        async with journal_at(tmp_path / "j") as journal:
            await journal.record_episode(replace(an_episode(), rewards=(Reward("outcome", reward, ""),)))
            await journal.record_published(PolicyVersion(journal.incarnation, 0))
            await journal.record_checkpoint(PolicyVersion(journal.incarnation, 0), path=tmp_path)
            return journal.incarnation

    assert [asyncio.run(record(0.0)), asyncio.run(record(1.0))] == [1, 2]
    with JournalReader.open(tmp_path / "j") as record_:
        assert [episode.reward for episode in record_.episodes()] == [1.0]


def test_many_callers_share_few_transactions_and_keep_their_order(tmp_path: Path) -> None:
    async def record() -> list[int]:
        async with journal_at(tmp_path / "j") as journal:
            order: list[int] = []

            async def one(index: int) -> None:
                await journal.record_group(f"g{index:06d}", index, TASK)
                order.append(index)

            await asyncio.gather(*(one(index) for index in range(500)))
            return order

    assert asyncio.run(record()) == list(range(500))
    with JournalReader.open(tmp_path / "j") as record_:
        assert [group.index for group in record_.groups()] == list(range(500))


def test_a_record_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    async def record() -> None:
        async with journal_at(tmp_path / "j") as journal:
            await journal.record_episode(an_episode())
            with JournalReader.open(journal.path) as record_:
                assert record_.read_episode("g000000-a00") == an_episode()

    asyncio.run(record())


def test_a_journal_that_is_there_can_be_read_from_its_first_moment(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.sqlite" for number in range(100)]

    def read_at_once() -> None:
        for path in paths:
            while not path.exists():
                pass
            JournalReader.open(path).close()

    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(read_at_once)
        for path in paths:
            connect_to_write(path).close()
        reading.result(timeout=60)


def test_a_cancelled_caller_s_record_is_written_all_the_same(tmp_path: Path) -> None:
    async def record() -> None:
        async with journal_at(tmp_path / "j") as journal:
            recording = asyncio.create_task(journal.record_episode(an_episode()))
            await asyncio.sleep(0)
            recording.cancel()
            await asyncio.gather(recording, return_exceptions=True)

    asyncio.run(record())
    with JournalReader.open(tmp_path / "j") as record_:
        assert record_.read_episode("g000000-a00") == an_episode()


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (replace(a_completion("c1", (1, 9, 3, 4), (5,)), parent_id="c0", num_shared=3), "does not begin with the first 3 tokens of c0"),
        (replace(a_completion("c1", (1, 2), (5,)), parent_id="c0", num_shared=3), "does not begin with the first 3 tokens of c0"),
        (replace(a_completion("c1", (1, 2, 3), (5,)), parent_id="c7", num_shared=3), "'c7' is no call on record"),
        (a_completion("c1", (2**31,), (5,)), "32-bit"),
    ],
)
def test_a_call_that_contradicts_the_record_is_refused_and_the_journal_goes_on(tmp_path: Path, leaf: Completion, message: str) -> None:
    root = a_completion("c0", (1, 2), (3,))

    async def record() -> None:
        async with journal_at(tmp_path / "j") as journal:
            await journal.record_completion("e", root, ())
            with pytest.raises(ValueError, match=message):
                await journal.record_completion("e", leaf, ())
            await journal.record_completion("e", a_completion("c2", (1, 2, 3, 4), (5,), parent=root), ())

    asyncio.run(record())


def test_a_reward_that_is_no_number_is_refused(tmp_path: Path) -> None:
    async def record() -> None:
        async with journal_at(tmp_path / "j") as journal:
            with pytest.raises(ValueError, match="finite"):
                await journal.record_episode(replace(an_episode(), rewards=(Reward("outcome", float("nan"), ""),)))
            await journal.record_episode(an_episode())

    asyncio.run(record())


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    async def record() -> None:
        async with journal_at(tmp_path / "j"):
            with pytest.raises(ConfigError, match="another run"):
                Journal.open(tmp_path / "j")
        async with journal_at(tmp_path / "j") as journal:
            assert journal.incarnation == 2

    asyncio.run(record())


def make_text(path: Path) -> None:
    path.write_text("reward,1\n" * 500)


def make_other_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (title)")


def test_a_journal_of_schema_1_is_read_as_it_is_and_extended_when_it_is_written(tmp_path: Path) -> None:
    """Episodes had no acts then, calls no facts."""
    acted = replace(an_episode(), episode_id="g000000-a01", attempt=1, acts=(SandboxAct("run", "make", 0),))

    async def record(episode: Episode) -> None:
        async with journal_at(tmp_path / "j") as journal:
            await journal.record_episode(episode)

    asyncio.run(record(an_episode()))
    with contextlib.closing(sqlite3.connect(tmp_path / "j")) as connection:
        connection.execute("ALTER TABLE episodes DROP COLUMN patch")
        connection.execute("ALTER TABLE episodes DROP COLUMN acts")
        connection.execute("ALTER TABLE calls DROP COLUMN routes")
        connection.execute("ALTER TABLE calls DROP COLUMN facts")
        connection.execute("PRAGMA user_version=1")
    with JournalReader.open(tmp_path / "j") as old:
        assert list(old.episodes()) == [an_episode()]
    asyncio.run(record(acted))
    with JournalReader.open(tmp_path / "j") as new:
        assert [episode.acts for episode in new.episodes()] == [(), acted.acts]


def test_a_journal_of_schema_3_is_read_as_it_is_and_extended_when_it_is_written(tmp_path: Path) -> None:
    """Calls had no routes then."""
    fact = replace(a_completion("c0", (1, 2), (3,)), facts=CallFacts(wire="chat"))
    routed = replace(fact, completion_id="c1", generation=replace(fact.generation, routes=RoutedExperts(2, 1, 2, bytes(range(8)))))

    async def record(completion: Completion) -> None:
        async with journal_at(tmp_path / "j") as journal:
            await journal.record_completion(f"e{completion.completion_id}", completion, an_episode().messages)

    asyncio.run(record(fact))
    with contextlib.closing(sqlite3.connect(tmp_path / "j")) as connection:
        connection.execute("ALTER TABLE episodes DROP COLUMN patch")
        connection.execute("ALTER TABLE calls DROP COLUMN routes")
        connection.execute("PRAGMA user_version=3")
    with JournalReader.open(tmp_path / "j") as old:
        assert old.read_completions("ec0") == (fact,)
    asyncio.run(record(routed))
    with JournalReader.open(tmp_path / "j") as new:
        assert (new.read_completions("ec0"), new.read_completions("ec1")) == ((fact,), (routed,))


def test_a_journal_of_schema_4_is_read_as_it_is_and_extended_when_it_is_written(tmp_path: Path) -> None:
    """Episodes had no patch then."""
    patched = replace(an_episode(), episode_id="g000000-a01", attempt=1, patch="--- a/x\n+++ b/x\n@@ -1 +1 @@\n-1\n+2\n")

    async def record(episode: Episode) -> None:
        async with journal_at(tmp_path / "j") as journal:
            await journal.record_episode(episode)

    asyncio.run(record(an_episode()))
    with contextlib.closing(sqlite3.connect(tmp_path / "j")) as connection:
        connection.execute("ALTER TABLE episodes DROP COLUMN patch")
        connection.execute("PRAGMA user_version=4")
    with JournalReader.open(tmp_path / "j") as old:
        assert list(old.episodes()) == [an_episode()]
    asyncio.run(record(patched))
    with JournalReader.open(tmp_path / "j") as new:
        assert [episode.patch for episode in new.episodes()] == ["", patched.patch]


def make_newer(path: Path) -> None:
    async def make() -> None:
        async with journal_at(path):
            pass

    asyncio.run(make())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")


@pytest.mark.parametrize(
    ("make", "message"),
    [(make_text, "not a database"), (make_other_database, "no journal"), (make_newer, "newer Trunkline .journal schema 99")],
)
def test_a_foreign_file_is_refused_and_left_as_it_is(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "j"
    make(path)
    before = path.read_bytes()

    async def open_to_write() -> None:
        Journal.open(path)

    with pytest.raises(ConfigError, match=message):
        asyncio.run(open_to_write())
    with pytest.raises(ConfigError, match=message):
        JournalReader.open(path)
    assert path.read_bytes() == before


def test_a_missing_journal_or_folder_is_named(tmp_path: Path) -> None:
    async def open_to_write() -> None:
        Journal.open(tmp_path / "missing" / "j")

    with pytest.raises(ConfigError, match="missing/j"):
        asyncio.run(open_to_write())
    with pytest.raises(ConfigError, match=r"cannot read the journal .*nothing"):
        JournalReader.open(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_closed_journal_refuses_records(tmp_path: Path) -> None:
    async def record() -> None:
        journal = Journal.open(tmp_path / "j")
        await journal.close()
        await journal.close()
        with pytest.raises(JournalError, match="closed"):
            await journal.record_episode(an_episode())

    asyncio.run(record())


def test_a_full_database_fails_every_waiter_and_every_later_record(tmp_path: Path) -> None:
    """sqlite's own limit on pages gives the error of a full disk."""

    async def record() -> None:
        async with journal_at(tmp_path / "j") as journal:
            await journal.record_episode(an_episode("g000000-a00"))
            journal._commits._connection.execute("PRAGMA max_page_count=30")
            large = tuple(range(200_000))
            waiting = [journal.record_completion(f"e{i}", a_completion(f"c{i}", large, (1,)), ()) for i in range(3)]
            errors = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(error, JournalError) for error in errors)
            assert isinstance(journal.failed.exception(), JournalError)
            with pytest.raises(JournalError, match=r"j cannot be written: .*SQLITE_FULL.*free disk space, then start the run again"):
                await journal.record_group("g000001", 1, TASK)

    asyncio.run(record())
    with JournalReader.open(tmp_path / "j") as record_:
        assert [episode.episode_id for episode in record_.episodes()] == ["g000000-a00"]


def test_rewards_written_before_single_calls_could_earn_are_read_as_the_whole_episodes() -> None:
    old = '[{"name":"outcome","value":1.0,"evidence":"it is yes"}]'
    assert from_json(old, tuple[Reward, ...]) == (Reward("outcome", 1.0, "it is yes", at=None),)
    late = (Reward("process.format", -0.5, "", at=3),)
    assert from_json(to_json(late), tuple[Reward, ...]) == late
