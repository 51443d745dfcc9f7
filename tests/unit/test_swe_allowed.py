"""Which files of a diff reach the tree that is judged: what each name and kind becomes, and what the strongest attacker may not bring."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from trunkline.tasks.swe.allowed import Allowed, allow_changes
from trunkline.types import FileChange


def paths(text: str) -> list[str]:
    return text.split()


FILES = paths("""
    shop/__init__.py shop/prices.py shop/data/rates.json shop/tests/test_inner.py shop/testing/fakes.py tests/test_shop.py
    tests/data.json conftest.py pyproject.toml README.md tools/build.py docs/index.md src/other/__init__.py
""")
SOURCE = paths("shop/prices.py shop/new.py shop/deep/er/new.py shop/data/more.json README.md tools/more.py")
NEW_PLACES = paths("new.py new/__init__.py docs/more.md data.bin src/fresh/__init__.py")
NEVER = paths("""
    conftest.py shop/conftest.py shop/CONFTEST.PY conftest/__init__.py shop/test_new.py shop/new_test.py tests/test_shop.py
    sitecustomize.py shop/usercustomize.py sitecustomize/__init__.py shop/x.pth x.egg-info/PKG-INFO shop.dist-info/entry_points.txt
    pyvenv.cfg shop/prices.pyc shop/__pycache__/prices.cpython-311.pyc shop/prices.so shop/prices.cpython-311-x86_64-linux-gnu.so
    .git/hooks/post-checkout .gitattributes .hg/hgrc shop/.GIT/config
