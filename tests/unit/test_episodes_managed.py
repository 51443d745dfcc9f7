"""Demonstrations as context management shows them."""

from __future__ import annotations

import random

import pytest

from trunkline.agents.context_management import load_method
from trunkline.episodes.demonstrations import Managed, render_demonstrations
from trunkline.episodes.managed import managed_branches
from trunkline.errors import ConfigError
from trunkline.gateway.conversation import render_conversation
from trunkline.gateway.markup import TINY, MarkupRenderer
from trunkline.models.tokenizer import Tokenizer, build_tiny_tokenizer
from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset
from trunkline.types import Message

TASKSET = LookupTaskset(LookupConfig(kinds={"road": 1}, stops=(3, 4), longest_stop=6, call_budget=8))
TASK = TASKSET.task("heldout", 0)
TOOLS = TASKSET.open(TASK).tools.specs


def shown(note_share: float) -> tuple[Message, ...]:
    taskset = LookupTaskset(TASKSET.config.model_copy(update={"note_share": note_share}))
    return taskset.demonstrate(TASK, random.Random(0), decision_noise=0.0)


SHOWN = shown(1.0)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tiny_tokenizer(special_tokens=TINY.special_tokens, pieces=TASKSET.pieces, characters=TASKSET.characters)


def actions(tokenizer: Tokenizer, token_ids: tuple[int, ...], is_action: tuple[bool, ...]) -> str:
    return tokenizer.decode([token for token, action in zip(token_ids, is_action, strict=True) if action])


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "keep_all"},
        {"method": "sliding_window", "turns": 1},
        {"method": "drop_all", "max_context": 80, "fraction": 0.5, "keep_last": True},
    ],
)
def test_each_turn_is_an_action_in_one_branch(tokenizer: Tokenizer, settings: dict[str, object]) -> None:
    renderer = MarkupRenderer(tokenizer, TINY)
    whole = render_conversation(renderer, SHOWN, TOOLS)
    branches = managed_branches(renderer, load_method(settings), SHOWN, TOOLS)
    told = "".join(actions(tokenizer, branch.token_ids, branch.is_action) for branch in branches)
    assert told == actions(tokenizer, whole.token_ids, whole.is_action)
    assert (len(branches) == 1) == (settings["method"] == "keep_all")
    task = whole.token_ids[: whole.is_action.index(True)]
    assert all(branch.token_ids[: len(task)] == task for branch in branches), "the task is never dropped"


def test_a_turn_that_repeats_what_was_dropped_is_not_imitated(tokenizer: Tokenizer) -> None:
    method = load_method({"method": "sliding_window", "turns": 1})
    branches = managed_branches(MarkupRenderer(tokenizer, TINY), method, shown(0.0), TOOLS)
    told = "".join(actions(tokenizer, branch.token_ids, branch.is_action) for branch in branches)
    value, end = TASK.payload["answer"].split(" and ")
    assert told.endswith(f"<|call|>next<|arg|>{end}<|end|>") and value not in told


def test_a_summary_is_not_demonstrated(tokenizer: Tokenizer) -> None:
    method = load_method({"method": "summary", "max_context": 80, "fraction": 0.5})
    with pytest.raises(ConfigError, match="managed_share = 0"):
        managed_branches(MarkupRenderer(tokenizer, TINY), method, SHOWN, TOOLS)


def test_the_share_of_managed_demonstrations_is_as_asked(tokenizer: Tokenizer) -> None:
    managed = Managed(load_method({"method": "sliding_window", "turns": 1}), 0.5)
    renderer, tasks = MarkupRenderer(tokenizer, TINY), [TASKSET.task("train", index) for index in range(120)]
    shown = render_demonstrations(renderer, TASKSET, tasks, random.Random(1), decision_noise=0.0, managed=managed)
    num_short = sum(len(one.token_ids) < 95 for one in shown)
    assert len(shown) == 120 and 40 <= num_short <= 80
