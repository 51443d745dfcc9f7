"""Questions about roads: what they need, what their tools say, what demonstrations carry along."""

from __future__ import annotations

import json
import random
import re

import pytest

from trunkline.errors import ConfigError
from trunkline.models.tokenizer import build_tiny_tokenizer
from trunkline.tasks.catalog import load_taskset
from trunkline.tasks.certificates.generator import certify_taskset
from trunkline.tasks.lookup.facts import side_of
from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset
from trunkline.tasks.lookup.vocabulary import PIECES, ROAD_PIECES, UNKNOWN_ENTITY, UNKNOWN_TOOL
from trunkline.tasks.lookup.world import ARGUMENTS
from trunkline.types import Message, Task

TASKSET = LookupTaskset(LookupConfig(kinds={"road": 1}, stops=(2, 7), longest_stop=6, call_budget=11, note_share=0.5))
TASKS = [TASKSET.task(split, index) for split in ("train", "heldout") for index in range(100)]


def look_up(task: Task, tool: str, entity: str) -> str:
    tools = TASKSET.open_tools(task)
    return tools.respond(tool, json.dumps({tools.arguments[tool]: entity}))


def test_a_road_leads_from_the_capital_to_its_last_stop() -> None:
    for task in TASKS:
        found = re.fullmatch(r"What is the population of the capital of (.+) and where does its road end\?", task.prompt[0].content)
        assert found is not None and task.kind == "road"
        city, stops = look_up(task, "capital", found[1]), []
        value = look_up(task, "population", city)
        while (onwards := look_up(task, "next", stops[-1] if stops else city)) != UNKNOWN_ENTITY:
            stops.append(onwards)
        assert 2 <= len(stops) <= 7 and all(len(stop) <= 6 for stop in stops) and len({city, *stops}) == len(stops) + 1
        assert task.payload["answer"] == f"{value} and {stops[-1]}"
        assert len(task.payload["needed"]) == 2 + len(stops)


def test_heldout_roads_lead_through_heldout_cities() -> None:
    assert {side_of(stop) for task in TASKS[100:] for stop in task.payload["world"]["road"]} == {"heldout"}


def test_roads_have_a_tool_of_their_own_and_other_questions_keep_theirs() -> None:
    assert [spec.name for spec in TASKSET.open(TASKS[0]).tools.specs] == ["population", "capital", "next"]
    assert look_up(TASKS[0], "next", "Nowhere") == UNKNOWN_ENTITY
    other = LookupTaskset(LookupConfig())
    tools = other.open_tools(other.task("train", 0))
    assert [spec.name for spec in tools.specs] == list(ARGUMENTS) and tools.respond("next", '{"name": "Lima"}') == UNKNOWN_TOOL
    assert other.pieces == PIECES and TASKSET.pieces == PIECES + ROAD_PIECES


def test_the_vocabulary_writes_every_text() -> None:
    tokenizer = build_tiny_tokenizer(special_tokens=["<|end|>"], pieces=TASKSET.pieces, characters=TASKSET.characters)
    for task in TASKS:
        for message in TASKSET.demonstrate(task, random.Random(0), decision_noise=0.2):
            assert tokenizer.decode(tokenizer.encode(message.content)) == message.content if message.content else True
        for stop in task.payload["world"]["road"]:
            assert len(tokenizer.encode(stop)) == len(stop), "names are spelled"


def right(task: Task, messages: tuple[Message, ...]) -> bool:
    return messages[-1].content == task.payload["answer"]


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.0), (0.5, 0.4, 0.6), (1.0, 1.0, 1.0)])
def test_demonstrations_are_right_and_repeat_the_population_in_a_share_of_the_turns(share: float, low: float, high: float) -> None:
    taskset = LookupTaskset(TASKSET.config.model_copy(update={"note_share": share}))
    notes = []
    for task in TASKS:
        shown = taskset.demonstrate(task, random.Random(task.task_id), decision_noise=0.0)
        assert right(task, shown)
        value = task.payload["answer"].split(" and ")[0]
        turns = [message for message in shown if message.tool_calls and message.tool_calls[0].name == "next"]
        assert {message.content for message in turns} <= {"", value}
        assert not any(message.content for message in shown if message.tool_calls and message.tool_calls[0].name != "next")
        notes += [message.content == value for message in turns]
    assert low <= sum(notes) / len(notes) <= high


def test_noise_makes_some_answers_wrong_in_one_part() -> None:
    answers = [(task, TASKSET.demonstrate(task, random.Random(task.task_id), decision_noise=0.3)) for task in TASKS]
    wrong = [(task.payload["answer"].split(" and "), shown[-1].content.split(" and ")) for task, shown in answers if not right(task, shown)]
    assert len(wrong) > 50 and all(len(given) == 2 and sum(map(str.__ne__, expected, given)) == 1 for expected, given in wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": {"road": 1}, "stops": [2, 7], "call_budget": 9}, "needs a call_budget of at least 10, got 9"),
        ({"kinds": {"road": 1}, "stops": [3, 2]}, "1 <= fewest <= most"),
    ],
)
def test_a_budget_that_no_oracle_can_keep_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_taskset("lookup", options)


def test_the_verifier_of_roads_pays_the_oracle_alone() -> None:
    certificate = certify_taskset(TASKSET)
    assert certificate.num_tasks_by_kind["road"] >= 200 and all(check.passed for check in certificate.checks)
