"""Release pairs from an index on this host: which neighbours are candidates, what is said of them, how they are laid."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.index_scene import MIT, Index, Spoken, archive_of, serving_index
from trunkline.errors import ConfigError, InfraError, TaskError
from trunkline.tasks.factory import web
from trunkline.tasks.factory.candidate import Candidate, Rejected
from trunkline.tasks.factory.registry import index_url, releases_of
from trunkline.tasks.factory.release_source import ReleaseSource

pytestmark = pytest.mark.anyio

BASE = {"LICENSE": MIT, "pyproject.toml": '[project]\nname = "abacus"\n'}
OLD = {"abacus.py": "def total(xs):\n    return 0\n", "tests/test_abacus.py": "from abacus import total\n"}
NEW = {
    "abacus.py": "def total(xs):\n    return sum(xs)\n",
    "tests/test_abacus.py": "from abacus import total\n\ndef test_total():\n    assert total([1, 2]) == 3\n",
}
CHANGES = "# Changes\n\n## 1.1 (2021-05-03)\n\n- total() adds up.\n\n## 1.0\n\n- First release.\n"


@pytest.fixture
async def index(anyio_backend: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Index]:
    monkeypatch.setenv("TRUNKLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(web, "PAUSES_S", (0.0, 0.0))
    async with serving_index() as served:
        monkeypatch.setenv("UV_DEFAULT_INDEX", served.url)
        yield served


def add(index: Index, version: str, files: dict[str, str], *, day: str = "2021-05-03", **entry: object) -> None:
    index.add("abacus", version, BASE | files, day=day, **entry)


async def found(*packages: str, **options) -> list[Candidate | Rejected]:
    return [each async for each in ReleaseSource(packages or ["abacus"], [Spoken()], **options).candidates()]


async def test_neighbouring_releases_that_change_source_and_tests_are_candidates(index: Index) -> None:
    add(index, "1.0", OLD, day="2021-01-02")
    add(index, "1.1", NEW | {"CHANGES.md": CHANGES})
    (candidate,) = await found()
    assert candidate.candidate_id == "abacus-1.0-1.1"
    assert (candidate.project, candidate.before, candidate.after) == ("pypi/abacus", "1.0", "1.1")
    assert candidate.date == dt.datetime(2021, 5, 3, 12, tzinfo=dt.UTC)
    assert candidate.facts["licence"] == "MIT"


async def test_the_changelog_section_of_the_version_is_what_is_said_of_it(index: Index) -> None:
    add(index, "1.0", OLD, day="2021-01-02")
    add(index, "1.1", NEW | {"CHANGES.md": CHANGES})
    (candidate,) = await found()
    assert [(text.role, text.title, text.body) for text in candidate.texts] == [("changelog", "1.1 (2021-05-03)", "- total() adds up.")]


async def test_each_side_is_laid_as_its_archive_has_it(index: Index, tmp_path: Path) -> None:
    add(index, "1.0", OLD | {"PKG-INFO": "Version: 1.0\n", "abacus.egg-info/SOURCES.txt": "abacus.py\n"}, day="2021-01-02")
    add(index, "1.1", NEW)
    (candidate,) = await found()
    source = ReleaseSource(["abacus"], [Spoken()])
    await source.lay(candidate, "before", tmp_path / "before")
    await source.lay(candidate, "after", tmp_path / "after")
    assert (tmp_path / "before" / "abacus.py").read_text() == OLD["abacus.py"]
    assert (tmp_path / "after" / "abacus.py").read_text() == NEW["abacus.py"]
    assert sorted(path.name for path in (tmp_path / "before").iterdir()) == ["LICENSE", "PKG-INFO", "abacus.py", "pyproject.toml", "tests"]


async def test_of_the_metadata_of_an_archive_the_headers_are_laid(index: Index, tmp_path: Path) -> None:
    told = "Metadata-Version: 2.1\nName: abacus\nVersion: 1.0\nDescription: Adds\n        up.\n        \nLicense: MIT\n\nAdds up.\n"
    add(index, "1.0", OLD | {"PKG-INFO": told}, day="2021-01-02")
    add(index, "1.1", NEW)
    (candidate,) = await found()
    await ReleaseSource(["abacus"], [Spoken()]).lay(candidate, "before", tmp_path / "before")
    assert (tmp_path / "before" / "PKG-INFO").read_text() == "Metadata-Version: 2.1\nName: abacus\nVersion: 1.0\nLicense: MIT\n"


async def test_laying_again_downloads_nothing(index: Index, tmp_path: Path) -> None:
    add(index, "1.0", OLD, day="2021-01-02")
    add(index, "1.1", NEW)
    (candidate,) = await found()
    index.asked.clear()
    await ReleaseSource(["abacus"], [Spoken()]).lay(candidate, "after", tmp_path / "after")
    assert index.asked == []


async def test_pairs_come_newest_first_and_a_limit_keeps_the_newest(index: Index) -> None:
    add(index, "1.0", OLD, day="2021-01-02")
    add(index, "1.1", NEW, day="2021-02-02")
    add(index, "1.2", OLD, day="2021-03-02")
    assert [each.candidate_id for each in await found()] == ["abacus-1.1-1.2", "abacus-1.0-1.1"]
    assert [each.candidate_id for each in await found(limit=1)] == ["abacus-1.1-1.2"]


async def test_a_fix_of_an_old_line_is_not_the_past_of_a_release_before_it(index: Index) -> None:
    add(index, "1.0", OLD, day="2021-01-02")
    add(index, "2.0", NEW, day="2021-02-02")
    add(index, "1.1", NEW, day="2021-03-02")
    assert [each.candidate_id for each in await found()] == ["abacus-1.0-1.1", "abacus-1.0-2.0"]


async def test_unfinished_and_yanked_releases_are_passed_over(index: Index) -> None:
    add(index, "1.0", OLD, day="2021-01-02")
    add(index, "1.1rc1", NEW, day="2021-02-02")
    add(index, "1.1", NEW, day="2021-02-03", yanked="broken")
    add(index, "1.2", NEW, day="2021-03-02")
    assert [each.candidate_id for each in await found()] == ["abacus-1.0-1.2"]


async def test_a_range_of_versions_bounds_both_sides(index: Index) -> None:
    for number in range(4):
        add(index, f"1.{number}", NEW if number % 2 else OLD, day=f"2021-0{number + 1}-02")
    assert [each.candidate_id for each in await found("abacus==1.1..1.2")] == ["abacus-1.1-1.2"]
    assert [each.candidate_id for each in await found("abacus==1.2..")] == ["abacus-1.2-1.3"]


async def test_releases_before_a_day_are_no_candidates(index: Index) -> None:
    add(index, "1.0", OLD, day="2021-01-02")
    add(index, "1.1", NEW, day="2021-02-02")
    assert await found(since=dt.datetime(2022, 1, 1, tzinfo=dt.UTC)) == []


@pytest.mark.parametrize(
    ("before", "after", "cause"),
    [
        (OLD, OLD | {"abacus.py": "x = 1\n"}, "changes no tests"),
        (OLD, OLD | {"tests/test_abacus.py": "x = 1\n"}, "changes no source"),
        ({"abacus.py": "x = 0\n"}, {"abacus.py": "x = 1\n"}, "no tests in the archive"),
        (OLD, NEW | {"abacus.py": "x = 1\n" * 5000}, "change too large"),
        (OLD, NEW | {"LICENSE": "GNU GENERAL PUBLIC LICENSE\n"}, "licence not permissive"),
        (OLD, NEW | {"LICENSE": "Ask me.\n"}, "licence not permissive"),
    ],
)
async def test_what_is_no_candidate_says_why(index: Index, before: dict[str, str], after: dict[str, str], cause: str) -> None:
    add(index, "1.0", before, day="2021-01-02")
    add(index, "1.1", after)
    (refused,) = await found()
    assert isinstance(refused, Rejected)
    assert (refused.candidate_id, refused.stage, refused.cause) == ("abacus-1.0-1.1", "select", cause)


async def test_any_licence_is_taken_when_asked_for(index: Index) -> None:
    add(index, "1.0", OLD, day="2021-01-02")
    add(index, "1.1", NEW | {"LICENSE": "Ask me.\n"})
    (candidate,) = await found(any_licence=True)
    assert candidate.facts["licence"] == "unknown"


async def test_another_file_than_the_index_promised_is_refused(index: Index, tmp_path: Path) -> None:
    add(index, "1.0", OLD, day="2021-01-02")
    add(index, "1.1", NEW)
    index.content["abacus-1.1.tar.gz"] = archive_of("abacus-1.1", {"abacus.py": "evil = 1\n"})
    with pytest.raises(TaskError, match="is not the file that was locked"):
        await found()
    assert not list((tmp_path / "home").rglob("abacus-1.1.tar.gz"))


async def test_an_archive_that_is_too_large_is_not_downloaded(index: Index) -> None:
    add(index, "1.0", OLD, day="2021-01-02")
    add(index, "1.1", NEW, size=10**9)
    (refused,) = await found()
    assert refused.cause == "archive too large"
    assert not [path for path in index.asked if path.endswith("abacus-1.1.tar.gz")]


async def test_a_server_at_fault_is_asked_again(index: Index) -> None:
    add(index, "1.0", OLD, day="2021-01-02")
    index.faults = [503, 502]
    assert [str(release.version) for release in await releases_of("abacus")] == ["1.0"]


async def test_a_server_that_stays_at_fault_ends_the_search(index: Index) -> None:
    index.faults = [500] * 10
    with pytest.raises(InfraError, match=r"/simple/abacus/ gives no answer \(HTTP 500, tried 3 times\)"):
        await found()


async def test_an_unknown_package_is_named(index: Index) -> None:
    with pytest.raises(ConfigError, match="no package 'abacus'.*HTTP 404.*check its spelling"):
        await found()


async def test_a_listing_without_dates_is_of_no_use(index: Index) -> None:
    add(index, "1.0", OLD, **{"upload-time": None})
    with pytest.raises(ConfigError, match="no upload times"):
        await found()


async def test_a_range_without_a_pair_is_an_error(index: Index) -> None:
    add(index, "1.0", OLD)
    with pytest.raises(ConfigError, match="no two in the range"):
        await found("abacus==0.9..1.0")


async def test_credentials_of_an_index_are_sent_but_never_kept(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url.replace("http://", "http://me:secret@"))
    add(index, "1.0", OLD, day="2021-01-02")
    add(index, "1.1", NEW)
    (candidate,) = await found()
    assert "secret" not in str(candidate)


@pytest.mark.parametrize("text", ["", "abacus==1.0", "abacus==..", "abacus==one..two", "../abacus", "abacus=1.0..2.0", "gems:abacus"])
def test_what_names_no_releases_is_refused_at_once(text: str) -> None:
    with pytest.raises(ConfigError, match="names no releases"):
        ReleaseSource([text], [Spoken()])


def test_the_identity_is_that_of_the_arguments() -> None:
    source = ReleaseSource(["Abacus==1.0..1.1"], [Spoken()], limit=3)
    assert source.identity() == {
        "source": "releases",
        "packages": ["pypi:abacus==1.0..1.1"],
        "since": None,
        "limit": 3,
        "size": [60, 3000],
        "any_licence": False,
    }


def test_the_index_is_the_one_of_the_users_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    assert index_url() == "https://pypi.org/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.org/simple")
    assert index_url() == "https://example.org/simple"
