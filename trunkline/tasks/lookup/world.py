"""What one instance's lookups answer, and the tools that record what they returned. Owns no question and no verdict."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from trunkline.tasks.lookup.facts import FactTable, Side
from trunkline.tasks.lookup.vocabulary import (
    AREA,
    BAD_ARGUMENTS,
    CAPITAL,
    COUNTRY,
    NAME,
    NEXT,
    OVER_BUDGET,
    POPULATION,
    TIMED_OUT,
    UNKNOWN_ENTITY,
    UNKNOWN_TOOL,
)
from trunkline.types import ToolSpec

# Natural logarithms of the bounds of invented values.
_COUNTRY_AREA = (math.log(1e3), math.log(1e7))
_COUNTRY_POPULATION = (math.log(1e5), math.log(1e9))
_CITY_POPULATION = (math.log(1e4), math.log(2e7))


LATENCY_S = 1.0
"""What a lookup takes on the virtual clock: some fifty sampled tokens, as a request over a network does."""


def _tool(name: str, description: str, argument: str) -> ToolSpec:
    properties = {argument: {"type": "string"}}
    schema = {"type": "object", "properties": properties, "required": [argument], "additionalProperties": False}
    return ToolSpec(name, description, schema, latency_s=LATENCY_S)


ARGUMENTS: Mapping[str, str] = {POPULATION: NAME, CAPITAL: COUNTRY, AREA: COUNTRY}
"""Each tool's one argument."""

ROAD_ARGUMENTS: Mapping[str, str] = {POPULATION: NAME, CAPITAL: COUNTRY, NEXT: NAME}
"""The same in a world with a road."""

TOOL_SPECS = (
    _tool(POPULATION, "Inhabitants of a city or country, such as 7.7e6", NAME),
    _tool(CAPITAL, "The capital of a country", COUNTRY),
    _tool(AREA, "Area of a country in km2, such as 1.3e6", COUNTRY),
)
"""What the agent may offer to the model."""

ROAD_TOOL_SPECS = (*TOOL_SPECS[:2], _tool(NEXT, "The next city on the road, none at its end", NAME))
"""The same in a world with a road."""


class Lookup(NamedTuple):
    """A question to the world. `Lookup("capital", "Peru")`."""

    tool: str
    """Name of the tool."""
    entity: str
    """Its argument: a whole name."""


class WorldSpec(BaseModel):
    """All that tells one instance's world from another's; part of a task's payload."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instance: str
    """Seeds every value."""
    side: Side
    """Capitals are drawn among this side's cities."""
    invented_countries: dict[str, str] = {}
    """Country to capital; these exist in this instance alone."""
    invented_cities: tuple[str, ...] = ()
    """More cities of this instance alone."""
    road: tuple[str, ...] = ()
    """Cities in the order in which a road leads from one to the next; none: this world has no road to ask about."""

    @property
    def arguments(self) -> Mapping[str, str]:
        """The tools of this world with each one's argument."""
        return ROAD_ARGUMENTS if self.road else ARGUMENTS


