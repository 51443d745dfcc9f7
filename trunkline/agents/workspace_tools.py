"""Tools on the workspace of one attempt: read, replace, write, run the tests. Owns their words; files and sandbox are workspace_place.py's.

A tool takes all of its arguments: some chat formats write them by position. A bad call is answered with what is wrong, never raised.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trunkline.agents.workspace_config import ToolName, WorkspaceConfig
from trunkline.agents.workspace_place import WorkspacePlace
from trunkline.errors import CommandNotStarted, FileAccessError
from trunkline.kept import KeptTexts, key_of
from trunkline.protocols import Tools
from trunkline.types import Command, CommandResult, ToolSpec

DONE = "ok"
PASSED, FAILED, ERROR, LATE = "passed", "failed", "error", "out of time"
NOT_FOUND = "error: old is not in the file"
NOT_ONCE = "error: old is more than once in the file"
NO_FILE = "error: no such file"
NO_LINE = "error: no such line"
BAD_ARGUMENTS = "error: bad arguments"
NO_TESTS = "error: nobody knows how tests are run here"
WORDS: tuple[str, ...] = (DONE, PASSED, FAILED, ERROR, LATE, NOT_FOUND, NOT_ONCE, NO_FILE, NO_LINE, BAD_ARGUMENTS, NO_TESTS)
"""All that tools say which does not come out of files or tests: for vocabularies."""

_MAX_FILE_BYTES = 2**20
_TEST_OUTPUT_BYTES = 2**16
_ENDED_BADLY = 1
"""The status of pytest, and of most other runners, if tests have failed; more is a fault of theirs."""
_SECONDS = re.compile(r"(?<= in )\d+(?:\.\d+)?m?s\b(?: \(\d+:\d\d:\d\d\))?")


@dataclass(frozen=True)
class _Declared:
    """A tool as the model is told of it; all its arguments are required."""

    description: str
    arguments: Mapping[str, str]
    """Name to JSON type, in the order in which they are written."""

    def spec(self, name: str) -> ToolSpec:
        properties = {argument: {"type": kind} for argument, kind in self.arguments.items()}
        parameters = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
        return ToolSpec(name, self.description, parameters)


_DECLARED: Mapping[ToolName, _Declared] = {
    "read": _Declared("The text of a file of the workspace", {"path": "string"}),
    "read_lines": _Declared("Lines of a file, the first is 1", {"path": "string", "first": "integer", "last": "integer"}),
    "replace": _Declared(
        "Replace a piece of a file's text, which must be in it exactly once", {"path": "string", "old": "string", "new": "string"}
    ),
    "write": _Declared("Write a whole file", {"path": "string", "text": "string"}),
    "run_tests": _Declared("Run all tests of the workspace", {}),
    "run_test_file": _Declared("Run the tests of one file", {"path": "string"}),
}


_REPLACE_LINE = _Declared(
    "Replace a line of a file, whose number is the one that reading shows", {"path": "string", "line": "integer", "new": "string"}
)


def workspace_specs(config: WorkspaceConfig) -> tuple[ToolSpec, ...]:
    """What a recipe's loop offers on every workspace."""
    declared = _DECLARED if config.edit_by == "text" else {**_DECLARED, "replace": _REPLACE_LINE}
    return tuple(declared[name].spec(name) for name in config.tools)


def numbered(text: str, *, first: int = 1) -> str:
    """A text as reading shows it where lines are replaced by their numbers."""
    return "".join(f"{number} {line}" for number, line in enumerate(text.splitlines(keepends=True), first))


