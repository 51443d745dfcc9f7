"""The verdict on a lookup attempt, and the tools' record that it rests on."""

from __future__ import annotations

import asyncio
import json

import pytest

from trunkline.protocols import Attempt
from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset
from trunkline.tasks.lookup.vocabulary import BAD_ARGUMENTS, OVER_BUDGET, UNKNOWN_ENTITY, UNKNOWN_TOOL
from trunkline.tasks.lookup.world import ARGUMENTS
from trunkline.types import Task, Work


@pytest.fixture(scope="module")
def taskset() -> LookupTaskset:
    return LookupTaskset(LookupConfig())


def first_of(taskset: LookupTaskset, kind: str, split: str = "heldout") -> Task:
    return next(task for task in (taskset.task(split, index) for index in range(100)) if task.kind == kind)


def look_up(attempt: Attempt, tool: str, entity: str) -> str:
    return asyncio.run(attempt.tools.call(tool, json.dumps({ARGUMENTS[tool]: entity})))


def reward(attempt: Attempt, answer: str) -> float:
    (only,) = asyncio.run(attempt.verifier.verify(Work(answer)))
    assert only.name == "outcome"
    return only.value


def test_right_and_grounded_answer_earns_1(taskset: LookupTaskset) -> None:
    for split in taskset.splits:
        for index in range(50):
            task = taskset.task(split, index)
            attempt = taskset.open(task)
            for tool, entity in task.payload["needed"]:
                look_up(attempt, tool, entity)
            assert reward(attempt, f" {task.payload['answer']}\n") == 1.0


def test_right_answer_without_a_needed_fact_earns_0(taskset: LookupTaskset) -> None:
    task = first_of(taskset, "two_hop.capital_population")
    hop, last = task.payload["needed"]
    for made in ([], [hop], [last]):
        attempt = taskset.open(task)
        for tool, entity in made:
            look_up(attempt, tool, entity)
        assert reward(attempt, task.payload["answer"]) == 0.0


def test_part_of_a_name_is_another_entity(taskset: LookupTaskset) -> None:
    task = first_of(taskset, "two_hop.pair")
    attempt = taskset.open(task)
    for tool, entity in task.payload["needed"]:
        look_up(attempt, tool, entity[:-1])
        look_up(attempt, tool, f"{entity} ")
    assert reward(attempt, task.payload["answer"]) == 0.0


@pytest.mark.parametrize("addition", ["e", " km2", " or 1.0e5", "\n1.0e5"])
def test_answer_must_be_the_expected_text_alone(taskset: LookupTaskset, addition: str) -> None:
    task = first_of(taskset, "one_hop.area")
    attempt = taskset.open(task)
    look_up(attempt, *task.payload["needed"][0])
    assert reward(attempt, task.payload["answer"] + addition) == 0.0
    assert reward(attempt, task.payload["answer"]) == 1.0


def test_calls_within_the_budget_are_free_and_one_more_costs_everything(taskset: LookupTaskset) -> None:
    task = first_of(taskset, "one_hop.area")
    attempt = taskset.open(task)
    look_up(attempt, *task.payload["needed"][0])
    for entity in ("Peru", "Chile", "Mali"):
        look_up(attempt, "area", entity)
    assert reward(attempt, task.payload["answer"]) == 1.0
    assert look_up(attempt, "area", "Japan") == OVER_BUDGET
    assert reward(attempt, task.payload["answer"]) == 0.0


def test_attempts_share_no_record(taskset: LookupTaskset) -> None:
    task = first_of(taskset, "one_hop.area")
    look_up(taskset.open(task), *task.payload["needed"][0])
    assert reward(taskset.open(task), task.payload["answer"]) == 0.0


@pytest.mark.parametrize(
    "arguments",
    [
        *("", "{", "null", "[]", '"Peru"', "Peru", "[" * 100_000),
        *("{}", '{"name": "Peru"}', '{"country": "Peru", "more": 1}', '{"country": ["Peru"]}', '{"country": null}'),
        *('{"country": 5}', '{"country": 1' + "0" * 10_000 + "}", '{"country": 1e999}'),
    ],
)
def test_malformed_arguments_get_a_fixed_text_and_count_as_a_call(taskset: LookupTaskset, arguments: str) -> None:
    tools = taskset.open_tools(taskset.task("heldout", 0))
    assert tools.respond("area", arguments) == BAD_ARGUMENTS
    assert tools.num_calls == 1 and tools.retrievals == ()


def test_unknown_tool_and_unknown_entity_get_fixed_texts_and_count(taskset: LookupTaskset) -> None:
    tools = taskset.open_tools(taskset.task("heldout", 0))
    assert tools.respond("weather", '{"name": "Oslo"}') == UNKNOWN_TOOL
    assert tools.respond("area", '{"country": "Nowhere"}') == UNKNOWN_ENTITY
    assert tools.respond("population", '{"name": "\\ud800"}') == UNKNOWN_ENTITY
    assert tools.num_calls == 3 and tools.retrievals == ()


def test_evidence_says_what_was_returned_missing_expected_and_given(taskset: LookupTaskset) -> None:
    task = first_of(taskset, "two_hop.pair")
    attempt = taskset.open(task)
    (tool, first), (_, second) = task.payload["needed"]
    value = look_up(attempt, tool, first)
    (verdict,) = asyncio.run(attempt.verifier.verify(Work("9.9e9 \ud800" + "x" * 1000)))
    expected, missing = task.payload["answer"], task.payload["answer"].split(" and ")[1]
    assert verdict.evidence == (
        "answer '9.9e9 \\ud800" + "x" * 53 + f"...', expected '{expected}'; returned population({first})={value}; "
        f"missing population({second})={missing}; 1 of 4 calls"
    )
