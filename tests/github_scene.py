"""GitHub's API for one made-up repository, on this host: answers in the shapes that its documentation gives. Owns no expectation."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.index_scene import MIT, archive_of

REPOSITORY = "counting/abacus"


@dataclass
class FakeGithub:
    """What the server knows; tests change it while it runs."""

    answers: dict[str, Any] = field(default_factory=dict)
    """JSON by path, a list for what has pages."""
    trees: dict[str, bytes] = field(default_factory=dict)
    """Archives by commit, served by another host."""
    linked: dict[int, list[int]] = field(default_factory=dict)
    """Pull request to the issues that GraphQL tells."""
    faults: list[Callable[[], web.Response]] = field(default_factory=list)
    """What the next requests get instead of an answer."""
    asked: list[str] = field(default_factory=list)
    """Path and query of every request that cost quota, in order."""
    unchanged: int = 0
    """Requests answered by 304."""
    tokens: list[tuple[str, str | None]] = field(default_factory=list)
    """Host's role and the Authorization of every request."""
    page_size: int = 100
    """At most so many items a page."""
    url: str = ""
    """Of the API."""
    files_url: str = ""
    """Of the host of archives."""

    def open(self) -> None:
        """A repository under MIT without pull requests."""
        place = f"/repos/{REPOSITORY}"
        self.answers[place] = {"full_name": REPOSITORY, "default_branch": "main", "license": {"spdx_id": "MIT"}}
        self.answers[f"{place}/license"] = {"content": base64.b64encode(MIT.encode()).decode(), "encoding": "base64"}
        self.answers[f"{place}/pulls"] = []

    def commit(self, sha: str, parents: list[str], changes: Mapping[str, int], message: str = "Change") -> None:
        """A commit that changes files by so many lines."""
        self.answers[f"/repos/{REPOSITORY}/commits/{sha}"] = {
            "sha": sha,
            "commit": {"message": message},
            "parents": [{"sha": parent} for parent in parents],
            "files": [{"filename": name, "changes": lines} for name, lines in changes.items()],
        }

    def pull(self, number: int, changes: Mapping[str, int], *, sha: str, day: str = "2021-05-03", body: str = "", **more: Any) -> None:
        """A pull request, newer than those before it."""
        described = {
            "number": number,
            "title": f"Change {number}",
            "body": body or None,
            "created_at": f"{day}T10:00:00Z",
            "merged_at": f"{day}T12:00:00Z",
            "merge_commit_sha": sha,
            "html_url": f"https://github.com/{REPOSITORY}/pull/{number}",
        } | more
        self.answers[f"/repos/{REPOSITORY}/pulls"].insert(0, described)
        self.answers.setdefault(f"/repos/{REPOSITORY}/pulls/{number}", described | {"commits": 1})
        listed = [{"filename": name, "status": "modified", "changes": lines} for name, lines in changes.items()]
        self.answers[f"/repos/{REPOSITORY}/pulls/{number}/files"] = listed

    def issue(self, number: int, title: str, body: str, *, day: str = "2021-05-01", comments: tuple[tuple[str, str], ...] = ()) -> None:
        """An issue with comments: day and text each."""
        place = f"/repos/{REPOSITORY}/issues/{number}"
        self.answers[place] = {"number": number, "title": title, "body": body, "created_at": f"{day}T09:00:00Z", "comments": len(comments)}
        said = [{"created_at": f"{day}T11:00:00Z", "body": text, "user": {"type": "User"}} for day, text in comments]
        self.answers[f"{place}/comments"] = said

    def tree(self, sha: str, files: Mapping[str, str]) -> None:
        """The files of a commit, as archives have them."""
        self.trees[sha] = archive_of(f"counting-abacus-{sha}", files)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(("api", request.headers.get("Authorization")))
        if self.faults:
            self.asked.append(request.path_qs)
            return self.faults.pop(0)()
        if request.path == "/graphql":
            self.asked.append(request.path_qs)
            number = (await request.json())["variables"]["number"]
            nodes = [{"number": issue, "repository": {"nameWithOwner": REPOSITORY}} for issue in self.linked.get(number, [])]
            return web.json_response({"data": {"repository": {"pullRequest": {"closingIssuesReferences": {"nodes": nodes}}}}})
        if "/tarball/" in request.path:
            self.asked.append(request.path_qs)
            return web.Response(status=302, headers={"Location": f"{self.files_url}/{request.path.rpartition('/')[2]}"})
        return self._json(request)

    def _json(self, request: web.Request) -> web.Response:
        found = self.answers.get(request.path)
        headers = {}
        if isinstance(found, list):
            size, page = min(int(request.query.get("per_page", 30)), self.page_size), int(request.query.get("page", 1))
            if len(found) > page * size:
                following = request.url.update_query(page=page + 1)
                headers["Link"] = f'<{request.url}>; rel="first", <{following}>; rel="next"'
            found = found[(page - 1) * size : page * size]
        headers["ETag"] = f'"{hashlib.sha256(json.dumps(found).encode()).hexdigest()}"'
        if request.headers.get("If-None-Match") == headers["ETag"]:
            self.unchanged += 1
            return web.Response(status=304, headers=headers)
        self.asked.append(request.path_qs)
        if found is None:
            return web.json_response({"message": "Not Found"}, status=404)
        return web.json_response(found, headers=headers)

    async def files(self, request: web.Request) -> web.Response:
        self.tokens.append(("files", request.headers.get("Authorization")))
        content = self.trees.get(request.match_info["sha"])
        return web.Response(status=404) if content is None else web.Response(body=content)


@asynccontextmanager
async def serving_github() -> AsyncIterator[FakeGithub]:
    """The repository without pull requests, listening."""
    github = FakeGithub()
    github.open()
    api, files = web.Application(), web.Application()
    api.router.add_route("*", "/{rest:.*}", github.answer)
    files.router.add_get("/{sha}", github.files)
    async with TestServer(api) as api_server, TestServer(files, host="localhost") as files_server:
        github.url, github.files_url = str(api_server.make_url("")), str(files_server.make_url("")).rstrip("/")
        yield github
