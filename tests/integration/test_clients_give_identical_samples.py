"""The same policy and seeds give the same training samples, whichever client works, and wherever it does.

Our loop in this process or in a sandbox; OpenAI's unmodified SDK in a process of its own on this host, or in a sandbox without network.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.made_once import made_once
from trunkline.agents.boxed_command import CommandAgent
from trunkline.agents.launch import PlainCommand
from trunkline.agents.loop_settings import LoopSettings
from trunkline.agents.tool_loop import ToolLoop
from trunkline.agents.unsafe_command import UnsafeCommandAgent
from trunkline.asgi import serve_port, serve_uds
from trunkline.engine.client import EngineClient
from trunkline.episodes.demonstrations import render_demonstrations
from trunkline.episodes.runner import AttemptRunner
from trunkline.gateway.app import build_app
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.markup import TINY, MarkupRenderer
from trunkline.gateway.sampling import SamplingHold
from trunkline.gateway.sessions import SessionBudget
from trunkline.models.checkpoint import init_decoder, load_decoder, save_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.tokenizer import Tokenizer
from trunkline.pool.journal import Journal
from trunkline.protocols import Agent, EpisodeSpec
from trunkline.run.agent_side import loop_command
from trunkline.run.processes import socket_directory
from trunkline.run.recipe import ScratchModel
from trunkline.run.scratch import prepare_folder
from trunkline.run.wiring import engine_side
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.lookup import vocabulary
from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset
from trunkline.trainer.batch import DemonstrationBatch
from trunkline.trainer.config import OptimizerConfig, PhaseConfig
from trunkline.trainer.samples import samples_from_groups
from trunkline.trainer.step import Learner
from trunkline.types import Episode, Group, PolicyVersion, TrainSample
from trunkline.weights.files import publish

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "openai_agent.py"
CLIENTS = ((), ("--stream",), ("--async",), ("--async", "--stream"))
# Half of the demonstrations with two lookups make both in one turn.
TASKSET = LookupTaskset(LookupConfig(kinds={"one_hop.area": 1, "two_hop.pair": 1}, invented_share=0, parallel_share=0.5))
TASKS = [TASKSET.task("heldout", index) for index in range(4)]
SIZES = ScratchModel(hidden_size=48, intermediate_size=96, num_layers=2)
STEPS, BATCH = 120, 8
MAX_CALLS = 4
GROUP_SIZE, NUM_CANDIDATES = 2, 32


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy that half knows four tasks: it calls tools, sometimes needlessly, and answers right or wrong."""
    return made_once(tmp_path_factory, "half-knowing-policy", make_policy)


