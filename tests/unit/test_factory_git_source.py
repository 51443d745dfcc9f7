"""Which commits of a clone become candidates, and why the others do not."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from tests.git_project import GitProject
from tests.plain_python import PlainPython
from trunkline.errors import ConfigError
from trunkline.tasks.factory.candidate import Candidate, Rejected, Rejection
from trunkline.tasks.factory.git_source import GitSource, is_changelog, is_fix_like
from trunkline.tasks.factory.selection import Size

SOURCE = "def total(prices):\n    return sum(prices)\n"
CURED = "def total(prices):\n    return max(0, sum(prices))\n"
TEST = "from shop import total\n\n\ndef test_total():\n    assert total([1, 2]) == 3\n"
MORE = TEST + "\n\ndef test_never_below_0():\n    assert total([-1]) == 0\n"


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def project(tmp_path: Path) -> GitProject:
    project = GitProject(tmp_path / "shop")
    project.commit("Begin", {"shop.py": SOURCE, "tests/test_shop.py": TEST, "pyproject.toml": "[project]\nname = 'shop'\n"})
    return project


def source_of(project: GitProject, **options) -> GitSource:
    return GitSource(project.folder, (PlainPython(),), **options)


async def all_of(source: GitSource) -> list[Candidate | Rejected]:
    return [found async for found in source.candidates()]


async def newest(project: GitProject, **options) -> Candidate | Rejected:
    return (await all_of(source_of(project, **options)))[0]


async def cause_of(project: GitProject, **options) -> str:
    found = await newest(project, **options)
    assert isinstance(found, Rejected) and found.stage == "select"
    return found.cause


@pytest.mark.anyio
async def test_a_commit_of_source_and_tests_is_a_candidate(project):
    parent = project.git("rev-parse", "HEAD")
    commit = project.commit("Fix negative totals (#3)\n\nThey make no sense.", {"shop.py": CURED, "tests/test_shop.py": MORE})
    found = await newest(project)
    assert isinstance(found, Candidate)
    assert (found.candidate_id, found.project) == (f"shop-{commit[:10]}", "shop")
    assert (found.before, found.after, found.date) == (parent, commit, dt.datetime(2021, 3, 3, 12, tzinfo=dt.UTC))
    assert (found.texts[0].role, found.texts[0].title, found.texts[0].body) == (
        "pull request",
        "Fix negative totals (#3)",
        "They make no sense.",
    )
    assert found.facts["fix_like"] == "yes"


@pytest.mark.anyio
async def test_candidates_come_newest_first_and_end_at_the_limit(project):
    project.commit("Fix one", {"shop.py": CURED, "tests/test_shop.py": MORE})
    project.commit("Fix two", {"shop.py": SOURCE + "A = 1\n", "tests/test_shop.py": TEST})
    project.commit("Words", {"README.md": "A shop."})
    found = await all_of(source_of(project, limit=1))
    assert [type(one) for one in found] == [Rejected, Candidate]
    assert isinstance(found[1], Candidate) and found[1].texts[0].title == "Fix two"


@pytest.mark.anyio
async def test_older_commits_are_left_out(project):
    project.commit("Fix", {"shop.py": CURED, "tests/test_shop.py": MORE})
    assert await all_of(source_of(project, since=dt.datetime(2021, 4, 1, tzinfo=dt.UTC))) == []


@pytest.mark.anyio
async def test_a_merged_branch_is_one_change_with_the_words_of_its_commits(project):
    project.git("checkout", "--quiet", "-b", "side")
    project.commit("Never below 0\n\nCloses #7", {"shop.py": CURED})
    project.commit("Test it", {"tests/test_shop.py": MORE})
    project.git("checkout", "--quiet", "main")
    merge = project.merge("side", "Merge pull request #8 from someone/side\n\nTotals of returns")
    found = await newest(project)
    assert isinstance(found, Candidate) and found.after == merge
    assert [(text.role, text.title) for text in found.texts] == [
        ("pull request", "Totals of returns"),
        ("commit", "Never below 0"),
        ("commit", "Test it"),
    ]
    assert found.facts["fix_like"] == "yes", "one of its commits closes an issue"


@pytest.mark.anyio
async def test_new_lines_of_the_changelog_are_told(project):
    project.commit("Keep a changelog", {"CHANGES.md": "# 1.0\n\n- Begun\n"})
    files = {"shop.py": CURED, "tests/test_shop.py": MORE, "CHANGES.md": "# 1.1\n\n- Totals are not negative\n\n# 1.0\n\n- Begun\n"}
    project.commit("Totals", files)
    found = await newest(project)
    assert isinstance(found, Candidate)
    assert (found.texts[-1].role, found.texts[-1].body) == ("changelog", "# 1.1\n- Totals are not negative")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("files", "cause"),
    [
        ({"shop.py": CURED}, "changes no tests"),
        ({"tests/test_shop.py": MORE}, "changes no source"),
        ({"README.md": "A shop."}, "changes no tests"),
        ({"shop.py": "def total( prices ):  # sums\n    return (sum(prices))\n", "tests/test_shop.py": MORE}, "only formatting"),
        ({}, "an empty commit"),
    ],
)
async def test_other_commits_are_rejected_with_a_cause(project, files, cause):
    project.commit("A commit", files)
    assert await cause_of(project) == cause


@pytest.mark.anyio
@pytest.mark.parametrize("subject", ["Release 1.2.0", "v1.2", "1.2.0rc1", "Prepare for 0.12.1 release"])
async def test_a_release_is_no_candidate(project, subject):
    project.commit(subject, {"shop.py": CURED, "tests/test_shop.py": MORE})
    assert await cause_of(project) == "a release"


@pytest.mark.anyio
async def test_a_merge_that_brings_nothing_is_named(project):
    project.git("checkout", "--quiet", "-b", "side")
    project.commit("Fix", {"shop.py": CURED, "tests/test_shop.py": MORE})
    project.git("checkout", "--quiet", "main")
    project.merge("side", "Merge branch 'side'", "--strategy=ours")
    assert await cause_of(project) == "a merge that brings nothing"


@pytest.mark.anyio
async def test_a_large_change_is_rejected(project):
    project.commit("Fix", {"shop.py": CURED + "A = 1\n" * 50, "tests/test_shop.py": MORE})
    assert await cause_of(project, size=Size(most_lines=50)) == "change too large"


@pytest.mark.anyio
async def test_only_fixes_leaves_out_what_mends_nothing(project):
    project.commit("Tax", {"shop.py": CURED, "tests/test_shop.py": MORE})
    assert await cause_of(project, only_fixes=True) == "does not say that it mends something"


@pytest.mark.anyio
async def test_the_first_commit_has_no_state_before(project):
    assert await cause_of(project) == "no state before"


@pytest.mark.anyio
async def test_both_sides_are_laid_without_history_and_the_clone_stays_as_it_is(project, tmp_path):
    project.commit("Fix", {"shop.py": CURED, "tests/test_shop.py": MORE})
    source, status = source_of(project), project.git("status", "--porcelain")
    found = await newest(project)
    assert isinstance(found, Candidate)
    await source.lay(found, "before", tmp_path / "before")
    await source.lay(found, "after", tmp_path / "after")
    assert (tmp_path / "before/shop.py").read_text() == SOURCE
    assert (tmp_path / "after/shop.py").read_text() == CURED
    assert sorted(path.name for path in (tmp_path / "after").iterdir()) == ["pyproject.toml", "shop.py", "tests"]
    assert project.git("status", "--porcelain") == status


@pytest.mark.anyio
async def test_a_bare_clone_is_read_like_any_other(project, tmp_path):
    commit = project.commit("Fix", {"shop.py": CURED, "tests/test_shop.py": MORE})
    project.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare"))
    found = [found async for found in GitSource(tmp_path / "bare", (PlainPython(),), project="org/shop").candidates()]
    assert isinstance(found[0], Candidate)
    assert (found[0].candidate_id, found[0].project) == (f"shop-{commit[:10]}", "org/shop")


@pytest.mark.anyio
async def test_a_message_cannot_stand_for_another_commit(project):
    project.commit("Fix\n\n\x01abc\x01\x01" + "0" * 40, {"shop.py": CURED, "tests/test_shop.py": MORE})
    assert isinstance(await newest(project), Candidate)


@pytest.mark.anyio
async def test_a_missing_commit_is_a_rejection(project, tmp_path):
    candidate = Candidate("a", "shop", "0" * 40, "1" * 40, dt.datetime(2021, 1, 1, tzinfo=dt.UTC))
    with pytest.raises(Rejection, match="files cannot be laid"):
        await source_of(project).lay(candidate, "before", tmp_path / "before")


def test_what_is_no_repository_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="clone the project there"):
        GitSource(tmp_path, (PlainPython(),)).identity()


def test_identity_changes_with_the_newest_commit(project):
    before = source_of(project).identity()
    assert before == source_of(project).identity()
    project.commit("More", {"README.md": "A shop."})
    assert source_of(project).identity() != before


@pytest.mark.parametrize(
    ("title", "is_fix"),
    [
        ("Fix total", True),
        ("Bugfix: total", True),
        ("Raise for negative prices", True),
        ("Add prefix option", False),
        ("Use fixtures", False),
    ],
)
def test_titles_that_say_that_something_is_mended(title, is_fix):
    assert is_fix_like(title) == is_fix


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("CHANGES.rst", True),
        ("docs/changelog.md", True),
        ("changelog.d/12.change.md", True),
        ("shop/history.py", False),
        ("shop/news.txt", True),
    ],
)
def test_changelogs_are_known_by_name(path, is_one):
    assert is_changelog(path) == is_one
