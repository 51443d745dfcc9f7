"""One attempt end to end over the real gateway: how it may end, what is recorded, and what leaves as an exception."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest

from trunkline.agents.loop_settings import LoopSettings
from trunkline.agents.tool_loop import ToolLoop
from trunkline.asgi import serve_port
from trunkline.episodes.config import RewardsConfig
from trunkline.episodes.demonstrations import demonstrations_from_episodes, render_demonstrations
from trunkline.episodes.runner import AttemptRunner, episode_id
from trunkline.errors import (
    AgentError,
    BudgetExceeded,
    DeadlineExceeded,
    EngineError,
    JournalError,
    SandboxError,
    UnknownSession,
    VerifierError,
)
from trunkline.gateway.app import build_app
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.markup import TINY, MarkupRenderer
from trunkline.gateway.sampling import SamplingHold
from trunkline.gateway.sessions import SessionBudget
from trunkline.gateway.wire import Ask, ToolOffer
from trunkline.models.tokenizer import build_tiny_tokenizer
from trunkline.protocols import Agent, Assignment, Attempt, EpisodeSpec, Taskset
from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset
from trunkline.tasks.lookup.vocabulary import CHARACTERS, PIECES
from trunkline.tasks.lookup.world import LATENCY_S
from trunkline.types import (
    Completion,
    Episode,
    Failure,
    FileChange,
    Generation,
    GenerationRequest,
    Message,
    MessageNode,
    PolicyVersion,
    Reward,
    Task,
    VersionSpan,
    WeightRef,
    Work,
)


class Reciter:
    """An Engine that goes on from any part of the texts it knows, up to the next stop token, and else says nothing."""

    def __init__(self) -> None:
        self.known: list[tuple[int, ...]] = []
        self.aborted: list[str] = []
        self.hangs = False
        self._released: dict[str, asyncio.Event] = {}

    async def generate(self, request: GenerationRequest) -> Generation:
        if self.hangs:
            self._released[request.request_id] = asyncio.Event()
            await self._released[request.request_id].wait()
            return Generation((), (), "abort", ())
        (stop,) = request.sampling.stop_token_ids
        prompt = request.token_ids
        rest = next((text[len(prompt) :] for text in self.known if text[: len(prompt)] == prompt), (stop,))
        said = rest[: rest.index(stop) + 1]
        return Generation(said, (-0.5,) * len(said), "stop", (VersionSpan(0, len(said), PolicyVersion(1, 0)),))

    async def abort(self, request_ids: Sequence[str]) -> None:
        self.aborted += request_ids
        for request_id in request_ids:
            self._released[request_id].set()

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def update_weights(self, ref: WeightRef) -> None: ...


class Ledger:
    """Keeps what is recorded, or fails as a full disk would."""

    def __init__(self) -> None:
        self.episodes: list[Episode] = []
        self.completions: list[Completion] = []
        self.is_full = False

    async def record_completion(self, episode_id: str, completion: Completion, messages: Sequence[MessageNode]) -> None:
        self.completions.append(completion)

    async def record_episode(self, episode: Episode) -> None:
        if self.is_full:
            raise JournalError("no space left")
        self.episodes.append(episode)


@dataclass
class Bench:
    """A gateway over a reciting engine, and the taskset it serves."""

    engine: Reciter
    gateway: Gateway
    ledger: Ledger
    taskset: LookupTaskset
    renderer: MarkupRenderer

    def runner(
        self, agent: Agent, *, taskset: Taskset | None = None, deadline_s: float = 10.0, base_url: str = "http://unused"
    ) -> AttemptRunner:
        return AttemptRunner(
            self.gateway,
            taskset or self.taskset,
            agent,
            self.ledger,
            hold=SamplingHold(max_tokens=64),
            budget=SessionBudget(max_calls=8),
            deadline_s=deadline_s,
            base_url=base_url,
        )

    def spec(self, index: int = 0) -> EpisodeSpec:
        return EpisodeSpec(self.taskset.task("heldout", index), f"g{index:06d}", 3, seed=index)

    def teach(self, task: Task) -> None:
        (shown,) = render_demonstrations(self.renderer, self.taskset, [task], random.Random(0), decision_noise=0.0)
        self.engine.known.append(shown.token_ids)


@pytest.fixture
def bench() -> Bench:
    tokenizer = build_tiny_tokenizer(special_tokens=TINY.special_tokens, pieces=PIECES, characters=CHARACTERS)
    engine, ledger, renderer = Reciter(), Ledger(), MarkupRenderer(tokenizer, TINY)
    gateway = Gateway(engine, renderer, ledger, model_name="tiny")
    return Bench(engine, gateway, ledger, LookupTaskset(LookupConfig()), renderer)


class InProcessLoop:
    """A tool loop that calls the gateway directly instead of over HTTP."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def run(self, assignment: Assignment) -> str:
        session = self._gateway.session(assignment.api_key)
        messages, offer = list(assignment.prompt), ToolOffer(assignment.tools.specs, b"lookup")
        while True:
            reply = (await self._gateway.complete(session, Ask(tuple(messages), offer)))[0].message
            messages.append(reply)
            if not reply.tool_calls:
                return reply.content
            for call in reply.tool_calls:
                result = await assignment.tools.call(call.name, call.arguments)
                messages.append(Message("tool", result, tool_call_id=call.call_id))


