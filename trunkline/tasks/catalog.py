"""Tasksets by short name. Owns the list; knobs are each taskset's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trunkline.errors import ConfigError
from trunkline.protocols import Taskset
from trunkline.tasks.lookup.taskset import LookupTaskset

_MAKERS: Mapping[str, Callable[[Mapping[str, Any]], Taskset]] = {"lookup": LookupTaskset.from_options}


def load_taskset(name: str, options: Mapping[str, Any]) -> Taskset:
    """The taskset with its knobs set. Raises ConfigError for an unknown name (listing the choices) or knob."""
    maker = _MAKERS.get(name)
    if maker is None:
        raise ConfigError(f"no taskset {name!r}; choose one of {sorted(_MAKERS)}")
    return maker(options)
