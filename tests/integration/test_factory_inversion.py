"""A change turned round is a task that certifies: its tests are the solution, faults in what it rewrites are the wrong versions."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.coupon_draft import TOLD, coupon_draft
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.python import PythonLanguage
from trunkline.tasks.factory.variants.inversion import invert
from trunkline.tasks.factory.variants.review import review
from trunkline.tasks.factory.write_task import write_task
from trunkline.tasks.swe.certify import certify_task
from trunkline.tasks.swe.inversion.verifier import InversionVerifier
from trunkline.tasks.swe.place import VerdictPlace, place_of
from trunkline.tasks.swe.script_verifier import ScriptVerifier
from trunkline.tasks.swe.task import CodeTask, load_code_task
from trunkline.types import FileChange, Work

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def language(sandboxes: IsolatedSandboxes) -> PythonLanguage:
    return PythonLanguage(sandboxes)


@pytest.fixture(scope="module")
async def draft(language: PythonLanguage, tmp_path_factory: pytest.TempPathFactory) -> Draft:
    return await coupon_draft(tmp_path_factory.mktemp("draft"), language)


@pytest.fixture(scope="module")
async def inverted(language: PythonLanguage, draft: Draft, tmp_path_factory: pytest.TempPathFactory) -> Draft:
    return await invert(language, draft, folder=tmp_path_factory.mktemp("made"), rng=random.Random(0))


@pytest.fixture(scope="module")
async def reviewed(language: PythonLanguage, draft: Draft, tmp_path_factory: pytest.TempPathFactory) -> Draft:
    return await review(language, draft, folder=tmp_path_factory.mktemp("made"), rng=random.Random(0))


@pytest.fixture(scope="module")
async def place(inverted: Draft, sandboxes: IsolatedSandboxes, tmp_path_factory: pytest.TempPathFactory) -> tuple[CodeTask, VerdictPlace]:
    task = load_code_task(write_task(inverted, tmp_path_factory.mktemp("tasks")))
    return task, await place_of(task, sandboxes)


async def test_the_tests_of_the_change_are_the_solution_and_are_cut_to_those_that_turn(inverted: Draft) -> None:
    (written,) = inverted.solution
    assert written.path == "tests/test_coupon.py" and not (inverted.workspace / written.path).exists()
    assert b"test_percent" in written.content and b"test_plain" not in written.content
    assert TOLD in inverted.instruction and (inverted.kind, inverted.variant, inverted.hidden_tests) == ("tests", "inverted", ())
    assert (inverted.workspace / "shop" / "__init__.py").read_text().count("percentage") == 0


async def test_what_is_written_is_a_task_whose_solution_earns_1(place: tuple[CodeTask, VerdictPlace], inverted: Draft) -> None:
    task, where = place
    assert task.settings.verifier == "inversion" and len(list((task.folder / "tests" / "wrong").iterdir())) == 3
    reward = await InversionVerifier.load(task, where).judge(inverted.solution)
    assert reward.value == 1.0, reward.evidence
    assert "3 of 3 wrong versions of it are noticed" in reward.evidence


async def test_wrong_versions_differ_from_the_change_and_from_what_was_there(place: tuple[CodeTask, VerdictPlace]) -> None:
    task, _ = place
    texts = [path.read_text() for path in (task.folder / "tests" / "wrong").glob("*/shop/__init__.py")]
    after = (task.folder / "tests" / "after" / "shop" / "__init__.py").read_text()
    assert len({*texts, after, (task.workspace / "shop" / "__init__.py").read_text()}) == 5


def test_other_runners_judge_by_two_trees(place: tuple[CodeTask, VerdictPlace], inverted: Draft, tmp_path: Path) -> None:
    task, _ = place
    for number, (change, reward) in enumerate([(inverted.solution[0], "1"), (None, "0")]):
        workspace, logs = tmp_path / f"{number}", tmp_path / f"logs-{number}"
        subprocess.run(["cp", "-r", task.workspace, workspace], check=True)
        if change is not None:
            (workspace / change.path).write_bytes(change.content)
        variables = {**os.environ, "WORKSPACE": str(workspace), "VERIFIER_LOGS": str(logs), "PYTHONPATH": str(workspace)}
        subprocess.run([sys.executable, task.folder / "tests" / "on_two_trees.py"], env=variables, check=True, capture_output=True)
        assert (logs / "reward.txt").read_text().strip() == reward


@pytest.mark.parametrize(
    "changed, cause",
    [
        ({"instruction": ""}, "nothing says what to do"),
        ({"hidden_tests": ()}, "its tests are no secret"),
        ({"solution": (FileChange("README.md", "file", 0o644, b"Percent.\n"),)}, "its tests alone do not hold"),
    ],
)
async def test_a_change_that_cannot_be_turned_round_is_rejected(
    language: PythonLanguage, draft: Draft, tmp_path: Path, changed: dict[str, object], cause: str
) -> None:
    with pytest.raises(Rejection, match=cause):
        await invert(language, replace(draft, **changed), folder=tmp_path, rng=random.Random(0))  # type: ignore[arg-type]


async def test_tests_that_cannot_be_loaded_before_the_change_are_rejected(language: PythonLanguage, draft: Draft, tmp_path: Path) -> None:
    (tests,) = draft.hidden_tests
    needs = replace(tests, content=tests.content.replace(b"import total\n", b"import total, more\n"))
    (solution,) = draft.solution
    adds = replace(solution, content=solution.content + b"\n\nmore = 1\n")
    with pytest.raises(Rejection, match="its tests do not fail in their bodies"):
        await invert(language, replace(draft, hidden_tests=(needs,), solution=(adds,)), folder=tmp_path, rng=random.Random(0))


def test_a_review_has_right_and_wrong_proposals_that_all_apply(reviewed: Draft, tmp_path: Path) -> None:
    answer = json.loads(reviewed.solution[0].content)
    assert {entry["verdict"] for entry in answer.values()} == {"approve", "defect"} and len(answer) == 4
    texts = set()
    for number, entry in answer.items():
        tree = tmp_path / number
        subprocess.run(["cp", "-r", reviewed.workspace, tree], check=True)
        subprocess.run(["git", "apply", f"proposals/{number}.patch"], cwd=tree, check=True)
        text = (tree / "shop" / "__init__.py").read_text()
        texts.add(text)
        if entry["verdict"] == "defect":
            assert 0 < entry["line"] <= len(text.splitlines())
    assert len(texts) == 4


async def test_a_review_is_judged_by_all_its_entries(reviewed: Draft, sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    folder = write_task(reviewed, tmp_path)
    settings = tomllib.loads((folder / "task.toml").read_text())["metadata"]["trunkline"]
    assert (settings["verifier"], settings["kind"], settings["allow"]) == ("script", "review", ["REVIEW.json"])
    verifier = ScriptVerifier.load(folder, sandboxes, environment=(await place_of(load_code_task(folder), sandboxes)).environment)

    async def earns(text: str) -> float:
        (reward,) = await verifier.verify(Work("", (FileChange("REVIEW.json", "file", 0o644, text.encode()),)))
        return reward.value

    answer = json.loads(reviewed.solution[0].content)
    assert await earns(json.dumps(answer)) == 1.0
    wrong = next(name for name, entry in answer.items() if entry["verdict"] == "defect")
    assert await earns(json.dumps(answer | {wrong: answer[wrong] | {"line": answer[wrong]["line"] + 3}})) == 1.0
    assert await earns(json.dumps(answer | {wrong: answer[wrong] | {"line": answer[wrong]["line"] + 4}})) == 0.0
    assert await earns(json.dumps(answer | {wrong: {"verdict": "approve"}})) == 0.0
    assert await earns(json.dumps({name: {"verdict": "approve"} for name in answer})) == 0.0
    assert await earns(json.dumps(dict.fromkeys(answer, answer[wrong]))) == 0.0
    assert await earns("[" * 10_000) == 0.0


async def test_a_review_is_certified(reviewed: Draft, sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    task = load_code_task(write_task(reviewed, tmp_path))
    place = await place_of(task, sandboxes)
    certificate = await certify_task(task, place, sandboxes=sandboxes, repeats=1, attacks=())
    assert certificate.passed and certificate.num_tasks_by_kind == {"review": 1}
