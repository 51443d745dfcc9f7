"""What a project says that it and its tests need, read from its files without running any. Owns no resolution.

pyproject.toml · setup.cfg · setup.py (its literals) · requirements files · tox.ini ─► Asked
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from trunkline.tasks.environments.layout import read_ini, read_toml, strings, table
from trunkline.tasks.environments.setup_py import read_setup_call

_OF_TESTS = ("test", "tests", "testing", "tests-strict")
_OF_DEVELOPERS = ("dev", "develop", "development")
_FILES_OF_TESTS = ("requirements/*test*.txt", "requirements*test*.txt", "*test*requirements*.txt", "tests/requirements*.txt")
_FILES_OF_DEVELOPERS = ("requirements/*dev*.txt", "requirements*dev*.txt", "dev*requirements*.txt")
_NOT_FOR_TESTS = re.compile(
    r"(black|blurb|build|bump.*|bumpversion|check-manifest|codecov|commitizen|coverage|coveralls|docutils|flake8.*|furo|gitpython|"
    r"invoke|isort|mkdocs.*|mypy|nox|pep8-naming|pip|pip-tools|pre-commit|pydocstyle|pylint|pyright|pytest-benchmark|pytest-cov|pytest-mypy.*|"
    r"pytest-randomly|pytest-sugar|pytest-timeout|pytest-xdist|readme-renderer|releases?|ruff|setuptools-scm|sphinx.*|tox.*|twine|ty|"
    r"types-.*|uv|wheel|zest\.releaser)"
)
_FOR_READERS = re.compile(r"docs?|documentation|lint(ing)?|format|style|types?|typing|mypy|release|build|ci|pre-commit|all-?dev")
_MOST_FILES = 40


@dataclass(frozen=True)
class Asked:
    """What a project asks for."""

    name: str
    """Its name in an index; '' if it says none."""
    requires_python: str
    """Such as '>=3.8'; '' if it does not say."""
    dependencies: tuple[str, ...]
    """What it needs to run."""
    of_tests: tuple[str, ...]
    """What its tests need beside that."""
    of_extras: tuple[str, ...] = ()
    """What its other extras need, those for documentation and the like left out: its tests may try them."""
    notes: tuple[str, ...] = ()
    """What could not be read, in words."""


def read_asked(tree: Path) -> Asked:
    """Reads a tree."""
    found = _Reading(tree)
    found.read_pyproject()
    found.read_setup_cfg()
    found.read_setup_py()
    found.read_requirements_files()
    return found.asked()


@dataclass
class _Reading:
    """A tree while it is read."""

    tree: Path
    name: str = ""
    requires_python: str = ""
    dependencies: list[str] = field(default_factory=list)
    of_tests: list[str] = field(default_factory=list)
    of_developers: list[str] = field(default_factory=list)
    extras: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def read_pyproject(self) -> None:
        tables = read_toml(self.tree / "pyproject.toml")
        project = table(tables, "project")
        self._take(project.get("name"), project.get("requires-python"), strings(project.get("dependencies")))
        self._take_extras(table(project, "optional-dependencies"))
        poetry = table(tables, "tool", "poetry")
        self._take(poetry.get("name"), None, _of_poetry(table(poetry, "dependencies")))
        self.of_tests += _of_poetry(table(poetry, "dev-dependencies"))
        groups = table(tables, "dependency-groups")
        for names, target in ((_OF_TESTS, self.of_tests), (_OF_DEVELOPERS, self.of_developers)):
            for name in groups:
                if canonicalize_name(name) in names:
                    target += _of_group(groups, name)
            for name, content in table(poetry, "group").items():
                if canonicalize_name(name) in names:
                    target += _of_poetry(table(content, "dependencies"))
        for names, target in ((_OF_TESTS, self.of_tests), (_OF_DEVELOPERS, self.of_developers)):
            for name, needs in table(tables, "tool", "pdm", "dev-dependencies").items():
                if canonicalize_name(name) in names:
                    target += strings(needs)

    def read_setup_cfg(self) -> None:
        ini = read_ini(self.tree / "setup.cfg")

        def lines(section: str, option: str) -> list[str]:
            return _lines(ini.get(section, option, fallback=""))

        self._take(ini.get("metadata", "name", fallback=None), ini.get("options", "python_requires", fallback=None), ())
        self.dependencies += lines("options", "install_requires")
        self.of_tests += lines("options", "tests_require")
        if ini.has_section("options.extras_require"):
            self._take_extras({name: lines("options.extras_require", name) for name in ini.options("options.extras_require")})

    def read_setup_py(self) -> None:
        path = self.tree / "setup.py"
        if not path.is_file():
            return
        try:
            call = read_setup_call(path.read_text("utf-8"))
        except (SyntaxError, ValueError, RecursionError):
            self.notes.append("setup.py cannot be read")
            return
        said = call.said
        self._take(said.get("name"), said.get("python_requires"), _lines(said.get("install_requires")))
        self.of_tests += _lines(said.get("tests_require"))
        extras = said.get("extras_require")
        self._take_extras(extras if isinstance(extras, dict) else {})
        self.notes += [f"setup.py computes {name}" for name in call.computed]

    def read_requirements_files(self) -> None:
        tox = read_ini(self.tree / "tox.ini")
        self.of_tests += self._of_lines(tox.get("testenv", "deps", fallback="").splitlines(), self.tree, set())
        for name in re.split(r"[,\s]+", tox.get("testenv", "extras", fallback="")):
            self.of_tests += self.extras.get(canonicalize_name(name), ())
        for patterns, target in ((_FILES_OF_TESTS, self.of_tests), (_FILES_OF_DEVELOPERS, self.of_developers)):
            for path in [path for pattern in patterns for path in sorted(self.tree.glob(pattern))]:
                target += self._of_file(path, set())

    def asked(self) -> Asked:
        for names, target in ((_OF_TESTS, self.of_tests), (_OF_DEVELOPERS, self.of_developers)):
            for name in names:
                target += self.extras.get(name, ())
        of_tests = self.of_tests if any(map(_is_for_tests, self.of_tests)) else [*self.of_tests, *self.of_developers]
        own = canonicalize_name(self.name)
        others = [text for name, texts in self.extras.items() if not _FOR_READERS.fullmatch(name) for text in texts]
        return Asked(
            self.name,
            self.requires_python,
            tuple(self._clean(self.dependencies, own)),
            tuple(text for text in self._clean(of_tests, own) if _is_for_tests(text)),
            tuple(text for text in self._clean(others, own) if _is_for_tests(text)),
            tuple(dict.fromkeys(self.notes)),
        )

    def _take(self, name: object, requires_python: object, dependencies: Iterable[str]) -> None:
        self.name = self.name or (name.strip() if isinstance(name, str) else "")
        self.requires_python = self.requires_python or (requires_python.strip() if isinstance(requires_python, str) else "")
        self.dependencies += dependencies

    def _take_extras(self, extras: Mapping[Any, Any]) -> None:
        for name, needs in extras.items():
            self.extras.setdefault(canonicalize_name(str(name)), []).extend(_lines(needs))

    def _clean(self, texts: Iterable[str], own: str, depth: int = 0) -> Iterator[str]:
        """Each once, without addresses; what asks for extras of the project itself is what they ask for."""
        found: dict[str, None] = {}
        for text in texts:
            try:
                need = Requirement(text)
            except InvalidRequirement:
                self.notes.append(f"cannot be read: {text[:80]!r}")
                continue
            if canonicalize_name(need.name) == own:
                if depth < 4:
                    extras = [one for extra in sorted(need.extras) for one in self.extras.get(canonicalize_name(extra), ())]
                    found |= dict.fromkeys(self._clean(extras, own, depth + 1))
            elif need.url:
                self.notes.append(f"an address instead of a version: {text[:80]!r}")
            elif need.marker is None or "extra" not in str(need.marker):
                found[str(need)] = None
        yield from found

    def _of_file(self, path: Path, seen: set[Path]) -> list[str]:
        path = path.resolve()
        if path in seen or len(seen) > _MOST_FILES or not path.is_relative_to(self.tree.resolve()) or not path.is_file():
            return []
        seen.add(path)
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            self.notes.append(f"{path.name} is not UTF-8")
            return []
        return self._of_lines(text.replace("\\\n", " ").splitlines(), path.parent, seen)

    def _of_lines(self, lines: Iterable[str], folder: Path, seen: set[Path]) -> list[str]:
        """Of a requirements file, or of tox's deps, whose lines may have conditions before a colon."""
        found: list[str] = []
        for line in lines:
            line = re.sub(r"(^|\s)#.*|\s--hash=\S+", "", re.sub(r"^[\w,!{}-]+:\s+", "", line.strip())).strip()
            if match := re.match(r"(?:-r|--requirement)[ =]*(.+)", line):
                found += self._of_file(folder / match[1].strip().replace("{toxinidir}/", ""), seen)
            elif line and line[0].isalnum() and "{" not in line:
                found.append(line)
        return found