def make_policy(folder: Path) -> None:
    folder.mkdir()
    tokenizer = prepare_folder(folder, SIZES, pieces=vocabulary.PIECES, characters=vocabulary.CHARACTERS)
    learner = Learner(init_decoder(DecoderConfig.from_hf(json.loads((folder / "config.json").read_text())), seed=1))
    learner.begin_phase(PhaseConfig(kind="supervised", optimizer=OptimizerConfig(lr=5e-3, warmup_steps=10)))
    tasks = TASKS * (STEPS * BATCH // len(TASKS))
    shown = render_demonstrations(MarkupRenderer(tokenizer, TINY), TASKSET, tasks, random.Random(1), decision_noise=0.3)
    for start in range(0, len(shown), BATCH):
        learner.supervised_step(DemonstrationBatch.from_demonstrations(shown[start : start + BATCH]))
    save_decoder(learner.policy, folder)


@dataclass
class Bench:
    """The policy in a real engine, and a gateway before it."""

    engine: EngineClient
    gateway: Gateway
    journal: Journal
    base_url: str
    door: Path
    policy: Path
    folder: Path
    max_calls: int = MAX_CALLS
    num_rounds: int = 0

    async def attempt(self, agent: Agent, spec: EpisodeSpec) -> Episode:
        runner = AttemptRunner(
            self.gateway,
            TASKSET,
            agent,
            self.journal,
            hold=SamplingHold(max_tokens=32),
            budget=SessionBudget(max_calls=self.max_calls),
            deadline_s=120.0,
            base_url=self.base_url,
        )
        return await runner.run(replace(spec, retry=self.num_rounds))

    async def play(self, agent: Agent, planned: Sequence[Sequence[EpisodeSpec]]) -> list[Group]:
        """The groups' attempts one after the other, by weights of which the engine has cached nothing.

        Then all rounds compute the same sums in the same order; otherwise log-probabilities differ in their last bits.
        """
        self.num_rounds += 1
        weights = load_decoder(self.policy).state_dict()
        reference = publish(weights, PolicyVersion(1, self.num_rounds), self.folder / "weights")
        await self.engine.update_weights(reference)
        return [
            Group(specs[0].group_id, index, specs[0].task, tuple([await self.attempt(agent, spec) for spec in specs]))
            for index, specs in enumerate(planned)
        ]


@asynccontextmanager
async def running(policy: Path, folder: Path, *, max_calls: int = MAX_CALLS) -> AsyncIterator[Bench]:
    journal = Journal.open(folder / "journal.sqlite")
    try:
        with socket_directory() as sockets:
            starting = engine_side(
                sockets, model=policy, version=PolicyVersion(1, 0), max_batch=64, max_cached_tokens=8192, log_path=folder / "engine.log"
            )
            async with starting as engine:
                gateway = Gateway(engine.client, MarkupRenderer(Tokenizer.load(policy), TINY), journal, model_name="tiny")
                app = build_app(gateway)
                serving, door = await serve_port(app), await serve_uds(app, sockets / "agents.sock", mode=0o666)
                try:
                    url, door_path = f"http://127.0.0.1:{serving.port}", sockets / "agents.sock"
                    yield Bench(engine.client, gateway, journal, url, door_path, policy, folder, max_calls)
                finally:
                    await serving.stop()
                    await door.stop()
    finally:
        await journal.close()


def num_calls_by_turn(group: Group) -> list[int]:
    """Tool calls of each completion, over all attempts."""
    replies = (episode.messages[one.reply_node].message for episode in group.episodes for one in episode.completions)
    return [len(reply.tool_calls) for reply in replies]


async def groups_with_gradient(bench: Bench, loop: Agent) -> list[list[EpisodeSpec]]:
    """For each kind of task a group in which tools are called and attempts end differently: found by playing many, quickly."""
    planned = [
        [EpisodeSpec(TASKS[index % len(TASKS)], f"g{index:06d}", attempt, seed=10 * index + attempt) for attempt in range(GROUP_SIZE)]
        for index in range(NUM_CANDIDATES)
    ]
    episodes = await asyncio.gather(*(bench.attempt(loop, spec) for specs in planned for spec in specs))
    chosen: dict[str, list[EpisodeSpec]] = {}
    for index, specs in enumerate(planned):
        attempts = episodes[index * GROUP_SIZE : (index + 1) * GROUP_SIZE]
        group = Group(specs[0].group_id, index, specs[0].task, tuple(attempts))
        if group.has_gradient and sum(num_calls_by_turn(group)) >= GROUP_SIZE:
            chosen.setdefault(group.task.kind, specs)
    return list(chosen.values())


@dataclass(frozen=True)
class Ours:
    """What our loop made of groups that have a gradient."""

    specs: list[list[EpisodeSpec]]
    """Of each group."""
    samples: list[tuple[TrainSample, ...]]
    """Of each group, for training."""


@pytest.fixture(scope="module")
async def bench(anyio_backend: object, policy: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with running(policy, tmp_path_factory.mktemp("clients")) as opened:
        yield opened


@pytest.fixture(scope="module")
async def ours(bench: Bench) -> Ours:
    loop = ToolLoop(None, LoopSettings(MAX_CALLS))
    planned = await groups_with_gradient(bench, loop)
    groups = [(await bench.play(loop, [specs]))[0] for specs in planned]
    samples = [samples_from_groups([group], baseline="leave_one_out") for group in groups]
    assert {group.task.kind for group in groups} == {"one_hop.area", "two_hop.pair"}
    assert all(sum(num_calls_by_turn(group)) >= GROUP_SIZE for group in groups)
    assert sum(map(len, samples)) > 2 * len(planned), "conversations of several turns, with right and with wrong answers"
    return Ours(planned, samples)


async def check_same_samples(bench: Bench, ours: Ours, agents: Mapping[str, Agent], *, groups_each: int) -> list[Group]:
    """Plays some of the groups by each agent, in turn; the groups as the last agent played them."""
    theirs: list[Group] = []
    for number, (name, agent) in enumerate(agents.items()):
        places = [(number + step) % len(ours.specs) for step in range(groups_each)]
        theirs = [(await bench.play(agent, [ours.specs[place]]))[0] for place in places]
        assert not [episode.failure for group in theirs for episode in group.episodes if episode.failure]
        for place, group in zip(places, theirs, strict=True):
            assert samples_from_groups([group], baseline="leave_one_out") == ours.samples[place], name
    return theirs


async def test_the_sdk_in_all_its_ways_gives_the_samples_of_our_loop(bench: Bench, ours: Ours) -> None:
    agents = {str(options): UnsafeCommandAgent((sys.executable, str(SCRIPT), *options)) for options in CLIENTS}
    await check_same_samples(bench, ours, agents, groups_each=1)


async def test_the_sdk_and_our_loop_in_sandboxes_without_network_give_the_samples_of_our_loop(bench: Bench, ours: Ours) -> None:
    async with IsolatedSandboxes.open(SandboxConfig(), toolchain=[SCRIPT, ROOT / "trunkline"]) as sandboxes:
        empty = await sandboxes.prepare(None)
        commands = {"loop": loop_command(LoopSettings(MAX_CALLS)), "SDK": (sys.executable, str(SCRIPT), "--stream")}
        agents = {name: CommandAgent(PlainCommand(command), sandboxes, empty, gateway=bench.door) for name, command in commands.items()}
        groups = await check_same_samples(bench, ours, agents, groups_each=2)
    (episode, *_) = [episode for group in groups for episode in group.episodes if num_calls_by_turn(group)]
    acts = [act.op for act in episode.acts]
    assert acts[-4:] == ["create", "write", "run", "destroy"] and set(acts[:-4]) <= {"tool"}
    assert any(act.op == "tool" for group in groups for one in group.episodes for act in one.acts)
