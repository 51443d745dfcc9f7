"""A package index of small archives on this host, as PEP 691 and 700 have it. Owns no expectation."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from trunkline.tasks.environments import layout
from trunkline.tasks.factory.javascript import roles

MIT = """MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy of this software, to deal in the Software without
restriction, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies of the Software.
"""


class Spoken:
    """The part of a language that sources use: what is source and what is a test."""

    name = "python"

    def role_of(self, path: str) -> str:
        return layout.role_of(path)


class SpokenScript:
    """The same of JavaScript."""

    name = "javascript"

    def role_of(self, path: str) -> str:
        return roles.role_of(path)


def archive_of(top: str, files: Mapping[str, str | bytes], *, links: Mapping[str, str] | None = None) -> bytes:
    """A .tar.gz with the files under one folder."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(f"{top}/{path}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for path, target in (links or {}).items():
            entry = tarfile.TarInfo(f"{top}/{path}")
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return packed.getvalue()


@dataclass
class Index:
    """What the server serves; tests change it while it runs."""

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By package: file name to entry of the listing."""
    content: dict[str, bytes] = field(default_factory=dict)
    """By file name."""
    asked: list[str] = field(default_factory=list)
    """Paths, in order."""
    faults: list[int] = field(default_factory=list)
    """Statuses that the next requests get instead of an answer."""
    npm: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the npm registry tells of each package."""
    url: str = ""
    """Of the index."""

    def add(self, package: str, version: str, files: Mapping[str, str], *, day: str, name: str | None = None, **entry: Any) -> None:
        """A release with a source archive, uploaded on a day such as '2021-05-03'."""
        filename = name or f"{package}-{version}.tar.gz"
        self.content[filename] = archive_of(f"{package}-{version}", files)
        sha256 = hashlib.sha256(self.content[filename]).hexdigest()
        listed = {"filename": filename, "url": f"../../files/{filename}", "hashes": {"sha256": sha256}, "yanked": False}
        self.files.setdefault(package, {})[filename] = listed | {"upload-time": f"{day}T12:00:00.000000Z"} | entry

    def add_npm(self, package: str, version: str, files: Mapping[str, str], *, day: str, **entry: Any) -> None:
        """The same on an npm registry at the server's root."""
        filename = f"{package.rpartition('/')[2]}-{version}.tgz"
        self.content[filename] = archive_of("package", files)
        integrity = f"sha512-{base64.b64encode(hashlib.sha512(self.content[filename]).digest()).decode()}"
        listing = self.npm.setdefault(package, {"name": package, "versions": {}, "time": {}})
        place = f"{self.url.removesuffix('/simple')}/files/{filename}"
        listing["versions"][version] = {"version": version, "dist": {"tarball": place, "integrity": integrity}} | entry
        listing["time"][version] = f"{day}T12:00:00.000Z"

    async def answer_npm(self, request: web.Request) -> web.Response:
        listing = self.npm.get(request.match_info["package"])
        return web.Response(status=404) if listing is None else web.json_response(listing)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if self.faults:
            return web.Response(status=self.faults.pop(0))
        folder, name = request.match_info["folder"], PurePosixPath(request.match_info["rest"]).name
        if folder == "files" and name in self.content:
            return web.Response(body=self.content[name])
        if folder == "simple" and name in self.files:
            listing = {"meta": {"api-version": "1.1"}, "name": name, "files": list(self.files[name].values())}
            return web.json_response(listing, content_type="application/vnd.pypi.simple.v1+json")
        return web.Response(status=404)


@asynccontextmanager
async def serving_index() -> AsyncIterator[Index]:
    """An empty index, listening."""
    index = Index()
    app = web.Application()
    app.router.add_get("/{folder:simple|files}/{rest:.+}", index.answer)
    app.router.add_get("/{package:.+}", index.answer_npm)
    async with TestServer(app) as server:
        index.url = str(server.make_url("/simple"))
        yield index
