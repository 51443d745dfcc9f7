"""What the sandbox of an attempt at a task has beside its workspace: packages, and the command that runs its tests. Owns no verdict."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import PurePosixPath

from trunkline.protocols import SealedSandboxes, Surroundings
from trunkline.tasks.environments.javascript.environment import VISIBLE_TESTS, JavaScriptEnvironment
from trunkline.tasks.environments.javascript.environment import environment_of as javascript_of
from trunkline.tasks.swe.environment import PROGRAMS, PythonEnvironment, environment_of, verdict_environment
from trunkline.tasks.swe.task import CodeTask

TEST_COMMAND = "TRUNKLINE_TEST_COMMAND"
"""The variable that holds the command, for programs: shell words."""
_WORKSPACE = PurePosixPath("/workspace")


async def surroundings_of(task: CodeTask, sandboxes: SealedSandboxes | None) -> Surroundings:
    """Those of its tests; of a task that a script judges only Node's. Raises TaskError, ConfigError, InfraError, SandboxError.

    `sandboxes` are where a task's own packages are installed, if they are not yet; None: it has the Python that we run under, or nothing.
    """
    if task.settings.verifier == "script":
        javascript = None if sandboxes is None else await javascript_of(task.folder, sandboxes)
        return Surroundings() if javascript is None else javascript_surroundings(javascript)
    if sandboxes is None:
        return python_surroundings(task, await asyncio.to_thread(verdict_environment))
    return python_surroundings(task, await environment_of(task.folder, sandboxes))


def python_surroundings(task: CodeTask, environment: PythonEnvironment) -> Surroundings:
    """The packages where verdicts see them, and pytest on the visible tests; none of its variables touches the agent's own Python."""
    roots = [str(_WORKSPACE / root) for root in task.settings.import_roots]
    path = ":".join(dict.fromkeys([*roots, *environment.packages]))
    variables = {**dict(environment.variables), "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    python = ("env", *(f"{name}={value}" for name, value in variables.items()), environment.python, "-s", "-S", "-B")
    command = (*python, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *task.settings.pytest_args)
    shown = tuple((source, place) for source, place in environment.shown if place != PROGRAMS)
    return Surroundings(shown, {TEST_COMMAND: shlex.join(command)}, command)


def javascript_surroundings(environment: JavaScriptEnvironment) -> Surroundings:
    """Packages and Node where verdicts see them, and the project's runner on the visible tests."""
    runs = ("env", *(f"{name}={value}" for name, value in environment.variables.items()), "node", VISIBLE_TESTS)
    command = (*runs, environment.recipe.runner, *environment.recipe.runner_args, "--")
    return Surroundings(environment.shown, {TEST_COMMAND: shlex.join(command)}, command)