class WorkspaceTools:
    """Implements `trunkline.protocols.Tools` on a sandbox, beside the tools that a task has anyway.

    Args:
        config: which tools, and how much they say.
        place: the attempt's files, and its sandbox if something has to run.
        test_command: runs the tests of the workspace; empty: nobody knows how.
        others: the task's own tools; a name of theirs is theirs.
        remembered: what tests said after the same edits, for all attempts; None: they are run each time.
        start: names all that tests depend on besides the edits: the workspace as it was given, its surroundings.
        turn: held while tests run, for all attempts: more of them at once than cores would only run into their time limits.
    """

    def __init__(
        self,
        config: WorkspaceConfig,
        place: WorkspacePlace,
        *,
        test_command: tuple[str, ...],
        others: Tools,
        remembered: KeptTexts | None = None,
        start: str = "",
        turn: asyncio.Semaphore | None = None,
    ) -> None:
        self._config = config
        self._place = place
        self._test_command = test_command
        self._others = others
        self._remembered = remembered
        self._start = start
        self._turn = turn or asyncio.Semaphore()
        theirs = {spec.name for spec in others.specs}
        self._offered = {spec.name: spec for spec in workspace_specs(config) if spec.name not in theirs}

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The task's, then those of the workspace."""
        return (*self._others.specs, *self._offered.values())

    async def call(self, name: str, arguments: str) -> str:
        """See `Tools`. Raises SandboxError, LimitExceeded: the sandbox is gone."""
        spec = self._offered.get(name)
        if spec is None:
            return await self._others.call(name, arguments)
        given = _arguments(spec, arguments)
        if given is None:
            return BAD_ARGUMENTS
        try:
            return _cut(await self._run(name, given), self._config.max_result)
        except FileAccessError:
            return NO_FILE

    async def _run(self, name: str, given: Mapping[str, Any]) -> str:
        match name:
            case "read":
                return self._shown(await self._text(given["path"]))
            case "read_lines":
                first, last = max(1, given["first"]), max(0, given["last"])
                lines = (await self._text(given["path"])).splitlines(keepends=True)
                return self._shown("".join(lines[first - 1 : last]), first=first)
            case "replace" if self._config.edit_by == "line":
                return await self._replace_line(given["path"], given["line"], given["new"])
            case "replace":
                return await self._replace(given["path"], given["old"], given["new"])
            case "write":
                await self._write(given["path"], given["text"])
                return DONE
            case "run_test_file":
                return await self._test(given["path"])
            case _:
                return await self._test()

    async def _replace(self, path: str, old: str, new: str) -> str:
        text = await self._text(path)
        count = text.count(old) if old else 0
        if count != 1:
            return NOT_ONCE if count else NOT_FOUND
        await self._write(path, text.replace(old, new))
        return DONE

    async def _replace_line(self, path: str, line: int, new: str) -> str:
        lines = (await self._text(path)).splitlines(keepends=True)
        if not 1 <= line <= len(lines):
            return NO_LINE
        end = lines[line - 1][len(lines[line - 1].rstrip("\r\n")) :]
        lines[line - 1] = new + end
        await self._write(path, "".join(lines))
        return DONE

    def _shown(self, text: str, *, first: int = 1) -> str:
        return numbered(text, first=first) if self._config.edit_by == "line" else text

    async def _text(self, path: str) -> str:
        content = await self._place.read(path, max_bytes=_MAX_FILE_BYTES)
        return content.decode(errors="replace")

    async def _write(self, path: str, text: str) -> None:
        await self._place.write(path, text.encode(errors="replace"))

    async def _test(self, *files: str) -> str:
        if not self._test_command:
            return NO_TESTS
        if any(file.startswith("-") for file in files):  # the runner would take it for an option
            return NO_FILE
        edits = self._place.edits_digest
        if self._remembered is None or edits is None:
            return await self._run_tests(files)
        key = key_of(self._start, edits, self._test_command, files, self._config.test_report)
        known = self._remembered.get(key)
        if known is not None:
            return known
        said = await self._run_tests(files)
        if said != LATE:
            self._remembered.put(key, said)
        return said

    async def _run_tests(self, files: tuple[str, ...]) -> str:
        command = Command((*self._test_command, *files), timeout_s=self._config.test_timeout_s, max_output_bytes=_TEST_OUTPUT_BYTES)
        try:
            async with self._turn:
                result = await (await self._place.sandbox()).run(command)
        except CommandNotStarted:
            return NO_TESTS
        return _word(result) if self._config.test_report == "word" else _output(result)


def _arguments(spec: ToolSpec, text: str) -> Mapping[str, Any] | None:
    """The call's arguments; None unless they are exactly those of the tool, of their types."""
    types = {"string": str, "integer": int}
    try:
        given = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return None
    properties = spec.parameters["properties"]
    if not isinstance(given, dict) or given.keys() != properties.keys():
        return None
    fits = all(isinstance(value, types[properties[name]["type"]]) and not isinstance(value, bool) for name, value in given.items())
    return given if fits else None


def _word(result: CommandResult) -> str:
    if result.is_timeout:
        return LATE
    return PASSED if result.status == 0 else FAILED if result.status == _ENDED_BADLY else ERROR


def _output(result: CommandResult) -> str:
    """What was printed, without how long it took: the same work is told the same."""
    text = (result.stdout + result.stderr).decode(errors="replace").strip()
    return f"{_SECONDS.sub('some time', text)}\n{_word(result)}".strip()


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
