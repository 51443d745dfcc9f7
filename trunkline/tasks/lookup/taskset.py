"""The lookup taskset: which questions a split holds, and how an attempt at one is opened. Owns no facts and no wording."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trunkline.errors import ConfigError, VerifierError
from trunkline.protocols import Attempt
from trunkline.tasks.base import Conduct
from trunkline.tasks.lookup import attacks, demonstrations, vocabulary
from trunkline.tasks.lookup.facts import FactTable, Side, data_version, load_facts
from trunkline.tasks.lookup.questions import Instance, draw_question
from trunkline.tasks.lookup.roads import LOOKUPS_BESIDE_THE_ROAD, Roads, draw_road
from trunkline.tasks.lookup.verifier import GroundedVerifier
from trunkline.tasks.lookup.world import LookupTools, Retrieval, World
from trunkline.types import Message, Task

MainKind = Literal["one_hop.area", "one_hop.population", "two_hop.capital_population", "two_hop.pair", "road"]

_MOST_LOOKUPS_NEEDED = 2
_SIDES: Mapping[str, Side] = {"train": "train", "heldout": "heldout", "train_comparison": "train", "heldout_comparison": "heldout"}


class LookupConfig(BaseModel):
    """The taskset's knobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    invented_share: float = Field(
        0.5, ge=0, le=1, description="Share of training tasks whose names are random letters: copying is the crux."
    )
    call_budget: int = Field(4, ge=_MOST_LOOKUPS_NEEDED, description="Lookups an attempt may make; one more and it earns nothing.")
    timeout_share: float = Field(
        0.0, ge=0, lt=1, description="Share of lookups that fail when an attempt first makes them; demonstrations never show it."
    )
    parallel_share: float = Field(
        0.0, ge=0, le=1, description="Share of the demonstrations with independent lookups that make them in one turn."
    )
    kinds: dict[MainKind, float] = Field(
        default={"one_hop.area": 2, "one_hop.population": 2, "two_hop.capital_population": 1, "two_hop.pair": 1},
        description="Weight of each kind of question in the splits train and heldout.",
    )
    stops: tuple[int, int] = Field((2, 6), description="Fewest and most cities on a road behind the capital; of kind road.")
    longest_stop: int = Field(14, ge=4, description="Characters of the name of a city on a road at most.")
    note_share: float = Field(
        0.5, ge=0, le=1, description="Share of a road's turns in which demonstrations repeat the population before they go on."
    )

    @model_validator(mode="after")
    def _has_weight(self) -> LookupConfig:
        if min(self.kinds.values(), default=0) < 0 or not sum(self.kinds.values()) > 0:
            raise ValueError(f"kinds need weights >= 0 with a positive sum, got {self.kinds}")
        return self

    @model_validator(mode="after")
    def _leaves_calls_for_retries(self) -> LookupConfig:
        if self.timeout_share and self.call_budget < 2 * _MOST_LOOKUPS_NEEDED:
            raise ValueError(f"with timeouts call_budget must be at least {2 * _MOST_LOOKUPS_NEEDED}, got {self.call_budget}")
        return self

    @model_validator(mode="after")
    def _has_calls_for_roads(self) -> LookupConfig:
        fewest, most = self.stops
        if not 1 <= fewest <= most:
            raise ValueError(f"stops are the fewest and the most cities on a road, 1 <= fewest <= most, got {self.stops}")
        if self.has_roads and self.call_budget < (needed := LOOKUPS_BESIDE_THE_ROAD + most + 1):
            raise ValueError(f"a road of {most} stops needs a call_budget of at least {needed}, got {self.call_budget}")
        return self

    @property
    def has_roads(self) -> bool:
        """True if some questions are about roads."""
        return self.kinds.get("road", 0) > 0


