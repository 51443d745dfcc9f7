"""Held-out inputs for a draft, drawn like what its tests pass to functions on the way to its change. Owns no comparison.

solved tree under its tests ─► seen_calls.py: calls that come to the change ─► tests/heldout.py: drawn_calls.py with these
     ─► the solution agrees with itself on several seeds ─► the state before differs from it on some ─► HeldOut
"""

from __future__ import annotations

import ast
import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from trunkline.errors import TaskError, VerifierError
from trunkline.tasks.environments.layout import role_of
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.variants import drawn_calls, seen_calls
from trunkline.tasks.factory.variants.mutations import functions_of
from trunkline.tasks.swe.heldout import Observed, compare_work, observe_solution
from trunkline.tasks.swe.material import changed_functions
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.syntax import parse, parse_expression
from trunkline.tasks.swe.task import CodeSettings, CodeTask, is_regular, walk
from trunkline.tasks.swe.tree import lay_tree
from trunkline.types import Command, SealedResult, SealedRun

_SEEDS = (1, 2, 3)
_MOST_SEEN = 40
"""Calls of one function that are kept."""
_PROGRAM = "/verdict/seen_calls.py"
_MAX_REPORT_BYTES = 2**24
_FEWEST = 20
"""Calls that have to be answered for it to be worth a process a verdict."""
_EMPTY = 'SEEN: "dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]]" = {}'
_Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class HeldOut:
    """Held-out inputs of a task, which its solution answers firmly and its workspace does not."""

    text: str
    """Of tests/heldout.py."""
    functions: tuple[str, ...]
    """Which functions are called: 'module:function'."""
    num_calls: int
    """Of one seed."""
    num_differing: int
    """Of these, calls that the workspace answers otherwise."""


async def heldout_of(draft: Draft, place: VerdictPlace, *, timeout_s: float = 60.0) -> HeldOut | None:
    """None if the tests call no function of the change with plain data, or its answers are not firm. Raises SandboxError."""
    with tempfile.TemporaryDirectory(prefix="trunkline-heldout-") as scratch:
        folder = Path(scratch)
        task = await asyncio.to_thread(_as_task, draft, folder, timeout_s)
        recording = await asyncio.to_thread(_lay_recording, task, place, draft, folder)
        ended = await place.sandboxes.run_sealed(recording)
        try:
            return await _settled(task, place, folder, _seen(ended, task.settings.import_roots))
        except (TaskError, VerifierError):
            return None


async def _settled(task: CodeTask, place: VerdictPlace, folder: Path, seen: Mapping[str, list[_Call]]) -> HeldOut | None:
    """With the functions whose answers are firm. Raises TaskError, VerifierError."""
    assert task.heldout is not None
    while seen:
        task.heldout.write_text(heldout_text(seen), "utf-8")
        task.heldout.chmod(0o644)
        observed = [await observe_solution(place, task, tree=folder / "solved", seed=seed) for seed in _SEEDS]
        loose = {name for one in observed for name in _functions_of(one, await compare_work(place, task, one, tree=folder / "solved"))}
        if not loose:
            differing = await compare_work(place, task, observed[0], tree=task.workspace)
            num_calls = len(observed[0].calls)
            is_worth_it = differing and num_calls >= _FEWEST
            return HeldOut(task.heldout.read_text("utf-8"), tuple(sorted(seen)), num_calls, len(differing)) if is_worth_it else None
        seen = {name: calls for name, calls in seen.items() if name not in loose}
    return None


def heldout_text(seen: Mapping[str, list[_Call]]) -> str:
    """The module that draws calls like these."""
    text = Path(drawn_calls.__file__).read_text("utf-8")
    assert _EMPTY in text, "drawn_calls.py has no place for what was seen"
    lines = [f"    {name!r}: [\n" + "".join(f"        {call!r},\n" for call in seen[name]) + "    ],\n" for name in sorted(seen)]
    return text.replace(_EMPTY, "SEEN = {\n" + "".join(lines) + "}", 1)


