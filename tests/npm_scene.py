"""A registry of small npm packages on this host, projects that use them, and drafts of tasks. Owns no expectation."""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import hashlib
import io
import json
import tarfile
import textwrap
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from trunkline.tasks.factory.candidate import Candidate
from trunkline.tasks.factory.draft import Draft, Tested
from trunkline.tasks.factory.language import Environment
from trunkline.types import FileChange

DATE = dt.datetime(2023, 2, 3, tzinfo=dt.UTC)


def archive_of(files: Mapping[str, str]) -> bytes:
    """A package as npm packs it; the same bytes whenever it is made."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"package/{path}")
            entry.size, entry.mode = len(text.encode()), 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    return gzip.compress(packed.getvalue(), mtime=0)


@dataclass
class Registry:
    """What the server serves; tests change it while it runs."""

    url: str = ""
    """Where it is."""
    published: dict[str, dict[str, tuple[str, dict[str, Any], bytes]]] = field(default_factory=dict)
    """By package and version: date, package.json, archive."""
    asked: list[str] = field(default_factory=list)
    """Paths of archives that were downloaded."""

    def publish(self, name: str, version: str, date: str, files: Mapping[str, str], **manifest: Any) -> None:
        """Makes a version known."""
        content = {"name": name, "version": version, **manifest}
        archive = archive_of({"package.json": json.dumps(content), **files})
        self.published.setdefault(name, {})[version] = (f"{date}T00:00:00.000Z", content, archive)

    async def answer(self, request: web.Request) -> web.Response:
        """A description of a package, or an archive."""
        name, _, file = request.path[1:].partition("/-/")
        versions = self.published.get(name, {})
        if file:
            self.asked.append(file)
            archives = {f"{name}-{version}.tgz": archive for version, (_, _, archive) in versions.items()}
            return web.Response(body=archives[file]) if file in archives else web.Response(status=404)
        if not versions:
            return web.Response(status=404)
        described = {
            version: {**content, "dist": self._dist(name, version, archive)} for version, (_, content, archive) in versions.items()
        }
        times = {version: date for version, (date, _, _) in versions.items()}
        return web.json_response({"name": name, "dist-tags": {"latest": max(versions)}, "versions": described, "time": times})

    def _dist(self, name: str, version: str, archive: bytes) -> dict[str, str]:
        integrity = base64.b64encode(hashlib.sha512(archive).digest()).decode()
        return {"tarball": f"{self.url}/{name}/-/{name}-{version}.tgz", "integrity": f"sha512-{integrity}"}


@asynccontextmanager
async def open_registry() -> AsyncIterator[Registry]:
    """Serves until the end of the block."""
    registry, app = Registry(), web.Application()
    app.router.add_get("/{path:.*}", registry.answer)
    async with TestServer(app) as server:
        registry.url = str(server.make_url("/")).rstrip("/")
        yield registry


def lay(folder: Path, manifest: Mapping[str, Any], files: Mapping[str, str]) -> Path:
    """A project."""
    for path, text in {"package.json": json.dumps(manifest), **files}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(textwrap.dedent(text))
    return folder


def draft_of(tree: Path, environment: Environment, tested: Tested, *, source: Mapping[str, str], tests: Mapping[str, str]) -> Draft:
    """A bug fix of a project: `source` mends what `tests` show."""
    return Draft(
        name="sums-fix",
        kind="bug",
        candidate=Candidate("sums-1", "npm/sums", "1.0.0", "1.0.1", DATE),
        workspace=tree,
        solution=_changes(source),
        hidden_tests=_changes(tests),
        test_files=tuple(tests),
        tested=tested,
        environment=environment,
        instruction="add(2, 3) is -1 and should be 5.",
    )


def _changes(files: Mapping[str, str]) -> tuple[FileChange, ...]:
    return tuple(FileChange(path, "file", 0o644, textwrap.dedent(text).encode()) for path, text in files.items())
