"""The tests of sandboxes once more, as a user without any power on this host."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.sandbox_scene import IS_ROOT, open_folder
from trunkline.sandbox.host import is_open_to_all

ROOT = Path(__file__).parents[2]
PARTS = ("", "_files", "_doors", "_abuse", "_spending", "_tricks", "_leftovers", "_sealed")
FILES = [f"tests/integration/test_sandbox{part}.py" for part in PARTS]
USER_ID = 12345


def shown_to_all(paths: list[Path], stage: Path) -> list[str]:
    """Shell commands that let everybody search the way to these paths, in a mount namespace of one's own."""
    closed = [path for path in paths if not is_open_to_all(path)]
    walls = {next(parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001) for path in closed}
    lines = []
    for index, path in enumerate(closed):
        lines += [f"mkdir {stage}/{index}", f"mount --bind {shlex.quote(str(path))} {stage}/{index}"]
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(wall))}" for wall in sorted(walls)]
    for index, path in enumerate(closed):
        lines += [f"mkdir -p {shlex.quote(str(path))}", f"mount --bind {stage}/{index} {shlex.quote(str(path))}"]
    return lines


@pytest.mark.timeout(1200)
def test_all_tests_of_sandboxes_pass_as_an_ordinary_user():
    if not IS_ROOT:
        pytest.skip("this is the ordinary user: only root can become another")
    missing = [tool for tool in ("unshare", "setpriv", "mount") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"root becomes another user by {', '.join(missing)}, which this host does not have")
    with open_folder() as folder:
        home = folder / "home"
        home.mkdir()
        os.chown(home, USER_ID, USER_ID)
        (folder / "stage").mkdir()
        powerless = [f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
        environment = [f"HOME={home}", f"TRUNKLINE_HOME={home}/trunkline", "PYTHONDONTWRITEBYTECODE=1", f"PATH={os.environ['PATH']}"]
        pytest_command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", f"--basetemp={home}/pytest", *FILES]
        command = ["setpriv", *powerless, "env", "-i", *environment, *pytest_command]
        paths = [Path(sys.base_prefix), Path(sys.prefix), ROOT]
        script = "\n".join(
            ["set -eu", *shown_to_all(paths, folder / "stage"), f"cd {shlex.quote(str(ROOT))}", shlex.join(["exec", *command])]
        )
        ran = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout[-10_000:]
        reasons = re.findall(r"^SKIPPED .*", ran.stdout, re.MULTILINE)
        assert [reason for reason in reasons if "root" not in reason] == []
        assert re.search(r"\d+ passed", ran.stdout)
