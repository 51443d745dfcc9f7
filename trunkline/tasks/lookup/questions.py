"""Draws one instance: names, wording, the lookups it needs and its answer. Owns no weights of kinds and no tools."""

from __future__ import annotations

import random
import string
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from trunkline.tasks.lookup.facts import FactTable, Side
from trunkline.tasks.lookup.vocabulary import (
    AND,
    AND_IN,
    AREA,
    AREA_OF,
    CAPITAL,
    HOW_MANY_LIVE_IN,
    OR,
    POPULATION,
    POPULATION_OF,
    THE_CAPITAL_OF,
    WHAT_IS_THE,
    WHICH_HAS_MORE,
    is_spelled,
)
from trunkline.tasks.lookup.world import Lookup, World, WorldSpec

ShortKind = Literal["one_hop.area", "one_hop.population", "two_hop.capital_population", "two_hop.pair", "comparison"]
Kind = Literal[ShortKind, "road"]

INDEPENDENT_KINDS: tuple[Kind, ...] = ("two_hop.pair", "comparison")
"""Kinds whose lookups do not wait for each other's results."""

_COUNTRY_SHARE = 0.3
_SHORTEST_NAME, _LONGEST_NAME = 3, 14
_TWO_WORD_SHARE = 0.2


class Instance(BaseModel):
    """A task's payload: enough to open the same world again and to judge."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    world: WorldSpec
    """What lookups answer."""
    needed: tuple[Lookup, ...]
    """Without all of these an answer is not grounded; in an order that works."""
    answer: str
    """The one text that is right."""


class Question(BaseModel):
    """An instance and its wording."""

    model_config = ConfigDict(frozen=True)

    text: str
    """What the agent is asked."""
    instance: Instance
    """The rest."""


class Names(Protocol):
    """Where an instance's entities come from."""

    def country(self) -> str:
        """A country's name."""
        ...

    def city(self) -> str:
        """A city's name."""
        ...


class RealNames:
    """Names of one side of the table."""

    def __init__(self, rng: random.Random, facts: FactTable, side: Side) -> None:
        self._rng = rng
        self._countries = facts.countries_by_side[side]
        self._cities = facts.cities_by_side[side]

    def country(self) -> str:
        """Uniform over the side's countries."""
        return self._rng.choice(self._countries)

    def city(self) -> str:
        """Uniform over the side's cities."""
        return self._rng.choice(self._cities)


class InventedNames:
    """Random letters in the shape of names: they can only be copied, never remembered."""

    def __init__(self, rng: random.Random, facts: FactTable) -> None:
        self._rng = rng
        self._facts = facts

    def country(self) -> str:
        """Like city()."""
        return self.city()

    def city(self) -> str:
        """A name that is not in the table."""
        while True:
            length = self._rng.randint(_SHORTEST_NAME, _LONGEST_NAME)
            letters = "".join(self._rng.choices(string.ascii_lowercase, k=length))
            if length >= 2 * _SHORTEST_NAME and self._rng.random() < _TWO_WORD_SHARE:
                cut = self._rng.randint(2, length - 3)
                letters = f"{letters[:cut]} {letters[cut + 1 :]}"
            name = letters.title()
            if is_spelled(name) and name not in self._facts:
                return name


def names_of(rng: random.Random, facts: FactTable, side: Side, *, invented: bool) -> Names:
    """Where an instance's entities come from."""
    return InventedNames(rng, facts) if invented else RealNames(rng, facts, side)


def draw_question(kind: ShortKind, rng: random.Random, facts: FactTable, *, instance: str, side: Side, invented: bool) -> Question:
    """A question of `kind` in a world of its own; two cities that are compared differ in what is shown of them."""
    names = names_of(rng, facts, side, invented=invented)
    while True:
        country, first, second, capital = drawn = (names.country(), names.city(), names.city(), names.city())
        if len(set(drawn)) < len(drawn):
            continue
        spec = WorldSpec(
            instance=instance,
            side=side,
            invented_countries={country: capital} if invented else {},
            invented_cities=(first, second) if invented else (),
        )
        if kind == "one_hop.population" and rng.random() < _COUNTRY_SHARE:
            first = country
        world = World(facts, spec)
        if kind == "comparison" and world.population(first) == world.population(second):
            continue
        text, needed, answer = _worded(kind, world, country=country, first=first, second=second)
        return Question(text=text, instance=Instance(world=spec, needed=needed, answer=answer))


def _worded(kind: ShortKind, world: World, *, country: str, first: str, second: str) -> tuple[str, tuple[Lookup, ...], str]:
    """Text, needed lookups and answer."""
    first_lookup, second_lookup = Lookup(POPULATION, first), Lookup(POPULATION, second)
    match kind:
        case "one_hop.area":
            lookup = Lookup(AREA, country)
            return f"{WHAT_IS_THE}{AREA_OF}{country}?", (lookup,), world.answer(lookup)
        case "one_hop.population":
            return f"{WHAT_IS_THE}{POPULATION_OF}{first}?", (first_lookup,), world.answer(first_lookup)
        case "two_hop.capital_population":
            hop = Lookup(CAPITAL, country)
            last = Lookup(POPULATION, world.answer(hop))
            return f"{WHAT_IS_THE}{POPULATION_OF}{THE_CAPITAL_OF}{country}?", (hop, last), world.answer(last)
        case "two_hop.pair":
            answer = f"{world.answer(first_lookup)}{AND}{world.answer(second_lookup)}"
            return f"{HOW_MANY_LIVE_IN}{first}{AND_IN}{second}?", (first_lookup, second_lookup), answer
        case "comparison":
            larger = first if world.population(first) > world.population(second) else second
            return f"{WHICH_HAS_MORE}{first}{OR}{second}?", (first_lookup, second_lookup), larger