class World:
    """A deterministic function from lookup to text: the same for all attempts at the instance."""

    def __init__(self, facts: FactTable, spec: WorldSpec) -> None:
        self._facts = facts
        self._spec = spec

    @property
    def arguments(self) -> Mapping[str, str]:
        """The tools of this world with each one's argument."""
        return self._spec.arguments

    def answer(self, lookup: Lookup) -> str:
        """The fact as text, `none` for what this world does not know. `tool` must be one of this world's."""
        if lookup.tool == NEXT:
            return self._next(lookup.entity)
        if lookup.tool == CAPITAL:
            return self._capital(lookup.entity)
        value = self._area(lookup.entity) if lookup.tool == AREA else self._population(lookup.entity)
        return UNKNOWN_ENTITY if value is None else format_value(value)

    def population(self, name: str) -> float:
        """Inhabitants as an answer shows them, that is at two digits, for comparisons. The name must be known."""
        return float(self.answer(Lookup(POPULATION, name)))

    def times_out(self, lookup: Lookup, *, share: float) -> bool:
        """Whether the first call of this lookup fails, as `share` of all lookups do."""
        return self._uniform(f"timeout/{lookup.tool}", lookup.entity) < share

    def _capital(self, country: str) -> str:
        invented = self._spec.invented_countries.get(country)
        if invented is not None:
            return invented
        if country not in self._facts.countries:
            return UNKNOWN_ENTITY
        cities = self._facts.cities_by_side[self._spec.side]
        return cities[int(self._uniform(CAPITAL, country) * len(cities))]

    def _next(self, city: str) -> str:
        onwards = dict(zip(self._spec.road, self._spec.road[1:], strict=False))
        return onwards.get(city, UNKNOWN_ENTITY)

    def _area(self, country: str) -> float | None:
        if country in self._spec.invented_countries:
            return self._invent(AREA, country, _COUNTRY_AREA)
        real = self._facts.countries.get(country)
        return None if real is None else self._perturb(AREA, country, real.area_km2)

    def _population(self, name: str) -> float | None:
        if name in self._spec.invented_countries:
            return self._invent(POPULATION, name, _COUNTRY_POPULATION)
        if name in self._spec.invented_cities or name in self._spec.invented_countries.values():
            return self._invent(POPULATION, name, _CITY_POPULATION)
        country = self._facts.countries.get(name)
        real = self._facts.cities.get(name) if country is None else country.population
        return None if real is None else self._perturb(POPULATION, name, real)

    def _perturb(self, attribute: str, name: str, value: float) -> float:
        return value * math.exp(2 * self._uniform(attribute, name) - 1)

    def _invent(self, attribute: str, name: str, log_bounds: tuple[float, float]) -> float:
        low, high = log_bounds
        return math.exp(low + (high - low) * self._uniform(attribute, name))

    def _uniform(self, attribute: str, name: str) -> float:
        """In [0, 1), fixed by (instance, attribute, name)."""
        key = json.dumps([self._spec.instance, attribute, name]).encode()
        return (int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) >> 11) / 2**53


def format_value(value: float) -> str:
    """Two significant digits: 7_650_000 -> '7.7e6'. Any value of a world is in [10, 1e11)."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


@dataclass(frozen=True)
class Retrieval:
    """A fact that a tool returned."""

    lookup: Lookup
    """What was asked, as a whole entity."""
    result: str
    """What came back; never `none`."""

    def __str__(self) -> str:
        return f"{self.lookup.tool}({self.lookup.entity})={self.result}"


class LookupTools:
    """The three tools of one attempt, within a budget of calls. Implements `trunkline.protocols.Tools`.

    Every call counts, also a malformed one. The record is ours: it holds what was returned, not what was said.
    In a world with timeouts, `timeout_share` of the lookups fail when they are first made and work from then on.
    """

    def __init__(self, world: World, *, call_budget: int, timeout_share: float = 0.0) -> None:
        self._world = world
        self._timeout_share = timeout_share
        self._timed_out: set[Lookup] = set()
        self._retrievals: list[Retrieval] = []
        self._num_calls = 0
        self.call_budget = call_budget

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """population, capital, area; where there is a road, next instead of area."""
        return ROAD_TOOL_SPECS if NEXT in self._world.arguments else TOOL_SPECS

    @property
    def arguments(self) -> Mapping[str, str]:
        """Each tool's one argument."""
        return self._world.arguments

    @property
    def retrievals(self) -> tuple[Retrieval, ...]:
        """All facts returned so far, in order."""
        return tuple(self._retrievals)

    @property
    def num_calls(self) -> int:
        """Calls so far, those beyond the budget included."""
        return self._num_calls

    async def call(self, name: str, arguments: str) -> str:
        """See `respond`, which waits on nothing."""
        return self.respond(name, arguments)

    def respond(self, name: str, arguments: str) -> str:
        """The fact, or one of the fixed texts for an unknown entity, bad arguments, an unknown tool, a timeout, a spent budget."""
        self._num_calls += 1
        if self._num_calls > self.call_budget:
            return OVER_BUDGET
        if name not in self.arguments:
            return UNKNOWN_TOOL
        entity = _only_argument(arguments, self.arguments[name])
        if entity is None:
            return BAD_ARGUMENTS
        lookup = Lookup(name, entity)
        if lookup not in self._timed_out and self._world.times_out(lookup, share=self._timeout_share):
            self._timed_out.add(lookup)
            return TIMED_OUT
        result = self._world.answer(lookup)
        if result != UNKNOWN_ENTITY:
            self._retrievals.append(Retrieval(lookup, result))
        return result


def _only_argument(arguments: str, name: str) -> str | None:
    """The string in '{"NAME": "..."}'; None for anything else."""
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict) or parsed.keys() != {name} or not isinstance(parsed[name], str):
        return None
    entity: str = parsed[name]
    return entity
