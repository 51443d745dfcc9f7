"""Sections of changelogs in the styles that projects use."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.tasks.factory.changelog import changelog_files, changelog_text, section_of

MARKDOWN = """# Changelog

Since 2013 there were 45 releases, 1.0.0 the first.

## [1.2.0] - 2021-05-03

### Fixed

- Sums of 1.5 are right.

## 1.1.0

- Older.
"""
UNDERLINED = """
v1.2.0 (2021-05-03)
===================

- Sums are right.

  1.3 is planned.

v1.1.0
======
- Older.
"""
PLAIN = """Version 1.2.0
- Sums are right.

Version 1.1.0
- Older.
"""
ITEMS = """Abacus
======

Version history (in brief):

- 1.2.0 Sums are right
  in all cases.
- 1.1.0 Older.
"""


@pytest.mark.parametrize(
    ("text", "title", "body"),
    [
        (MARKDOWN, "1.2.0 - 2021-05-03", "### Fixed\n\n- Sums of 1.5 are right."),
        (UNDERLINED, "v1.2.0 (2021-05-03)", "- Sums are right.\n\n  1.3 is planned."),
        (PLAIN, "Version 1.2.0", "- Sums are right."),
        (ITEMS, "1.2.0", "Sums are right\n  in all cases."),
    ],
)
def test_the_section_of_a_version_ends_at_the_next_version(text: str, title: str, body: str) -> None:
    found = section_of(text, "1.2.0")
    assert found is not None
    assert (found.role, found.title, found.body) == ("changelog", title, body)


def test_a_version_is_known_however_many_zeros_end_it() -> None:
    assert section_of("## 1.2\n\n- Sums.\n", "1.2.0") is not None


def test_another_version_that_begins_alike_is_not_taken() -> None:
    assert section_of("## 1.2.10\n\n- Sums.\n", "1.2.1") is None


def test_what_is_not_released_yet_is_not_part_of_the_last_release() -> None:
    found = section_of("## 1.2.0\n\n- Sums.\n\n## Unreleased\n\n- Products.\n", "1.2.0")
    assert found is not None
    assert found.body == "- Sums."


def lay(tree: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    return tree


def test_files_that_tell_the_history_are_known_by_name(tmp_path: Path) -> None:
    files = dict.fromkeys(["CHANGES.rst", "docs/history.md", "NEWS", "docs/versions.rst", "changes.py", "src/CHANGELOG.md"], "x")
    assert changelog_files(lay(tmp_path, files)) == ["CHANGES.rst", "NEWS", "docs/history.md", "docs/versions.rst"]


def test_without_a_section_what_the_changelog_gained_is_said(tmp_path: Path) -> None:
    before = lay(tmp_path / "before", {"NEWS": "Abacus, spring edition\n* Older.\n"})
    after = lay(tmp_path / "after", {"NEWS": "Abacus, spring edition\n* Sums are right.\n* Older.\n"})
    text = changelog_text(before, after, "1.2.0")
    assert text is not None
    assert (text.title, text.body) == ("Changes in 1.2.0", "* Sums are right.")


def test_a_history_in_the_readme_counts(tmp_path: Path) -> None:
    text = changelog_text(lay(tmp_path / "before", {"x": ""}), lay(tmp_path / "after", {"README.rst": ITEMS}), "1.2.0")
    assert text is not None
    assert text.body == "Sums are right\n  in all cases."


def test_a_project_without_a_history_says_nothing(tmp_path: Path) -> None:
    assert changelog_text(lay(tmp_path / "before", {"x": ""}), lay(tmp_path / "after", {"README.md": "Abacus 1.2.0"}), "1.2.0") is None
