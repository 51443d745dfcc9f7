"""An environment of npm packages: what a task's directory says of it, and the way back from there. Owns no run and no installation.

environment/javascript.toml, environment/npm/** ─► this host's Node, of the same major version ─► installed ─► what a sandbox shows
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from trunkline.errors import TaskError
from trunkline.protocols import SealedSandboxes
from trunkline.tasks.environments.javascript.install import MODULES, install
from trunkline.tasks.environments.javascript.lock import read_lock
from trunkline.tasks.environments.javascript.node import Node, find_node
from trunkline.tasks.environments.javascript.recipe import JavaScriptRecipe
from trunkline.tasks.formats.harbor import DOCKERFILE
from trunkline.types import SandboxLimits

RECORD = "environment/javascript.toml"
MANIFEST = "environment/npm/package.json"
LOCK = "environment/npm/package-lock.json"
PROGRAMS = "/verdict/programs"
PROGRAMS_HERE = Path(__file__).parent / "programs"
"""On this host."""
VISIBLE_TESTS = f"{PROGRAMS}/visible_tests.mjs"
"""Runs the tests of a workspace, see there."""
VARIABLES = {"CI": "true", "NO_COLOR": "1", "FORCE_COLOR": "0", "TZ": "UTC", "NODE_ENV": "test"}
"""Of a run of tests; a recipe's own win."""
LIMITS = SandboxLimits(memory_bytes=3 * 2**30)
"""Of a run of tests: runners start several processes, each with a heap of its own."""

# Packages lie beside the workspace, as in our sandboxes.
_INSTALL = """COPY npm/package.json npm/package-lock.json /
RUN npm ci --no-audit --no-fund --force{options} && rm /package.json /package-lock.json
"""
_DOCKERFILE = """FROM node:{major}-slim
WORKDIR /
{install}COPY workspace /workspace
WORKDIR /workspace
"""


@dataclass(frozen=True)
class JavaScriptEnvironment:
    """Implements `trunkline.tasks.factory.language.Environment`, and `trunkline.tasks.swe.environment.ScriptEnvironment`."""

    recipe: JavaScriptRecipe
    """What it was made of."""
    node: Node
    """What runs it."""
    packages: Path | None
    """The installed packages, on this host; None: the project needs none."""
    manifest: str = ""
    """Text of the package.json that they were chosen for; '' without packages."""
    lock: str = ""
    """Text of their package-lock.json; '' without packages."""
    allow: tuple[str, ...] = ()
    """Patterns of files that a solution may add."""

    @property
    def shown(self) -> tuple[tuple[Path, str], ...]:
        """What every sealed run shows: the packages, our programs, and Node if it is not in /usr."""
        packages = () if self.packages is None else ((self.packages, MODULES),)
        return (*packages, (PROGRAMS_HERE, PROGRAMS), *self.node.shown)

    @property
    def variables(self) -> Mapping[str, str]:
        """That the tests run with."""
        return {**VARIABLES, **self.recipe.variables, "PATH": self.node.search_path}

    @property
    def script_variables(self) -> Mapping[str, str]:
        """See `ScriptEnvironment`: the script sets the others itself."""
        return {"PATH": self.node.search_path}

    @property
    def modules(self) -> frozenset[str]:
        """See `ScriptEnvironment`: its packages are no modules of Python."""
        return frozenset()

    @property
    def limits(self) -> SandboxLimits:
        """See `ScriptEnvironment`."""
        return LIMITS

    def files(self) -> Mapping[str, str]:
        """See `Environment`."""
        record = {"node": self.node.major, "recipe": self.recipe.model_dump(mode="json", exclude_none=True)}
        install = "" if self.packages is None else _INSTALL.format(options="" if self.recipe.scripts else " --ignore-scripts")
        texts = {RECORD: tomli_w.dumps(record), DOCKERFILE: _DOCKERFILE.format(major=self.node.major, install=install)}
        return texts if self.packages is None else {**texts, MANIFEST: self.manifest, LOCK: self.lock}

    def settings(self) -> Mapping[str, Any]:
        """See `Environment`: a verdict is the task's own script (judge_files.py)."""
        return {"verifier": "script", "allow": self.allow}


async def environment_of(folder: Path, sandboxes: SealedSandboxes) -> JavaScriptEnvironment | None:
    """That of a task's directory, installed from its lock if this host has not got it; None if the task has none of JavaScript.

    Raises TaskError: its files are wrong, an archive is not what the lock says, or another Node is needed; ConfigError without Node.
    """
    record = folder / RECORD
    if not record.is_file():
        return None
    try:
        content = tomllib.loads(record.read_text("utf-8"))
        recipe = JavaScriptRecipe.model_validate(content["recipe"])
        major = str(content["node"])
    except (tomllib.TOMLDecodeError, KeyError, ValidationError) as error:
        raise TaskError(f"{record} is no record of an environment: {error}; take the task from where it was made") from None
    node = await asyncio.to_thread(find_node)
    if node.major != major:
        raise TaskError(f"{record}: the task was made with Node {major}, here is {node.version}; install Node {major}, first on PATH")
    if not (folder / LOCK).is_file():
        return JavaScriptEnvironment(recipe, node, None)
    manifest = (folder / MANIFEST).read_text("utf-8")
    lock = read_lock((folder / LOCK).read_text("utf-8"), registry=node.registry)
    packages = await install(node, manifest, lock, sandboxes, runs_scripts=recipe.scripts)
    return JavaScriptEnvironment(recipe, node, packages, manifest, lock.text)
