"""Tasksets by short name. Owns the list; knobs are each taskset's, and one is imported only when it is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trunkline.errors import ConfigError
from trunkline.protocols import Taskset


def load_taskset(name: str, options: Mapping[str, Any]) -> Taskset:
    """The taskset with its knobs set. Raises ConfigError for an unknown name (listing the choices) or knob."""
    maker = _MAKERS.get(name)
    if maker is None:
        raise ConfigError(f"no taskset {name!r}; choose one of {sorted(_MAKERS)}")
    return maker(options)


def _lookup(options: Mapping[str, Any]) -> Taskset:
    from trunkline.tasks.lookup.taskset import LookupTaskset

    return LookupTaskset.from_options(options)


def _swe(options: Mapping[str, Any]) -> Taskset:
    from trunkline.tasks.swe.taskset import SweTaskset

    return SweTaskset.from_options(options)


_MAKERS: Mapping[str, Callable[[Mapping[str, Any]], Taskset]] = {"lookup": _lookup, "swe": _swe}