""")
CONFIGURATION = paths("pyproject.toml pytest.ini tox.ini setup.cfg setup.py shop/pytest.ini .coveragerc noxfile.py")
IN_TEST_DIRECTORIES = paths("tests/data.json tests/helpers.py shop/testing/fakes.py shop/tests/__init__.py shop/Tests/new.py")
HIDING = paths("json.py json/__init__.py pytest.py time_machine.py other.py src/shop.py src/random.py")


@pytest.fixture
def pristine(tmp_path: Path) -> Path:
    tree = tmp_path / "workspace"
    for path in FILES:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text("")
    (tree / "linked").symlink_to("shop")
    return tree


def allow(pristine: Path, *changes: FileChange | str, oracle: tuple[str, ...] = (), globs: tuple[str, ...] = ()) -> Allowed:
    """Of the changes; a text is a file of this path."""
    files = [FileChange(change, "file", 0o644, b"x = 1\n") if isinstance(change, str) else change for change in changes]
    roots = (".", "src")
    return allow_changes(
        files, pristine=pristine, oracle_paths=oracle, globs=globs, import_roots=roots, reserved={"pytest", "time_machine"}
    )


def reason(pristine: Path, change: FileChange | str, **options: tuple[str, ...]) -> str:
    """Why it is dropped; '' if it is kept."""
    allowed = allow(pristine, change, **options)
    assert len(allowed.kept) + len(allowed.dropped) == 1
    return allowed.dropped[0].reason if allowed.dropped else ""


@pytest.mark.parametrize("path", SOURCE)
def test_source_and_files_of_packages_are_kept(pristine: Path, path: str) -> None:
    assert reason(pristine, path) == ""


@pytest.mark.parametrize("path", NEW_PLACES)
def test_a_new_place_is_kept_only_if_the_solution_or_the_task_names_it(pristine: Path, path: str) -> None:
    assert reason(pristine, path) == "not a place that this task's solution changes"
    assert reason(pristine, path, oracle=(path,)) == ""
    assert reason(pristine, path, globs=(f"{path[:3]}*",)) == ""


@pytest.mark.parametrize("path", NEVER)
def test_tests_hooks_compiled_code_and_history_are_dropped_whoever_names_them(pristine: Path, path: str) -> None:
    assert reason(pristine, path, oracle=(path,), globs=("*",))


@pytest.mark.parametrize("path", CONFIGURATION)
def test_configuration_is_kept_only_if_the_solution_or_the_task_names_it(pristine: Path, path: str) -> None:
    assert reason(pristine, path) == "configuration comes from the task"
    assert reason(pristine, path, oracle=(path,)) == ""
    assert reason(pristine, path, globs=(path,)) == ""


@pytest.mark.parametrize("path", IN_TEST_DIRECTORIES)
def test_directories_of_tests_are_kept_only_if_the_task_allows_them(pristine: Path, path: str) -> None:
    assert reason(pristine, path, oracle=(path,)) == "in a directory of tests, and tests come from the task"
    assert reason(pristine, path, globs=(path,)) == ""


@pytest.mark.parametrize("path", HIDING)
def test_a_new_module_that_hides_another_is_dropped(pristine: Path, path: str) -> None:
    assert "in place of the module" in reason(pristine, path, oracle=(path,), globs=("*",))


def test_modules_inside_packages_may_be_called_like_the_standard_librarys(pristine: Path) -> None:
    assert reason(pristine, "shop/json.py") == ""


@pytest.mark.parametrize("path", ["../out.py", "/etc/passwd", "shop/../../out.py", "shop//x.py", "shop/./x.py", "", ".", "shop/x\0.py"])
def test_paths_that_lead_out_are_dropped(pristine: Path, path: str) -> None:
    assert "leads out" in reason(pristine, path, oracle=(path,), globs=("*",))


@pytest.mark.parametrize("path", ["shop/a\nb.py", "shop/a\x1b[2J.py", "shop/\udcff.py", "shop/a\\b.py", "shop/\u202ea.py"])
def test_names_with_odd_characters_are_dropped(pristine: Path, path: str) -> None:
    assert reason(pristine, path, oracle=(path,)) == "a name with odd characters"


@pytest.mark.parametrize("path", ["shop/" + "a" * 2000 + ".py", "shop/" + "a/" * 100 + "x.py", "shop/\ud800.py"])
def test_names_that_no_host_can_hold_are_dropped(pristine: Path, path: str) -> None:
    assert reason(pristine, path)


@pytest.mark.parametrize("kind", ["symlink", "other"])
def test_links_and_devices_are_dropped(pristine: Path, kind: Literal["symlink", "other"]) -> None:
    change = FileChange("shop/prices.py", kind, content=b"/etc/passwd")
    assert reason(pristine, change, oracle=("shop/prices.py",))


@pytest.mark.parametrize("path", ["linked", "linked/prices.py", "shop/prices.py/x.py", "shop/data"])
def test_nothing_replaces_a_link_or_a_directory_or_goes_through_one(pristine: Path, path: str) -> None:
    assert reason(pristine, path, oracle=(path,))


def test_a_deleted_directory_loses_its_source_and_keeps_its_tests(pristine: Path) -> None:
    allowed = allow(pristine, FileChange("shop", "deleted"), FileChange("tests", "deleted"), FileChange("pyproject.toml", "deleted"))
    assert [change.path for change in allowed.kept] == ["shop/__init__.py", "shop/data/rates.json", "shop/prices.py"]
    assert {change.kind for change in allowed.kept} == {"deleted"}
    dropped = ["pyproject.toml", "shop/testing/fakes.py", "shop/tests/test_inner.py", "tests/data.json", "tests/test_shop.py"]
    assert [dropped.path for dropped in allowed.dropped] == dropped


def test_of_names_that_differ_only_in_case_one_is_kept(pristine: Path) -> None:
    allowed = allow(pristine, "shop/Prices.py", "shop/new.py", "shop/NEW.py")
    assert [change.path for change in allowed.kept] == ["shop/new.py"]
    assert [dropped.reason for dropped in allowed.dropped] == [
        "differs from shop/new.py only in case or accents",
        "differs from shop/prices.py only in case or accents",
    ]


@pytest.mark.parametrize("mode, plain", [(0o6777, 0o755), (0o000, 0o644), (0o100, 0o755), (0o666, 0o644)])
def test_modes_become_plain(pristine: Path, mode: int, plain: int) -> None:
    (change,) = allow(pristine, FileChange("shop/prices.py", "file", mode)).kept
    assert change.mode == plain


def test_directories_by_themselves_are_neither_kept_nor_counted(pristine: Path) -> None:
    assert allow(pristine, FileChange("shop/deep", "directory", 0o755), FileChange("tests", "directory", 0o700)) == Allowed((), ())
