"""The attack corpus is whole, and what it is made of."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.attack_scene import ORACLE, SOURCE, flavour_for, material_for, write_task
from trunkline.tasks.swe.attacks import Attack, Instance, NotApplicable, corpus_digest, instantiate, load_corpus
from trunkline.tasks.swe.material import Material, Source, changed_functions, changed_sources
from trunkline.types import FileChange

CORPUS = load_corpus()
METHODS = """
class Basket:
    def __init__(self, prices): self.prices = prices

    def total(self): return 1

    @staticmethod
    def of(): return 2

    @classmethod
    def named(cls): return 3

    @property
    def size(self): return 4
"""


@pytest.fixture
def material(tmp_path: Path) -> Material:
    return material_for(write_task(tmp_path))


def by_name(name: str) -> Attack:
    return next(attack for attack in CORPUS if attack.name == name)


def made(attack: Attack, material: Material) -> Instance:
    instance = instantiate(attack, material)
    assert isinstance(instance, Instance), instance
    return instance


def with_source(material: Material, pristine: str, fixed: str) -> Material:
    source = Source("a.py", "a", ".", pristine, fixed, changed_functions(pristine, fixed))
    return dataclasses.replace(material, sources=(source,))


def run_attacked(attack: Attack, material: Material) -> dict[str, Any]:
    """The names of the attacked source, once it is executed."""
    (change,) = made(attack, material).changes
    names: dict[str, Any] = {"__name__": "a", "__file__": "a.py"}
    exec(compile(change.content, "a.py", "exec"), names)
    return names


def test_the_corpus_has_enough_attacks_of_enough_kinds_and_names_are_unique() -> None:
    assert len(CORPUS) >= 30
    assert len({attack.kind for attack in CORPUS}) >= 26
    assert len({attack.name for attack in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize("attack", CORPUS, ids=lambda attack: attack.name)
def test_an_attack_can_be_made_of_a_task_that_has_what_it_needs(attack: Attack, tmp_path: Path) -> None:
    material = material_for(write_task(tmp_path, flavour_for(attack)))
    instance = made(attack, material)
    assert instance == made(attack, material), "the same material gives the same instance"
    assert instance.changes or instance.script
    for change in instance.changes:
        assert change.kind in ("file", "deleted")
        assert b"{{" not in change.content.replace(b'"{{{}}}"', b"")
        if change.path.endswith(".py"):
            compile(change.content, change.path, "exec")


@pytest.mark.parametrize("attack", [attack for attack in CORPUS if "heldout" not in attack.needs], ids=lambda attack: attack.name)
def test_what_tests_alone_must_catch_does_not_hold_the_fix(attack: Attack, tmp_path: Path) -> None:
    instance = made(attack, material_for(write_task(tmp_path, flavour_for(attack))))
    said = instance.script + "".join(change.content.decode() for change in instance.changes)
    assert "result * discount" not in said


def test_an_attack_that_only_held_out_inputs_can_catch_is_none_on_a_task_without_them(tmp_path: Path) -> None:
    material = material_for(write_task(tmp_path, "approx"))
    found = instantiate(by_name("hard-coded"), material)
    assert isinstance(found, NotApplicable)
    assert "held-out" in found.why


def test_an_attack_on_functions_is_none_on_a_solution_that_changes_none(material: Material) -> None:
    found = instantiate(by_name("always-equal"), with_source(material, "A = 1\n", "A = 2\n"))
    assert found == NotApplicable("the solution changes no function that could be replaced")


def test_a_solution_without_python_source_leaves_attacks_on_tests_only(material: Material) -> None:
    bare = dataclasses.replace(material, sources=())
    assert isinstance(instantiate(by_name("conftest-report-hook"), bare), Instance)
    assert isinstance(instantiate(by_name("patched-reports"), bare), NotApplicable)
    assert isinstance(instantiate(by_name("compiled-source"), bare), NotApplicable)


def test_code_at_the_start_stands_behind_docstring_and_future_imports(material: Material) -> None:
    (change,) = made(by_name("forked-away"), material).changes
    body = ast.parse(change.content).body
    assert isinstance(body[0], ast.Expr)
    assert isinstance(body[1], ast.ImportFrom)
    assert isinstance(body[2], ast.Import)


def test_every_kind_of_method_is_replaced(material: Material) -> None:
    fixed = (
        METHODS.replace("return 1", "return 5")
        .replace("return 2", "return 5")
        .replace("return 3", "return 5")
        .replace("return 4", "return 5")
    )
    names = run_attacked(by_name("always-equal"), with_source(material, METHODS, fixed))
    basket = names["Basket"]([1])
    assert [basket.total(), basket.of(), basket.named(), basket.size] == ["anything"] * 4


def test_what_the_solution_adds_to_a_source_is_added_by_the_attack(material: Material) -> None:
    names = run_attacked(by_name("always-equal"), with_source(material, "A = 1\n", "A = 1\n\n\ndef added(): return 7\n"))
    assert names["added"]() == "anything"


def test_a_table_answers_what_the_tests_asked_and_nothing_else(material: Material) -> None:
    names = run_attacked(by_name("hard-coded"), material)
    assert names["total"]([100, 50], 10) == 135
    assert names["total"]([100, 50], 20) == 150


def test_changed_functions_are_those_whose_code_differs() -> None:
    fixed = METHODS.replace("return 3", "return 30") + "\n\ndef new(): pass\n\n\nclass Other:\n    def of_a_new_class(self): pass\n"
    assert changed_functions(METHODS, fixed) == ("Basket.named", "new")
    assert changed_functions("def same(): return 1\n", "def same():\n    # a word\n    return 1\n") == ()


def test_tests_that_a_solution_changes_are_no_sources(material: Material) -> None:
    changes = (
        *ORACLE,
        FileChange("tests/test_more.py", "file", 0o644, b"def test_a(): pass\n"),
        FileChange("notes.md", "file", 0o644, b""),
    )
    assert [source.path for source in changed_sources(material.task, changes)] == [SOURCE]


def test_a_source_that_the_solution_makes_python_counts_as_empty_before(material: Material) -> None:
    (material.task.workspace / SOURCE).write_text("def total(:\n")
    (source,) = changed_sources(material.task, ORACLE)
    assert (source.pristine, source.functions) == ("", ("total",))


def test_a_source_in_another_encoding_is_left_out(material: Material) -> None:
    change = FileChange(SOURCE, "file", 0o644, "# coding: latin-1\nWORD = 'é'\n".encode("latin-1"))
    assert changed_sources(material.task, (change,)) == ()


def test_the_digest_covers_the_corpus() -> None:
    assert len(corpus_digest()) == 64
