"""Harbor's own validator accepts the trajectories that Trunkline writes, and refuses what Trunkline's reader refuses.

The package needs Python 3.12 and a registry. HARBOR_PYTHON names an interpreter that has it; else a virtual environment is made.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_evals_atif import FOREIGN, MALFORMED, MOVE_NAMES, changed, recorded
from trunkline.evals.atif import atif_to_episode, episode_to_atif
from trunkline.evals.atif_schema import read_trajectory, write_trajectory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
HARBOR = "harbor==0.26.0"
NUM_EPISODES = 100
# Harbor leaves these to the reader: a reference that leads nowhere, an id that the root and an embedded trajectory share.
ONLY_OURS = ("which is not in the document", "is used 2 times")
JUDGE = """
import json, sys
from harbor.utils.trajectory_validator import TrajectoryValidator
verdicts = {}
for path in sys.argv[1:]:
    validator = TrajectoryValidator()
    validator.validate(open(path, encoding="utf-8").read())
    verdicts[path] = validator.get_errors()
print(json.dumps(verdicts))
"""


@pytest.fixture(scope="module")
def harbor_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    if given := os.environ.get("HARBOR_PYTHON"):
        return given
    python = _newer_python()
    if python is None:
        pytest.skip("no Python 3.12 or newer was found, which harbor needs; name one that has harbor in HARBOR_PYTHON")
    venv = tmp_path_factory.mktemp("harbor") / "venv"
    subprocess.run([python, "-m", "venv", venv], check=True)
    inside = str(venv / "bin" / "python")
    installed = subprocess.run([inside, "-m", "pip", "install", "-q", HARBOR], capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"{HARBOR} could not be installed: {installed.stderr[-300:]}")
    return inside


def _newer_python() -> str | None:
    """The first that runs and is new enough: an entry of PATH may be a stub."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    known = [*(shutil.which(f"python3.{minor}") for minor in (12, 13, 14)), *sorted(map(str, pyenv.glob("3.1[2-9].*/bin/python3")))]
    for python in [sys.executable, *filter(None, known)]:
        code = "import sys, venv; sys.exit(sys.version_info < (3, 12))"
        if subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0:
            return python
    return None


def verdicts(python: str, documents: list[str], folder: Path) -> list[list[str]]:
    """Harbor's errors about each document."""
    paths = [folder / f"{number}.json" for number in range(len(documents))]
    for path, document in zip(paths, documents, strict=True):
        path.write_text(document, encoding="utf-8")
    done = subprocess.run([python, "-c", JUDGE, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    errors: dict[str, list[str]] = json.loads(done.stdout)
    return [errors[str(path)] for path in paths]


def test_harbor_accepts_every_trajectory_of_random_agents_through_the_real_gateway(harbor_python: str, tmp_path: Path) -> None:
    documents = []
    for seed in range(NUM_EPISODES):
        chance = random.Random(seed)
        moves = [(chance.choice(MOVE_NAMES), chance.randrange(10)) for _ in range(chance.randrange(9))]
        documents.append(write_trajectory(episode_to_atif(asyncio.run(recorded(moves, seed)))))
    documents.append(write_trajectory(episode_to_atif(atif_to_episode(read_trajectory(json.dumps(FOREIGN), "f")))))
    assert any("subagent_trajectory_ref" in document for document in documents)
    assert [errors for errors in verdicts(harbor_python, documents, tmp_path) if errors] == []


def test_harbor_refuses_what_the_reader_refuses(harbor_python: str, tmp_path: Path) -> None:
    cases = [(changes, said) for changes, said in MALFORMED if not any(ours in said for ours in ONLY_OURS)]
    documents = [json.dumps(changed(**changes)) for changes, _ in cases]
    accepted = [said for (_, said), errors in zip(cases, verdicts(harbor_python, documents, tmp_path), strict=True) if not errors]
    assert accepted == []
    assert verdicts(harbor_python, [json.dumps(FOREIGN)], tmp_path) == [[]]
