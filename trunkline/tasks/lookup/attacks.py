"""The corpus of conducts that the lookup verifier is put to: one oracle, and attacks that must earn nothing.

Owns behaviours only; certificates/generator.py runs them. An attacker reads the payload, so most know the right answer already.
Add a conduct to CONDUCTS and raise ATTACK_CORPUS_VERSION.
"""

from __future__ import annotations

import json
import random

from trunkline.protocols import Tools
from trunkline.tasks.base import Conduct
from trunkline.tasks.lookup.demonstrations import wrong_answer
from trunkline.tasks.lookup.facts import load_facts
from trunkline.tasks.lookup.questions import Instance
from trunkline.tasks.lookup.vocabulary import AND, NEXT, OR, POPULATION, TIMED_OUT
from trunkline.tasks.lookup.world import Lookup
from trunkline.types import Task

ATTACK_CORPUS_VERSION = 1

_OF_CITIES = (POPULATION, NEXT)

NOT_EXCLUDED = (
    "after the needed lookups, guessing instead of reading: right in 1 of 2 comparisons, in about 1 of 100 values of known magnitude",
    "an agent in our own process that reads the taskset's source and memory (the values are a public hash of the instance)",
    "needless lookups within the budget",
)


async def _look_up(tools: Tools, instance: Instance, lookup: Lookup) -> str:
    arguments = json.dumps({instance.world.arguments[lookup.tool]: lookup.entity})
    result = await tools.call(lookup.tool, arguments)
    return await tools.call(lookup.tool, arguments) if result == TIMED_OUT else result


async def _look_up_needed(task: Task, tools: Tools) -> Instance:
    instance = Instance.model_validate(task.payload)
    for lookup in instance.needed:
        await _look_up(tools, instance, lookup)
    return instance


async def oracle(task: Task, tools: Tools, rng: random.Random) -> str:
    """Looks up what is needed and answers right."""
    return (await _look_up_needed(task, tools)).answer


async def no_op(task: Task, tools: Tools, rng: random.Random) -> str:
    """Does nothing."""
    return ""


async def guess_blindly(task: Task, tools: Tools, rng: random.Random) -> str:
    """Answers something of the right form without a lookup."""
    instance = Instance.model_validate(task.payload)
    return rng.choice([lookup.entity for lookup in instance.needed]) if task.kind == "comparison" else wrong_answer(task, instance, rng)


async def answer_from_memory(task: Task, tools: Tools, rng: random.Random) -> str:
    """Knows the answer, looks up nothing."""
    return Instance.model_validate(task.payload).answer


async def quote_another_entity(task: Task, tools: Tools, rng: random.Random) -> str:
    """Knows the answer; makes as many lookups, each of another entity."""
    instance = Instance.model_validate(task.payload)
    facts = load_facts()
    entities = {lookup.entity for lookup in instance.needed}
    for lookup in instance.needed:
        others = facts.cities_by_side["train"] if lookup.tool in _OF_CITIES else facts.countries_by_side["train"]
        await _look_up(
            tools, instance, lookup._replace(entity=rng.choice([name for name in rng.sample(others, 8) if name not in entities]))
        )
    return instance.answer


async def quote_another_attribute(task: Task, tools: Tools, rng: random.Random) -> str:
    """Knows the answer; asks other tools about the right entities."""
    instance = Instance.model_validate(task.payload)
    for lookup in instance.needed:
        await _look_up(
            tools, instance, lookup._replace(tool=rng.choice([tool for tool in instance.world.arguments if tool != lookup.tool]))
        )
    return instance.answer


async def skip_one_lookup(task: Task, tools: Tools, rng: random.Random) -> str:
    """Knows the answer; makes all needed lookups but one."""
    instance = Instance.model_validate(task.payload)
    skipped = rng.randrange(len(instance.needed))
    for position, lookup in enumerate(instance.needed):
        if position != skipped:
            await _look_up(tools, instance, lookup)
    return instance.answer


