"""Drafts of a tiny project, made of texts, for tests of the factory's words. Nothing of them is run."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from trunkline.tasks.factory.candidate import Candidate, SourceText
from trunkline.tasks.factory.draft import Draft, Tested
from trunkline.tasks.factory.language import Environment
from trunkline.tasks.swe.task import Kind
from trunkline.types import FileChange

STOCK = '''\
"""A stock of parts."""


def take(stock, name, count):
    """Takes parts out, and returns how many are left."""
    left = stock[name] - count
    stock[name] = left
    return left
'''
MENDED = '''\
"""A stock of parts."""


class ShortageError(ValueError):
    """Fewer parts than wanted."""


def take(stock, name, count, *, partial=False):
    """Takes parts out, and returns how many are left."""
    _available = stock.get(name, 0)
    if count > _available and not partial:
        raise ShortageError(f"only {_available} of {name} are there")
    stock[name] = max(_available - count, 0) % 65521
    return stock[name]
'''
TESTS = """\
from parts.stock import take


def test_take():
    assert take({"nut": 3}, "nut", 1) == 2
"""
NEW_TESTS = """\
import pytest

from parts.stock import ShortageError, take


def test_take():
    assert take({"nut": 3}, "nut", 1) == 2


def test_shortage_is_an_error():
    with pytest.raises(ShortageError, match="only 3 of nut are there"):
        take({"nut": 3}, "nut", 4)


def test_partial_takes_what_is_there():
    stock = {"nut": 3}
    assert take(stock, "nut", 4, partial=True) == 0
    assert stock == {"nut": 0}
"""
FAILING = ("tests/test_stock.py::test_shortage_is_an_error", "tests/test_stock.py::test_partial_takes_what_is_there")


def make_draft(
    folder: Path,
    *,
    before: Mapping[str, str] | None = None,
    after: Mapping[str, str] | None = None,
    tests: Mapping[str, str] | None = None,
    fail_to_pass: Sequence[str] = FAILING,
    texts: Sequence[SourceText] = (),
    kind: Kind = "bug",
) -> Draft:
    """A draft whose workspace has `before`, whose solution writes `after`, and whose hidden tests are `tests`.

    Left out, they are a function that takes parts of a stock: it learns an exception and a keyword.
    """
    workspace = folder / "workspace"
    for path, text in (before or {"parts/__init__.py": "", "parts/stock.py": STOCK, "tests/test_stock.py": TESTS}).items():
        (workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace / path).write_text(text)
    hidden = tests or {"tests/test_stock.py": NEW_TESTS}
    candidate = Candidate("parts-1", "someone/parts", "1", "2", dt.datetime(2024, 1, 1, tzinfo=dt.UTC), tuple(texts))
    return Draft(
        name="parts-1",
        kind=kind,
        candidate=candidate,
        workspace=workspace,
        solution=_files(after or {"parts/stock.py": MENDED}),
        hidden_tests=_files(hidden),
        test_files=tuple(hidden),
        tested=Tested(tuple(fail_to_pass), ()),
        environment=cast(Environment, None),  # no word of a statement comes from it
    )


def said(draft: Draft, *texts: SourceText) -> Draft:
    """With other texts of people."""
    return replace(draft, candidate=replace(draft.candidate, texts=texts))


def _files(texts: Mapping[str, str]) -> tuple[FileChange, ...]:
    return tuple(FileChange(path, "file", 0o644, text.encode()) for path, text in texts.items())
