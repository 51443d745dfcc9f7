"""What the strongest attacker knows of a task: its tests, its fix, and what the fixed functions answer to the tests. Owns no attack.

oracle's changes ─► sources that it changes ─► functions that differ ───────────────┐
a sealed run of all tests on the fixed workspace ─► through what they reach those ──┴─► Material
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from trunkline.errors import TaskError
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.syntax import parse
from trunkline.tasks.swe.task import CodeTask, is_regular, is_test_module, judged_sources, walk
from trunkline.tasks.swe.tree import lay_tree
from trunkline.types import Command, FileChange, SealedRun

_MAX_REPORT_BYTES = 2**24
_MAKERS = frozenset({"__init__", "__new__", "__post_init__", "__init_subclass__", "__set_name__", "__class_getitem__"})
"""What they return is prescribed."""
_TESTS = frozenset({"test", "tests", "testing"})


@dataclass(frozen=True)
class Source:
    """One Python file that the fix changes or adds, or through which the tests reach what it changes."""

    path: str
    """In the workspace."""
    module: str
    """The name by which it is imported."""
    root: str
    """The directory of the workspace from which it is imported; '.' is the workspace itself."""
    pristine: str
    """Its text in the workspace; '' if the fix adds it or is what makes it Python."""
    fixed: str
    """Its text after the fix."""
    functions: tuple[str, ...]
    """Functions that the fix changes or adds, such as 'total' or 'Basket.total'; none of classes that the workspace lacks."""
    entries: tuple[str, ...] = ()
    """Functions of the file, changed or not, that the tests call and that come, sooner or later, to a changed one."""
    table: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What entries answered: text of the arguments -> an expression for ('returns', value) or ('raises', exception)."""

    @property
    def replaceable(self) -> tuple[str, ...]:
        """Functions in whose place something else can answer the tests."""
        return tuple(name for name in dict.fromkeys((*self.entries, *self.functions)) if name.rpartition(".")[2] not in _MAKERS)


@dataclass(frozen=True)
class Material:
    """All that an attack may be made of. `Material(task, changes, sources, ("tests/test_a.py",), ("tests/test_a.py::test_b",), {...})`."""

    task: CodeTask
    """The task."""
    oracle: tuple[FileChange, ...]
    """The fix, as changes of the workspace."""
    sources: tuple[Source, ...]
    """The Python files that it changes, tests aside, that with most changed functions first; then others with entries."""
    test_files: tuple[str, ...]
    """Files whose tests are judged, in the workspace."""
    test_ids: tuple[str, ...]
    """pytest's names of the tests that the fixed workspace passes."""
    tests: Mapping[str, str]
    """Texts of the judged test files, the hidden ones' where there are two."""


def changed_functions(pristine: str, fixed: str) -> tuple[str, ...]:
    """Functions of `fixed` that are other or missing in `pristine`: at the top level, and of classes that `pristine` has too."""
    before, after = _functions(parse(pristine)), _functions(parse(fixed))
    classes = {name for name, node in before.items() if isinstance(node, ast.ClassDef)}
    found = []
    for name, node in after.items():
        owner = name.rpartition(".")[0]
        is_same = name in before and ast.dump(before[name]) == ast.dump(node)
        if not isinstance(node, ast.ClassDef) and not is_same and (not owner or owner in classes):
            found.append(name)
    return tuple(found)


def changed_sources(task: CodeTask, oracle: Sequence[FileChange]) -> tuple[Source, ...]:
    """The Python files that a fix changes, without what the tests answer. Left out are tests, and what isn't written in UTF-8."""
    found = []
    for change in oracle:
        if change.kind != "file" or not change.path.endswith(".py") or is_test_module(change.path):
            continue
        before = task.workspace / change.path
        try:
            pristine, fixed = before.read_text("utf-8") if before.is_file() else "", change.content.decode()
        except UnicodeDecodeError:
            continue
        found.append(_source(task, change.path, pristine if _is_python(pristine) else "", fixed))
    return tuple(sorted(found, key=lambda source: (-len(source.functions), source.path)))