def _lay_recording(task: CodeTask, place: VerdictPlace, draft: Draft, folder: Path) -> SealedRun:
    """The solved workspace with hidden tests, whose sources call seen_calls.py at their ends."""
    tree = folder / "recorded"
    lay_tree(tree, pristine=folder / "solved", hidden=task.hidden_tests)
    functions: dict[str, list[str]] = {}
    changed: dict[str, tuple[str, ...]] = {}
    solved = {change.path: change.content for change in draft.solution if change.kind == "file"}
    for path in walk(tree):
        name = path.relative_to(tree).as_posix()
        if not name.endswith(".py") or role_of(name) != "source" or not is_regular(path):
            continue
        source = path.read_bytes().decode("utf-8", "replace")
        functions[name] = _function_names(source)
        if name in solved:
            before = draft.workspace / name
            changed[name] = _changed(before.read_bytes().decode("utf-8", "replace") if before.is_file() else "", source)
        path.write_bytes(f"{source}\n\ngetattr(__import__('__main__'), 'record', len)({name!r})\n".encode())
    settings = {
        "packages": list(place.environment.packages),
        "roots": list(task.settings.import_roots),
        "functions": functions,
        "changed": changed,
        "arguments": [*task.settings.pytest_args, *task.settings.test_files],
    }
    return SealedRun(
        Command((place.environment.python, "-I", "-S", "-B", _PROGRAM, json.dumps(settings)), timeout_s=2 * task.settings.timeout_s),
        trees=(tree,),
        shown=(*place.environment.shown, (Path(seen_calls.__file__), _PROGRAM)),
        max_report_bytes=_MAX_REPORT_BYTES,
    )


def module_name(path: str, roots: Sequence[str]) -> str:
    """The name under which a file is imported from the deepest of these roots."""
    above = [root for root in roots if root != "." and PurePosixPath(path).is_relative_to(root)]
    inner = PurePosixPath(path).relative_to(max(above, key=len)) if above else PurePosixPath(path)
    parts = inner.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _function_names(source: str) -> list[str]:
    try:
        return sorted({name for name, _ in functions_of(parse(source))})
    except (SyntaxError, ValueError, RecursionError):
        return []


def _changed(before: str, after: str) -> tuple[str, ...]:
    """Functions that a change touches; () if one of the two is in another Python than ours."""
    try:
        return changed_functions(before, after)
    except (SyntaxError, ValueError, RecursionError):
        return ()


def _seen(ended: SealedResult, roots: Sequence[str]) -> dict[str, list[_Call]]:
    """Calls of functions that anyone may call, with arguments that can be written down; {} if there is no report."""
    if not ended.report or ended.is_report_cut or ended.command.is_timeout:
        return {}
    found: dict[str, list[_Call]] = {}
    for path, table in json.loads(ended.report).items():
        for name, texts in table.items():
            calls = [call for call in map(_call, texts) if call is not None and (call[0] or call[1])]
            if calls:
                found[f"{module_name(path, roots)}:{name}"] = calls[:_MOST_SEEN]
    return found


def _call(text: str) -> _Call | None:
    """Of its recorded form, `((1, 2), {'key': 3})`; None if it holds anything but plain data."""
    try:
        args, kwargs = ast.literal_eval(parse_expression(text))
        return args, dict(kwargs)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def _functions_of(observed: Observed, differences: list[str]) -> set[str]:
    """The functions of the calls that differ: 'call 3 (by a later clock): another value'."""
    found = set()
    for words in differences:
        number = words.removeprefix("call ").partition(":")[0].partition(" ")[0]
        if not number.isdecimal():
            raise TaskError(words)
        found.add(observed.calls[int(number)]["tuple"][0])
    return found


def _as_task(draft: Draft, folder: Path, timeout_s: float) -> CodeTask:
    """As far as calls are concerned."""
    hidden = folder / "hidden"
    hidden.mkdir()
    lay_tree(folder / "tests", pristine=hidden, changes=draft.hidden_tests)
    lay_tree(folder / "solved", pristine=draft.workspace, changes=draft.solution)
    folder.chmod(0o755)
    settings = {**draft.environment.settings(), "test_files": draft.test_files, "timeout_s": timeout_s, "workspace": "workspace"}
    return CodeTask(
        task_id=draft.name,
        instruction="",
        folder=folder,
        workspace=draft.workspace,
        hidden_tests=folder / "tests",
        heldout=folder / "heldout.py",
        solution=folder,
        settings=CodeSettings.model_validate(settings),
    )
