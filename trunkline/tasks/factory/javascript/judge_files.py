"""What a JavaScript task is judged with: files below tests/ of its directory. Owns no verdict: that is Harbor's script, made here.

tests/test.sh ─► judge.mjs ─► judged/**, tree/** over the workspace ─► run.mjs ─► the project's runner ─► reward
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trunkline.errors import TaskError
from trunkline.tasks.environments.javascript.environment import PROGRAMS_HERE, VARIABLES, JavaScriptEnvironment
from trunkline.tasks.environments.javascript.recipe import JavaScriptRecipe
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.javascript.language import run_options
from trunkline.tasks.factory.javascript.roles import files_of, is_run, is_runner_configuration, role_of

_NAMES = ("judge.mjs", "run.mjs", "node_reporter.mjs", "mocha_reporter.cjs")
_SCRIPT = "#!/bin/sh\n# The task's tests by the project's own runner; see judge.mjs.\nexec node /tests/judge.mjs\n"


@dataclass(frozen=True)
class JudgedEnvironment:
    """Implements `trunkline.tasks.factory.language.Environment`: a draft's own, with what its task is judged by."""

    inner: JavaScriptEnvironment
    """What it was."""
    judge: Mapping[str, str]
    """Path in the task to text, all below tests/."""

    @property
    def recipe(self) -> JavaScriptRecipe:
        """See `Environment`."""
        return self.inner.recipe

    def files(self) -> Mapping[str, str]:
        """See `Environment`."""
        return {**self.inner.files(), **self.judge}

    def settings(self) -> Mapping[str, Any]:
        """See `Environment`."""
        return self.inner.settings()


def judged(draft: Draft) -> Draft:
    """A draft whose task has its judge. Raises TaskError if it is of another language, or nothing turns."""
    environment = draft.environment
    if not isinstance(environment, JavaScriptEnvironment):
        raise TaskError(f"{draft.name}: its environment is no JavaScript ({environment.recipe.words}); it is judged by other means")
    return replace(draft, environment=JudgedEnvironment(environment, judge_files(draft, environment.recipe)))


def judge_files(draft: Draft, recipe: JavaScriptRecipe) -> Mapping[str, str]:
    """Path in the task to text: the script, its programs, what it asks for, and what an attempt must not have changed.

    Test files and the runner's configuration that the change leaves alone are laid again over what the agent left, if they are text; the
    change's own tests are in tests/tree. Raises TaskError if nothing turns.
    """
    if not draft.tested.fail_to_pass:
        raise TaskError(f"{draft.name}: no test turns, so a judge would pay nobody")
    wanted = {
        **run_options(recipe, [path for path in draft.test_files if is_run(path)]),
        "variables": {**VARIABLES, **recipe.variables},
        "fail_to_pass": list(draft.tested.fail_to_pass),
        "pass_to_pass": list(draft.tested.pass_to_pass),
    }
    changed = {change.path for change in (*draft.hidden_tests, *draft.solution)}
    programs = {f"tests/{name}": (PROGRAMS_HERE / name).read_text("utf-8") for name in _NAMES}
    own = {"tests/test.sh": _SCRIPT, "tests/judge.json": json.dumps(wanted, indent=1) + "\n"}
    return {**programs, **own, **_laid_again(draft.workspace, changed)}


def _laid_again(workspace: Path, changed: Collection[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in files_of(workspace):
        if (role_of(path) == "test" or is_runner_configuration(path)) and path not in changed and not (workspace / path).is_symlink():
            with contextlib.suppress(UnicodeDecodeError):
                found[f"tests/judged/{path}"] = (workspace / path).read_bytes().decode("utf-8")
    return found
