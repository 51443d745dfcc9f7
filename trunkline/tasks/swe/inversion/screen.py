"""What a written test may use: behaviour, not the text of the code or the place it runs in. Owns no run.

A test that asks for the source, the clock, the file system or chance does not test the project. Whatever the project's own tests use is
allowed, since others may need it, too. This is no wall: Python has more ways than a list. What goes through is run on trees of which it
does not know which is right (verifier.py).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trunkline.tasks.swe.syntax import parse
from trunkline.tasks.swe.task import CodeTask, is_regular, is_test_module, walk

MODULES = frozenset(
    {
        "__future__", "abc", "array", "asyncio", "base64", "bisect", "calendar", "cmath", "collections", "contextlib", "copy", "csv",
        "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "heapq", "io", "ipaddress", "itertools", "json", "math",
        "numbers", "operator", "pytest", "re", "statistics", "string", "struct", "textwrap", "types", "typing", "typing_extensions",
        "unicodedata", "unittest", "warnings", "weakref", "zoneinfo",
    }
)  # fmt: skip
"""Any test may import these, and the project's own."""
_REFUSED_MODULES = frozenset(
    {
        "builtins", "ctypes", "gc", "glob", "hashlib", "importlib", "inspect", "linecache", "os", "pathlib", "pkgutil", "platform",
        "random", "runpy", "secrets", "shutil", "signal", "site", "socket", "subprocess", "sys", "threading", "time", "tokenize",
        "traceback", "uuid", "zipimport",
    }
)  # fmt: skip
"""Refused unless the project's own tests import them."""
_BORROWED = _REFUSED_MODULES - {"glob", "platform", "signal", "site", "socket", "threading", "time", "traceback"}
"""Attributes of these names are modules that other modules have imported; the others are names of much else, too."""
_REFUSED_NAMES = frozenset(
    {
        "open", "exec", "eval", "compile", "globals", "locals", "vars", "dir", "id", "memoryview", "breakpoint", "input", "help",
        "__import__", "__builtins__", "__file__", "__loader__", "__spec__", "pytest_plugins",
    }
)  # fmt: skip
_REFUSED_ATTRIBUTES = frozenset(
    {
        "__code__", "__globals__", "__builtins__", "__subclasses__", "__bases__", "__base__", "__mro__", "__dict__", "__file__",
        "__path__", "__loader__", "__spec__", "__closure__", "__func__", "__self__", "__wrapped__", "__getattribute__", "__reduce__",
        "__reduce_ex__", "__import__", "__cached__", "__traceback__", "tb_frame", "tb_next", "f_code", "f_globals", "f_locals", "f_back",
        "f_builtins", "gi_code", "gi_frame", "cr_code", "cr_frame", "ag_code", "ag_frame", "FileIO", "open_code", "read_text",
        "read_bytes", "urandom", "now", "utcnow", "today", "importorskip", "syspath_prepend",
    }
)  # fmt: skip
_MAKERS = frozenset({"attrgetter", "methodcaller"})
_BY_NAME = frozenset({"getattr", "setattr", "delattr", "hasattr"}) | _MAKERS
_HIDDEN_IN_TEXT = re.compile("|".join(sorted(name for name in _REFUSED_ATTRIBUTES if name.startswith("__"))))


@dataclass(frozen=True)
class Screen:
    """What tests of one task may use."""

    modules: frozenset[str]
    """Top-level modules that may be imported."""
    features: frozenset[str]
    """What is refused elsewhere, in the words of `features_of`."""

    @classmethod
    def of(cls, task: CodeTask, *, modules: Collection[str] = (), features: Collection[str] = ()) -> Screen:
        """The lists above, the project's modules, and what its own visible tests use."""
        texts = [path.read_text("utf-8", errors="replace") for path in walk(task.workspace) if is_regular(path) and _is_of_tests(path)]
        used, imported = used_by(texts)
        return cls(MODULES | _own_modules(task) | imported | set(modules), frozenset(used | set(features)))

    def faults(self, tests: Mapping[str, str]) -> Iterator[str]:
        """Why these tests are not run, in words: path to text."""
        for path, text in tests.items():
            try:
                module = parse(text)
            except (SyntaxError, ValueError, RecursionError) as error:
                yield f"{path} cannot be parsed: {error}"
                continue
            for line, name in _imports(module):
                if name not in self.modules:
                    yield f"{path}:{line} imports {name}"
            for line, words in features_of(module):
                if words not in self.features:
                    yield f"{path}:{line} uses {words}"


def used_by(texts: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Features and modules that some texts use; what cannot be parsed uses nothing."""
    features: set[str] = set()
    modules: set[str] = set()
    for text in texts:
        try:
            module = parse(text)
        except (SyntaxError, ValueError, RecursionError):
            continue
        features.update(words for _, words in features_of(module))
        modules.update(name for _, name in _imports(module))
    return frozenset(features), frozenset(modules)


def features_of(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and words of what looks at something other than behaviour."""
    plain = {id(node.func) for node in ast.walk(module) if isinstance(node, ast.Call) and _is_plain(node)}
    for node in ast.walk(module):
        if isinstance(node, ast.Name) and (node.id in _REFUSED_NAMES or (node.id in _BY_NAME and id(node) not in plain)):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and (node.attr in _REFUSED_ATTRIBUTES or node.attr in _BORROWED):
            yield node.lineno, f".{node.attr}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (found := _HIDDEN_IN_TEXT.search(node.value)):
            yield node.lineno, f"{found[0]} in a text"
        elif isinstance(node, ast.ImportFrom):
            refused = _REFUSED_MODULES | _REFUSED_ATTRIBUTES
            yield from ((node.lineno, f".{one.name}") for one in node.names if one.name in refused)
            yield from ((node.lineno, one.name) for one in node.names if one.name in _REFUSED_NAMES | _BY_NAME)


def _is_plain(call: ast.Call) -> bool:
    """Whether the name of an attribute that is asked for can be read there, and is none that is refused."""
    if not isinstance(call.func, ast.Name) or call.func.id not in _BY_NAME:
        return False
    place = 0 if call.func.id in _MAKERS else 1
    wanted = call.args[place] if len(call.args) > place else None
    if not isinstance(wanted, ast.Constant) or not isinstance(wanted.value, str):
        return False
    return not set(wanted.value.split(".")) & (_REFUSED_ATTRIBUTES | _BORROWED)


def _imports(module: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, one.name.partition(".")[0]) for one in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, (node.module or "").partition(".")[0]


def _own_modules(task: CodeTask) -> frozenset[str]:
    found: set[str] = set()
    for root in task.settings.import_roots:
        for path in (task.workspace / root).iterdir():
            if path.suffix == ".py" or path.is_dir():
                found.add(path.stem if path.suffix == ".py" else path.name)
    return frozenset(found)


def _is_of_tests(path: Path) -> bool:
    return path.suffix == ".py" and (is_test_module(path.name) or path.name == "conftest.py")
