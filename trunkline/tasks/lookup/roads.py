"""Long lookups: a fact to remember, then a road to its end, one city a call. Owns drawing and demonstrating them; no verdict.

What is the population of the capital of Peru and where does its road end?

    capital(Peru) ─► Oslo    population(Oslo) ─► 7.7e6    next(Oslo) ─► Lima    next(Lima) ─► Bonn    next(Bonn) ─► none
                                                                                                answer: 7.7e6 and Bonn

Only two things of the past matter at any time: the population, which is asked at the start and told at the end, and the last
city. An agent whose context forgets must carry the population along: demonstrations do so, in words before their call, in
`note_share` of the turns.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from trunkline.tasks.lookup.facts import FactTable, Side
from trunkline.tasks.lookup.questions import Instance, Names, Question, names_of
from trunkline.tasks.lookup.vocabulary import (
    AND,
    AND_WHERE_ITS_ROAD_ENDS,
    CAPITAL,
    NEXT,
    POPULATION,
    POPULATION_OF,
    ROAD_PIECES,
    THE_CAPITAL_OF,
    WHAT_IS_THE,
)
from trunkline.tasks.lookup.world import Lookup, World, WorldSpec, format_value

LOOKUPS_BESIDE_THE_ROAD = 2
"""Capital and population; then one for each stop, and one that finds the end."""

_RANDOM_EXPONENTS = (3.0, 9.0)


class Roads(NamedTuple):
    """How long roads and names are."""

    fewest_stops: int
    """Cities behind the capital, at least 1."""
    most_stops: int
    """The same at most."""
    longest_name: int
    """Characters of a city on the road at most."""


def draw_road(rng: random.Random, facts: FactTable, roads: Roads, *, instance: str, side: Side, invented: bool) -> Question:
    """A road behind a country's capital, in a world of its own."""
    num_stops = rng.randint(roads.fewest_stops, roads.most_stops)
    names = names_of(rng, facts, side, invented=invented)
    while True:
        country, *stops = names.country(), *(_short(names, roads.longest_name) for _ in range(num_stops))
        invented_capital = names.city()
        spec = WorldSpec(
            instance=instance,
            side=side,
            invented_countries={country: invented_capital} if invented else {},
            invented_cities=tuple(stops) if invented else (),
        )
        capital = World(facts, spec).answer(Lookup(CAPITAL, country))
        road = (capital, *stops)
        if len({country, *road}) == len(road) + 1 and not any(piece in name for name in (country, *road) for piece in ROAD_PIECES):
            break
    spec = spec.model_copy(update={"road": road})
    population = Lookup(POPULATION, capital)
    needed = (Lookup(CAPITAL, country), population, *(Lookup(NEXT, city) for city in road[:-1]))
    answer = f"{World(facts, spec).answer(population)}{AND}{road[-1]}"
    text = f"{WHAT_IS_THE}{POPULATION_OF}{THE_CAPITAL_OF}{country}{AND_WHERE_ITS_ROAD_ENDS}"
    return Question(text=text, instance=Instance(world=spec, needed=needed, answer=answer))


def _short(names: Names, longest: int) -> str:
    while len(name := names.city()) > longest:
        pass
    return name


def turns_of(instance: Instance) -> tuple[Lookup, ...]:
    """What an oracle looks up: what is needed, and on a road then beyond the last city, which shows that it ends there."""
    return (*instance.needed, *(Lookup(NEXT, city) for city in instance.world.road[-1:]))


def wrong_end(instance: Instance, rng: random.Random) -> str:
    """An answer of the right form that is wrong in one of its two parts."""
    value, end = instance.answer.split(AND)
    if rng.random() < 0.5:
        return f"{value}{AND}{rng.choice([city for city in instance.world.road if city != end])}"
    while True:
        drawn = format_value(10 ** rng.uniform(*_RANDOM_EXPONENTS))
        if drawn != value:
            return f"{drawn}{AND}{end}"


def note_of(instance: Instance, lookup: Lookup) -> str:
    """What is worth carrying along when `lookup` is made: the population, once it is known."""
    return instance.answer.split(AND)[0] if lookup.tool == NEXT else ""
