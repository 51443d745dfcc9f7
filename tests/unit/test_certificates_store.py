"""The store of certificates: what it finds again, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.errors import CertificateError
from trunkline.tasks.base import Subject
from trunkline.tasks.certificates.certificate import NO_OP, ORACLE, Certificate, Check
from trunkline.tasks.certificates.store import CertificateStore

SUBJECT = Subject("owner/task", "a" * 64)


def certificate_of(subject: Subject, *checks: Check) -> Certificate:
    return Certificate(
        kind="task",
        subject=subject.name,
        key=subject.key,
        attack_corpus_version="1",
        checks=checks or (check(ORACLE, 1), check(NO_OP, 0)),
        num_tasks_by_kind={"bug": 1},
        not_excluded=("something",),
        calibration={"fail_to_pass": ["tests/test_x.py::test_x"], "probes": [{"site": 1}]},
    ).sealed()


def check(conduct: str, earns: int, *, num_wrong: int = 0) -> Check:
    return Check.count(conduct, 1 if earns else 0, num_attempts=5, num_wrong=num_wrong, num_disagreeing=0)


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    return CertificateStore(tmp_path / "certificates")


@pytest.fixture
def path(store: CertificateStore) -> Path:
    """Where the certificate of SUBJECT lies."""
    store.put(certificate_of(SUBJECT))
    (path,) = store.folder.iterdir()
    return path


def test_stored_certificate_is_found_again(store: CertificateStore, path: Path) -> None:
    assert store.get(SUBJECT) == certificate_of(SUBJECT)


def test_another_key_finds_nothing(store: CertificateStore, path: Path) -> None:
    assert store.get(Subject(SUBJECT.name, "b" * 64)) is None


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "..", "x" * 5000, "a\x00b", "日本"])
def test_a_name_leads_nowhere_else(store: CertificateStore, name: str) -> None:
    subject = Subject(name, "c" * 64)
    store.put(certificate_of(subject))
    assert [path.parent for path in store.folder.rglob("*")] == [store.folder]
    assert store.get(subject) == certificate_of(subject)


def test_edited_certificate_is_refused(store: CertificateStore, path: Path) -> None:
    path.write_text(path.read_text().replace('"num_attempts": 5', '"num_attempts": 50', 1))
    with pytest.raises(CertificateError, match="was edited: .* delete it"):
        store.get(SUBJECT)


def test_edited_calibration_is_refused(store: CertificateStore, path: Path) -> None:
    path.write_text(path.read_text().replace("test_x", "test_y"))
    with pytest.raises(CertificateError, match="was edited"):
        store.get(SUBJECT)


@pytest.mark.parametrize("text", ["{}", "", "[1, 2", '"certificate"', "\x00"])
def test_what_is_no_certificate_is_refused(store: CertificateStore, path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(CertificateError, match="is no certificate .*; delete it"):
        store.get(SUBJECT)


def test_unreadable_certificate_is_refused(store: CertificateStore, path: Path) -> None:
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CertificateError, match="cannot read"):
        store.get(SUBJECT)


@pytest.mark.parametrize("other", [Subject(SUBJECT.name, "a" * 32 + "b" * 32), Subject("owner task", SUBJECT.key)])
def test_certificate_of_another_in_its_place_is_refused(store: CertificateStore, path: Path, other: Subject) -> None:
    path.write_text(certificate_of(other).model_dump_json())
    with pytest.raises(CertificateError, match=f"is of '{other.name}' aaaaaa.*, not of 'owner/task'"):
        store.get(SUBJECT)


def test_unsealed_certificate_is_not_stored(store: CertificateStore) -> None:
    with pytest.raises(CertificateError, match="not sealed"):
        store.put(certificate_of(SUBJECT).model_copy(update={"digest": ""}))


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CertificateError, match="cannot store .*file.*TRUNKLINE_HOME"):
        CertificateStore(tmp_path / "file" / "folder").put(certificate_of(SUBJECT))


@pytest.mark.parametrize(
    "checks",
    [
        (check(ORACLE, 1), check(NO_OP, 0), check("attack", 0, num_wrong=1)),
        (check(ORACLE, 1), check("attack", 0)),
        (check(NO_OP, 0), check("attack", 0)),
        (check(ORACLE, 0), check(NO_OP, 0)),
    ],
    ids=["an attack earned", "nothing done was not tried", "the oracle was not tried", "the oracle must earn 0"],
)
def test_certificate_that_shows_less_has_not_passed(checks: tuple[Check, ...]) -> None:
    assert certificate_of(SUBJECT).passed
    assert not certificate_of(SUBJECT, *checks).passed
