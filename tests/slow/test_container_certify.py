"""Certifying tasks whose workspace is in an image, by the commands, in a real Docker engine: what gets a certificate and what does not."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from typer.testing import CliRunner

from tests.container_task import BASE, write_container_task
from tests.slow.dockerd import IMAGE, import_images, running_dockerd
from trunkline.errors import CertificateError, SandboxUnavailable, TrunklineError
from trunkline.run.cli import app
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.docker_engine import OWNER
from trunkline.tasks.formats.harbor import read_harbor
from trunkline.tasks.swe.attacks import Attack, load_corpus
from trunkline.tasks.swe.container_certify import certify_container_task, container_subject
from trunkline.tasks.swe.container_task import ContainerTask
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.script_attacks import load_script_attacks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FIX = """\
--- a/total.py
+++ b/total.py
@@ -2,5 +2,5 @@


 def total(prices, percent):
-    return sum(prices) - percent
+    return sum(prices) * (100 - percent) // 100

"""
PYTEST_TESTS = "from total import total\n\n\ndef test_percent():\n    assert total([100, 300], 10) == 360\n"
PYTEST_SCRIPT = (
    "#!/bin/sh\ncd /app\necho 0 > /logs/verifier/reward.txt\npython3 -m pytest -q /tests && echo 1 > /logs/verifier/reward.txt\n"
)
PYTEST_IMAGE = f"FROM {BASE}\nCOPY packages /packages\nENV PYTHONPATH=/packages:/app\nCOPY app /app\nWORKDIR /app\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.APIClient]:
    """An engine of our own at DOCKER_HOST, with the images."""
    assert BASE == IMAGE
    with running_dockerd() as address, pytest.MonkeyPatch.context() as patch:
        import_images(address)
        patch.setenv("DOCKER_HOST", address)
        api = docker.DockerClient(address).api
        yield api
        api.close()


@pytest.fixture(autouse=True)
def nothing_is_left(engine: docker.APIClient) -> Iterator[None]:
    """After each test: no container, no image of a set of ours."""
    yield
    assert engine.containers(all=True) == []
    assert engine.images(filters={"label": OWNER}) == []


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_container_task(tmp_path_factory.mktemp("tasks") / "discount")


def said(*words: object, stdin: str | None = None, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["tasks", *map(str, words)], input=stdin)
    if isinstance(result.exception, TrunklineError):
        raise result.exception
    assert result.exit_code == status, (result.output, result.exception)
    return result.output


def judged(task: Path, *words: object, stdin: str | None = None) -> dict:
    return json.loads(said("verify", task, "--json", *words, stdin=stdin).splitlines()[-1])


def refusal_of(folder: Path, attacks: tuple[Attack, ...]) -> str:
    async def main() -> None:
        async with ContainerTask.open(folder, SandboxConfig(kind="container")) as opened:
            await certify_container_task(opened, repeats=1, attacks=attacks)

    with pytest.raises(CertificateError) as refused:
        asyncio.run(main())
    return str(refused.value)


def test_a_judge_that_cannot_be_forged_gets_a_certificate_from_the_whole_corpus(task: Path) -> None:
    text = said("certify", task, "--repeats", 3)
    assert "certified org/discount" in text and "1 of 1 tasks have a certificate" in text
    assert "notice: org/discount: environment.network_mode is not set" in text
    assert "has one   org/discount" in said("certify", task)
    assert "its script (image)  yes" in said("list", task.parent)
    shown = said("show", task)
    for attack in load_script_attacks():
        assert f"must earn 0: {attack.name}" in shown
    assert "not excluded: another base image" in shown and "not excluded: answers that are taken out of /tests" in shown
    assert judged(task, "--oracle")["is_certified"]


def test_work_is_judged_from_a_patch_a_folder_the_solution_and_nothing(task: Path, tmp_path: Path) -> None:
    assert judged(task)["verdict"]["value"] == 0
    assert judged(task, "--oracle")["verdict"]["value"] == 1
    assert judged(task, "--patch", "-", stdin=FIX)["verdict"]["value"] == 1
    shutil.copytree(task / "environment" / "app", tmp_path / "left")
    (tmp_path / "left" / "conftest.py").write_text("")
    verdict = judged(task, "--workspace", tmp_path / "left")["verdict"]
    assert verdict["value"] == 0 and "conftest.py (tests come from the task)" in verdict["evidence"]


def test_a_script_that_asks_pytest_alone_is_refused_with_the_attacks_that_were_paid(tmp_path: Path) -> None:
    folder = write_container_task(tmp_path / "task", **{"environment/Dockerfile": PYTEST_IMAGE, "tests/test.sh": PYTEST_SCRIPT})
    (folder / "tests/judge.py").unlink()
    (folder / "tests/test_total.py").write_text(PYTEST_TESTS)
    packages, _ = verdict_environment().shown[0]
    shutil.copytree(packages, folder / "environment/packages")
    names = ("always-equal", "source-exit", "shadowed-pytest", "patched-reports")
    chosen = tuple(attack for attack in load_corpus() if attack.name in names)
    refusal = refusal_of(folder, chosen + load_script_attacks())
    for name in (*names, "exit-zero", "reward-file-forged", "reward-json-beside", "reward-file-watched"):
        assert f"{name!r} must earn 0, 1 of 1 verdicts: 1" in refusal
    assert "'oracle'" not in refusal and "what tests/test.sh leaves in the reward file" in refusal


def test_a_solution_is_run_by_the_interpreter_that_it_names(tmp_path: Path) -> None:
    script = "#!/usr/local/bin/python3 -I\nimport shutil\nshutil.copy('/solution/total.py', '/app/total.py')\n"
    folder = write_container_task(tmp_path / "task", **{"solution/solve.sh": script})
    assert judged(folder, "--oracle")["verdict"]["value"] == 1


def test_the_key_of_a_task_that_names_an_image_is_of_what_the_image_holds(tmp_path: Path, engine: docker.APIClient) -> None:
    config = '[task]\nname = "org/discount"\n[environment]\ndocker_image = "own:1"\nworkdir = "/app"\n'
    folder = write_container_task(tmp_path / "task", **{"task.toml": config})
    keys = []
    for more in ("", "RUN echo more > /app/more\n"):
        (tmp_path / "context" / "app").mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder / "environment", tmp_path / "context", dirs_exist_ok=True)
        (tmp_path / "context" / "Dockerfile").write_text((folder / "environment/Dockerfile").read_text() + more)
        list(engine.build(path=str(tmp_path / "context"), tag="own:1", rm=True))
        keys.append(asyncio.run(container_subject(read_harbor(folder))).key)
        assert judged(folder, "--oracle")["verdict"]["value"] == 1
    assert keys[0] != keys[1]
    (folder / "task.toml").write_text(config.replace("own:1", "own:2"))
    with pytest.raises(SandboxUnavailable, match="no image 'own:2', which is that of org/discount.*docker pull own:2"):
        asyncio.run(container_subject(read_harbor(folder)))
