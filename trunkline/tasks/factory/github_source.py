"""Merged pull requests of a GitHub repository, with the issues that they close. Owns which state is before; runs nothing of them.

merged pulls, newest first ─► files changed ─► the state before the merge ─► pull, issues, earlier comments ─► Candidate
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trunkline.errors import ConfigError, TaskError
from trunkline.tasks.factory.archives import unpack
from trunkline.tasks.factory.candidate import Candidate, Rejected, Rejection, Side, SourceText
from trunkline.tasks.factory.git_source import is_fix_like
from trunkline.tasks.factory.github_api import Github, GithubAccess, connect
from trunkline.tasks.factory.language import Language
from trunkline.tasks.factory.licences import is_permissive, licence_of_text
from trunkline.tasks.factory.selection import Size, check_change
from trunkline.tasks.formats.git_patch import extract_commit

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+")
_CLOSING = re.compile(
    r"\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?):?\s+"
    r"(?:https?://[^\s/]+/(?P<by_url>[\w.-]+/[\w.-]+)/issues/|(?P<by_name>[\w.-]+/[\w.-]+)?#)(?P<number>\d+)",
    re.I,
)
"""GitHub's words for links that close an issue at the merge."""
_CLOSING_QUERY = """
query($owner: String!, $name: String!, $number: Int!) {
  repository(owner: $owner, name: $name) {
    pullRequest(number: $number) {
      closingIssuesReferences(first: 20) { nodes { number repository { nameWithOwner } } }
    }
  }
}
"""
_MOST_COMMITS = 30
_MOST_ISSUES = 5


