"""The lookup taskset: splits, wording, worlds, vocabulary."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
from collections import Counter

import pytest

from trunkline.errors import ConfigError, VerifierError
from trunkline.models.tokenizer import Tokenizer, build_tiny_tokenizer
from trunkline.tasks.catalog import load_taskset
from trunkline.tasks.lookup.facts import side_of
from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset
from trunkline.tasks.lookup.vocabulary import BAD_ARGUMENTS, CHARACTERS, OVER_BUDGET, PIECES, TIMED_OUT, UNKNOWN_TOOL
from trunkline.tasks.lookup.world import ARGUMENTS, TOOL_SPECS, Lookup, World, format_value
from trunkline.types import Task

WORDINGS = {
    "one_hop.area": r"What is the area of (.+)\?",
    "one_hop.population": r"What is the population of (.+)\?",
    "two_hop.capital_population": r"What is the population of the capital of (.+)\?",
    "two_hop.pair": r"How many people live in (.+) and in (.+)\?",
    "comparison": r"Which has more inhabitants, (.+) or (.+)\?",
}
VALUE = r"\d\.\de([1-9]|10)"


@pytest.fixture(scope="module")
def taskset() -> LookupTaskset:
    return LookupTaskset(LookupConfig())


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tiny_tokenizer(special_tokens=["<|end|>"], pieces=PIECES, characters=CHARACTERS)


def tasks_of(taskset: LookupTaskset, split: str, num_tasks: int = 400) -> list[Task]:
    return [taskset.task(split, index) for index in range(num_tasks)]


def world_of(taskset: LookupTaskset, task: Task) -> World:
    return World(taskset.facts, taskset.instance(task).world)


def test_same_split_and_index_give_the_same_task_in_another_process(taskset: LookupTaskset) -> None:
    code = (
        "from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset\n"
        "taskset = LookupTaskset(LookupConfig())\n"
        "print([taskset.task(s, 10**9 + i) for s in ('train', 'heldout', 'heldout_comparison') for i in range(5)])\n"
        "import sys; assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == repr([taskset.task(s, 10**9 + i) for s in ("train", "heldout", "heldout_comparison") for i in range(5)])


@pytest.mark.parametrize("split", ["train", "heldout", "train_comparison", "heldout_comparison"])
def test_every_question_is_worded_as_its_kind(taskset: LookupTaskset, split: str) -> None:
    for task in tasks_of(taskset, split):
        assert (task.kind == "comparison") == split.endswith("comparison")
        question = re.fullmatch(WORDINGS[task.kind], task.prompt[0].content)
        assert question
        answer = task.payload["answer"]
        if task.kind == "comparison":
            assert answer in question.groups()
        else:
            assert re.fullmatch(f"{VALUE} and {VALUE}" if task.kind == "two_hop.pair" else VALUE, answer)


def test_kinds_come_by_their_weights(taskset: LookupTaskset) -> None:
    counts = Counter(task.kind for task in tasks_of(taskset, "train", 1800))
    expected = {"one_hop.area": 600, "one_hop.population": 600, "two_hop.capital_population": 300, "two_hop.pair": 300}
    assert all(abs(counts[kind] - number) < 5 * math.sqrt(number) for kind, number in expected.items())
    only_pairs = LookupTaskset(LookupConfig(kinds={"two_hop.pair": 1}))
    assert {task.kind for task in tasks_of(only_pairs, "train", 50)} == {"two_hop.pair"}


@pytest.mark.parametrize("split", ["heldout", "heldout_comparison"])
def test_heldout_tasks_need_heldout_entities_alone(taskset: LookupTaskset, split: str) -> None:
    for task in tasks_of(taskset, split):
        assert {side_of(entity) for _, entity in task.payload["needed"]} == {"heldout"}
        assert not task.payload["world"]["invented_cities"]


def test_training_tasks_never_need_a_heldout_entity(taskset: LookupTaskset) -> None:
    needed = {entity for task in tasks_of(taskset, "train", 1000) for _, entity in task.payload["needed"] if entity in taskset.facts}
    assert {side_of(entity) for entity in needed} == {"train"}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_invented_share_of_training_tasks_has_names_outside_the_table(share: float) -> None:
    taskset = LookupTaskset(LookupConfig(invented_share=share))
    for split in ("train", "train_comparison"):
        invented = [not any(entity in taskset.facts for _, entity in task.payload["needed"]) for task in tasks_of(taskset, split)]
        assert abs(sum(invented) / len(invented) - share) < 0.1


def test_values_are_perturbed_by_at_most_e_and_shown_at_two_digits(taskset: LookupTaskset) -> None:
    logs = []
    for task in tasks_of(taskset, "heldout"):
        value = float(world_of(taskset, task).answer(Lookup("population", "Oslo")))
        logs.append(math.log(value / taskset.facts.cities["Oslo"]))
    assert max(map(abs, logs)) < 1.05
    assert min(logs) < -0.9 and max(logs) > 0.9
    assert [format_value(value) for value in (7_650_001, 10, 99.6, 3.0e10)] == ["7.7e6", "1.0e1", "1.0e2", "3.0e10"]


def test_every_real_value_has_an_exponent_of_the_vocabulary(taskset: LookupTaskset) -> None:
    extremes = [bound for country in taskset.facts.countries.values() for bound in (country.area_km2 / math.e, country.population * math.e)]
    for value in (min(extremes), max(extremes), min(taskset.facts.cities.values()) / math.e):
        assert re.fullmatch(VALUE, format_value(value))


def test_lookup_is_a_function_of_instance_and_call(taskset: LookupTaskset) -> None:
    task, other = taskset.task("heldout", 0), taskset.task("heldout", 1)
    lookups = [Lookup(tool, name) for tool in ("population", "capital", "area") for name in ("Peru", "Oslo", "Nowhere")]
    answers = [world_of(taskset, task).answer(lookup) for lookup in lookups]
    assert answers == [world_of(taskset, task).answer(lookup) for lookup in reversed(lookups)][::-1]
    assert answers != [world_of(taskset, other).answer(lookup) for lookup in lookups]
    unknown = [answer for lookup, answer in zip(lookups, answers, strict=True) if answer == "none"]
    assert len(unknown) == 5  # all of Nowhere; capital and area of Oslo


def test_compared_cities_differ_in_what_is_shown(taskset: LookupTaskset) -> None:
    for task in tasks_of(taskset, "heldout_comparison"):
        world = world_of(taskset, task)
        larger, smaller = sorted((world.population(entity), entity) for _, entity in task.payload["needed"])[::-1]
        assert larger[0] > smaller[0] and task.payload["answer"] == larger[1]


def test_vocabulary_covers_every_text_and_every_name_is_spelled(taskset: LookupTaskset, tokenizer: Tokenizer) -> None:
    rng = random.Random(0)
    for split in taskset.splits:
        for task in tasks_of(taskset, split, 800):
            messages = taskset.demonstrate(task, rng, decision_noise=0.4)
            texts = [message.content for message in messages]
            texts += [
                text for message in messages for call in message.tool_calls for text in (call.name, *json.loads(call.arguments).values())
            ]
            for text in texts:
                assert tokenizer.decode(tokenizer.encode(text)) == text
            for _, name in task.payload["needed"]:
                assert spelled_in(tokenizer, task.prompt[0].content, name) or name not in task.prompt[0].content


def test_every_name_of_the_table_is_spelled_in_every_template(taskset: LookupTaskset, tokenizer: Tokenizer) -> None:
    for name in taskset.facts.countries:
        for template in ("What is the area of {}?", "What is the population of {}?", "What is the population of the capital of {}?", "{}"):
            assert spelled_in(tokenizer, template.format(name), name)
    for name in random.Random(0).sample(sorted(taskset.facts.cities), 4000):
        for template in ("How many people live in {0} and in {0}?", "Which has more inhabitants, {0} or {0}?", "{}"):
            assert spelled_in(tokenizer, template.format(name), name)


def spelled_in(tokenizer: Tokenizer, text: str, name: str) -> bool:
    """True if the tokens of `name` in `text` are its characters."""
    ids, characters = tokenizer.encode(text), [tokenizer.token_id(character) for character in name]
    return any(ids[start : start + len(characters)] == characters for start in range(len(ids)))


def test_tool_syntax_and_fixed_texts_are_single_tokens(tokenizer: Tokenizer) -> None:
    for spec in TOOL_SPECS:
        for piece in (spec.name, *spec.parameters["properties"], "none", BAD_ARGUMENTS, UNKNOWN_TOOL, OVER_BUDGET):
            assert tokenizer.encode(piece) == [tokenizer.token_id(piece)]
    assert tokenizer.vocab_size <= 100


def test_unknown_split_index_taskset_and_knob_say_what_there_is(taskset: LookupTaskset) -> None:
    with pytest.raises(ConfigError, match="heldout_comparison"):
        taskset.task("test", 0)
    with pytest.raises(ConfigError, match="indices start at 0"):
        taskset.task("train", -1)
    with pytest.raises(ConfigError, match=r"choose one of \['lookup', 'swe'\]"):
        load_taskset("poetry", {})
    with pytest.raises(ConfigError, match="call_budget"):
        load_taskset("lookup", {"budget": 3})
    with pytest.raises(ConfigError, match="positive sum"):
        load_taskset("lookup", {"kinds": {}})


def test_payload_survives_json(taskset: LookupTaskset) -> None:
    task = taskset.task("train", 1)
    assert json.loads(json.dumps(task.payload)) == task.payload


def test_foreign_payload_gives_no_verdict(taskset: LookupTaskset) -> None:
    with pytest.raises(VerifierError, match="no lookup instance"):
        taskset.open(Task("train/0", "lookup", "one_hop.area", (), {"answer": "1.0e1"}))


def test_a_lookup_that_times_out_works_when_it_is_made_again_and_the_needed_ones_stay_affordable() -> None:
    taskset = LookupTaskset.from_options({"timeout_share": 0.5})
    num_timeouts = 0
    for index in range(40):
        task = taskset.task("heldout", index)
        tools, steady = taskset.open_tools(task), taskset.open_steady_tools(task)
        for lookup in taskset.instance(task).needed:
            arguments = json.dumps({ARGUMENTS[lookup.tool]: lookup.entity})
            first = tools.respond(lookup.tool, arguments)
            num_timeouts += first == TIMED_OUT
            assert (tools.respond(lookup.tool, arguments) if first == TIMED_OUT else first) == steady.respond(lookup.tool, arguments)
        assert tools.num_calls <= tools.call_budget
    assert 10 < num_timeouts < 50


def test_demonstrations_never_show_a_timeout() -> None:
    taskset = LookupTaskset.from_options({"timeout_share": 0.9})
    for index in range(20):
        messages = taskset.demonstrate(taskset.task("train", index), random.Random(index), decision_noise=0.0)
        assert all(message.content != TIMED_OUT for message in messages)


def test_timeouts_need_calls_to_repeat_a_lookup() -> None:
    with pytest.raises(ConfigError, match="at least 4, got 3"):
        LookupTaskset.from_options({"timeout_share": 0.1, "call_budget": 3})
