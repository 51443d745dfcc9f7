"""The key of a task's certificate: what changes it, and what a certificate that ships with a task is worth."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.software_task import FILES, write_task
from trunkline.errors import CertificateError
from trunkline.tasks.certificates.certificate import NO_OP, ORACLE, Certificate, Check
from trunkline.tasks.certificates.requirement import require
from trunkline.tasks.certificates.store import CertificateStore
from trunkline.tasks.swe.attacks import load_corpus
from trunkline.tasks.swe.calibration import Calibration
from trunkline.tasks.swe.certify import calibration_of, task_key, task_subject
from trunkline.tasks.swe.taskset import SweTaskset

CALIBRATION = Calibration(
    fail_to_pass=("tests/test_a.py::test_a",), pass_to_pass=(), quarantined={}, probes=(), unprobed=(), num_candidates=0
)  # fmt: skip


def certificate_of(name: str, key: str) -> Certificate:
    """As if the trial had passed."""
    checks = [Check.count(ORACLE, 1, num_attempts=5, num_wrong=0, num_disagreeing=0)]
    checks += [Check.count(NO_OP, 0, num_attempts=2, num_wrong=0, num_disagreeing=0)]
    return Certificate(
        kind="task",
        subject=name,
        key=key,
        attack_corpus_version="1",
        checks=tuple(checks),
        num_tasks_by_kind={"bug": 1},
        not_excluded=(),
        calibration=CALIBRATION.model_dump(mode="json"),
    ).sealed()


def test_the_same_task_has_the_same_key_wherever_it_lies(tmp_path: Path) -> None:
    assert task_key(write_task(tmp_path / "a")) == task_key(write_task(tmp_path / "b"))


@pytest.mark.parametrize("path", sorted(FILES))
def test_any_change_of_a_tasks_files_changes_its_key(tmp_path: Path, path: str) -> None:
    before = task_key(write_task(tmp_path))
    with (tmp_path / path).open("a") as file:
        file.write("\n# more\n")
    assert task_key(write_task(tmp_path, **{path: (tmp_path / path).read_text()})) != before


def test_a_part_of_the_corpus_has_a_key_that_no_run_asks_for(tmp_path: Path) -> None:
    task = write_task(tmp_path)
    keys = {task_key(task), task_key(task, ()), task_key(task, load_corpus()[:1]), task_key(task, load_corpus())}
    assert len(keys) == 4


def test_a_certificate_in_a_tasks_own_folder_is_never_read(tmp_path: Path) -> None:
    folder, store = tmp_path / "task", CertificateStore(tmp_path / "store")
    subject = task_subject(write_task(folder))
    forged = certificate_of(subject.name, subject.key).model_dump_json()
    for place in ("certificate.json", "certificates/test_coupon.json", "environment/workspace/certificate.json"):
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_text(forged)
    taskset = SweTaskset.from_options({"paths": [folder], "heldout_share": 0})
    with pytest.raises(CertificateError, match=r"1 of 1 tasks .*test/coupon \(no certificate\).* trunkline tasks certify .*/task$"):
        require(taskset, store)


def test_a_certificate_counts_until_the_task_is_changed(tmp_path: Path) -> None:
    folder, store = tmp_path / "task", CertificateStore(tmp_path / "store")
    subject = task_subject(write_task(folder))
    store.put(certificate_of(subject.name, subject.key))
    options = {"paths": [folder], "heldout_share": 0}
    assert require(SweTaskset.from_options(options), store) == {"test/coupon": subject.key}
    (folder / "instruction.md").write_text("Another instruction.")
    with pytest.raises(CertificateError, match="1 of 1 tasks"):
        require(SweTaskset.from_options(options), store)


def test_a_calibration_comes_back_out_of_the_store(tmp_path: Path) -> None:
    store, subject = CertificateStore(tmp_path / "store"), task_subject(write_task(tmp_path / "task"))
    store.put(certificate_of(subject.name, subject.key))
    stored = store.get(subject)
    assert stored is not None and calibration_of(stored) == CALIBRATION


def test_what_is_no_calibration_is_refused() -> None:
    certificate = certificate_of("test/coupon", "0" * 64).model_copy(update={"calibration": {"fail_to_pass": 3}})
    with pytest.raises(CertificateError, match="test/coupon.* certify it again"):
        calibration_of(certificate)
