"""The tree that is judged: what is laid over what, and that nothing is written outside it whatever a diff or a workspace holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trunkline.tasks.swe.tree import lay_tree
from trunkline.types import FileChange


def write(tree: Path, **files: str) -> Path:
    """Files by path, with '__' for '/'."""
    for name, text in files.items():
        path = tree / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tree


def contents(tree: Path) -> dict[str, str]:
    return {path.relative_to(tree).as_posix(): path.read_text() for path in sorted(tree.rglob("*")) if path.is_file()}


def change(path: str, text: str = "work", *, mode: int = 0o644) -> FileChange:
    return FileChange(path, "file", mode, text.encode())


@pytest.fixture
def pristine(tmp_path: Path) -> Path:
    return write(tmp_path / "pristine", shop__a="pristine", shop__b="pristine", tests__t="visible")


def test_changes_lie_over_the_workspace_and_hidden_tests_over_all(tmp_path: Path, pristine: Path) -> None:
    hidden = write(tmp_path / "hidden", tests__t="hidden", tests__h="hidden")
    changes = (change("shop/a"), change("shop/new/c"), FileChange("shop/b", "deleted"), change("tests/t"), change("tests/h"))
    assert lay_tree(tmp_path / "tree", pristine=pristine, changes=changes, hidden=hidden) == ()
    assert contents(tmp_path / "tree") == {"shop/a": "work", "shop/new/c": "work", "tests/t": "hidden", "tests/h": "hidden"}


def test_what_is_left_out_comes_from_nobody(tmp_path: Path, pristine: Path) -> None:
    hidden = write(tmp_path / "hidden", tests__h="hidden")
    lay_tree(tmp_path / "tree", pristine=pristine, changes=(change("shop/new"),), hidden=hidden, without={"tests/t", "tests/h", "shop/new"})
    assert contents(tmp_path / "tree") == {"shop/a": "pristine", "shop/b": "pristine"}


def test_caches_and_version_control_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "pristine", a="", a_pyc="", shop____pycache____a="").joinpath("a_pyc").rename(tmp_path / "pristine/a.pyc")
    (tmp_path / "pristine/shop/__pycache__").mkdir(parents=True)
    write(tmp_path / "pristine/.git", HEAD="")
    lay_tree(tmp_path / "tree", pristine=tmp_path / "pristine")
    assert "a" in contents(tmp_path / "tree")
    assert not [path for path in (tmp_path / "tree").rglob("*") if path.suffix == ".pyc" or path.name in ("__pycache__", ".git")]


def test_any_user_can_write_and_only_the_x_bit_is_kept(tmp_path: Path, pristine: Path) -> None:
    (pristine / "shop/a").chmod(0o500)
    lay_tree(tmp_path / "tree", pristine=pristine, changes=(change("shop/c", mode=0o4711), change("shop/d", mode=0o400)))
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "tree").rglob("*")}
    assert modes == {"shop": 0o777, "tests": 0o777, "a": 0o777, "b": 0o666, "c": 0o777, "d": 0o666, "t": 0o666}


@pytest.mark.parametrize(
    "hostile",
    [
        change("../out"),
        change("/tmp/trunkline-out"),
        change("shop/../../out"),
        change("link/out"),
        change("shop/a/out"),
        change("shop"),
        FileChange("shop/link", "symlink", content=b"/etc"),
        FileChange("shop/pipe", "other"),
        FileChange("../outside/file", "deleted"),
        FileChange("link/file", "deleted"),
        FileChange("shop/a", "directory", 0o755),
    ],
    ids=lambda hostile: f"{hostile.kind}-{hostile.path}",
)
def test_a_change_that_leads_out_or_clashes_is_refused(tmp_path: Path, pristine: Path, hostile: FileChange) -> None:
    outside = write(tmp_path / "outside", file="safe")
    (pristine / "link").symlink_to(outside)
    assert lay_tree(tmp_path / "tree", pristine=pristine, changes=(hostile, change("shop/c"))) == (hostile,)
    assert contents(outside) == {"file": "safe"}
    assert not (tmp_path / "out").exists()
    assert contents(tmp_path / "tree")["shop/c"] == "work"


def test_a_change_replaces_a_link_and_does_not_write_through_it(tmp_path: Path, pristine: Path) -> None:
    outside = write(tmp_path / "outside", file="safe")
    (pristine / "shop/link").symlink_to(outside / "file")
    lay_tree(tmp_path / "tree", pristine=pristine, changes=(change("shop/link"),))
    assert contents(outside) == {"file": "safe"}
    assert not (tmp_path / "tree/shop/link").is_symlink()


def test_links_of_the_workspace_stay_links(tmp_path: Path, pristine: Path) -> None:
    (pristine / "shop/etc").symlink_to("/etc")
    (pristine / "shop/dangling").symlink_to("nowhere")
    lay_tree(tmp_path / "tree", pristine=pristine)
    assert os.readlink(tmp_path / "tree/shop/etc") == "/etc"
    assert os.readlink(tmp_path / "tree/shop/dangling") == "nowhere"


def test_hidden_tests_win_over_files_directories_and_links_in_their_way(tmp_path: Path, pristine: Path) -> None:
    outside = write(tmp_path / "outside", file="safe")
    (pristine / "linked").symlink_to(outside)
    hidden = write(tmp_path / "hidden", linked__file="hidden", was_file__x="hidden", was_directory="hidden")
    changes = (change("was_file"), change("was_directory/x/y"))
    lay_tree(tmp_path / "tree", pristine=pristine, changes=changes, hidden=hidden)
    laid = contents(tmp_path / "tree")
    assert {laid[path] for path in ("linked/file", "was_file/x", "was_directory")} == {"hidden"}
    assert contents(outside) == {"file": "safe"}


def test_a_file_may_take_the_place_of_a_deleted_directory(tmp_path: Path, pristine: Path) -> None:
    assert lay_tree(tmp_path / "tree", pristine=pristine, changes=(change("shop"), FileChange("shop", "deleted"))) == ()
    assert contents(tmp_path / "tree") == {"shop": "work", "tests/t": "visible"}