class GithubSource:
    """Merged pull requests into the default branch.

    >>> source = GithubSource("pytoolz/toolz", [python], since=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    >>> [found async for found in source.candidates()]
    [Candidate("toolz-pr561", ...), Rejected("toolz-pr559", "select", "changes no tests"), ...]
    """

    def __init__(
        self,
        repository: str,
        languages: Sequence[Language],
        *,
        access: GithubAccess | None = None,
        clone: Path | None = None,
        since: dt.datetime | None = None,
        limit: int | None = None,
        only_fixes: bool = False,
        size: Size | None = None,
    ) -> None:
        """Which pull requests to look at.

        Args:
            repository: 'owner/name'.
            languages: Whose words for what is source and what is a test count.
            access: How the API is reached.
            clone: A local clone, whose files are taken instead of downloads. Needed where .gitattributes keeps tests out of archives.
            since: Pull requests must not be opened earlier.
            limit: Merged pull requests to look at, the newest; None: all.
            only_fixes: Leave out those that do not say that they mend something.
            size: What is too large a change.
        """
        if not _REPOSITORY.fullmatch(repository):
            raise ConfigError(f"{repository!r} is no repository; write owner/name, such as pytoolz/toolz")
        self._repository = repository
        self._languages = tuple(languages)
        self._access = access or GithubAccess()
        self._clone = clone
        self._since = since
        self._limit = limit
        self._only_fixes = only_fixes
        self._size = size or Size()

    @property
    def name(self) -> str:
        """Of the repository."""
        return self._repository

    def identity(self) -> Mapping[str, Any]:
        """The arguments; where files come from changes nothing."""
        return {
            "source": "github",
            "api": self._access.base_url,
            "repository": self._repository,
            "since": self._since.isoformat() if self._since else None,
            "limit": self._limit,
            "only_fixes": self._only_fixes,
            "size": [self._size.most_files, self._size.most_lines],
        }

    async def candidates(self) -> AsyncIterator[Candidate | Rejected]:
        """By number, newest first. Raises ConfigError: no such repository, no permissive licence, a bad token; InfraError: no answer."""
        async with connect(self._access) as github:
            about = await github.read(f"/repos/{self._repository}", lasting=False)
            if about is None:
                raise ConfigError(
                    f"there is no repository {self._repository}, or the token in ${self._access.token_variable} may not see it"
                )
            licence = await self._licence(github, about)
            query = {"state": "closed", "base": about["default_branch"], "sort": "created", "direction": "desc"}
            seen: set[int] = set()  # a list that grows while it is read repeats what it has pushed to the next page
            async for pull in github.pages(f"/repos/{self._repository}/pulls", query, lasting=False):
                if len(seen) == self._limit or (self._since and _date(pull["created_at"]) < self._since):
                    return
                if not pull.get("merged_at") or pull["number"] in seen:
                    continue
                seen.add(pull["number"])
                try:
                    yield await self._candidate(github, pull, licence)
                except Rejection as refused:
                    yield Rejected(self._id(pull), refused.stage, refused.cause, refused.detail)

    async def lay(self, candidate: Candidate, side: Side, target: Path) -> None:
        """From the clone, else from a download that is kept. Raises Rejection (select), ConfigError, InfraError."""
        commit = candidate.before if side == "before" else candidate.after
        if self._clone is not None:
            try:
                await asyncio.to_thread(extract_commit, self._clone, commit, target)
            except TaskError as error:
                raise Rejection("select", "files cannot be laid", str(error)) from error
            return
        async with connect(self._access) as github:
            archive = await github.tree(self._repository, commit)
        await asyncio.to_thread(unpack, archive, target)

    async def _licence(self, github: Github, about: Mapping[str, Any]) -> str:
        found = str((about.get("license") or {}).get("spdx_id") or "unknown")
        if not is_permissive(found):
            told = await github.read(f"/repos/{self._repository}/license", lasting=False)
            found = licence_of_text(base64.b64decode(told["content"]).decode(errors="replace")) if told else found
        if not is_permissive(found):
            raise ConfigError(
                f"{self._repository} is under {found!r}, no licence known as permissive (trunkline/tasks/factory/licences.py)"
            )
        return found

    async def _candidate(self, github: Github, pull: Mapping[str, Any], licence: str) -> Candidate:
        is_fix = is_fix_like(pull["title"] or "", pull.get("body") or "")
        if self._only_fixes and not is_fix:
            raise Rejection("select", "does not say that it mends something", pull["title"] or "")
        lines = {entry["filename"]: int(entry["changes"]) async for entry in github.pages(self._of(pull, "files"))}
        check_change(lines, self._languages, self._size)
        after = str(pull["merge_commit_sha"] or "")
        merge = await self._commit(github, after)
        before = await self._before(github, pull, merge, lines)
        issues = await self._issues(github, pull, str(merge["commit"]["message"]))
        said = [text for issue in issues for text in await self._texts(github, issue, pull)]
        return Candidate(
            candidate_id=self._id(pull),
            project=self._repository,
            before=before,
            after=after,
            date=_date(pull["merged_at"]),
            texts=(SourceText("pull request", pull["title"] or "", pull.get("body") or ""), *said),
            facts={
                "url": pull["html_url"],
                "licence": licence,
                "number": str(pull["number"]),
                "fix_like": "yes" if is_fix or issues else "no",
                "issues": " ".join(str(issue["number"]) for issue in issues),
            },
        )

    async def _commit(self, github: Github, number: str) -> Mapping[str, Any]:
        found = await github.read(f"/repos/{self._repository}/commits/{number}") if number else None
        if found is None or not found.get("parents"):
            raise Rejection("select", "its merge cannot be followed", f"no commit {number!r} with a parent")
        return dict(found)

    async def _before(self, github: Github, pull: Mapping[str, Any], merge: Mapping[str, Any], lines: Mapping[str, int]) -> str:
        """The state of the branch before the merge.

        A merge has it as its first parent, and so has the one commit of a squash, which changes what the pull request changes. Else the
        commits were put on top one by one, and it lies behind the first of them.
        """
        if len(merge["parents"]) > 1 or _is_squash(pull, merge, lines):
            return str(merge["parents"][0]["sha"])
        whole = await github.read(f"/repos/{self._repository}/pulls/{pull['number']}") or {}
        num_commits = int(whole.get("commits") or 0)
        changed = {entry["filename"] for entry in merge.get("files", ())}
        for _ in range(min(num_commits, _MOST_COMMITS) - 1):
            merge = await self._commit(github, str(merge["parents"][0]["sha"]))
            changed |= {entry["filename"] for entry in merge.get("files", ())}
        if not 1 <= num_commits <= _MOST_COMMITS or changed != {*lines}:
            raise Rejection(
                "select", "its merge cannot be followed", f"{num_commits} commits on top change other files than the pull request"
            )
        return str(merge["parents"][0]["sha"])

    async def _issues(self, github: Github, pull: Mapping[str, Any], message: str) -> list[Mapping[str, Any]]:
        """Those that the pull request closes, and that were there before it; in the order of their numbers."""
        numbers = set(closed_issues(f"{pull['title']}\n{pull.get('body') or ''}\n{message}", self._repository))
        if github.has_token:
            owner, name = self._repository.split("/")
            told = await github.graphql(_CLOSING_QUERY, {"owner": owner, "name": name, "number": pull["number"]})
            numbers |= set(_linked(told, self._repository))
        found = []
        for number in sorted(numbers - {pull["number"]})[:_MOST_ISSUES]:
            issue = await github.read(f"/repos/{self._repository}/issues/{number}")
            if issue and "pull_request" not in issue and issue["created_at"] <= pull["created_at"]:
                found.append(issue)
        return found

    async def _texts(self, github: Github, issue: Mapping[str, Any], pull: Mapping[str, Any]) -> list[SourceText]:
        """The issue and what people said there before the pull request: later words may tell the solution."""
        texts = [SourceText("issue", issue["title"] or "", issue.get("body") or "")]
        if issue.get("comments"):
            async for comment in github.pages(f"/repos/{self._repository}/issues/{issue['number']}/comments"):
                is_bot = (comment.get("user") or {}).get("type") == "Bot"
                if comment["created_at"] < pull["created_at"] and comment.get("body") and not is_bot:
                    texts.append(SourceText("issue", "", comment["body"]))
        return texts

    def _of(self, pull: Mapping[str, Any], what: str) -> str:
        return f"/repos/{self._repository}/pulls/{pull['number']}/{what}"

    def _id(self, pull: Mapping[str, Any]) -> str:
        return f"{self._repository.split('/')[1]}-pr{pull['number']}"


def closed_issues(text: str, repository: str) -> list[int]:
    """Numbers of the repository's issues that a text says it closes, by GitHub's keywords.

    >>> closed_issues("Fixes #12, see #13. Closes other/project#14", "pytoolz/toolz")
    [12]
    """
    ours = repository.casefold()
    found = [match for match in _CLOSING.finditer(text) if (match["by_url"] or match["by_name"] or ours).casefold() == ours]
    return list(dict.fromkeys(int(match["number"]) for match in found))


def _is_squash(pull: Mapping[str, Any], merge: Mapping[str, Any], lines: Mapping[str, int]) -> bool:
    changed = {entry["filename"]: int(entry["changes"]) for entry in merge.get("files", ())}
    subject = str(merge["commit"]["message"]).partition("\n")[0]
    return changed == lines or (changed.keys() == lines.keys() and f"(#{pull['number']})" in subject)


def _linked(told: Mapping[str, Any], repository: str) -> list[int]:
    pull = (told.get("repository") or {}).get("pullRequest") or {}
    nodes = (pull.get("closingIssuesReferences") or {}).get("nodes") or ()
    return [int(node["number"]) for node in nodes if node and node["repository"]["nameWithOwner"].casefold() == repository.casefold()]


def _date(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)
