"""A run and its certificates: without them it is refused before anything is written; where they may be missing, the summary names them."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.in_process import trunkline
from tests.integration.test_run_endings import ROOT, SMALL
from tests.software_task import FILES, write_task
from trunkline.errors import CertificateError
from trunkline.metrics.console import ProgressView
from trunkline.run.conductor import train
from trunkline.run.recipe import load_recipe
from trunkline.tasks.certificates.certificate import Certificate
from trunkline.tasks.certificates.generator import taskset_key
from trunkline.tasks.certificates.store import CertificateStore
from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CertificateStore:
    monkeypatch.setenv("TRUNKLINE_HOME", str(tmp_path / "home"))
    return CertificateStore.default()


def test_a_run_on_uncertified_tasks_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_task(tmp_path / "tasks" / name, **{"task.toml": FILES["task.toml"].replace("test/coupon", f"test/{name}")})
    overrides = [f"run_dir={tmp_path / 'run'}", f"taskset.options.paths=['{tmp_path / 'tasks'}']", "taskset.options.heldout_share=0.5"]
    recipe = load_recipe(ROOT / "recipes" / "swe-shipped.toml", overrides)
    with pytest.raises(CertificateError, match="2 of 2 tasks .*test/a .*test/b .*trunkline tasks certify .*/a .*/b"):
        asyncio.run(train(recipe, ProgressView(Console(file=io.StringIO()))))
    assert not (tmp_path / "run").exists()


def test_what_was_trained_on_without_a_certificate_is_said_and_recorded(tmp_path: Path, own_store: CertificateStore) -> None:
    taskset = LookupTaskset(LookupConfig(kinds={"one_hop.area": 1}, invented_share=0.0))
    empty = Certificate(
        kind="taskset",
        subject="lookup",
        key=taskset_key(taskset),
        attack_corpus_version="1",
        checks=(),
        num_tasks_by_kind={},
        not_excluded=(),
    )
    own_store.put(empty.sealed())
    run_dir = tmp_path / "run"
    overrides = ["allow_uncertified=true", "stage.method=supervision", "stage.steps=1", "evaluation.before=false"]
    said = trunkline("train", str(ROOT / "recipes" / "quickstart.toml"), f"run_dir={run_dir}", *SMALL, *overrides).output
    assert "WARNING" in said and "does not prove" in said
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["certificates"] == {} and summary["uncertified"] == ["lookup"]
