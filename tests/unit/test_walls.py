"""The walls between rooms hold: violations planted in a copy of the package are found, and torch stays where it belongs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TORCH_FREE_ROOMS = ("gateway", "pool", "episodes", "agents", "tasks", "sandbox", "evals", "evolve", "metrics")
TORCH_FREE_MODULES = (
    "types",
    "errors",
    "protocols",
    "models.tokenizer",
    "models.fetch",
    "models.info",
    "engine.client",
    "trainer.client",
    "run.recipe",
    "run.cli",
)

# Each file, the import planted in it, and how the check names the forbidden edge ('' where the import is allowed by itself
# and only makes a chain complete).
VIOLATIONS = {
    "metrics/planted.py": ("import trunkline.models.config", "trunkline.metrics is not allowed to import trunkline.models"),
    "trainer/planted.py": ("import trunkline.run.recipe", "trunkline.trainer is not allowed to import trunkline.run"),
    "pool/planted.py": ("import trunkline.engine.planted", "trunkline.pool is not allowed to import trunkline.engine"),
    "engine/planted.py": ("import trunkline.types", ""),
    "agents/planted.py": ("import trunkline.models.config", "trunkline.agents is not allowed to import trunkline.models"),
    "models/planted.py": ("import trunkline.sandbox", "trunkline.models is not allowed to import trunkline.sandbox"),
    "gateway/planted.py": ("import trunkline.weights", "trunkline.gateway is not allowed to import trunkline.weights"),
    "tasks/planted.py": ("def late():\n    import torch", "trunkline.tasks is not allowed to import torch"),
    "evals/planted.py": ("import trunkline.attention.planted", "trunkline.evals is not allowed to import torch"),
    "attention/planted.py": ("import torch", ""),
}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    executable = Path(sys.executable).parent / "lint-imports"
    command = [executable, "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def copy_of_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walls")
    shutil.copytree(ROOT / "trunkline", folder / "trunkline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


@pytest.fixture(scope="module")
def verdict_on_violations(copy_of_package: Path) -> subprocess.CompletedProcess[str]:
    planted = {copy_of_package / "trunkline" / name: line for name, (line, _) in VIOLATIONS.items()}
    for path, line in planted.items():
        path.write_text(f"{line}\n")
    try:
        return lint_imports(copy_of_package)
    finally:
        for path in planted:
            path.unlink()


def test_planted_violations_fail_the_check(verdict_on_violations: subprocess.CompletedProcess[str]) -> None:
    assert verdict_on_violations.returncode != 0
    assert "0 kept, 5 broken" in verdict_on_violations.stdout


@pytest.mark.parametrize("complaint", [complaint for _, complaint in VIOLATIONS.values() if complaint])
def test_each_planted_violation_is_named(verdict_on_violations: subprocess.CompletedProcess[str], complaint: str) -> None:
    assert complaint in verdict_on_violations.stdout


def test_a_room_that_is_not_in_the_layers_fails_the_check(copy_of_package: Path) -> None:
    room = copy_of_package / "trunkline" / "attic"
    room.mkdir()
    (room / "__init__.py").write_text('"""Not in the drawing."""\n')
    try:
        verdict = lint_imports(copy_of_package)
    finally:
        shutil.rmtree(room)
    assert verdict.returncode != 0
    assert "attic" in verdict.stdout


_IMPORT_ALL = """
import importlib, pkgutil, sys
rooms, modules = sys.argv[1].split(","), sys.argv[2].split(",")
names = [f"trunkline.{name}" for name in modules]
for room in rooms:
    package = importlib.import_module(f"trunkline.{room}")
    names += [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(f"importing {name} imports torch")
print(len(names))
"""


def test_rooms_that_do_not_compute_leave_torch_unimported() -> None:
    command = [sys.executable, "-c", _IMPORT_ALL, ",".join(TORCH_FREE_ROOMS), ",".join(TORCH_FREE_MODULES)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > len(TORCH_FREE_ROOMS) + len(TORCH_FREE_MODULES)
