"""Environments of small Python projects, made of real packages from the index and used by verdicts on a task that locks one."""

from __future__ import annotations

import datetime as dt
import textwrap
from pathlib import Path

import pytest

from tests.integration.sandbox_scene import open_folder
from tests.software_task import write_task
from trunkline.errors import TaskError
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.environments.install import install
from trunkline.tasks.environments.interpreters import interpreters, own_interpreter
from trunkline.tasks.environments.lock import LOCK, PythonLock
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.python import PythonLanguage
from trunkline.tasks.factory.python_recipe import PythonRecipe
from trunkline.tasks.swe.calibration import calibrate
from trunkline.tasks.swe.certify import task_key
from trunkline.tasks.swe.environment import environment_of, verdict_environment
from trunkline.tasks.swe.heldout import heldout_mismatches
from trunkline.tasks.swe.place import place_of

pytestmark = pytest.mark.anyio

OWN = own_interpreter().series
PROJECT = {
    "pyproject.toml": """\
        [project]
        name = "shop"
        version = "1.5"
        dependencies = ["inflection"]
        [project.optional-dependencies]
        tests = ["pytest-mock"]
        """,
    "src/shop/__init__.py": """\
        import inflection


        def label(word, count):
            return inflection.pluralize(word) if count != 1 else word
        """,
    "tests/test_shop.py": """\
        import importlib.metadata
        import os
        import socket
        import sys

        import pytest

        import shop


        def test_dependency_is_there():
            assert shop.label("box", 2) == "boxes"


        def test_plugin_is_there(mocker):
            assert mocker.Mock() is not None


        def test_metadata_is_there():
            assert importlib.metadata.version("shop") == "1.5"


        def test_project_comes_from_the_workspace():
            assert shop.__file__.startswith("/workspace/src/")


        def test_there_is_no_network():
            with pytest.raises(OSError):
                socket.create_connection(("pypi.org", 443), timeout=5)


        def test_packages_cannot_be_changed():
            import inflection
            with pytest.raises(OSError):
                open(inflection.__file__, "a")


        def test_python():
            print(sys.version)
            assert os.environ["PYTHONHASHSEED"] == "0"
        """,
}


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
async def sandboxes(anyio_backend):
    async with IsolatedSandboxes.open(SandboxConfig()) as opened:
        yield opened


@pytest.fixture
def tree():
    with open_folder() as folder:
        for name, text in PROJECT.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(textwrap.dedent(text))
        yield folder


@pytest.mark.parametrize("series", sorted({interpreters()[0].series, OWN}))
async def test_tests_run_with_what_the_project_asks_for(sandboxes, tree, series):
    language = PythonLanguage(sandboxes)
    recipe = PythonRecipe(python=series, cutoff=dt.date(2025, 6, 30), requirements=("inflection", "pytest-mock"))
    built = await language.build(recipe, tree)
    results = await language.run(built, (tree,), [], timeout_s=60)
    assert results.complaint == ""
    assert {name for name, ended in results.outcomes.items() if ended != "passed"} == set()
    assert len(results.outcomes) == 7
    assert built.settings() == {"import_roots": ["src"], "pytest_args": ["-p", "pytest_mock"]}


async def test_same_recipe_gives_the_same_environment(sandboxes, tree):
    language = PythonLanguage(sandboxes)
    (recipe, *_) = language.recipes(tree, dt.datetime(2025, 6, 3, tzinfo=dt.UTC))
    once, again = [await language.build(recipe, tree) for _ in range(2)]
    assert once.lock == again.lock
    assert "pytest-mock" in {file.name for file in once.lock.files}


async def test_project_is_no_package_of_its_own_environment(sandboxes, tree):
    (tree / "pyproject.toml").write_text('[project]\nname = "six"\nversion = "1"\n')
    built = await PythonLanguage(sandboxes).build(PythonRecipe(python=OWN, requirements=("python-dateutil",)), tree)
    assert "python-dateutil" in {file.name for file in built.lock.files}
    assert "six" not in {file.name for file in built.lock.files}