async def gather_material(task: CodeTask, place: VerdictPlace, oracle: Sequence[FileChange]) -> Material:
    """Runs all judged tests once on the fixed workspace, sealed, and records what its changed functions answer.

    Raises TaskError if no test passes there, SandboxError.
    """
    changed, tests = changed_sources(task, oracle), judged_sources(task)
    with tempfile.TemporaryDirectory(prefix="trunkline-material-") as folder:
        tree = Path(folder) / "tree"
        sources = (*changed, *await asyncio.to_thread(_lay_recording, tree, task, oracle, changed))
        result = await place.sandboxes.run_sealed(_recording(task, place, tree, sources, tests))
    said = json.loads(result.report) if result.report and not result.is_report_cut else {}
    ids = tuple(said.get("passed", ()))
    if not ids:
        raise TaskError(
            f"{task.folder}: no test passes with the solution of the task; pytest ended with status {result.command.status}: "
            f"{result.command.stdout.decode(errors='replace')[-1500:]}{result.command.stderr.decode(errors='replace')[-500:]}"
        )
    recorded = []
    for source in sources:
        calls = said["calls"].get(source.path, {})
        if calls or source in changed:
            recorded.append(replace(source, entries=tuple(calls), table={name: table for name, table in calls.items() if table}))
    return Material(task, tuple(oracle), tuple(recorded), tuple(tests), ids, tests)


def _lay_recording(tree: Path, task: CodeTask, oracle: Sequence[FileChange], changed: Sequence[Source]) -> list[Source]:
    """The solved workspace with hidden tests; its sources call programs/record_calls.py at their ends. Returns the unchanged ones."""
    lay_tree(tree, pristine=task.workspace, changes=oracle, hidden=task.hidden_tests)
    others = [_source(task, path.relative_to(tree).as_posix(), text, text) for path, text in _sources(tree)]
    known = {source.path for source in changed}
    others = [source for source in others if source.path not in known]
    for source in (*changed, *others):
        (tree / source.path).write_text(f"{source.fixed}\n\ngetattr(__import__('__main__'), 'record', len)({source.path!r})\n")
    return others


def _recording(task: CodeTask, place: VerdictPlace, tree: Path, sources: Sequence[Source], tests: Mapping[str, str]) -> SealedRun:
    settings = {
        "packages": list(place.environment.packages),
        "roots": list(task.settings.import_roots),
        "functions": {source.path: _recorded_functions(source) for source in sources},
        "changed": {source.path: list(source.functions) for source in sources if source.functions},
        "arguments": [*task.settings.pytest_args, *tests],
    }
    return SealedRun(
        Command(place.environment.argv("record_calls", json.dumps(settings)), timeout_s=2 * task.settings.timeout_s),
        trees=(tree,),
        shown=place.environment.shown,
        max_report_bytes=_MAX_REPORT_BYTES,
    )


def _recorded_functions(source: Source) -> list[str]:
    """All of a file, but for methods that Python itself calls, unless the fix changes them."""
    functions = {name for name, node in _functions(parse(source.fixed)).items() if not isinstance(node, ast.ClassDef)}
    return sorted(name for name in functions if not name.rpartition(".")[2].startswith("__") or name in source.replaceable)


def _source(task: CodeTask, path: str, pristine: str, fixed: str) -> Source:
    root = _import_root(path, task.settings.import_roots)
    return Source(path, _module_name(path, root), root, pristine, fixed, changed_functions(pristine, fixed))


def _sources(tree: Path) -> Iterator[tuple[Path, str]]:
    """Files that an attack may change, with their texts."""
    for path in walk(tree):
        if _is_source(path.relative_to(tree)) and is_regular(path):
            with contextlib.suppress(UnicodeDecodeError):
                text = path.read_text("utf-8")
                if _is_python(text):
                    yield path, text


def _is_python(text: str) -> bool:
    try:
        parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True


def _is_source(path: Path) -> bool:
    """By its name: Python that is neither a test nor beside tests, so that an attack may change it."""
    return path.suffix == ".py" and not is_test_module(path.name) and path.name != "conftest.py" and not _TESTS.intersection(path.parts)


def _functions(tree: ast.AST, prefix: str = "") -> dict[str, ast.AST]:
    found: dict[str, ast.AST] = {}
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found[prefix + node.name] = node
        elif isinstance(node, ast.ClassDef):
            found[prefix + node.name] = node
            found |= _functions(node, f"{prefix}{node.name}.")
    return found


def _import_root(path: str, roots: Sequence[str]) -> str:
    """The deepest root above a file."""
    above = [root for root in roots if root == "." or PurePosixPath(path).is_relative_to(root)]
    return max(above, key=lambda root: len(PurePosixPath(root).parts), default=".")


def _module_name(path: str, root: str) -> str:
    inner = PurePosixPath(path) if root == "." else PurePosixPath(path).relative_to(root)
    parts = inner.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
