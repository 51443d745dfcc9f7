"""Tasks whose workspace is in an image, where no engine answers: what can be said of them, and what is refused by what words."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.container_task import write_container_task
from trunkline.errors import SandboxUnavailable, TaskError, TrunklineError
from trunkline.run.cli import app
from trunkline.tasks.swe.attacks import load_corpus
from trunkline.tasks.swe.container_certify import container_key
from trunkline.tasks.swe.taskset import SweTaskset

NAMES_AN_IMAGE = '[task]\nname = "org/discount"\n[environment]\ndocker_image = "own:1"\n'


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-such.sock")
    monkeypatch.chdir(tmp_path)


def said(*words: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["tasks", *map(str, words)])
    if isinstance(result.exception, TrunklineError):
        raise result.exception
    assert result.exit_code == status, (result.output, result.exception)
    return " ".join(result.output.split())


def test_certifying_without_an_engine_says_what_to_install_and_to_start(tmp_path: Path) -> None:
    text = said("certify", write_container_task(tmp_path / "task"), status=1)
    assert "org/discount has its workspace in an image (environment/Dockerfile), so it needs a container engine" in text
    assert "pip install 'trunkline[container]'" in text and "DOCKER_HOST" in text and "no-such.sock" in text


def test_a_verdict_without_an_engine_is_refused_in_the_same_words(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable, match="needs a container engine"):
        said("verify", write_container_task(tmp_path / "task"), "--oracle")


def test_what_a_task_cannot_have_is_refused_before_an_engine_is_asked(tmp_path: Path) -> None:
    task = write_container_task(tmp_path / "task", **{"environment/docker-compose.yaml": "", "tests/test.sh": "pip install x\n"})
    text = said("certify", task, status=1)
    assert "asks for what cannot be given: environment/docker-compose.yaml" in text and "tests/test.sh, line 1, 'pip install x'" in text
    assert "container engine" not in text


def test_certify_tells_what_runs_differently_than_the_task_says(tmp_path: Path) -> None:
    text = said("certify", write_container_task(tmp_path / "one"), status=1)
    assert "notice: org/discount: environment.network_mode is not set, which means public: the task runs without network" in text
    assert "notice: org/discount: verifier.environment_mode is 'shared'" in text


def test_list_and_show_know_without_an_engine_what_is_certified_of_a_dockerfile(tmp_path: Path) -> None:
    task = write_container_task(tmp_path / "task")
    assert "org/discount bug its script (image) no no task" in said("list", task)
    assert "it is certified and judged in containers" in said("show", task) and "no certificate in our store" in said("show", task)


def test_of_an_image_that_is_not_here_nobody_knows_whether_it_is_certified(tmp_path: Path) -> None:
    task = write_container_task(tmp_path / "task", **{"task.toml": NAMES_AN_IMAGE})
    assert "its script (image) unknown: no image no task" in said("list", task)
    assert "whether it has a certificate is unknown: org/discount has its workspace in an image (own:1)" in said("show", task)


def test_the_key_covers_the_environment_the_image_and_the_attacks(tmp_path: Path) -> None:
    task = write_container_task(tmp_path / "task")
    keys = [container_key(task, ""), container_key(task, "sha256:one"), container_key(task, "", load_corpus()[:1])]
    assert container_key(write_container_task(tmp_path / "copy"), "") == keys[0]
    for path in ("environment/app/total.py", "environment/Dockerfile", "tests/judge.py"):
        with (task / path).open("a") as file:
            file.write("\n")
        keys.append(container_key(task, ""))
    assert len(set(keys)) == 6


def test_a_taskset_refuses_such_a_task_and_names_the_commands_that_take_it(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"trunkline tasks certify, verify, show and list.*all agents of a run share one image"):
        SweTaskset.from_options({"paths": [write_container_task(tmp_path / "task")], "heldout_share": 0})
