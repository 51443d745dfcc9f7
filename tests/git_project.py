"""Small git repositories for tests: a project is a list of commits, each a message and the files that it writes or, as None, deletes."""

from __future__ import annotations

import os
import subprocess
import textwrap
from collections.abc import Mapping
from pathlib import Path

Files = Mapping[str, str | None]


class GitProject:
    """A repository with a working tree. `project.commit("Fix total (#3)", {"shop.py": "..."})`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_commits = 0
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def commit(self, message: str, files: Files) -> str:
        """Returns its name."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.unlink()
            else:
                path.write_text(textwrap.dedent(text))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def merge(self, branch: str, message: str, *options: str) -> str:
        """Merges a branch into the current one, always by a commit."""
        self.git("merge", "--quiet", "--no-ff", *options, "--message", message, branch)
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        """What git says. A commit is a day after the one before."""
        self.num_commits += arguments[0] in ("commit", "merge")
        date = f"2021-03-{self.num_commits + 1:02d}T12:00:00+0000"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=self.folder, env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()
