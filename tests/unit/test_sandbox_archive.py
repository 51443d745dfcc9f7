"""What is packed for a container, and how two states of a directory are told apart."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from trunkline.errors import SandboxError
from trunkline.sandbox.archive import pack, read_changes, read_tree
from trunkline.types import FileChange


def packed(folder: Path) -> io.BytesIO:
    archive = io.BytesIO()
    pack({"workspace": folder}, 1000, archive)
    archive.seek(0)
    return archive


def test_everything_packed_belongs_to_the_user_and_links_stay_links(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "script").write_bytes(b"x")
    (tmp_path / "folder" / "script").chmod(0o750)
    (tmp_path / "out").symlink_to("/etc")
    with tarfile.open(fileobj=packed(tmp_path)) as tar:
        members = {member.name: member for member in tar}
    assert list(members) == ["workspace", "workspace/folder", "workspace/folder/script", "workspace/out"]
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members.values()} == {(1000, 1000, "", "")}
    assert members["workspace/folder/script"].mode == 0o750
    assert members["workspace/out"].issym()


def test_an_empty_directory_is_packed_without_a_source() -> None:
    archive = io.BytesIO()
    pack({"home/agent": None, "workspace": None}, 1000, archive)
    archive.seek(0)
    with tarfile.open(fileobj=archive) as tar:
        assert [(member.name, member.isdir(), member.mode) for member in tar] == [("home/agent", True, 0o755), ("workspace", True, 0o755)]


def test_a_change_is_what_differs_in_kind_mode_or_content(tmp_path: Path) -> None:
    for name in ("same", "edited", "mode", "gone/one", "gone/two", "kept/one", "file_to_folder", "folder_to_file/inner"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o644)
    os.link(tmp_path / "same", tmp_path / "same_again")
    (tmp_path / "link").symlink_to("same")
    base = read_tree(packed(tmp_path))
    assert read_changes(base, packed(tmp_path)) == ()

    (tmp_path / "same").touch()
    (tmp_path / "edited").write_text("EDITED")
    (tmp_path / "mode").chmod(0o755)
    for name in ("gone/one", "gone/two", "kept/one", "file_to_folder", "folder_to_file/inner", "link"):
        (tmp_path / name).unlink()
    (tmp_path / "gone").rmdir()
    (tmp_path / "kept").chmod(0o700)
    (tmp_path / "file_to_folder").mkdir(0o755)
    (tmp_path / "folder_to_file").rmdir()
    (tmp_path / "folder_to_file").write_text("")
    (tmp_path / "folder_to_file").chmod(0o644)
    (tmp_path / "link").symlink_to("edited")
    assert read_changes(base, packed(tmp_path)) == (
        FileChange("edited", "file", 0o644, b"EDITED"),
        FileChange("file_to_folder", "directory", 0o755),
        FileChange("folder_to_file", "file", 0o644),
        FileChange("gone", "deleted"),
        FileChange("kept/one", "deleted"),
        FileChange("link", "symlink", content=b"edited"),
        FileChange("mode", "file", 0o755, b"mode"),
    )


def test_a_broken_archive_is_a_sandbox_error() -> None:
    with pytest.raises(SandboxError, match="broken archive"):
        read_tree(io.BytesIO(b"no archive" * 100))