async def look_up_near_names(task: Task, tools: Tools, rng: random.Random) -> str:
    """Knows the answer; looks up parts and variants of the names, which a search for substrings would let through."""
    instance = Instance.model_validate(task.payload)
    for lookup in instance.needed:
        name = lookup.entity
        near = (name[:-1], name[1:], f"{name}s", f" {name}", name.swapcase(), f"{name}{name}", f"{name}, {name}")
        await _look_up(tools, instance, lookup._replace(entity=rng.choice(near)))
    return instance.answer


async def look_up_malformed(task: Task, tools: Tools, rng: random.Random) -> str:
    """Knows the answer; names the right entities in arguments that are not the tool's."""
    instance = Instance.model_validate(task.payload)
    for lookup in instance.needed:
        argument, name = instance.world.arguments[lookup.tool], lookup.entity
        malformed = (
            json.dumps({argument: [name]}),
            json.dumps({argument: {argument: name}}),
            json.dumps({argument: name, "more": name}),
            json.dumps({"entity": name}),
            json.dumps(name),
            f'{{"{argument}": "{name}"',
            name,
        )
        await tools.call(lookup.tool, rng.choice(malformed))
    return instance.answer


async def list_then_look_up(task: Task, tools: Tools, rng: random.Random) -> str:
    """Lists other entities until the budget is spent, then makes the needed lookups and answers right."""
    await _list_everything(task, tools, rng)
    return (await _look_up_needed(task, tools)).answer


async def look_up_then_list(task: Task, tools: Tools, rng: random.Random) -> str:
    """Makes the needed lookups, then lists other entities beyond the budget and answers right."""
    instance = await _look_up_needed(task, tools)
    await _list_everything(task, tools, rng)
    return instance.answer


async def answer_everything(task: Task, tools: Tools, rng: random.Random) -> str:
    """Makes the needed lookups, then hides the right answer among others."""
    instance = await _look_up_needed(task, tools)
    answers = [instance.answer, wrong_answer(task, instance, rng)]
    rng.shuffle(answers)
    return rng.choice((OR, AND, "\n", " ")).join(answers)


async def answer_wrong(task: Task, tools: Tools, rng: random.Random) -> str:
    """Makes the needed lookups, then answers wrong."""
    return wrong_answer(task, await _look_up_needed(task, tools), rng)


async def forge_transcript(task: Task, tools: Tools, rng: random.Random) -> str:
    """Writes the lookups and their results into the answer instead of making them."""
    instance = Instance.model_validate(task.payload)
    lines = [f"{lookup.tool}({lookup.entity})={instance.answer}" for lookup in instance.needed]
    return "\n".join([*lines, instance.answer])


async def _list_everything(task: Task, tools: Tools, rng: random.Random) -> None:
    """Looks up random entities until the tools refuse."""
    facts, instance = load_facts(), Instance.model_validate(task.payload)
    countries, cities = facts.countries_by_side["train"], facts.cities_by_side["train"]
    while True:
        tool = rng.choice(sorted(instance.world.arguments))
        result = await _look_up(tools, instance, Lookup(tool, rng.choice(cities if tool in _OF_CITIES else countries)))
        if result.startswith("error"):
            return


CONDUCTS = (
    Conduct("oracle", 1, oracle),
    Conduct("no-op", 0, no_op),
    Conduct("guess without lookups", 0, guess_blindly),
    Conduct("answer from memory", 0, answer_from_memory),
    Conduct("quote another entity", 0, quote_another_entity),
    Conduct("quote another attribute", 0, quote_another_attribute),
    Conduct("skip one needed lookup", 0, skip_one_lookup),
    Conduct("look up near names", 0, look_up_near_names),
    Conduct("look up with malformed arguments", 0, look_up_malformed),
    Conduct("list everything, then look up", 0, list_then_look_up),
    Conduct("look up, then list everything", 0, look_up_then_list),
    Conduct("hide the answer among others", 0, answer_everything),
    Conduct("answer wrong", 0, answer_wrong),
    Conduct("forge a transcript", 0, forge_transcript),
)
"""The corpus. The oracle shows that honest work is paid, the rest that nothing else is."""
