"""The patch of an episode: what git applies, in the bounds of a record, whatever an agent left."""

from __future__ import annotations

import subprocess
from pathlib import Path

from trunkline.episodes.patch import MAX_PATCH_BYTES, NOTE, applicable, bounded_patch
from trunkline.types import FileChange


def workspace(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.py").write_text("one\ntwo\n")
    return folder


def apply(patch: str, folder: Path) -> None:
    done = subprocess.run(["git", "apply", "-p1"], input=patch, text=True, cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_patch_applies_to_the_workspace_and_holds_no_caches(tmp_path: Path) -> None:
    changes = [
        FileChange("a.py", "file", 0o644, b"one\n2\n"),
        FileChange("new.bin", "file", 0o644, b"\0\xff"),
        FileChange("__pycache__/a.cpython-311.pyc", "file", 0o644, b"\0"),
    ]
    patch = bounded_patch(workspace(tmp_path / "w"), changes)
    apply(patch, tmp_path / "w")
    assert {path.name: path.read_bytes() for path in (tmp_path / "w").iterdir()} == {"a.py": b"one\n2\n", "new.bin": b"\0\xff"}
    assert applicable(patch) == patch


def test_beyond_the_bound_whole_files_are_left_out_and_the_rest_still_applies(tmp_path: Path) -> None:
    big = b"".join(b"%d\n" % number for number in range(MAX_PATCH_BYTES // 4))
    contents = {"a.py": b"one\n", "big.txt": big, "c": b"c\n"}
    changes = [FileChange(path, "file", 0o644, content) for path, content in contents.items()]
    patch = bounded_patch(workspace(tmp_path / "w"), changes)
    assert len(patch.encode()) < MAX_PATCH_BYTES + 1000
    assert patch.splitlines()[-1].startswith(f"{NOTE}left out") and "b/big.txt" in patch.splitlines()[-1]
    assert NOTE not in applicable(patch)
    apply(patch, tmp_path / "w")
    assert {path.name for path in (tmp_path / "w").iterdir()} == {"a.py", "c"}


def test_where_no_diff_can_be_made_the_patch_is_a_note_with_the_reason(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    patch = bounded_patch(workspace(tmp_path / "w"), [FileChange("a.py", "deleted")])
    assert patch.startswith(f"{NOTE}no diff can be made: git is not installed")
    assert applicable(patch) == ""
