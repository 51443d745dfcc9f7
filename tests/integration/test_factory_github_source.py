"""Pull requests from a replayed API: which are candidates, where they start, what is said of them, how limits and faults are lived with."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from aiohttp import web

from tests.github_scene import REPOSITORY, FakeGithub, serving_github
from tests.index_scene import Spoken
from trunkline.errors import ConfigError, InfraError
from trunkline.tasks.factory.candidate import Candidate, Rejected, Rejection
from trunkline.tasks.factory.github_api import GithubAccess
from trunkline.tasks.factory.github_source import GithubSource, closed_issues
from trunkline.tasks.factory.sources import github_access

pytestmark = pytest.mark.anyio

CHANGES = {"abacus.py": 4, "tests/test_abacus.py": 6}


class Waits(list[tuple[str, float]]):
    """Waiting that takes no time and is written down."""

    def tell(self, why: str, seconds: float) -> None:
        self.append((why, seconds))

    async def sleep(self, seconds: float) -> None:
        """Passes at once."""


@pytest.fixture
async def github(anyio_backend: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[FakeGithub]:
    monkeypatch.setenv("TRUNKLINE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ABACUS_TOKEN", raising=False)
    async with serving_github() as served:
        yield served


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def access(github: FakeGithub, waits: Waits) -> GithubAccess:
    return GithubAccess(github.url, "ABACUS_TOKEN", waits.tell, waits.sleep)


async def found(access: GithubAccess, **options) -> list[Candidate | Rejected]:
    return [each async for each in GithubSource(REPOSITORY, [Spoken()], access=access, **options).candidates()]


def merge(github: FakeGithub, number: int, **more) -> None:
    """A pull request that came by a merge commit."""
    github.commit(f"m{number}", [f"b{number}", f"h{number}"], CHANGES)
    github.pull(number, CHANGES, sha=f"m{number}", **more)


async def test_a_merged_pull_request_starts_from_the_branch_before_its_merge(github: FakeGithub, access: GithubAccess) -> None:
    merge(github, 7, title="Sum up", body="total() returned 0")
    (candidate,) = await found(access)
    assert (candidate.candidate_id, candidate.project) == ("abacus-pr7", REPOSITORY)
    assert (candidate.before, candidate.after) == ("b7", "m7")
    assert candidate.date == dt.datetime(2021, 5, 3, 12, tzinfo=dt.UTC)
    assert [(text.role, text.title, text.body) for text in candidate.texts] == [("pull request", "Sum up", "total() returned 0")]
    url = f"https://github.com/{REPOSITORY}/pull/7"
    assert candidate.facts == {"url": url, "licence": "MIT", "number": "7", "fix_like": "no", "issues": ""}


async def test_a_squash_starts_from_its_parent(github: FakeGithub, access: GithubAccess) -> None:
    github.commit("s7", ["b7"], CHANGES, "Change 7 (#7)")
    github.pull(7, CHANGES, sha="s7")
    (candidate,) = await found(access)
    assert (candidate.before, candidate.after) == ("b7", "s7")


async def test_commits_put_on_top_one_by_one_start_behind_the_first(github: FakeGithub, access: GithubAccess) -> None:
    github.commit("c3", ["c2"], {"tests/test_abacus.py": 6})
    github.commit("c2", ["c1"], {"abacus.py": 1})
    github.commit("c1", ["b7"], {"abacus.py": 3})
    github.pull(7, CHANGES, sha="c3")
    github.answers[f"/repos/{REPOSITORY}/pulls/7"]["commits"] = 3
    (candidate,) = await found(access)
    assert (candidate.before, candidate.after) == ("b7", "c3")


async def test_a_merge_that_changes_other_files_is_not_followed(github: FakeGithub, access: GithubAccess) -> None:
    github.commit("c1", ["b7"], {"other.py": 3})
    github.pull(7, CHANGES, sha="c1")
    (refused,) = await found(access)
    assert refused.cause == "its merge cannot be followed"


async def test_issues_that_it_closes_are_told_with_earlier_comments_only(github: FakeGithub, access: GithubAccess) -> None:
    github.issue(5, "Sums are 0", "total([1]) is 0", comments=(("2021-05-02", "Same here."), ("2021-05-04", "Use sum().")))
    merge(github, 7, body="Fixes #5")
    (candidate,) = await found(access)
    assert [(text.title, text.body) for text in candidate.texts[1:]] == [("Sums are 0", "total([1]) is 0"), ("", "Same here.")]
    assert candidate.facts["issues"] == "5"


async def test_an_issue_opened_after_the_pull_request_is_not_told(github: FakeGithub, access: GithubAccess) -> None:
    github.issue(8, "Follow-up", "The fix used sum()", day="2021-05-04")
    merge(github, 7, body="Fixes #8")
    (candidate,) = await found(access)
    assert len(candidate.texts) == 1


async def test_a_closed_number_that_is_no_issue_is_passed_over(github: FakeGithub, access: GithubAccess) -> None:
    github.issue(5, "Another pull request", "")
    github.answers[f"/repos/{REPOSITORY}/issues/5"]["pull_request"] = {}
    merge(github, 7, body="Fixes #5, closes #404")
    (candidate,) = await found(access)
    assert len(candidate.texts) == 1


async def test_with_a_token_issues_linked_by_hand_are_told_too(
    github: FakeGithub, access: GithubAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABACUS_TOKEN", "secret")
    github.issue(5, "Sums are 0", "")
    github.linked[7] = [5]
    merge(github, 7)
    (candidate,) = await found(access)
    assert candidate.facts["issues"] == "5"


async def test_pull_requests_come_newest_first_over_all_pages(github: FakeGithub, access: GithubAccess) -> None:
    github.page_size = 2
    for number in range(1, 6):
        merge(github, number)
    assert [each.candidate_id for each in await found(access)] == [f"abacus-pr{number}" for number in (5, 4, 3, 2, 1)]


async def test_a_pull_request_that_slips_to_the_next_page_is_told_once(github: FakeGithub, access: GithubAccess) -> None:
    github.page_size = 2
    for number in range(1, 4):
        merge(github, number)
    told = []
    async for each in GithubSource(REPOSITORY, [Spoken()], access=access).candidates():
        if not told:
            merge(github, 4)
        told.append(each.candidate_id)
    assert told == ["abacus-pr3", "abacus-pr2", "abacus-pr1"]


async def test_a_page_on_another_host_is_not_followed(github: FakeGithub, access: GithubAccess) -> None:
    link = {"Link": '<http://elsewhere.example/repos>; rel="next"'}
    repository = github.answers[f"/repos/{REPOSITORY}"]
    github.faults = [lambda: web.json_response(repository), lambda: web.json_response([], headers=link)]
    with pytest.raises(InfraError, match=r"another host, elsewhere\.example"):
        await found(access)


async def test_unmerged_old_and_surplus_pull_requests_are_left(github: FakeGithub, access: GithubAccess) -> None:
    merge(github, 1, day="2019-05-03")
    merge(github, 2)
    merge(github, 3)
    merge(github, 4, merged_at=None)
    since = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    assert [each.candidate_id for each in await found(access, since=since)] == ["abacus-pr3", "abacus-pr2"]
    assert [each.candidate_id for each in await found(access, limit=1)] == ["abacus-pr3"]


async def test_only_what_says_that_it_mends_something_is_taken_when_asked_for(github: FakeGithub, access: GithubAccess) -> None:
    merge(github, 1, title="Add products")
    merge(github, 2, title="Fix sums")
    fix, other = await found(access, only_fixes=True)
    assert (fix.candidate_id, fix.facts["fix_like"]) == ("abacus-pr2", "yes")
    assert other.cause == "does not say that it mends something"


async def test_what_changes_no_tests_costs_one_request(github: FakeGithub, access: GithubAccess) -> None:
    github.pull(7, {"abacus.py": 4}, sha="m7")
    (refused,) = await found(access)
    assert (refused.candidate_id, refused.stage, refused.cause) == ("abacus-pr7", "select", "changes no tests")
    assert len(github.asked) == 3


async def test_a_second_run_costs_no_quota(github: FakeGithub, access: GithubAccess) -> None:
    github.page_size = 2
    github.issue(5, "Sums are 0", "", comments=(("2021-05-02", "Same here."),))
    for number in range(10, 14):
        merge(github, number, body="Fixes #5")
    first = await found(access)
    github.asked.clear()
    assert await found(access) == first
    assert github.asked == []
    assert github.unchanged == 3


async def test_a_new_pull_request_is_seen_by_a_second_run(github: FakeGithub, access: GithubAccess) -> None:
    merge(github, 1)
    await found(access)
    merge(github, 2)
    assert [each.candidate_id for each in await found(access)] == ["abacus-pr2", "abacus-pr1"]


async def test_what_is_waited_for_and_until_when_is_told_in_a_line(
    github: FakeGithub, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    told: list[str] = []
    access = replace(github_access(told.append), base_url=github.url, sleep=waits.sleep)
    github.faults = [lambda: web.json_response({}, status=429, headers={"Retry-After": "7"})]
    merge(github, 7)
    assert len(await found(access)) == 1
    (line,) = told
    assert re.fullmatch(r"waiting until \d\d:\d\d:\d\d for GitHub: rate limit \(set GITHUB_TOKEN for a higher one\)", line)


@pytest.mark.parametrize("status", [403, 429])
async def test_a_rate_limit_is_waited_for_until_its_reset(github: FakeGithub, access: GithubAccess, waits: Waits, status: int) -> None:
    now = 1_700_000_000
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(now + 90), "Date": formatdate(now, usegmt=True)}
    github.faults = [lambda: web.json_response({"message": "API rate limit exceeded"}, status=status, headers=headers)]
    merge(github, 7)
    assert len(await found(access)) == 1
    assert waits == [("rate limit (set ABACUS_TOKEN for a higher one)", 91.0)]


async def test_a_burst_limit_waits_as_long_as_it_says(github: FakeGithub, access: GithubAccess, waits: Waits) -> None:
    said = {"message": "You have exceeded a secondary rate limit"}
    github.faults = [
        lambda: web.json_response(said, status=403, headers={"Retry-After": "7"}),
        lambda: web.json_response(said, status=403),
        lambda: web.json_response(said, status=403),
    ]
    merge(github, 7)
    assert len(await found(access)) == 1
    assert [seconds for _, seconds in waits] == [7.0, 120.0, 240.0]


async def test_a_limit_that_does_not_end_is_an_error(github: FakeGithub, access: GithubAccess) -> None:
    github.faults = [lambda: web.json_response({}, status=429)] * 20
    with pytest.raises(InfraError, match="rate limit does not end; go on later"):
        await found(access)


async def test_a_reset_in_the_far_future_is_not_waited_for(github: FakeGithub, access: GithubAccess, waits: Waits) -> None:
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 10**6)}
    github.faults = [lambda: web.json_response({}, status=403, headers=headers)]
    with pytest.raises(InfraError, match="rate limit"):
        await found(access)
    assert waits == []


async def test_bad_gateways_are_tried_again(github: FakeGithub, access: GithubAccess) -> None:
    github.faults = [lambda: web.Response(status=502), lambda: web.Response(status=503)]
    merge(github, 7)
    assert len(await found(access)) == 1


async def test_a_refused_request_says_what_the_server_said(github: FakeGithub, access: GithubAccess) -> None:
    github.faults = [lambda: web.json_response({"message": "Resource not accessible by personal access token"}, status=403)]
    with pytest.raises(ConfigError, match="HTTP 403: Resource not accessible"):
        await found(access)


async def test_a_bad_token_is_named_by_its_variable(github: FakeGithub, access: GithubAccess) -> None:
    github.faults = [lambda: web.json_response({"message": "Bad credentials"}, status=401)]
    with pytest.raises(ConfigError, match=r"refuses the token in \$ABACUS_TOKEN"):
        await found(access)


async def test_a_repository_that_is_not_there_is_named(access: GithubAccess) -> None:
    with pytest.raises(ConfigError, match="there is no repository counting/nothing"):
        [each async for each in GithubSource("counting/nothing", [Spoken()], access=access).candidates()]


async def test_a_repository_without_a_permissive_licence_is_refused(github: FakeGithub, access: GithubAccess) -> None:
    github.answers[f"/repos/{REPOSITORY}"]["license"] = {"spdx_id": "GPL-3.0"}
    github.answers[f"/repos/{REPOSITORY}/license"]["content"] = ""
    with pytest.raises(ConfigError, match="under 'unknown', no licence known as permissive"):
        await found(access)


async def test_a_licence_that_the_server_does_not_know_is_read(github: FakeGithub, access: GithubAccess) -> None:
    github.answers[f"/repos/{REPOSITORY}"]["license"] = {"spdx_id": "NOASSERTION"}
    merge(github, 7)
    (candidate,) = await found(access)
    assert candidate.facts["licence"] == "MIT"


async def test_trees_are_downloaded_once_and_the_token_stays_at_the_api(
    github: FakeGithub, access: GithubAccess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ABACUS_TOKEN", "secret")
    merge(github, 7)
    github.tree("b7", {"abacus.py": "x = 0\n"})
    github.tree("m7", {"abacus.py": "x = 1\n"})
    source = GithubSource(REPOSITORY, [Spoken()], access=access)
    (candidate,) = [each async for each in source.candidates()]
    await source.lay(candidate, "before", tmp_path / "before")
    await source.lay(candidate, "after", tmp_path / "after")
    await source.lay(candidate, "after", tmp_path / "again")
    assert [(tmp_path / name / "abacus.py").read_text() for name in ("before", "after", "again")] == ["x = 0\n", "x = 1\n", "x = 1\n"]
    assert {token for role, token in github.tokens if role == "api"} == {"Bearer secret"}
    assert [token for role, token in github.tokens if role == "files"] == [None, None]
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file() and b"secret" in path.read_bytes()]


async def test_a_tree_that_is_gone_asks_for_a_clone(github: FakeGithub, access: GithubAccess, tmp_path: Path) -> None:
    merge(github, 7)
    (candidate,) = await found(access)
    with pytest.raises(Rejection, match="files cannot be laid.*give a local clone"):
        await GithubSource(REPOSITORY, [Spoken()], access=access).lay(candidate, "before", tmp_path / "before")


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


async def test_a_local_clone_gives_the_files_that_archives_leave_out(github: FakeGithub, access: GithubAccess, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    (clone / "tests").mkdir(parents=True)
    git(clone, "init", "--quiet")
    (clone / ".gitattributes").write_text("tests export-ignore\n")
    (clone / "tests" / "test_abacus.py").write_text("x = 1\n")
    git(clone, "add", ".")
    git(clone, "commit", "--quiet", "-m", "First")
    number = git(clone, "rev-parse", "HEAD")
    github.commit(number, ["b7", "h7"], CHANGES)
    github.pull(7, CHANGES, sha=number)
    source = GithubSource(REPOSITORY, [Spoken()], access=access, clone=clone)
    (candidate,) = [each async for each in source.candidates()]
    await source.lay(candidate, "after", tmp_path / "after")
    assert (tmp_path / "after" / "tests" / "test_abacus.py").read_text() == "x = 1\n"
    with pytest.raises(Rejection, match="files cannot be laid"):
        await source.lay(candidate, "before", tmp_path / "before")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Fixes #12, closes: #13 and resolved #12", [12, 13]),
        ("See #14, prefix #15, fixes 16", []),
        (f"fix https://github.com/{REPOSITORY}/issues/17", [17]),
        (f"Closes {REPOSITORY.upper()}#18", [18]),
        ("Closes other/project#19", []),
    ],
)
def test_issues_are_closed_by_keywords(text: str, numbers: list[int]) -> None:
    assert closed_issues(text, REPOSITORY) == numbers


@pytest.mark.parametrize("name", ["abacus", "counting/abacus/more", "counting/aba cus", "../../etc"])
def test_what_names_no_repository_is_refused_at_once(name: str) -> None:
    with pytest.raises(ConfigError, match="write owner/name"):
        GithubSource(name, [Spoken()])


def test_the_identity_has_neither_token_nor_clone(tmp_path: Path) -> None:
    source = GithubSource(REPOSITORY, [Spoken()], clone=tmp_path, limit=3)
    assert source.identity() == {
        "source": "github",
        "api": "https://api.github.com",
        "repository": REPOSITORY,
        "since": None,
        "limit": 3,
        "only_fixes": False,
        "size": [40, 1500],
    }
