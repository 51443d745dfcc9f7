"""What a project's package.json asks for, read without running anything of it. Owns no resolution and no command line."""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline.errors import TaskError
from trunkline.tasks.environments.javascript.recipe import Runner
from trunkline.tasks.factory.javascript.roles import is_run

MANIFEST = "package.json"
_MAX_BYTES = 2**20
_DEPENDENCIES = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies")
_KEPT = ("name", "version", *_DEPENDENCIES, "peerDependenciesMeta", "overrides")
_OUTSIDE = ("git", "github:", "gitlab:", "bitbucket:", "gist:", "http:", "https:", "file:", "link:", "portal:", "workspace:", "patch:")
# Arguments of a runner that say how its tests are to be run; all others (reports, coverage, watching, files) are ours to say.
_WITH_VALUE: Mapping[Runner, frozenset[str]] = {
    "node": frozenset({"--import", "--require", "-r", "--loader", "--experimental-loader", "--conditions", "-C", "--env-file"}),
    "files": frozenset({"--import", "--require", "-r", "--loader", "--experimental-loader", "--conditions", "-C"}),
    "vitest": frozenset({"--config", "-c", "--environment", "--pool", "--root", "--project", "--mode"}),
    "jest": frozenset({"--config", "-c", "--env", "--testEnvironment", "--preset", "--setupFiles", "--testTimeout", "--selectProjects"}),
    "mocha": frozenset({"--require", "-r", "--import", "--loader", "--ui", "-u", "--timeout", "-t", "--config", "--opts", "--file"}),
}
_PLAIN: Mapping[Runner, frozenset[str]] = {
    "node": frozenset({"--experimental-vm-modules", "--no-warnings", "--expose-gc", "--experimental-strip-types", "--enable-source-maps"}),
    "files": frozenset({"--no-warnings", "--expose-gc", "--enable-source-maps"}),
    "vitest": frozenset({"--globals", "--dom", "--no-isolate", "--no-threads"}),
    "jest": frozenset(),
    "mocha": frozenset({"--check-leaks", "--async-only", "--expose-gc", "--no-config", "--recursive"}),
}
_PROGRAMS: tuple[Runner, ...] = ("vitest", "jest", "mocha")
_SELF_RUNNING = ("tape", "tap", "uvu")
"""Libraries whose tests run when their file does."""
_NOT_OURS_TO_SET = frozenset({"PATH", "HOME", "TMPDIR", "NODE_PATH"})


@dataclass(frozen=True)
class Started:
    """How a project starts its tests."""

    runner: Runner
    """What runs them."""
    args: tuple[str, ...] = ()
    """Arguments of it that are kept, such as ('--import', 'tsx')."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of the environment, such as NODE_OPTIONS."""


@dataclass(frozen=True)
class Manifest:
    """A package.json."""

    content: Mapping[str, Any]
    """As it is."""

    @property
    def dependencies(self) -> dict[str, str]:
        """Names of packages to what the project says of their versions, all kinds together."""
        found: dict[str, str] = {}
        for group in _DEPENDENCIES:
            entries = self.content.get(group)
            found |= {str(name): str(spec) for name, spec in entries.items()} if isinstance(entries, dict) else {}
        return found

    def outside(self) -> list[str]:
        """Dependencies that do not come from the registry, in words."""
        return [f"{name}@{spec}" for name, spec in sorted(self.dependencies.items()) if spec.startswith(_OUTSIDE) or "/" in _plain(spec)]

    def to_resolve(self, overrides: Mapping[str, str]) -> str:
        """What of it decides which packages there are, as JSON: no scripts, no files. `overrides` win over its own versions."""
        kept = {key: self.content[key] for key in _KEPT if key in self.content}
        for group in _DEPENDENCIES:
            if isinstance(kept.get(group), dict):
                kept[group] = {name: overrides.get(name, spec) for name, spec in kept[group].items()}
        added = {name: spec for name, spec in overrides.items() if name not in self.dependencies}
        if added:
            kept["devDependencies"] = {**kept.get("devDependencies", {}), **added}
        return json.dumps({"private": True, **kept}, indent=1, sort_keys=True)

    def started(self) -> Started | None:
        """By its test script, else by the runner that it depends on; None if it is none that can be read."""
        scripts = self.content.get("scripts")
        texts = [str(text) for name, text in scripts.items() if name.startswith("test")] if isinstance(scripts, dict) else []
        for text in texts:
            for words in _commands(text):
                if found := _started(words):
                    return found
        for runner in _PROGRAMS:
            if runner in self.dependencies:
                return Started(runner)
        return Started("files") if any(name in self.dependencies for name in _SELF_RUNNING) else None


def read_manifest(tree: Path) -> Manifest | None:
    """None if there is none. Raises TaskError for one that is no object of JSON, or too large."""
    path = tree / MANIFEST
    if path.is_symlink() or not path.is_file():
        return None
    if (num_bytes := path.stat().st_size) > _MAX_BYTES:
        raise TaskError(f"{path} has {num_bytes:,} bytes, more than {_MAX_BYTES:,}; no package.json needs as many")
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise TaskError(f"{path} is no JSON: {error}; correct it") from None
    if not isinstance(content, dict):
        raise TaskError(f"{path} holds a {type(content).__name__}, a package.json is an object; correct it")
    return Manifest(content)


def _plain(spec: str) -> str:
    """Without the name of an alias, 'npm:@scope/name@1.0'."""
    return "" if spec.startswith("npm:") else spec


def _commands(text: str) -> Iterator[list[str]]:
    """The commands of a script, each as words."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="&|;")
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        for word in lexer:
            if word.strip("&|;"):
                words.append(word)
            elif words:
                yield words
                words = []
    except ValueError:
        return
    if words:
        yield words


def _started(words: list[str]) -> Started | None:
    """Of the command that starts a runner, also behind cross-env, c8 and the like."""
    for place, word in enumerate(words):
        if (runner := _runner_of(word, words[place + 1 :])) is not None:
            pairs = (other.partition("=") for other in words[:place] if "=" in other and not other.startswith("-"))
            variables = {name: value for name, _, value in pairs if name.isidentifier() and name not in _NOT_OURS_TO_SET}
            if "node" in words[:place]:  # node --experimental-vm-modules node_modules/.bin/jest
                options = [other for other in words[words.index("node") + 1 : place] if other.startswith("-")]
                variables |= {"NODE_OPTIONS": " ".join(options)} if options else {}
            return Started(runner, tuple(_kept(runner, words[place + 1 :])), variables)
    return None


def _runner_of(word: str, others: list[str]) -> Runner | None:
    """What this word of a command starts, with the words after it; None if it is no runner."""
    program = word.rpartition("/")[2].removesuffix(".js")
    if program == "node":
        if "--test" in others:
            return "node"
        return "files" if any(is_run(posixpath.normpath(other)) for other in others) else None
    return "files" if program in _SELF_RUNNING else next((known for known in _PROGRAMS if known == program), None)


def _kept(runner: Runner, words: list[str]) -> Iterator[str]:
    remaining = iter(words)
    for word in remaining:
        name = word.partition("=")[0]
        if name in _WITH_VALUE[runner]:
            yield word
            if name == word and (value := next(remaining, None)) is not None:
                yield value
        elif word in _PLAIN[runner]:
            yield word
