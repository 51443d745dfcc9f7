"""Context management and sub-agents over a real engine: made again to the token, the same in a sandbox, and all of it trained."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_clients_give_identical_samples import (
    BATCH,
    MAX_CALLS,
    ROOT,
    SIZES,
    TASKS,
    TASKSET,
    policy,
    running,
)
from trunkline.agents.boxed_command import CommandAgent
from trunkline.agents.conversation import DELEGATE
from trunkline.agents.launch import PlainCommand
from trunkline.agents.loop_settings import LoopSettings
from trunkline.agents.tool_loop import ToolLoop
from trunkline.episodes.demonstrations import _weighted
from trunkline.episodes.rebuild import rebuild
from trunkline.gateway.conversation import render_conversation
from trunkline.gateway.markup import TINY, MarkupRenderer
from trunkline.models.checkpoint import init_decoder, save_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.tokenizer import Tokenizer
from trunkline.protocols import EpisodeSpec
from trunkline.run.agent_side import loop_command, loop_sources
from trunkline.run.scratch import prepare_folder
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.lookup import vocabulary
from trunkline.trainer.batch import DemonstrationBatch
from trunkline.trainer.config import OptimizerConfig, PhaseConfig
from trunkline.trainer.samples import samples_from_groups
from trunkline.trainer.step import Learner
from trunkline.types import Episode, Group, Message, ToolCall, ToolSpec

__all__ = ["policy"]  # a fixture

METHODS: dict[str, dict[str, Any]] = {
    "keep_all": {"method": "keep_all"},
    "sliding_window": {"method": "sliding_window", "turns": 1},
    "drop_all": {"method": "drop_all", "max_context": 64, "fraction": 0.5},
    "drop_all, keeping the last turn": {"method": "drop_all", "max_context": 64, "fraction": 0.8, "keep_last": True},
    "summary": {"method": "summary", "max_context": 64, "fraction": 0.5, "instruction": "Sum up"},
}
NUM_GROUPS, GROUP_SIZE = 6, 2
NUM_BOXED = 2
"""Of the groups, the first so many are played in sandboxes, too."""
DELEGATE_SPEC = ToolSpec("delegate", DELEGATE["function"]["description"], DELEGATE["function"]["parameters"])


def specs_of(num_groups: int, group_size: int = GROUP_SIZE) -> list[list[EpisodeSpec]]:
    return [
        [EpisodeSpec(TASKS[index % len(TASKS)], f"g{index:06d}", attempt, seed=10 * index + attempt) for attempt in range(group_size)]
        for index in range(num_groups)
    ]


def calls_of(groups: Sequence[Group]) -> list[tuple[Any, ...]]:
    episodes = [episode for group in groups for episode in group.episodes]
    return [(one.prompt_ids, one.generation.token_ids, one.generation.logprobs) for episode in episodes for one in episode.completions]


def statuses(groups: Sequence[Group]) -> list[str]:
    return [episode.status for group in groups for episode in group.episodes]


def check_rebuilt(episodes: Sequence[Episode], settings: LoopSettings, renderer: MarkupRenderer) -> None:
    for episode in episodes:
        tools = TASKSET.open(TASKS[0]).tools.specs
        again = rebuild(episode, settings, tools, renderer)
        assert again.difference is None and again.num_same == again.num_calls == len(episode.completions), again


def num_branches(episode: Episode) -> int:
    return sum(one.parent_id is None for one in episode.completions)


@dataclass(frozen=True)
class Played:
    """The same attempts by one method."""

    here: list[Group]
    """In this process."""
    boxed: list[Group]
    """The first of them in sandboxes."""

    @property
    def episodes(self) -> list[Episode]:
        return [episode for group in self.here for episode in group.episodes]


@pytest.fixture(scope="module")
def played(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Played]:
    """By each method, all over one engine."""

    async def main() -> dict[str, Played]:
        found: dict[str, Played] = {}
        folder, package = tmp_path_factory.mktemp("methods"), ROOT / "trunkline"
        async with running(policy, folder) as bench, IsolatedSandboxes.open(SandboxConfig(), toolchain=[package]) as sandboxes:
            empty = await sandboxes.prepare(None)
            for name, context in METHODS.items():
                settings = LoopSettings(MAX_CALLS, context)
                here = await bench.play(ToolLoop(None, settings), specs_of(NUM_GROUPS))
                boxed = CommandAgent(PlainCommand(loop_command(settings)), sandboxes, empty, gateway=bench.door)
                found[name] = Played(here, await bench.play(boxed, specs_of(NUM_BOXED)))
        return found

    return asyncio.run(main())


def test_every_context_is_made_again_to_the_token_and_a_sandbox_changes_nothing(policy: Path, played: dict[str, Played]) -> None:
    renderer = MarkupRenderer(Tokenizer.load(policy), TINY)
    for name, one in played.items():
        assert calls_of(one.boxed) == calls_of(one.here[:NUM_BOXED]), name
        # The tiny format cannot write a summary that holds its own marks as text: then both fail, at the same call.
        assert statuses(one.boxed) == statuses(one.here[:NUM_BOXED]), name
        assert name == "summary" or "failed" not in statuses(one.boxed), name
        check_rebuilt(one.episodes, LoopSettings(MAX_CALLS, METHODS[name]), renderer)
        assert (max(map(num_branches, one.episodes)) > 1) == (name != "keep_all"), name
    assert "finished" in statuses(played["summary"].here), "conversations go on from a summary, and end"


OWN_METHOD = """
class LastPair:
    def __init__(self, limit):
        self.limit = limit

    def instruction(self, used):
        return None

    def next_context(self, task, context, used, said):
        return context if used < self.limit else [*task, {"role": "user", "content": "or"}, *context[-2:]]