@dataclass
class Does:
    """An agent that is one coroutine function."""

    act: Callable[[Assignment], Awaitable[str]]

    async def run(self, assignment: Assignment) -> str:
        return await self.act(assignment)


def raising(error: BaseException) -> Does:
    async def act(assignment: Assignment) -> str:
        raise error

    return Does(act)


async def forever(assignment: Assignment) -> str:
    await asyncio.Event().wait()
    return "never"


def test_known_answer_finishes_with_reward_1_and_is_recorded_before_it_is_returned(bench: Bench) -> None:
    for index in range(20):
        spec = bench.spec(index)
        bench.teach(spec.task)
        episode = asyncio.run(bench.runner(InProcessLoop(bench.gateway)).run(spec))
        assert (episode.status, episode.reward, episode.failure) == ("finished", 1.0, None)
        assert bench.ledger.episodes[-1] is episode
        assert len(episode.completions) == len(spec.task.payload["needed"]) + 1
        assert (episode.episode_id, episode.group_id, episode.attempt) == (f"g{index:06d}-a03", f"g{index:06d}", 3)
    assert not bench.gateway.sessions()


def test_recorded_episode_is_token_for_token_the_demonstration_it_recites(bench: Bench) -> None:
    tasks = [bench.taskset.task("heldout", index) for index in range(20)]
    shown = render_demonstrations(bench.renderer, bench.taskset, tasks, random.Random(0), decision_noise=0.0)
    bench.engine.known += [demonstration.token_ids for demonstration in shown]
    episodes = [asyncio.run(bench.runner(InProcessLoop(bench.gateway)).run(bench.spec(index))) for index in range(20)]
    assert demonstrations_from_episodes(episodes) == shown


def test_components_are_added_to_the_verdict_at_the_calls_that_earned_them(bench: Bench) -> None:
    class Careless(InProcessLoop):
        async def run(self, assignment: Assignment) -> str:
            await assignment.tools.call("population", "{}")
            return await super().run(assignment)

    index = next(index for index in range(20) if bench.spec(index).task.kind == "two_hop.pair")
    bench.teach(bench.spec(index).task)
    rewards = RewardsConfig(process=0.5, speed=2.0, base_s=2.0, seconds_per_token=0.02)
    episode = asyncio.run(bench.runner(Careless(bench.gateway)).rewarding(rewards).run(bench.spec(index)))
    outcome, speed = episode.rewards
    seconds = 2 * LATENCY_S + 0.02 * sum(call.num_sampled for call in episode.completions)
    assert (outcome.name, outcome.value, speed.name) == ("outcome", 1.0, "speed")
    assert speed.value == pytest.approx(2.0 / (1 + (seconds / 2.0) ** 2))
    assert bench.ledger.episodes[-1].rewards == episode.rewards, "what the model did not call is no fault of the model"


