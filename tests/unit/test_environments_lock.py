"""Locks of Python environments, Pythons of this host, and recipes: what is the same, what is refused."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from trunkline.errors import TaskError
from trunkline.tasks.environments.identity import Identity
from trunkline.tasks.environments.interpreters import Interpreter, era_interpreter, interpreter_of, interpreters, own_interpreter
from trunkline.tasks.environments.lock import LOCK, LockedFile, PythonLock, lock_of
from trunkline.tasks.environments.resolve import end_of_month
from trunkline.tasks.factory.python_recipe import PythonRecipe, ladder

WHEEL = LockedFile(name="alpha", version="1.0", url="https://example.org/alpha-1.0-py3-none-any.whl", sha256="0" * 64)
LOCKED = PythonLock(python="3.9", project=Identity(name="shop", version="2"), variables={"A": "b"}, files=(WHEEL,))
PYTHONS = [Interpreter(f"3.{minor}.1", Path("/opt") / str(minor)) for minor in (8, 9, 10, 11)]


def test_lock_is_read_as_it_was_written(tmp_path):
    (tmp_path / "environment").mkdir()
    (tmp_path / LOCK).write_text(LOCKED.text())
    assert lock_of(tmp_path) == LOCKED


def test_task_without_lock_has_none(tmp_path):
    assert lock_of(tmp_path) is None


def test_broken_lock_is_refused_by_name(tmp_path):
    (tmp_path / "environment").mkdir()
    (tmp_path / LOCK).write_text('python = "2.7"\nfiles = []\n')
    with pytest.raises(TaskError, match="environment/python.toml is no lock"):
        lock_of(tmp_path)


@pytest.mark.parametrize(
    "url", ["https://example.org/../x", "file:///etc/passwd", "https://example.org/a b.whl", "https://example.org/x.exe"]
)
def test_only_addresses_of_packages_are_locked(url):
    with pytest.raises(ValueError, match="url"):
        LockedFile(name="alpha", version="1", url=url, sha256="0" * 64)


def test_digest_says_content_and_not_place():
    moved = LOCKED.model_copy(update={"files": (WHEEL.model_copy(update={"url": WHEEL.url.replace("example", "other")}),)})
    other = LOCKED.model_copy(update={"files": (WHEEL.model_copy(update={"sha256": "1" * 64}),)})
    assert moved.digest == LOCKED.digest
    assert other.digest != LOCKED.digest


def test_versions_of_a_project_share_packages():
    younger = LOCKED.model_copy(update={"project": Identity(name="shop", version="3")})
    assert younger.packages_digest == LOCKED.packages_digest
    assert younger.digest != LOCKED.digest


@pytest.mark.parametrize(
    ("date", "requires", "series"),
    [
        ("2021-03-01", "", "3.8"),
        ("2021-05-01", "", "3.9"),
        ("2017-01-01", "", "3.8"),
        ("2017-01-01", ">=3.9", "3.9"),
        ("2026-01-01", "<3.11", "3.10"),
        ("2022-05-01", "odd", "3.10"),
    ],
)
def test_python_of_a_time_had_been_out_for_half_a_year(date, requires, series):
    found = era_interpreter(dt.date.fromisoformat(date), requires, PYTHONS)
    assert found is not None
    assert found.series == series


def test_no_python_where_the_project_allows_none():
    assert era_interpreter(dt.date(2021, 1, 1), ">=4", PYTHONS) is None


def test_own_python_is_among_those_of_this_host():
    assert own_interpreter() in interpreters()
    assert all(one.python.exists() for one in interpreters())


def test_missing_python_is_named_with_what_to_do():
    with pytest.raises(TaskError, match="uv python install 3.7"):
        interpreter_of("3.7")


def test_cutoff_is_the_end_of_the_month():
    assert end_of_month(dt.date(2024, 2, 3)) == dt.date(2024, 2, 29)
    assert end_of_month(dt.date(2023, 12, 31)) == dt.date(2023, 12, 31)


def test_ladder_goes_from_the_time_of_the_change_to_today(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "shop"\ndependencies = ["alpha"]\noptional-dependencies.x = ["beta"]\n')
    rungs = ladder(tmp_path, dt.datetime(2022, 11, 20, tzinfo=dt.UTC))
    assert rungs[0].cutoff == dt.date(2022, 11, 30)
    assert [rung.requirements for rung in rungs[:2]] == [("alpha",), ("alpha", "beta")]
    assert (rungs[-1].python, rungs[-1].cutoff) == (own_interpreter().series, None)
    assert len(rungs) == 5


def test_ladder_has_no_rung_twice(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "shop"\n')
    rungs = ladder(tmp_path, dt.datetime.now(dt.UTC))
    assert len({rung.model_dump_json() for rung in rungs}) == len(rungs)


def test_recipe_is_changed_by_its_fields():
    recipe = PythonRecipe(python="3.9").changed({"requirements": ["alpha<2"], "cutoff": "2021-01-31", "variables": {"TZ_NAME": "x"}})
    assert (recipe.requirements, recipe.cutoff, recipe.variables) == (("alpha<2",), dt.date(2021, 1, 31), {"TZ_NAME": "x"})


@pytest.mark.parametrize(
    "fields",
    [
        {"command": "rm"},
        {"requirements": ["alpha @ https://example.org/alpha.zip"]},
        {"requirements": ["-r /etc/passwd"]},
        {"requirements": ["--index-url=https://example.org"]},
        {"pytest_args": ["--rootdir=/etc"]},
        {"pytest_args": ["tests/test_a.py::test_b; rm"]},
        {"pytest_args": ["--collect-only"]},
        {"variables": {"LD_PRELOAD": "x"}},
        {"variables": {"PYTHONSTARTUP": "x"}},
        {"variables": {"A": "x\ny"}},
        {"plugins": ["a b"]},
        {"python": "3.9\n"},
    ],
)
def test_recipe_refuses_what_it_may_not_say(fields):
    with pytest.raises(TaskError, match="a recipe for Python cannot have"):
        PythonRecipe(python="3.9").changed(fields)
