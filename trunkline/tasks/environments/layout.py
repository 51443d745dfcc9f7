"""What kind of file a path of a Python project is, and where its modules are imported from. Owns no package and runs nothing."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from configparser import Error as IniError
from pathlib import Path, PurePosixPath
from typing import Any, Literal

BUILD_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
_TEST_FOLDERS = frozenset({"test", "tests", "testing"})
_ASIDE_FOLDERS = frozenset({
    "doc", "docs", "example", "examples", "bench", "benchmark", "benchmarks", "scripts", "tools", "tasks", "ci", "typing-examples",
})  # fmt: skip
_ASIDE_FILES = frozenset({"setup.py", "noxfile.py", "fabfile.py", "conf.py", "toxfile.py", "hatch_build.py", "pdm_build.py", "build.py"})
_SOURCES = frozenset({".py", ".pyi", ".pyx", ".pxd"})
_ROOTS = ("src", "lib")


def role_of(path: str) -> Literal["source", "test", "other"]:
    """Of a file. All that lies in a directory of tests is test; other are configuration, documentation, programs beside the project."""
    *above, name = PurePosixPath(path.casefold()).parts
    if is_test_file(path) or name == "conftest.py" or _TEST_FOLDERS & set(above):
        return "test"
    if PurePosixPath(name).suffix not in _SOURCES or name in _ASIDE_FILES:
        return "other"
    return "other" if above and (above[0] in _ASIDE_FOLDERS or above[0].startswith(".")) else "source"


def is_test_file(path: str) -> bool:
    """Whether tests are looked for in a file of this name."""
    *above, name = PurePosixPath(path.casefold()).parts
    is_named = name.startswith("test_") or name.endswith(("_test.py", "_tests.py")) or name == "tests.py"
    return name.endswith(".py") and is_named and not any(part.startswith(".") for part in above)


def files_with_tests(tree: Path) -> Iterator[str]:
    """Files of a tree that have tests, in order."""
    for path in sorted(tree.rglob("*.py")):
        relative = path.relative_to(tree).as_posix()
        if is_test_file(relative) and path.is_file() and not path.is_symlink():
            yield relative


def is_python(tree: Path) -> bool:
    """Whether a project is written in Python: it is built as one, or has Python tests."""
    return any((tree / name).is_file() for name in BUILD_FILES) or next(files_with_tests(tree), None) is not None


def import_roots(tree: Path) -> tuple[str, ...]:
    """Directories of a tree from which its modules are imported: what its configuration says, else src, lib or the tree itself."""
    named = [PurePosixPath(root).as_posix() for root in _named_roots(tree)]
    found = [root for root in dict.fromkeys(named) if ".." not in root and not root.startswith("/") and (tree / root).is_dir()]
    if not found:
        found = [root for root in _ROOTS if _has_modules(tree / root) and not (tree / root / "__init__.py").exists()]
    return tuple(found) or (".",)


def _named_roots(tree: Path) -> Iterator[str]:
    tool = read_toml(tree / "pyproject.toml").get("tool", {})
    setuptools = table(tool, "setuptools")
    yield from strings(table(setuptools, "package-dir").get("", ()))
    yield from strings(table(setuptools, "packages", "find").get("where", ()))
    yield from (str(item["from"]) for item in table(tool, "poetry").get("packages", ()) if isinstance(item, dict) and item.get("from"))
    yield from strings(table(tool, "pdm", "build").get("package-dir", ()))
    ini = read_ini(tree / "setup.cfg")
    for line in ini.get("options", "package_dir", fallback="").splitlines():
        package, is_pair, folder = line.partition("=")
        if is_pair and not package.strip():
            yield folder.strip()
    if where := ini.get("options.packages.find", "where", fallback="").strip():
        yield where


def _has_modules(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix == ".py" or (path / "__init__.py").exists() for path in folder.iterdir())


def table(tables: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """A table in tables; an empty one if it is not there, or is no table."""
    for name in names:
        tables = tables.get(name, {}) if isinstance(tables, Mapping) else {}
    return tables if isinstance(tables, Mapping) else {}


def strings(value: object) -> tuple[str, ...]:
    """A string, or those of a list; () of what is neither."""
    if isinstance(value, str):
        return (value,)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def read_toml(path: Path) -> dict[str, Any]:
    """A project's file; {} if there is none, or none that can be read."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}


def read_ini(path: Path) -> ConfigParser:
    """The same of setup.cfg and tox.ini."""
    parser = ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, IniError):
        return ConfigParser(interpolation=None, strict=False)
    return parser
