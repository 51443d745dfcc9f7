"""What hidden tests rely on and an instruction does not say: found, filled, or refused."""

import pytest

from tests.draft_scene import STOCK, make_draft
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.consistency import check, interface

HEAD = "from parts.stock import take\n\n\n"


def gaps(draft, instruction=""):
    return {(gap.kind, gap.name) for gap in check(draft, instruction)}


def of(tmp_path, after, test, **more):
    """A draft whose solution replaces the module by `after` and whose one test is `test`."""
    tests = {"tests/test_stock.py": test if "import" in test else HEAD + test}
    more.setdefault("fail_to_pass", ["tests/test_stock.py::test_it"])
    return make_draft(tmp_path, after={"parts/stock.py": after}, tests=tests, **more)


def test_new_names_keywords_and_messages_must_be_said(tmp_path):
    found = gaps(make_draft(tmp_path))
    assert ("definition", "ShortageError") in found
    assert ("keyword", "partial") in found
    assert ("exception", "only 3 of nut are there") in found


def test_an_instruction_that_says_them_has_no_gap(tmp_path):
    words = 'With `partial` it takes what is there, else it raises `ShortageError`, saying "only 3 of nut are there".'
    assert check(make_draft(tmp_path), words) == []


def test_the_interface_section_fills_every_gap(tmp_path):
    draft = make_draft(tmp_path)
    section = interface(check(draft, ""))
    assert check(draft, section) == []
    assert "- `class ShortageError(ValueError)`, from `parts.stock`" in section
    assert "- `take(stock, name, count, *, partial=False)` takes `partial`" in section


def test_the_interface_section_holds_no_line_of_a_body(tmp_path):
    assert "available" not in interface(check(make_draft(tmp_path), ""))


def test_what_only_other_tests_use_is_not_asked_for(tmp_path):
    assert gaps(make_draft(tmp_path, fail_to_pass=["tests/test_stock.py::test_take"])) == {("definition", "ShortageError")}  # imported


def test_what_a_helper_of_the_test_uses_is_asked_for(tmp_path):
    test = "import parts.stock\n\n\ndef helper():\n    return parts.stock.refill()\n\n\ndef test_it():\n    assert helper() == 1\n"
    assert gaps(of(tmp_path, f"{STOCK}\n\ndef refill():\n    return 1\n", test)) == {("definition", "refill")}


def test_what_a_fixture_uses_is_asked_for(tmp_path):
    test = (
        "import pytest\nimport parts.stock\n\n\n@pytest.fixture\ndef full():\n    return parts.stock.refill()\n\n\n"
        "def test_it(full):\n    assert full == 1\n"
    )
    assert gaps(of(tmp_path, f"{STOCK}\n\ndef refill():\n    return 1\n", test)) == {("definition", "refill")}


def test_a_new_module_must_be_said(tmp_path):
    draft = make_draft(
        tmp_path,
        after={"parts/shelf.py": "def height():\n    return 3\n"},
        tests={"tests/test_shelf.py": "from parts.shelf import height\n\n\ndef test_it():\n    assert height() == 3\n"},
        fail_to_pass=["tests/test_shelf.py::test_it"],
    )
    assert gaps(draft) == {("module", "parts.shelf"), ("definition", "height")}


def test_a_new_method_of_a_known_name_must_be_said(tmp_path):
    before = "class Shelf:\n    def take(self):\n        return 1\n\n\nclass Box:\n    pass\n"
    after = f"{before[:-9]}    def take(self, count=1):\n        return count\n"
    test = "from parts.stock import Box\n\n\ndef test_it():\n    assert Box().take(2) == 2\n"
    draft = make_draft(
        tmp_path,
        before={"parts/__init__.py": "", "parts/stock.py": before},
        after={"parts/stock.py": after},
        tests={"tests/test_stock.py": test},
        fail_to_pass=["tests/test_stock.py::test_it"],
    )
    assert [gap.line for gap in check(draft, "")] == ["- `Box.take(count=1)`: a method"]


def test_a_method_that_the_tests_call_on_other_objects_is_not_asked_for(tmp_path):
    after = f"{STOCK}\n\nclass _Ledger:\n    def append(self, line):\n        pass\n\n    def copy(self):\n        return self\n"
    before = {"parts/__init__.py": "", "parts/stock.py": f"{STOCK}\n\nlines = []\nlines.append(1)\n"}
    assert gaps(of(tmp_path, after, "def test_it():\n    found = []\n    found.append(1)\n    assert found\n", before=before)) == set()


def test_one_more_argument_by_place_must_be_said(tmp_path):
    after = STOCK.replace("name, count)", "name, count, least)")
    assert gaps(of(tmp_path, after, 'def test_it():\n    assert take({"a": 1}, "a", 1, 0) == 0\n')) == {
        ("keyword", "take(stock, name, count, least)")
    }