def test_tool_loop_over_http_earns_the_reward(bench: Bench) -> None:
    async def attempt() -> Episode:
        serving = await serve_port(build_app(bench.gateway))
        try:
            runner = bench.runner(ToolLoop(None, LoopSettings(8)), base_url=f"http://127.0.0.1:{serving.port}/")
            return await runner.run(bench.spec())
        finally:
            await serving.stop()

    bench.teach(bench.spec().task)
    assert asyncio.run(attempt()).reward == 1.0


def test_wrong_answer_is_a_verdict_with_its_completions_and_not_a_failure(bench: Bench) -> None:
    episode = asyncio.run(bench.runner(InProcessLoop(bench.gateway)).run(bench.spec()))
    assert (episode.status, episode.reward, len(episode.completions)) == ("finished", 0.0, 1)
    assert episode.messages[episode.completions[0].reply_node].message.role == "assistant"


def test_agent_gets_its_own_url_and_key_and_they_are_revoked_at_the_end(bench: Bench) -> None:
    seen: list[Assignment] = []

    async def look(assignment: Assignment) -> str:
        bench.gateway.session(assignment.api_key)
        seen.append(assignment)
        return ""

    asyncio.run(bench.runner(Does(look), base_url="http://127.0.0.1:8000/").run(bench.spec()))
    (assignment,) = seen
    assert assignment.base_url == f"http://127.0.0.1:8000/s/{assignment.api_key}/v1"
    assert assignment.model == "tiny"
    with pytest.raises(UnknownSession):
        bench.gateway.session(assignment.api_key)


def test_agent_out_of_time_is_cancelled_and_keeps_what_it_earned(bench: Bench) -> None:
    class Consoling:
        async def verify(self, work: Work) -> tuple[Reward, ...]:
            return (Reward("outcome", 0.25, work.answer), Reward("manners", -1.0, work.answer))

    class Generous(LookupTaskset):
        def open(self, task: Task) -> Attempt:
            return replace(super().open(task), verifier=Consoling())

    runner = bench.runner(Does(forever), taskset=Generous(LookupConfig()), deadline_s=0.05)
    episode = asyncio.run(runner.run(bench.spec()))
    assert (episode.status, episode.reward) == ("deadline", 0.25)
    assert episode.failure is not None and (episode.failure.boundary, episode.failure.kind) == ("agent", "DeadlineExceeded")
    assert 0.05 <= episode.duration_s < 1.0


@dataclass(frozen=True)
class OnAFolder:
    """A taskset whose attempts work on a folder; it pays for its file 'a' being 'mended'."""

    folder: Path
    name: str = "folder"

    def task(self, split: str, index: int) -> Task:
        return LookupTaskset(LookupConfig()).task(split, index)

    def open(self, task: Task) -> Attempt:
        return replace(LookupTaskset(LookupConfig()).open(task), verifier=self, workspace=self.folder)

    async def verify(self, work: Work) -> tuple[Reward, ...]:
        is_mended = FileChange("a", "file", 0o644, b"mended\n") in work.changes
        return (Reward("outcome", float(is_mended), f"{len(work.changes)} changes"),)


@pytest.fixture
def on_a_folder(tmp_path: Path) -> OnAFolder:
    (tmp_path / "a").write_text("broken\n")
    return OnAFolder(tmp_path)


def leaving(*changes: FileChange, error: Exception | None = None, at_once: bool = False) -> Does:
    """An agent that works until it is stopped, and hands over at its end how it left its workspace, or fails to."""

    async def act(assignment: Assignment) -> str:
        try:
            return "" if at_once else await forever(assignment)
        finally:
            assignment.changes.extend(changes)
            if error is not None:
                raise error

    return Does(act)


MENDED = FileChange("a", "file", 0o644, b"mended\n")


def test_what_an_agent_out_of_time_left_of_its_workspace_is_judged_and_is_its_patch(bench: Bench, on_a_folder: OnAFolder) -> None:
    episode = asyncio.run(bench.runner(leaving(MENDED), taskset=on_a_folder, deadline_s=0.05).run(bench.spec()))
    assert (episode.status, episode.reward) == ("deadline", 1.0)
    assert episode.patch.startswith("diff --git a/a b/a\n") and "-broken\n+mended\n" in episode.patch


