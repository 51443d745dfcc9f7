"""A plain verdict on written tests, for runners that are not Trunkline. A program of its own: it lies in tests/ of a task.

Its own tests fail on the workspace as it is and pass with /tests/after laid over it. Weaker than Trunkline's verdict: the tests can see
which of two trees they are on.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

WORKSPACE = Path(os.environ.get("WORKSPACE", "/workspace"))
TESTS = Path(__file__).resolve().parent
LOGS = Path(os.environ.get("VERIFIER_LOGS", "/logs/verifier"))
_NUM_SECONDS = 120
_SOME_FAILED = 1


def main() -> None:
    """Runs the tests twice and writes the reward."""
    pristine = TESTS / "pristine.txt"
    known = set(pristine.read_text("utf-8").splitlines()) if pristine.is_file() else set()
    files = [path.relative_to(WORKSPACE).as_posix() for path in sorted(WORKSPACE.rglob("*.py")) if is_test(path.name)]
    wanted = [file for file in files if f"{digest_of(file)} {file}" not in known]
    before = run(wanted)
    shutil.copytree(TESTS / "after", WORKSPACE, dirs_exist_ok=True)
    reward = int(bool(wanted) and before == _SOME_FAILED and run(wanted) == 0)
    LOGS.mkdir(parents=True, exist_ok=True)
    (LOGS / "reward.txt").write_text(f"{reward}\n")


def is_test(name: str) -> bool:
    """Whether pytest collects a file of this name."""
    return name.startswith("test_") or name.endswith("_test.py")


def digest_of(file: str) -> str:
    """SHA-256 of its content."""
    return hashlib.sha256((WORKSPACE / file).read_bytes()).hexdigest()


def run(files: list[str]) -> int:
    """The status of pytest."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    return subprocess.run(command, cwd=WORKSPACE, timeout=_NUM_SECONDS, check=False).returncode


if __name__ == "__main__":
    main()