def test_an_expected_exception_must_be_said_though_it_is_a_usual_one(tmp_path):
    test = "import pytest\nfrom parts.stock import take\n\n\ndef test_it():\n    with pytest.raises(KeyError):\n        take({}, 'a', 1)\n"
    draft = of(tmp_path, STOCK.replace("stock[name] - count", "stock.pop(name)"), test)
    assert [gap.line for gap in check(draft, "")] == ["- `take({}, 'a', 1)` raises `KeyError`"]


def test_an_exception_that_the_test_itself_raises_is_not_asked_for(tmp_path):
    test = (
        "import pytest\nfrom parts.stock import take\n\n\ndef test_it():\n    with pytest.raises(OSError, match='boom'):\n"
        "        take({}, 'a', 1)\n        raise OSError('boom')\n"
    )
    assert gaps(of(tmp_path, f"{STOCK}\nx = 1\n", test)) == set()


def test_an_exception_that_the_test_file_defines_is_not_asked_for(tmp_path):
    test = (
        "class Stop(Exception):\n    pass\n\n\nclass Full(dict):\n    def __missing__(self, name):\n        raise Stop\n\n\n"
        "def test_it():\n    with pytest.raises(Stop):\n        take(Full(), 'nut', 1)\n"
    )
    assert gaps(of(tmp_path, f"{STOCK}# faster\n", test)) == set()


def test_what_is_called_like_something_that_the_test_makes_itself_is_not_asked_for(tmp_path):
    test = (
        "import parts.stock\n\n\ndef test_it():\n    class Shelf:\n        name = parts.stock.take\n\n    assert Shelf()\n\n\n"
        "class Shelf:\n    def test_other(self):\n        assert parts.stock.refill()\n"
    )
    assert gaps(of(tmp_path, f"{STOCK}\n\ndef refill():\n    return 1\n", test)) == set()


def test_a_text_of_the_solution_that_tests_compare_with_must_be_said(tmp_path):
    after = STOCK.replace("return left", 'return f"{left} parts are left over"')
    draft = of(tmp_path, after, 'def test_it():\n    assert take({"a": 3}, "a", 1) == "2 parts are left over"\n')
    assert gaps(draft) == {("text", "2 parts are left over")}


def test_a_text_that_a_test_gives_and_gets_back_is_not_asked_for(tmp_path):
    assert gaps(of(tmp_path, f"{STOCK}\nx = 1\n", 'def test_it():\n    assert take({"some part": 3}, "some part", 1) == 2\n')) == set()


def test_tests_that_look_into_the_source_are_refused(tmp_path):
    test = "import inspect\nfrom parts.stock import take\n\n\ndef test_it():\n    assert 'max' in inspect.getsource(take)\n"
    with pytest.raises(Rejection, match="looks into the source") as caught:
        check(of(tmp_path, f"{STOCK}\nx = 1\n", test), "")
    assert caught.value.stage == "statement"


def test_tests_that_read_a_file_of_the_solution_are_refused(tmp_path):
    test = "from pathlib import Path\n\n\ndef test_it():\n    assert Path('parts/table.csv').read_text() == 'a,b'\n"
    draft = make_draft(
        tmp_path,
        after={"parts/table.csv": "a,b", "parts/stock.py": STOCK},
        tests={"tests/test_stock.py": test},
        fail_to_pass=["tests/test_stock.py::test_it"],
    )
    with pytest.raises(Rejection, match="nobody could know"):
        check(draft, "")


def test_tests_that_this_python_cannot_read_are_refused(tmp_path):
    with pytest.raises(Rejection, match="cannot read|no Python"):
        check(of(tmp_path, STOCK, "import\n\ndef test_it(:\n"), "")


def test_more_than_a_statement_can_list_is_refused(tmp_path):
    names = [f"shelf_{number}" for number in range(60)]
    after = "\n".join(f"{name} = 1" for name in names)
    test = f"import parts.stock as s\n\n\ndef test_it():\n    assert {' + '.join(f's.{name}' for name in names)} == 60\n"
    with pytest.raises(Rejection, match="60 new names"):
        check(of(tmp_path, after, test), "")


def test_words_of_another_language_are_compared_as_words(tmp_path):
    draft = make_draft(
        tmp_path,
        before={"lib/stock.js": "exports.take = (stock) => stock;\n"},
        after={"lib/stock.js": "exports.take = (stock) => stock;\nexports.refill = (stock) => stock + 1;\n"},
        tests={"test/stock.test.js": "const { refill } = require('../lib/stock');\ntest('fills', () => expect(refill(1)).toBe(2));\n"},
        fail_to_pass=["test/stock.test.js > stock > fills"],
    )
    assert gaps(draft) == {("name", "refill")}