def test_an_agent_out_of_time_whose_workspace_nobody_can_read_gets_no_verdict(bench: Bench, on_a_folder: OnAFolder) -> None:
    agent = leaving(error=SandboxError("it is gone"))
    episode = asyncio.run(bench.runner(agent, taskset=on_a_folder, deadline_s=0.05).run(bench.spec()))
    assert (episode.status, episode.reward, episode.patch) == ("failed", None, "")
    assert episode.failure == Failure("sandbox", "SandboxError", "it is gone")


def test_a_failed_attempt_keeps_its_patch_for_its_record(bench: Bench, on_a_folder: OnAFolder) -> None:
    agent = leaving(MENDED, error=AgentError("broke"), at_once=True)
    episode = asyncio.run(bench.runner(agent, taskset=on_a_folder).run(bench.spec()))
    assert (episode.status, episode.reward) == ("failed", None)
    assert "+mended" in episode.patch and bench.ledger.episodes[-1].patch == episode.patch


def test_call_in_flight_at_the_deadline_is_aborted_and_recorded(bench: Bench) -> None:
    bench.engine.hangs = True
    episode = asyncio.run(bench.runner(InProcessLoop(bench.gateway), deadline_s=0.05).run(bench.spec()))
    assert (episode.status, episode.reward) == ("deadline", 0.0)
    assert [completion.drop_reason for completion in episode.completions] == ["aborted"]
    assert bench.engine.aborted and bench.ledger.episodes == [episode]


def test_deadline_clock_stands_while_the_engine_is_paused(bench: Bench) -> None:
    async def naps(assignment: Assignment) -> str:
        await bench.gateway.pause()
        await asyncio.sleep(0.3)
        await bench.gateway.resume()
        return "done"

    episode = asyncio.run(bench.runner(Does(naps), deadline_s=0.1).run(bench.spec()))
    assert episode.status == "finished"
    assert episode.duration_s < 0.1


def test_agent_that_ends_at_its_cancellation_is_still_out_of_time(bench: Bench) -> None:
    async def stubborn(assignment: Assignment) -> str:
        try:
            return await forever(assignment)
        except asyncio.CancelledError:
            return "too late"

    episode = asyncio.run(bench.runner(Does(stubborn), deadline_s=0.05).run(bench.spec()))
    assert episode.status == "deadline" and "answer ''" in episode.rewards[0].evidence


def test_spent_budget_is_judged_like_a_deadline(bench: Bench) -> None:
    episode = asyncio.run(bench.runner(raising(BudgetExceeded("8 calls are spent"))).run(bench.spec()))
    assert (episode.status, episode.reward) == ("deadline", 0.0)
    assert episode.failure is not None and episode.failure.kind == "BudgetExceeded"


@pytest.mark.parametrize("keeps_calm", [False, True], ids=["fails", "ends by itself"])
def test_agent_that_is_refused_because_its_budget_is_spent_is_judged_and_the_cause_recorded(bench: Bench, keeps_calm: bool) -> None:
    async def asks_on(assignment: Assignment) -> str:
        body = {"model": assignment.model, "messages": [{"role": "user", "content": "area"}]}
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {assignment.api_key}"}) as http:
            while True:
                async with http.post(f"{assignment.base_url}/chat/completions", json=body) as response:
                    if response.status == 429 and keeps_calm:
                        return "no answer"
                    response.raise_for_status()

    async def attempt() -> Episode:
        serving = await serve_port(build_app(bench.gateway))
        try:
            return await bench.runner(Does(asks_on), base_url=f"http://127.0.0.1:{serving.port}/").run(bench.spec())
        finally:
            await serving.stop()

    episode = asyncio.run(attempt())
    assert (episode.status, episode.reward) == ("deadline", 0.0)
    assert episode.failure is not None and episode.failure.kind == "BudgetExceeded" and ("429" in episode.failure.message or keeps_calm)
    assert len(episode.completions) == 8


@pytest.mark.parametrize(
    ("error", "boundary", "kind"),
    [
        (AgentError("broke"), "agent", "AgentError"),
        (KeyError("bug"), "agent", "KeyError"),
        (UnknownSession("who"), "gateway", "UnknownSession"),
        (EngineError("down"), "engine", "EngineError"),
        (asyncio.CancelledError(), "agent", "AgentError"),
    ],
)
def test_failed_agent_is_recorded_with_its_boundary_and_no_reward(bench: Bench, error: BaseException, boundary: str, kind: str) -> None:
    episode = asyncio.run(bench.runner(raising(error)).run(bench.spec()))
    assert (episode.status, episode.rewards, episode.reward) == ("failed", (), None)
    assert episode.failure is not None and (episode.failure.boundary, episode.failure.kind) == (boundary, kind)
    assert episode.failure.message
    assert bench.ledger.episodes == [episode] and not bench.gateway.sessions()


