"""Archives from anyone: what is unpacked, and what is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.index_scene import archive_of
from trunkline.tasks.factory import archives
from trunkline.tasks.factory.archives import unpack
from trunkline.tasks.factory.candidate import Rejection


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "trees" / "tree"


def packed(tmp_path: Path, content: bytes) -> Path:
    place = tmp_path / "abacus-1.0.tar.gz"
    place.write_bytes(content)
    return place


def refusal(tmp_path: Path, target: Path, content: bytes) -> str:
    with pytest.raises(Rejection) as refused:
        unpack(packed(tmp_path, content), target)
    assert not target.exists()
    assert list(target.parent.iterdir()) == []
    return refused.value.cause


def test_the_files_of_the_one_top_folder_are_laid_without_it(tmp_path: Path, target: Path) -> None:
    unpack(packed(tmp_path, archive_of("abacus-1.0", {"abacus.py": "x = 1\n", "tests/test_a.py": ""})), target)
    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("*")) == ["abacus.py", "tests", "tests/test_a.py"]


def test_links_within_the_folder_are_kept(tmp_path: Path, target: Path) -> None:
    unpack(packed(tmp_path, archive_of("abacus-1.0", {"a/real.py": "x = 1\n"}, links={"linked.py": "a/real.py"})), target)
    assert (target / "linked.py").readlink() == Path("a/real.py")


@pytest.mark.parametrize("leads", ["/etc/passwd", "../../etc/passwd", "../abacus-1.0/../other", "nowhere.py"])
def test_links_that_lead_out_or_nowhere_are_refused(tmp_path: Path, target: Path, leads: str) -> None:
    assert refusal(tmp_path, target, archive_of("abacus-1.0", {"a.py": ""}, links={"linked.py": leads})) == "odd files"


@pytest.mark.parametrize("path", ["../../out.py", "../other/out.py"])
def test_files_outside_the_folder_are_refused(tmp_path: Path, target: Path, path: str) -> None:
    assert refusal(tmp_path, target, archive_of("abacus-1.0", {"a.py": "", path: "x"})) == "odd files"


def test_devices_are_refused(tmp_path: Path, target: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        entry = tarfile.TarInfo("abacus-1.0/null")
        entry.type, entry.devmajor, entry.devminor = tarfile.CHRTYPE, 1, 3
        tar.addfile(entry)
    assert refusal(tmp_path, target, content.getvalue()) == "odd files"


def test_files_without_a_common_folder_are_refused(tmp_path: Path, target: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name in ("a.py", "b.py"):
            tar.addfile(tarfile.TarInfo(name))
    assert refusal(tmp_path, target, content.getvalue()) == "odd files"


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_BYTES", 1000)
    assert refusal(tmp_path, target, archive_of("abacus-1.0", {"zeros": b"\0" * 1001})) == "archive too large"


def test_an_archive_of_too_many_files_is_refused(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    assert refusal(tmp_path, target, archive_of("abacus-1.0", {f"{number}.py": "" for number in range(4)})) == "archive too large"


@pytest.mark.parametrize(
    "content",
    # Named: an archive tells the second it was made in, and two workers must call a test by one name.
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>", id="a page"),
        pytest.param(archive_of("abacus-1.0", {"a.py": "x = 1\n" * 1000})[:60], id="cut short"),
    ],
)
def test_what_is_no_whole_archive_is_refused(tmp_path: Path, target: Path, content: bytes) -> None:
    assert refusal(tmp_path, target, content) == "broken archive"