"""


def test_a_method_of_ones_own_works_in_a_sandbox_as_here(policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "own_context_method.py").write_text(OWN_METHOD)
    monkeypatch.syspath_prepend(str(tmp_path / "methods"))
    settings = LoopSettings(MAX_CALLS, {"method": "own_context_method:LastPair", "limit": 40})

    async def main() -> tuple[list[Group], list[Group]]:
        config = SandboxConfig()
        async with running(policy, tmp_path) as bench, IsolatedSandboxes.open(config, toolchain=loop_sources(settings)) as sandboxes:
            boxed = CommandAgent(PlainCommand(loop_command(settings)), sandboxes, await sandboxes.prepare(None), gateway=bench.door)
            return await bench.play(ToolLoop(None, settings), specs_of(3)), await bench.play(boxed, specs_of(3))

    here, there = asyncio.run(main())
    episodes = [episode for group in here for episode in group.episodes]
    assert calls_of(here) == calls_of(there) and "failed" not in statuses(there) and max(map(num_branches, episodes)) > 1
    check_rebuilt(episodes, settings, MarkupRenderer(Tokenizer.load(policy), TINY))


def test_another_method_or_a_changed_record_is_told_apart(policy: Path, played: dict[str, Played]) -> None:
    episode = next(one for one in played["sliding_window"].episodes if num_branches(one) > 1)
    renderer, tools = MarkupRenderer(Tokenizer.load(policy), TINY), TASKSET.open(TASKS[0]).tools.specs
    kept = rebuild(episode, LoopSettings(MAX_CALLS), tools, renderer)
    branch = next(place for place, one in enumerate(episode.completions) if place and one.parent_id is None)
    assert kept.num_same == branch and kept.difference is not None and f"call {branch}" in kept.difference
    last = episode.completions[-1]
    changed = replace(last, prompt_ids=(*last.prompt_ids[:-2], last.prompt_ids[0], last.prompt_ids[-1]))
    again = rebuild(
        replace(episode, completions=(*episode.completions[:-1], changed)),
        LoopSettings(MAX_CALLS, METHODS["sliding_window"]),
        tools,
        renderer,
    )
    assert again.num_same == len(episode.completions) - 1
    assert f"the first that differs is token {len(last.prompt_ids) - 2}" in (again.difference or "")


# --- sub-agents ---------------------------------------------------------------------------------------------------------

PAIR = next(task for task in TASKS if task.kind == "two_hop.pair")
SUB_AGENTS = LoopSettings(MAX_CALLS, depth=1, max_sub_agents=3)


def delegated_conversations(rng: random.Random) -> list[tuple[tuple[Message, ...], tuple[ToolSpec, ...]]]:
    """Both cities are given to sub-agents in one turn; each looks one up, rarely answering something else."""
    instance, attempt = TASKSET.instance(PAIR), TASKSET.open(PAIR)
    tools = attempt.tools.specs
    shown, answers = [], []
    for place, lookup in enumerate(instance.needed):
        question = f"What is the population of {lookup.entity}?"
        arguments = json.dumps({"name": lookup.entity})
        result = TASKSET.open_tools(PAIR).respond(lookup.tool, arguments)
        answers.append(ToolCall(f"d{place}", "delegate", json.dumps({"task": question})))
        called = Message("assistant", tool_calls=(ToolCall("c0", lookup.tool, arguments),))
        said = result if rng.random() < 0.8 else "none"
        sub = (Message("user", question), called, Message("tool", result, tool_call_id="c0"), Message("assistant", said))
        shown.append((sub, tools))
    values = instance.answer.split(" and ")
    results = [Message("tool", value, tool_call_id=call.call_id) for call, value in zip(answers, values, strict=True)]
    whole = (*PAIR.prompt, Message("assistant", tool_calls=tuple(answers)), *results, Message("assistant", instance.answer))
    return [*shown, (whole, (*tools, DELEGATE_SPEC))]


@pytest.fixture(scope="module")
def delegating_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("delegating")
    tokenizer = prepare_folder(folder, SIZES, pieces=(*vocabulary.PIECES, "delegate", "task"), characters=vocabulary.CHARACTERS)
    learner = Learner(init_decoder(DecoderConfig.from_hf(json.loads((folder / "config.json").read_text())), seed=1))
    learner.begin_phase(PhaseConfig(kind="supervised", optimizer=OptimizerConfig(lr=5e-3, warmup_steps=10)))
    renderer, rng = MarkupRenderer(tokenizer, TINY), random.Random(1)
    for _ in range(60):
        rendered = [render_conversation(renderer, *one) for _ in range(BATCH // 2) for one in delegated_conversations(rng)]
        batch = [_weighted(one.token_ids, one.is_action, 0.1) for one in rendered]
        learner.supervised_step(DemonstrationBatch.from_demonstrations(batch))
    save_decoder(learner.policy, folder)
    return folder


def test_every_token_of_every_branch_is_trained_once_with_the_episodes_advantage(delegating_policy: Path, tmp_path: Path) -> None:
    async def main() -> list[Group]:
        specs = [EpisodeSpec(PAIR, "g000000", attempt, seed=attempt) for attempt in range(16)]
        async with running(delegating_policy, tmp_path, max_calls=4 * MAX_CALLS) as bench:
            return await bench.play(ToolLoop(None, SUB_AGENTS), [specs])

    (group,) = asyncio.run(main())
    assert group.has_gradient and not [episode.failure for episode in group.episodes if episode.status == "failed"]
    fanned_out = [episode for episode in group.episodes if num_branches(episode) == 3]
    assert len(fanned_out) >= 4, "the agent and its two sub-agents"
    samples = samples_from_groups([group], baseline="leave_one_out")
    rewards = group.valid_rewards
    expected = [
        (one.prompt_ids + one.generation.token_ids, (len(rewards) * reward - sum(rewards)) / (len(rewards) - 1))
        for episode, reward in zip(group.episodes, rewards, strict=True)
        for one in episode.completions
    ]
    trained = [(sample.token_ids, max(sample.advantages, key=abs)) for sample in samples]
    assert [ids for ids, _ in trained] == [ids for ids, _ in expected]
    assert [advantage for _, advantage in trained] == pytest.approx([advantage for _, advantage in expected])
    sampled = sum(one.num_sampled for episode in group.episodes for one in episode.completions)
    assert sum(sum(sample.mask) for sample in samples) == sampled
    check_rebuilt(group.episodes, SUB_AGENTS, MarkupRenderer(Tokenizer.load(delegating_policy), TINY))