@dataclass
class Judge:
    """A verifier that is one function."""

    verdict: Callable[[], tuple[Reward, ...]]

    async def verify(self, work: Work) -> tuple[Reward, ...]:
        return self.verdict()


def bug() -> tuple[Reward, ...]:
    raise ZeroDivisionError("bug")


def refusal() -> tuple[Reward, ...]:
    raise VerifierError("cannot judge")


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        (bug, "ZeroDivisionError"),
        (refusal, "VerifierError"),
        (tuple, "VerifierError"),
        (lambda: (Reward("r", float("nan"), ""),), "VerifierError"),
    ],
)
def test_broken_verifier_gives_no_verdict_instead_of_reward_0(bench: Bench, verdict: Callable[[], tuple[Reward, ...]], kind: str) -> None:
    class Broken(LookupTaskset):
        def open(self, task: Task) -> Attempt:
            return replace(super().open(task), verifier=Judge(verdict))

    episode = asyncio.run(bench.runner(InProcessLoop(bench.gateway), taskset=Broken(LookupConfig())).run(bench.spec()))
    assert (episode.status, episode.reward, len(episode.completions)) == ("failed", None, 1)
    assert episode.failure is not None and (episode.failure.boundary, episode.failure.kind) == ("verifier", kind)


def test_taskset_that_cannot_open_a_task_is_recorded_as_infra(bench: Bench) -> None:
    class Unopenable(LookupTaskset):
        def open(self, task: Task) -> Attempt:
            raise OSError("gone")

    episode = asyncio.run(bench.runner(Does(forever), taskset=Unopenable(LookupConfig())).run(bench.spec()))
    assert episode.failure is not None and (episode.failure.boundary, episode.failure.kind) == ("infra", "OSError")
    assert not bench.gateway.sessions()


def test_unwritable_journal_leaves_as_an_exception(bench: Bench) -> None:
    bench.ledger.is_full = True
    with pytest.raises(JournalError):
        asyncio.run(bench.runner(InProcessLoop(bench.gateway)).run(bench.spec()))
    assert not bench.gateway.sessions()


def test_cancelled_run_stops_its_agent_and_closes_its_session(bench: Bench) -> None:
    stopped: list[str] = []

    async def waits(assignment: Assignment) -> str:
        try:
            return await forever(assignment)
        finally:
            stopped.append(assignment.api_key)

    async def cancel_midway() -> None:
        running = asyncio.create_task(bench.runner(Does(waits)).run(bench.spec()))
        await asyncio.sleep(0.05)
        assert len(bench.gateway.sessions()) == 1
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancel_midway())
    assert stopped and not bench.gateway.sessions() and not bench.ledger.episodes


def test_sessions_of_sub_agents_are_closed_too(bench: Bench) -> None:
    async def spawns(assignment: Assignment) -> str:
        bench.gateway.open_session(episode_id=episode_id(bench.spec()), seed=1, hold=SamplingHold(), budget=SessionBudget())
        raise DeadlineExceeded("its own clock")

    episode = asyncio.run(bench.runner(Does(spawns)).run(bench.spec()))
    assert episode.status == "deadline" and not bench.gateway.sessions()


def test_retry_of_an_attempt_has_an_id_and_a_record_of_its_own(bench: Bench) -> None:
    spec = bench.spec()
    assert [episode_id(spec), episode_id(replace(spec, retry=2))] == ["g000000-a03", "g000000-a03-r2"]
    runner = bench.runner(InProcessLoop(bench.gateway))
    first, again = asyncio.run(runner.run(spec)), asyncio.run(runner.run(replace(spec, retry=1)))
    assert len(first.completions) == len(again.completions) == 1
    assert first.completions[0].sampling.seed == again.completions[0].sampling.seed