async def test_part_of_pytest_is_refused(sandboxes, tree):
    (tree / "pyproject.toml").write_text('[project]\nname = "iniconfig"\nversion = "1"\n')
    with pytest.raises(Rejection, match="a part of pytest"):
        await PythonLanguage(sandboxes).build(PythonRecipe(python=OWN), tree)


async def test_impossible_pin_is_a_rejection_with_the_words_of_the_resolver(sandboxes, tree):
    with pytest.raises(Rejection, match="(?s)packages cannot be resolved.*inflection"):
        await PythonLanguage(sandboxes).build(PythonRecipe(python=OWN, requirements=("inflection",), pins=("inflection>=9000",)), tree)


async def test_file_that_cannot_be_parsed_is_the_fault_of_that_file(sandboxes, tree):
    (tree / "tests/test_odd.py").write_text("def test_a(:\n")
    language = PythonLanguage(sandboxes)
    results = await language.run(await language.build(PythonRecipe(python=OWN), tree), (tree,), ["tests/test_odd.py"], timeout_s=60)
    assert results.complaint == ""
    assert list(results.faults) == ["tests/test_odd.py"]


async def test_changed_package_is_refused(sandboxes, tree, tmp_path, monkeypatch):
    built = await PythonLanguage(sandboxes).build(PythonRecipe(python=OWN), tree)
    monkeypatch.setenv("TRUNKLINE_HOME", str(tmp_path))
    wrong = [file.model_copy(update={"sha256": "0" * 64}) if file.name == "iniconfig" else file for file in built.lock.files]
    with pytest.raises(TaskError, match="is not the file that was locked"):
        await install(PythonLock(python=OWN, files=tuple(wrong)), sandboxes)
    assert not (tmp_path / "environments").exists()
    assert "0" * 64 not in {path.name for path in (tmp_path / "packages").iterdir()}


async def locked_task(folder: Path, sandboxes, tree: Path, series: str, **changes):
    """The task of tests/software_task.py under an environment of its own."""
    built = await PythonLanguage(sandboxes).build(PythonRecipe(python=series, cutoff=dt.date(2024, 6, 30), **changes), tree)
    return write_task(folder, **{LOCK: built.files()[LOCK]})


async def test_task_is_judged_under_its_own_environment(sandboxes, tree, tmp_path):
    task = await locked_task(tmp_path, sandboxes, tree, interpreters()[0].series, requirements=("inflection",))
    place = await place_of(task, sandboxes)
    assert place.environment.python == str(interpreters()[0].python)
    assert "inflection" in place.environment.modules
    calibration = await calibrate(task, place)
    assert calibration.fail_to_pass
    assert calibration.num_heldout_differing


async def test_held_out_calls_without_a_clock_say_what_is_missing(sandboxes, tree, tmp_path):
    task = await locked_task(tmp_path, sandboxes, tree, OWN)
    lock = PythonLock.read(task.folder / LOCK)
    (task.folder / LOCK).write_text(lock.model_copy(update={"files": tuple(f for f in lock.files if f.name != "time-machine")}).text())
    place = await place_of(task, sandboxes)
    with pytest.raises(TaskError, match="held-out calls need time-machine"):
        await heldout_mismatches(place, task, oracle_tree=task.workspace, work_tree=task.workspace, seed=1)


async def test_key_of_a_task_tells_environments_apart(sandboxes, tree, tmp_path):
    plain = write_task(tmp_path / "plain")
    locked = await locked_task(tmp_path / "locked", sandboxes, tree, OWN)
    assert task_key(plain) != task_key(locked)
    assert (await environment_of(plain.folder, sandboxes)).digest == verdict_environment().digest


async def test_variables_of_a_lock_reach_the_tests(sandboxes, tree):
    (tree / "tests/test_shop.py").write_text("import os\n\n\ndef test_a():\n    assert os.environ['SHOP'] == 'open'\n")
    language = PythonLanguage(sandboxes)
    built = await language.build(PythonRecipe(python=OWN, variables={"SHOP": "open"}), tree)
    assert (await language.run(built, (tree,), [], timeout_s=60)).passed == {"tests/test_shop.py::test_a"}
