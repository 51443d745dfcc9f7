"""Syntax trees in several threads at once: nothing of the software tasks builds one but under the lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.tasks import swe
from trunkline.tasks.swe.syntax import parse, parse_expression

FOLDER = Path(swe.__file__).parent


def test_every_tree_is_built_under_the_lock() -> None:
    """What goes wrong without it shows in one run of hundreds, and only on older Pythons."""
    builders = {path.name for path in FOLDER.glob("*.py") if "ast.parse(" in path.read_text()}
    assert builders == {"syntax.py"}, "use parse and parse_expression of tasks/swe/syntax.py"


def test_what_does_not_parse_raises_as_ever() -> None:
    assert parse_expression("[1, 2]").lineno == 1 and parse("x = 1\n").body
    with pytest.raises(SyntaxError):
        parse("def f(:\n")
    with pytest.raises(SyntaxError):
        parse_expression("x = 1")
