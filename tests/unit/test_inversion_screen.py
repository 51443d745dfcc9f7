"""What a written test may use: what shows behaviour; and whatever the project's own tests use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.inversion_task import ORACLE, write_inversion
from trunkline.tasks.swe.inversion.parts import load_parts
from trunkline.tasks.swe.inversion.screen import Screen, used_by

USUAL = """
from __future__ import annotations

import datetime
import unittest.mock
from decimal import Decimal

import pytest
import shop
from shop import names


@pytest.fixture
def basket(tmp_path, monkeypatch):
    monkeypatch.setattr(shop, "total", lambda prices: 0)
    return [getattr(shop, "names"), hasattr(shop, "other"), tmp_path.name]


class TestShop(unittest.TestCase):
    def test_types(self):
        assert type(shop.total([])).__name__ == "int" and names.__doc__
        assert self.__class__ is TestShop and Decimal(1) == 1 and datetime.datetime(2020, 1, 1).time()
"""


@pytest.fixture
def screen(tmp_path: Path) -> Screen:
    return Screen.of(write_inversion(tmp_path))


def first(screen: Screen, text: str) -> str:
    return next(screen.faults({"test_a.py": text}), "")


@pytest.mark.parametrize("text", [USUAL, ORACLE])
def test_usual_tests_go_through(screen: Screen, text: str) -> None:
    assert not [*screen.faults({"test_a.py": text})]


@pytest.mark.parametrize(
    "text, words",
    [
        ("import os", "test_a.py:1 imports os"),
        ("import pytest\nimport os.path as path", "test_a.py:2 imports os"),
        ("from pathlib import Path", "test_a.py:1 imports pathlib"),
        ("from shop import os", "test_a.py:1 uses .os"),
        ("import shop\nshop.inner.sys.exit()", "test_a.py:2 uses .sys"),
        ("open('/workspace/shop.py')", "test_a.py:1 uses open"),
        ("from io import open as o", "test_a.py:1 uses open"),
        ("a = exec", "test_a.py:1 uses exec"),
        ("f.__code__", "test_a.py:1 uses .__code__"),
        ("().__class__.__base__.__subclasses__()", "uses .__subclasses__"),
        ("getattr(f, '__co' + 'de__')", "test_a.py:1 uses getattr"),
        ("getattr(f, '__code__')", "uses getattr"),
        ("get = getattr", "uses getattr"),
        ("from operator import attrgetter", "test_a.py:1 uses attrgetter"),
        ("'{0.__globals__}'.format(f)", "uses __globals__ in a text"),
        ("import datetime\ndatetime.datetime.now()", "test_a.py:2 uses .now"),
        ("pytest_plugins = ['shop']", "test_a.py:1 uses pytest_plugins"),
        ("import pytest\npytest.importorskip('os')", "uses .importorskip"),
        ("def test_a(:", "test_a.py cannot be parsed"),
    ],
)
def test_what_asks_for_code_place_or_chance_is_refused(screen: Screen, text: str, words: str) -> None:
    assert any(words in fault for fault in screen.faults({"test_a.py": text})), [*screen.faults({"test_a.py": text})]


def test_what_the_projects_own_tests_use_is_allowed(tmp_path: Path) -> None:
    own = "import os\n\n\ndef test_it():\n    assert open(__file__) and os.sep\n"
    screen = Screen.of(write_inversion(tmp_path, **{"environment/workspace/tests/test_files.py": own}))
    assert not first(screen, "import os\n\n\ndef test_a():\n    assert open(os.devnull)\n")
    assert first(screen, "import random") == "test_a.py:1 imports random"


def test_a_task_may_allow_more(tmp_path: Path) -> None:
    task = write_inversion(tmp_path, **{"tests/inversion.toml": 'modules = ["random"]\nfeatures = ["open"]\n'})
    settings = load_parts(task).settings
    screen = Screen.of(task, modules=settings.modules, features=settings.features)
    assert not first(screen, "import random\nopen('a')\n")


def test_what_some_texts_use_is_told_in_the_words_of_a_refusal() -> None:
    features, modules = used_by(["import os\nopen('a')\n", "def broken(:", "from random import random\n"])
    assert (features, modules) == (frozenset({"open", ".random"}), frozenset({"os", "random"}))
