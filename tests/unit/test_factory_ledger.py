"""The record of a mining: resumable, bound to its source, counted right."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.errors import ConfigError
from trunkline.tasks.factory.candidate import Rejected
from trunkline.tasks.factory.ledger import Entry, Ledger, Made
from trunkline.tasks.factory.report import Yield

VALID = Entry(
    "p-1",
    "2024-01-02T00:00:00+00:00",
    {"recipe": "Python 3.11"},
    made=(
        Made("p-1", "mined", "bug", 2, 30, certified=True, guessable=True),
        Made("p-1-fault-a", "injected", "bug", 1, 31, certified=False, refusal="flaky"),
    ),
    cpu_s={"run": 4.0, "write": 1.0, "certify": 50.0},
)
FAILED = Entry("p-2", rejected=(Rejected("p-2", "run", "no test turns", "12 pass before and after"),), cpu_s={"run": 3.0})
MERGED = Entry("p-1-and-p-4", made=(Made("p-1-and-4", "merged", "bug", 4, 30),), cpu_s={"run": 9.0}, merges=("p-1", "p-4"))
APART = Entry(
    "p-4-and-p-5", rejected=(Rejected("p-4-and-p-5", "select", "files cannot be laid"),), cpu_s={"select": 0.5}, merges=("p-4", "p-5")
)
NO_CANDIDATE = Entry("p-3", rejected=(Rejected("p-3", "select", "changes no tests"),))


def test_what_was_added_is_there_when_the_directory_is_opened_again(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "mined", {"source": "git", "since": None})
    for entry in (VALID, FAILED, MERGED):
        ledger.add(entry)
    known = {entry.candidate_id: entry for entry in (VALID, FAILED, MERGED)}
    assert Ledger.open(tmp_path / "mined", {"source": "git", "since": None}).entries() == known


def test_the_newest_line_of_a_candidate_counts(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, {})
    ledger.add(Entry("p-1", rejected=(Rejected("p-1", "run", "the worker died"),)))
    ledger.add(VALID)
    assert ledger.entries() == {"p-1": VALID}


def test_a_line_cut_by_a_crash_is_done_again(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, {})
    ledger.add(FAILED)
    with (tmp_path / "candidates.jsonl").open("ab") as file:
        file.write(b'{"candidate_id":"p-1","ma')
    assert ledger.entries() == {"p-2": FAILED}
    ledger.add(VALID)
    assert ledger.entries() == {"p-2": FAILED, "p-1": VALID}


def test_another_source_does_not_mix_in(tmp_path: Path) -> None:
    Ledger.open(tmp_path, {"source": "git", "project": "a/b"})
    with pytest.raises(ConfigError, match=r"project was 'a/b' and is now 'c/d'; choose a new directory for --out"):
        Ledger.open(tmp_path, {"source": "git", "project": "c/d"})


def test_a_directory_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other things"):
        Ledger.open(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, {})
    (tmp_path / "candidates.jsonl").write_text("nonsense\n")
    with pytest.raises(ConfigError, match=r"candidates\.jsonl, line 1: .*mend or remove the line"):
        ledger.entries()


def test_a_yield_counts_candidates_apart_from_changes_and_variants_apart_from_both() -> None:
    counted = Yield.of([VALID, FAILED, NO_CANDIDATE])
    assert (counted.num_seen, counted.num_candidates, counted.num_valid) == (3, 2, 1)
    assert (counted.num_tried, counted.num_certified, counted.num_guessable) == (1, 1, 1)
    assert counted.variants == {"injected": (1, 1, 0)}
    assert counted.rejected == {"run: no test turns": 1, "select: changes no tests": 1}
    assert counted.validation_cpu_s == (3.0, 5.0)
    assert counted.certify_cpu_s == (50.0,)
    assert counted.as_dict()["validation_cpu_s_median"] == 4.0


def test_pairs_are_no_candidates_and_are_counted_with_the_variants() -> None:
    counted = Yield.of([VALID, FAILED, NO_CANDIDATE, MERGED, APART])
    assert (counted.num_seen, counted.num_candidates, counted.num_valid, counted.num_pairs) == (3, 2, 1, 2)
    assert counted.variants == {"injected": (1, 1, 0), "merged": (1, 0, 0)}
    assert counted.rejected["select: files cannot be laid"] == 1
    assert (counted.validation_cpu_s, counted.pairs_cpu_s, counted.cpu_s["run"]) == ((3.0, 5.0), (0.5, 9.0), 16.0)
    assert counted.as_dict()["pairs_tried"] == 2
    assert any(line.startswith("CPU-s, merging 4.8 a pair") for line in counted.lines())


def test_the_yield_in_words_has_an_interval() -> None:
    lines = "\n".join(Yield.of([VALID, FAILED]).lines())
    assert "50% [9%, 91%] of the candidates" in lines
    assert "4.0 a candidate (median)" in lines


def test_nothing_mined_is_no_division_by_nothing() -> None:
    assert any("—" in line for line in Yield.of([]).lines())
    assert Yield.of([]).as_dict()["valid_interval"] is None
