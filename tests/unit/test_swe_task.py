"""Software tasks as folders: what is read of them, what is refused and how it is said, the digest, the environment of verdicts."""

from __future__ import annotations

import subprocess
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.software_task import FILES, write_task
from trunkline.errors import ConfigError, TaskError
from trunkline.tasks.swe import environment
from trunkline.tasks.swe.environment import PythonEnvironment, verdict_environment
from trunkline.tasks.swe.task import judged_sources, load_code_task, task_digest


def config(settings: str) -> dict[str, str]:
    return {"task.toml": f'[task]\nname = "test/coupon"\n[metadata.trunkline]\n{settings}\n'}


def test_a_tasks_parts_are_found(tmp_path: Path) -> None:
    task = write_task(tmp_path)
    assert (task.task_id, task.workspace, task.solution) == ("test/coupon", tmp_path / "environment/workspace", tmp_path / "solution")
    assert (task.hidden_tests, task.heldout) == (tmp_path / "tests/tree", tmp_path / "tests/heldout.py")
    assert "coupon" in task.instruction
    assert task.settings.import_roots == (".",)


def test_hidden_tests_and_heldout_inputs_may_be_missing(tmp_path: Path) -> None:
    task = write_task(tmp_path, **{"tests/heldout.py": "", "tests/tree/tests/test_coupon.py": ""})
    assert (task.hidden_tests, task.heldout) == (None, None)


@pytest.mark.parametrize(
    "files, complaint",
    [
        (config(""), "names no workspace"),
        (config('workspace = "missing"'), "there is no 'missing'"),
        (config('workspace = "../tests"'), "there is no '../tests'"),
        (config('workspace = "."'), "there is no '.'"),
        (config('workspace = "workspace"\nimport_roots = ["src"]'), "there is no 'src'"),
        (config('workspace = "workspace"\nimport_roots = ["../.."]'), "there is no '../..'"),
        (config('workspace = "workspace"\ntimeout = 3'), "timeout: Extra inputs are not permitted, got 3; known are"),
        (config('workspace = "workspace"\nkind = "chore"'), "kind: Input should be 'bug'"),
        ({"solution/solve.sh": ""}, "solve.sh is missing"),
    ],
)
def test_what_is_wrong_with_a_task_is_said(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    with pytest.raises(TaskError) as raised:
        write_task(tmp_path, **files)
    assert complaint in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_hidden_tests_are_judged_in_place_of_visible_ones(tmp_path: Path) -> None:
    task = write_task(tmp_path, **{"tests/tree/tests/test_shop.py": "# hidden\n", "tests/tree/tests/data.py": ""})
    sources = judged_sources(task)
    assert list(sources) == ["tests/test_coupon.py", "tests/test_shop.py"]
    assert sources["tests/test_shop.py"] == "# hidden\n"


def test_a_judged_file_that_is_nowhere_is_named(tmp_path: Path) -> None:
    task = write_task(tmp_path, **config('workspace = "workspace"\ntest_files = ["tests/test_gone.py"]'))
    with pytest.raises(TaskError, match="test_files names 'tests/test_gone.py'"):
        judged_sources(task)


def test_every_file_decides_the_digest(tmp_path: Path) -> None:
    write_task(tmp_path / "a")
    digests = {task_digest(tmp_path / "a")}
    for number, name in enumerate(FILES):
        folder = write_task(tmp_path / str(number)).folder
        assert task_digest(folder) in digests
        (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
        digests.add(task_digest(folder))
    assert len(digests) == 1 + len(FILES)


def test_x_bit_and_names_decide_the_digest(tmp_path: Path) -> None:
    folder = write_task(tmp_path).folder
    digests = {task_digest(folder)}
    (folder / "solution/solve.sh").chmod(0o755)
    digests.add(task_digest(folder))
    (folder / "tests/heldout.py").rename(folder / "tests/heldout2.py")
    digests.add(task_digest(folder))
    assert len(digests) == 3


def test_a_link_has_no_digest(tmp_path: Path) -> None:
    folder = write_task(tmp_path).folder
    (folder / "environment/workspace/link").symlink_to("/etc")
    with pytest.raises(TaskError, match="neither a file nor a directory"):
        task_digest(folder)


def test_a_folder_that_is_no_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"task\.toml"):
        load_code_task(tmp_path)


@pytest.fixture(scope="module")
def verdicts() -> PythonEnvironment:
    return verdict_environment()


def test_the_environment_of_verdicts_imports_without_site_packages(verdicts: PythonEnvironment) -> None:
    folder = verdicts.shown[0][0]
    text = f"import sys; sys.path.append({str(folder)!r}); import pytest, time_machine; print(pytest.__file__, 'numpy' in sys.modules)"
    ran = subprocess.run([verdicts.python, "-I", "-S", "-c", text], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [str(folder / "pytest/__init__.py"), "False"]


def test_the_environment_of_verdicts_names_its_modules(verdicts: PythonEnvironment) -> None:
    assert {"pytest", "_pytest", "pluggy", "time_machine", "_time_machine"} <= verdicts.modules
    assert not verdicts.modules & {"trunkline", "torch", "pydantic", "xdist"}


def _build(home: Path) -> str:
    environment._environment.cache_clear()
    return environment._environment(home).digest


def test_two_processes_may_build_the_environment_at_once(tmp_path: Path, verdicts: PythonEnvironment) -> None:
    with ProcessPoolExecutor(2) as processes:
        digests = list(processes.map(_build, [tmp_path, tmp_path]))
    assert digests == [verdicts.digest] * 2
    assert [path.name for path in (tmp_path / "environments").iterdir()] == [verdicts.digest]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_WANTED", ("no-such-package-of-ours",))
    with pytest.raises(ConfigError, match="pip install no-such-package-of-ours"):
        environment._closure()
