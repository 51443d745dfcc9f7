"""Which files of a JavaScript project are source, which are tests, and which of these a runner is given. Owns no runner."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from trunkline.tasks.factory.language import Role

_CODE = frozenset({".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx"})
_TEST_FOLDERS = frozenset({"test", "tests", "__tests__", "spec", "specs"})
_BESIDE_TESTS = frozenset({"__mocks__", "__snapshots__", "__fixtures__"})
"""Wherever they lie, they belong to tests."""
_OF_TESTS = (
    frozenset({"fixture", "fixtures", "helper", "helpers", "support", "mock", "mocks", "snapshots", "data", "utils", "util"})
    | _BESIDE_TESTS
)
"""In a folder of tests: used by them, none itself."""
_OTHER_FOLDERS = frozenset({
    "docs", "doc", "example", "examples", "benchmark", "benchmarks", "bench", "dist", "build", "coverage", "scripts", "website",
    "node_modules",
})  # fmt: skip
_TEST_NAME = re.compile(r"(^|.+[.\-_])(test|tests|spec)\.[cm]?[jt]sx?$|^test[\-_].+\.[cm]?[jt]sx?$")
_CONFIGURATION = re.compile(
    r"(^\..*rc(\..*)?$)|(.*\.(config|conf|setup)\.[^.]+$)|(^(gulpfile|gruntfile|jakefile|karma|rollup|webpack)\b.*)", re.IGNORECASE
)
_OF_RUNNER = re.compile(r"(vitest|vite|jest|babel|swc)\.config\.[^./]+$|\.(mocha|babel|swc)rc(\.[^./]+)?$|tsconfig[^/]*\.json$")
_TYPES = re.compile(r".*\.d\.[cm]?ts$|.*\.test-d\.ts$")
_NEVER = frozenset({"node_modules", ".git"})


def role_of(path: str) -> Role:
    """Of a file of a project. What lies in a folder of tests is a test, data that they use included."""
    parts = PurePosixPath(path).parts
    above, name = frozenset(parts[:-1]), parts[-1]
    if above & _NEVER or (parts[:-1] and parts[0] in _OTHER_FOLDERS) or _TYPES.match(name):
        return "other"
    if above & (_TEST_FOLDERS | _BESIDE_TESTS) or _TEST_NAME.match(name):
        return "test"
    return "source" if is_code(name) and not _CONFIGURATION.match(name) else "other"


def is_code(path: str) -> bool:
    """Whether it is JavaScript or TypeScript, by its name."""
    return PurePosixPath(path).suffix in _CODE and not _TYPES.match(PurePosixPath(path).name)


def is_run(path: str) -> bool:
    """Whether a runner is given this file: a test that is named as one, or code in a folder of tests that is no helper of them."""
    parts = PurePosixPath(path).parts
    if role_of(path) != "test" or not is_code(path) or _CONFIGURATION.match(parts[-1]):
        return False
    return bool(_TEST_NAME.match(parts[-1])) or not frozenset(part.lstrip("_") for part in parts[:-1]) & {
        part.lstrip("_") for part in _OF_TESTS
    }


def is_runner_configuration(path: str) -> bool:
    """Whether it decides how tests are found and loaded, beside package.json."""
    return bool(_OF_RUNNER.match(path))


def files_to_run(trees: Sequence[Path]) -> list[str]:
    """All that a runner is given, over trees that lie over each other; sorted."""
    return sorted({path for tree in trees for path in files_of(tree) if is_run(path)})


def files_of(tree: Path) -> list[str]:
    """Of a project, without installed packages and history; links are not followed."""
    found: list[str] = []
    for folder, below, names in os.walk(tree):
        below[:] = sorted(name for name in below if name not in _NEVER)
        found += [(Path(folder) / name).relative_to(tree).as_posix() for name in sorted(names)]
    return found


def source_patterns(tree: Path) -> tuple[str, ...]:
    """Where a solution may add files: beside source that is there, by its kinds of files; nothing at the top."""
    found = {
        (PurePosixPath(path).parts[0], PurePosixPath(path).suffix) for path in files_of(tree) if "/" in path and role_of(path) == "source"
    }
    return tuple(f"{top}/*{suffix}" for top, suffix in sorted(found))
