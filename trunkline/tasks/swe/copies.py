"""A test file written again with its test functions in several copies under other names. Owns the rewriting; which copies, sheets.py says.

Only the module's own functions and those of its classes are copied. All else stays: imports, fixtures, constants, helpers, inherited tests.
A name that something mentions is kept, by one true copy beside the renamed ones: such a test hides nothing.
"""

from __future__ import annotations

import ast
import copy
import functools
import random
import re
import string
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from trunkline.tasks.swe.perturb import Probe, perturbed
from trunkline.tasks.swe.sites import Function, last_name
from trunkline.tasks.swe.syntax import parse

_NAME_LETTERS = 10
_PLAIN_BASES = frozenset({"object", "TestCase", "IsolatedAsyncioTestCase"})
_WORD = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True)
class TestFile:
    """A test file that can be written again."""

    __test__ = False

    path: str
    """In the workspace."""
    module: ast.Module
    """Its tree; not to be changed."""
    functions: Mapping[str, Function]
    """What can be copied, by qualname, in the order of the file; of several of one name the last, as for Python."""


@functools.lru_cache(maxsize=32)
def read_test_file(path: str, text: str) -> TestFile | None:
    """None if it does not parse, or if Python cannot write it again as it was."""
    try:
        module = parse(text)
        for node in ast.walk(module):
            if isinstance(node, ast.Constant):
                node.kind = None  # u"" would be written so in the true copy alone
        is_same = ast.dump(parse(ast.unparse(module))) == ast.dump(module)
    except (SyntaxError, ValueError, RecursionError):
        return None
    return TestFile(path, module, dict(_functions(module.body, ""))) if is_same else None


@dataclass(frozen=True)
class Mentions:
    """What the test files say beside defining it."""

    words: frozenset[str]
    """Names that are used, imported, or stand in a text; not where they are a function's own variables or arguments."""
    bases: frozenset[str]
    """Classes that others inherit from."""
    texts: tuple[tuple[str, str], ...]
    """Path and text of all of them."""

    @classmethod
    def of(cls, sources: Mapping[str, str]) -> Mentions:
        """In these files, by path."""
        words: set[str] = set()
        bases: set[str] = set()
        for text in sources.values():
            try:
                module = parse(text)
            except (SyntaxError, ValueError, RecursionError):
                words.update(_WORD.findall(text))
                continue
            unsaid = set(_unsaid(module))
            for node in ast.walk(module):
                if id(node) not in unsaid:
                    words.update(_words_of(node))
                if isinstance(node, ast.ClassDef):
                    bases.update(last_name(base) for base in node.bases)
                elif isinstance(node, ast.ImportFrom):  # whoever imports a class may inherit from it
                    bases.update(alias.name for alias in node.names)
        return cls(frozenset(words), frozenset(bases), tuple(sources.items()))

    def names_function(self, qualname: str) -> bool:
        """Whether somebody needs this function under this name."""
        *classes, name = qualname.split("::")
        return name in self.words or any(one in self.bases for one in classes)

    def names_module(self, stem: str) -> bool:
        """Whether a file says the name of this module, its own included."""
        return any(re.search(rf"\b{re.escape(stem)}\b", text) for _, text in self.texts)


@dataclass
class Names:
    """Random names that nobody has."""

    rng: random.Random
    taken: set[str] = field(default_factory=set)

    def fresh(self) -> str:
        """Of one length, so that it says nothing."""
        while (name := "".join(self.rng.choices(string.ascii_lowercase, k=_NAME_LETTERS))) in self.taken:
            pass
        self.taken.add(name)
        return name

    def for_functions(self, old: Sequence[str]) -> list[str]:
        """One for each, in the same alphabetical order: unittest runs methods in that order."""
        endings = sorted(self.fresh() for _ in old)
        found = dict(zip(sorted(range(len(old)), key=lambda place: old[place]), endings, strict=True))
        return [rename(name, found[place]) for place, name in enumerate(old)]


def rename(name: str, ending: str) -> str:
    """test_ENDING; of a function that some setting of the project makes a test, its name and the ending."""
    return f"test_{ending}" if name.startswith("test") else f"{name}_{ending}"


@dataclass(frozen=True)
class Rewritten:
    """A test file with copies."""

    module: ast.Module
    """Its tree."""
    copies: tuple[tuple[str, str, Probe | None], ...]
    """Of each copy: its qualname, the original's, and how it was changed (None: not)."""
    left: tuple[str, ...]
    """Qualnames of tests that are there without being copied."""


