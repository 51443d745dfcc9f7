"""docs/benchmarks/conformance.md says what the JSON files beside it say."""

from tools import conformance_table

RESULTS = [
    {
        "target": "ours",
        "version": "1",
        "command": "trunkline conformance",
        "cases": [{"case": "drift", "outcome": "pass", "reason": ""}, {"case": "n = 3", "outcome": "pass", "reason": ""}],
    },
    {
        "target": "theirs",
        "version": "2",
        "command": "trunkline conformance --target theirs",
        "cases": [{"case": "drift", "outcome": "fail", "reason": "there is '<|im_end|>'\n*here*"}],
    },
]


def test_the_table_has_a_row_for_each_case_and_a_column_for_each_project():
    text = conformance_table.render(RESULTS)
    assert "| case | ours 1 | theirs 2 |" in text
    assert "| drift | pass | **fail** |" in text
    assert "| n = 3 | pass | not run |" in text
    assert "| **pass / fail / –** | 2 / 0 / 0 | 0 / 1 / 0 |" in text


def test_reasons_are_one_line_that_markdown_shows_as_it_is():
    assert "* **drift**: there is '&lt;\\|im_end\\|>' \\*here\\*" in conformance_table.render(RESULTS)


def test_the_page_is_what_the_json_files_say():
    text = conformance_table.PAGE.read_text(encoding="utf-8")
    assert conformance_table.page(text, conformance_table.render(conformance_table.stored())) == text