def _is_for_tests(text: str) -> bool:
    try:
        return not _NOT_FOR_TESTS.fullmatch(canonicalize_name(Requirement(text).name))
    except InvalidRequirement:
        return False


def _of_group(groups: Mapping[str, Any], name: str, depth: int = 0) -> list[str]:
    """A dependency group with those that it includes (PEP 735)."""
    found: list[str] = []
    for item in groups.get(name, ()) if isinstance(groups.get(name), list) else ():
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict) and depth < 4:
            wanted = canonicalize_name(str(item.get("include-group", "")))
            found += [need for other in groups if canonicalize_name(other) == wanted for need in _of_group(groups, other, depth + 1)]
    return found


def _of_poetry(needs: Mapping[str, Any]) -> list[str]:
    """Poetry's own table, by name: '^1.2' and its like have no exact form here, so that they ask for at least that version."""
    found = []
    for name, said in needs.items():
        version = said if isinstance(said, str) else said.get("version", "*") if isinstance(said, dict) else "*"
        is_optional = isinstance(said, dict) and (said.get("optional") or "path" in said or "git" in said)
        if name != "python" and not is_optional:
            bare = re.fullmatch(r"[\^~]?\s*(\d[\w.]*)", version)
            found.append(f"{name}>={bare[1]}" if bare else name if version == "*" else f"{name}{version}")
    return found


def _lines(value: object) -> list[str]:
    return [line.strip() for line in value.splitlines() if line.strip()] if isinstance(value, str) else list(strings(value))
