"""What is left of people's texts: descriptions stay, templates, credits and links to the fix go."""

import pytest

from trunkline.tasks.factory.candidate import SourceText
from trunkline.tasks.factory.prose import clean, describe

REQUEST = SourceText(
    "pull request",
    "fix: Median of an even number of values (#812)",
    """<!-- Thank you for the request! -->
## Description

`median()` takes the upper of the two middle values, see https://forge.example/someone/stats/issues/800.
It should take their mean ([the definition](https://words.example/median)).

Fixes #800

## Checklist

- [x] I have read the rules
- [ ] tests added

Co-authored-by: Someone <someone@example.org>
""",
)


@pytest.fixture
def cleaned():
    return clean(REQUEST)


def test_a_description_stays(cleaned):
    assert "`median()` takes the upper of the two middle values" in cleaned.body
    assert "It should take their mean (the definition)." in cleaned.body


def test_comments_check_boxes_and_their_heading_go(cleaned):
    assert not {"Thank", "Checklist", "rules", "added"} & set(cleaned.body.replace("#", " ").split())


@pytest.mark.parametrize("word", ["#800", "#812", "Fixes", "https://", "Co-authored-by", "fix:"])
def test_nothing_points_to_the_fix(cleaned, word):
    assert word not in cleaned.title + cleaned.body


def test_a_title_loses_its_kind_and_number(cleaned):
    assert cleaned.title == "Median of an even number of values"


def test_a_merge_is_titled_by_what_it_merges():
    found = clean(SourceText("commit", "Merge pull request #12 from someone/branch", "\nMean of no values is an error"))
    assert (found.title, found.body) == ("Mean of no values is an error", "")


@pytest.mark.parametrize("line", ["Merge branch 'main' into fixes", "Fix #12", "Fix lint", "Update CHANGELOG", "Closes someone/stats#3."])
def test_what_says_nothing_is_no_title(line):
    assert clean(SourceText("commit", line, "")).num_words == 0


def test_hashes_and_cherry_picks_go():
    found = clean(SourceText("commit", "Mean of no values", "As in 1a2b3c4d5e6f it fails.\n\n(cherry picked from commit 1a2b3c4d5e)"))
    assert found.body == "As in  it fails."


def test_code_is_left_as_it_is():
    block = "```python\n>>> median([1, 2])  # 12\n2\n```"
    assert block in clean(SourceText("issue", "Median is wrong", f"Look:\n\n{block}\n")).body


def test_a_fence_that_is_never_closed_is_closed():
    assert clean(SourceText("issue", "Median is wrong", "Look:\n```\nmedian([1])")).body.endswith("```")


def test_only_the_first_steps_of_a_squashed_commit_stay():
    steps = "\n\n".join(f"* Step number {number}" for number in range(9))
    body = clean(SourceText("commit", "Median of an even number", f"{steps}\n\nThe mean of both is right.")).body
    assert "number 2" in body
    assert "number 3" not in body
    assert "The mean of both is right." in body


def test_calls_keep_their_brackets():
    assert clean(SourceText("commit", "Speed up median() and mean()", "")).title == "Speed up median() and mean()"


def test_issues_come_before_the_request_and_are_not_said_twice():
    issue = SourceText("issue", "median is wrong", "For [1, 2] it says 2, which is no median of these two values.")
    found = describe([SourceText("pull request", "Mend median", issue.body), issue])
    assert found.title == "median is wrong"
    assert found.body.count("it says 2") == 1


def test_a_changelog_is_read_only_where_nothing_else_says_much():
    entry = SourceText("changelog", "1.2", "- median of an even number of values is the mean of both in the middle")
    assert "in the middle" in describe([SourceText("commit", "Fix #3", ""), entry]).body
    assert "in the middle" not in describe([REQUEST, entry]).body


def test_a_long_text_ends_with_a_whole_line():
    body = describe([SourceText("issue", "Slow median", "many words stand in this line of text\n" * 400)]).body
    assert 800 <= len(body.split()) <= 900
    assert body.endswith("line of text")