class LookupTaskset:
    """Implements `trunkline.protocols.Taskset`, and the Protocols of tasks/base.py.

    >>> LookupTaskset(LookupConfig()).task("train", 0).prompt[0].content  # doctest: +SKIP
    'What is the area of Peru?'
    """

    name = "lookup"
    splits = tuple(_SIDES)
    attack_corpus_version = attacks.ATTACK_CORPUS_VERSION
    conducts: tuple[Conduct, ...] = attacks.CONDUCTS
    not_excluded = attacks.NOT_EXCLUDED

    def __init__(self, config: LookupConfig) -> None:
        self.config = config

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> LookupTaskset:
        """Raises ConfigError for a knob that does not exist or a value it cannot take."""
        try:
            return cls(LookupConfig.model_validate(dict(options)))
        except ValidationError as error:
            raise ConfigError(f"options of taskset 'lookup': {error}; knobs are {sorted(LookupConfig.model_fields)}") from None

    @functools.cached_property
    def facts(self) -> FactTable:
        """Read at first use."""
        return load_facts()

    def task(self, split: str, index: int) -> Task:
        """Task `index` >= 0 of a split without end; training splits mix in invented names. Raises ConfigError."""
        if split not in _SIDES or index < 0:
            raise ConfigError(f"task {index} of split {split!r} does not exist; splits are {list(_SIDES)}, indices start at 0")
        task_id = f"{split}/{index}"
        rng = random.Random(f"trunkline/lookup/{task_id}")
        side = _SIDES[split]
        kind = "comparison" if split.endswith("_comparison") else self._draw_kind(rng)
        invented = rng.random() < self.config.invented_share and side == "train"
        if kind == "road":
            roads = Roads(*self.config.stops, self.config.longest_stop)
            question = draw_road(rng, self.facts, roads, instance=task_id, side=side, invented=invented)
        else:
            question = draw_question(kind, rng, self.facts, instance=task_id, side=side, invented=invented)
        prompt = (Message("user", question.text),)
        return Task(task_id, self.name, kind, prompt, question.instance.model_dump(mode="json"))

    @property
    def pieces(self) -> tuple[str, ...]:
        """What a tokenizer made for these tasks keeps whole."""
        return vocabulary.PIECES + (vocabulary.ROAD_PIECES if self.config.has_roads else ())

    @property
    def characters(self) -> str:
        """What it spells the rest with."""
        return vocabulary.CHARACTERS

    def open(self, task: Task) -> Attempt:
        """Fresh tools, and a verifier that watches them. Raises VerifierError for a payload that is not this taskset's."""
        tools = self.open_tools(task)
        instance = self.instance(task)
        world = World(self.facts, instance.world)
        needed = [Retrieval(lookup, world.answer(lookup)) for lookup in instance.needed]
        return Attempt(tools, GroundedVerifier(tools, needed=needed, expected=instance.answer))

    def open_tools(self, task: Task) -> LookupTools:
        """Fresh tools alone."""
        world = World(self.facts, self.instance(task).world)
        return LookupTools(world, call_budget=self.config.call_budget, timeout_share=self.config.timeout_share)

    def open_steady_tools(self, task: Task) -> LookupTools:
        """Fresh tools that never time out: what demonstrations are made with."""
        return LookupTools(World(self.facts, self.instance(task).world), call_budget=self.config.call_budget)

    def instance(self, task: Task) -> Instance:
        """The payload, checked. Raises VerifierError."""
        try:
            return Instance.model_validate(dict(task.payload))
        except ValidationError as error:
            raise VerifierError(f"task {task.task_id!r} of taskset {task.taskset!r} is no lookup instance: {error}") from None

    def demonstrate(self, task: Task, rng: random.Random, *, decision_noise: float) -> tuple[Message, ...]:
        """See demonstrations.py."""
        return demonstrations.demonstrate(self, task, rng, decision_noise=decision_noise)

    def identity(self) -> Mapping[str, Any]:
        """Name, configuration, data version."""
        return {"name": self.name, "config": self.config.model_dump(mode="json"), "data": data_version()}

    def _draw_kind(self, rng: random.Random) -> MainKind:
        kinds = sorted(self.config.kinds)
        return rng.choices(kinds, [self.config.kinds[kind] for kind in kinds])[0]
