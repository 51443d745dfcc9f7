"""Statements: people's words where they say enough, the tests' where they don't, never the solution's."""

import pytest

from tests.draft_scene import make_draft, said
from trunkline.tasks.factory.candidate import Rejection, SourceText
from trunkline.tasks.factory.consistency import check
from trunkline.tasks.factory.leaks import find_leaks
from trunkline.tasks.factory.statement import write_statement

pytestmark = pytest.mark.anyio

ISSUE = SourceText(
    "issue",
    "Taking more parts than there are leaves a negative stock",
    "When a stock holds three nuts and somebody takes four of them, the stock says that minus one nut is left, which no shelf can hold. "
    "It should be an error that says how many are there, unless the caller says that what is there is enough.",
)
SHORT = SourceText("commit", "Never leave a negative stock (#7)", "")
LEAKING = SourceText("pull request", "Never leave a negative stock", f"{ISSUE.body} Put stock.get(name, 0) into _available and compare.")


class Writer:
    def __init__(self, text):
        self.text = text

    async def write(self, brief):
        self.brief = brief
        return self.text


class Judge:
    def __init__(self, *lines):
        self.lines = lines

    async def missing(self, instruction, tests):
        return list(self.lines)


@pytest.fixture
def draft(tmp_path):
    return make_draft(tmp_path)


async def test_people_who_say_enough_are_quoted(draft):
    statement = await write_statement(said(draft, ISSUE))
    assert statement.told_by == "people"
    assert statement.text.startswith(f"# {ISSUE.title}\n\n{ISSUE.body}\n")
    assert "What must hold" not in statement.text


async def test_what_gives_another_change_of_the_same_task_away_is_cut_too(draft, tmp_path):
    other = make_draft(tmp_path / "other", after={"parts/stock.py": "def put(stock, name):\n    return _shelves_of(stock)[name]\n"})
    said_of_both = SourceText("issue", ISSUE.title, f"{ISSUE.body} Ever since `_shelves_of` is called for each shelf this is worse.")
    alone = await write_statement(said(draft, said_of_both))
    assert "_shelves_of" in alone.text
    statement = await write_statement(said(draft, said_of_both), beside=(other,))
    assert "_shelves_of" not in statement.text and ISSUE.body in statement.text
    assert statement.cut == ("_shelves_of",)


async def test_a_short_message_is_followed_by_examples(draft):
    statement = await write_statement(said(draft, SHORT))
    assert statement.told_by == "tests"
    assert statement.text.startswith("# Never leave a negative stock\n")
    assert (
        "```python\nfrom parts.stock import take\nstock = {'nut': 3}\nassert take(stock, 'nut', 4, partial=True) == 0\n```"
        in statement.text
    )


async def test_without_any_text_the_tests_say_what_to_do(draft):
    statement = await write_statement(draft)
    assert statement.text.startswith("# Add `ShortageError`\n\nThis is about `take`.\n")


async def test_a_bug_without_text_is_titled_by_what_is_wrong(tmp_path):
    tests = {"tests/test_stock.py": "from parts.stock import take\n\n\ndef test_it():\n    assert take({'a': 1}, 'a', 2) == 0\n"}
    code = "def take(stock, name, count):\n    return max(stock[name] - count, 0)\n"
    draft = make_draft(tmp_path, after={"parts/stock.py": code}, tests=tests, fail_to_pass=["tests/test_stock.py::test_it"])
    assert (await write_statement(draft)).text.startswith("# Wrong behaviour of `take`\n")


@pytest.mark.parametrize("texts", [(), (SHORT,), (ISSUE,), (LEAKING,)])
async def test_no_statement_has_a_gap_or_a_leak(draft, texts):
    text = (await write_statement(said(draft, *texts))).text
    assert check(draft, text) == []
    assert find_leaks(draft, text) == []


async def test_what_gives_the_solution_away_is_cut_and_recorded(draft):
    statement = await write_statement(said(draft, LEAKING))
    assert "_available" not in statement.text
    assert ISSUE.body in statement.text
    assert "_available" in statement.cut


async def test_every_statement_says_how_it_is_checked(draft):
    text = (await write_statement(said(draft, ISSUE))).text
    assert text.endswith("Those that are there run with `python -m pytest tests/test_stock.py`.\n")


async def test_without_text_and_examples_there_is_no_statement(tmp_path):
    lines = "".join(f"    stock[{number}] = take({{}}, 'a', {number})\n" for number in range(90))
    test = f"from parts.stock import take\n\n\ndef test_it():\n    stock = {{}}\n{lines}    assert stock == 1\n"
    draft = make_draft(tmp_path, tests={"tests/test_stock.py": test}, fail_to_pass=["tests/test_stock.py::test_it"])
    with pytest.raises(Rejection, match="nothing says what to do"):
        await write_statement(draft)


async def test_titles_of_tests_stand_for_examples_in_other_languages(tmp_path):
    draft = make_draft(
        tmp_path,
        before={"lib/stock.js": "exports.take = (stock) => stock;\n"},
        after={"lib/stock.js": "exports.take = (stock) => stock + 1;\n"},
        tests={"test/stock.test.js": "test('take', () => {});\n"},
        fail_to_pass=["test/stock.test.js > take > leaves nothing below zero"],
    )
    assert "- take leaves nothing below zero" in (await write_statement(draft)).text


async def test_a_writers_text_replaces_the_description_and_keeps_the_rest(draft):
    writer = Writer("# A stock below zero\n\nNobody can take more parts than there are.")
    statement = await write_statement(said(draft, SHORT), writer=writer)
    assert statement.told_by == "chat"
    assert statement.text.startswith(writer.text)
    assert check(draft, statement.text) == []


async def test_a_writer_sees_no_line_of_the_solution(draft):
    writer = Writer(None)
    await write_statement(said(draft, LEAKING), writer=writer)
    assert find_leaks(draft, writer.brief) == []


async def test_a_writers_text_that_leaks_is_not_used(draft):
    writer = Writer("# A stock below zero\n\nUse `_available = stock.get(name, 0)`.")
    assert (await write_statement(said(draft, SHORT), writer=writer)).told_by == "tests"


async def test_a_judges_lines_are_added_unless_they_leak(draft):
    judge = Judge("The stock itself is changed.", "It is taken modulo 65521.")
    text = (await write_statement(said(draft, ISSUE), judge=judge)).text
    assert "## Also demanded\n\n- The stock itself is changed.\n" in text
    assert "65521" not in text