def rewrite(
    file: TestFile, plan: Mapping[str, Sequence[Probe | None]], *, kept: Collection[str], needs: Callable[[str], bool], names: Names
) -> Rewritten:
    """Writes the functions of `plan` as often as it has entries for them, changed where an entry is a probe.

    Args:
        file: The file.
        plan: Qualname to entries, in the order of the copies.
        kept: Tests that stay as they are although they are not in the plan. Others are left out, unless their name is needed.
        needs: Whether somebody needs a function (its qualname) under its name. It keeps one unchanged copy under it.
        names: Gives the copies' names.
    """
    writer = _Writer(file, plan, kept, needs, names)
    body = writer.body(file.module.body, "")
    module = ast.fix_missing_locations(ast.Module(body, []))
    return Rewritten(module, tuple(writer.copies), tuple(writer.left))


def open_classes(file: TestFile) -> Iterable[str]:
    """Qualnames of classes whose tests cannot be listed by reading this file: they inherit, or are made by a decorator."""
    for qualname, node in _classes(file.module.body, ""):
        if node.keywords or node.decorator_list or any(last_name(base) not in _PLAIN_BASES for base in node.bases):
            yield qualname


@dataclass
class _Writer:
    file: TestFile
    plan: Mapping[str, Sequence[Probe | None]]
    kept: Collection[str]
    needs: Callable[[str], bool]
    names: Names
    copies: list[tuple[str, str, Probe | None]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def body(self, statements: Sequence[ast.stmt], prefix: str) -> list[ast.stmt]:
        found: list[ast.stmt] = []
        own = [node for node in statements if self.file.functions.get(prefix + getattr(node, "name", "")) is node]
        planned = [node.name for node in own if isinstance(node, Function) for _ in self.plan.get(prefix + node.name, ())]
        given = iter(self.names.for_functions(planned))
        for node in statements:
            if isinstance(node, ast.ClassDef):
                found.append(_with_body(node, self.body(node.body, f"{prefix}{node.name}::")))
            elif not isinstance(node, Function):
                found.append(node)
            elif prefix + node.name in self.plan:
                if node in own:  # an earlier one of the same name is dead
                    found += self._copied(node, prefix, [next(given) for _ in self.plan[prefix + node.name]])
            elif not self._is_dropped(node, prefix):
                found.append(node)
        return found or [ast.Pass()]

    def _copied(self, node: Function, prefix: str, names: list[str]) -> list[ast.stmt]:
        qualname = prefix + node.name
        if self.needs(qualname):
            entries = self.plan[qualname]
            if None not in entries:
                self.left.append(qualname)
                return [node, *self._renamed(node, prefix, entries, names)]
            names[entries.index(None)] = node.name
        return self._renamed(node, prefix, self.plan[qualname], names)

    def _renamed(self, node: Function, prefix: str, entries: Sequence[Probe | None], names: list[str]) -> list[ast.stmt]:
        found: list[ast.stmt] = []
        for probe, name in zip(entries, names, strict=True):
            one = copy.copy(node) if probe is None else perturbed(node, probe)
            one.name = name
            found.append(one)
            self.copies.append((prefix + name, prefix + node.name, probe))
        return found

    def _is_dropped(self, node: Function, prefix: str) -> bool:
        """Whether it is a test that nobody judges or needs. Of what stays, tests are noted."""
        qualname = prefix + node.name
        if not node.name.startswith("test") or any(last_name(_called(one)) == "fixture" for one in node.decorator_list):
            return False
        if self.needs(qualname) or any(one.startswith(qualname) for one in self.kept):  # a decorator may make several of it
            self.left.append(qualname)
            return False
        return True


def _functions(body: Sequence[ast.stmt], prefix: str) -> Iterable[tuple[str, Function]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{prefix}{node.name}::")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node


def _classes(body: Sequence[ast.stmt], prefix: str) -> Iterable[tuple[str, ast.ClassDef]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield prefix + node.name, node
            yield from _classes(node.body, f"{prefix}{node.name}::")


def _with_body(node: ast.ClassDef, body: list[ast.stmt]) -> ast.ClassDef:
    changed = copy.copy(node)
    changed.body = body
    return changed


def _called(node: ast.expr) -> ast.expr:
    return node.func if isinstance(node, ast.Call) else node


def _unsaid(module: ast.Module) -> Iterable[int]:
    """Identities of nodes that mention no test: free-standing texts, and names that a function has bound itself."""
    for node in ast.walk(module):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield id(node.value)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            parts = [part for statement in node.body for part in ast.walk(statement)]
            outer = {name for part in parts if isinstance(part, ast.Global | ast.Nonlocal) for name in part.names}
            # A function or class in this one has variables of its own; what is bound there may be meant elsewhere.
            inner = {
                id(one)
                for part in parts
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda | ast.comprehension)
                for one in ast.walk(part)
            }
            own = [part for part in parts if isinstance(part, ast.Name) and id(part) not in inner]
            bound = {part.id for part in own if isinstance(part.ctx, ast.Store)}
            bound |= {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}
            yield from (id(part) for part in own if part.id in bound - outer)


def _words_of(node: ast.AST) -> Iterable[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.alias):
        yield from node.name.split(".")
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from _WORD.findall(node.value)
