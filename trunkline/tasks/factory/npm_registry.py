"""Releases of packages of the npm registry, in the words of registry.py: versions, dates, archives with their hashes. Installs nothing."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from packaging.version import InvalidVersion, Version

from trunkline.errors import ConfigError
from trunkline.tasks.environments.javascript.archives import fetch_archives, place_of
from trunkline.tasks.environments.javascript.lock import LockedPackage
from trunkline.tasks.environments.javascript.node import find_node
from trunkline.tasks.factory.registry import Archive, Release, check_size
from trunkline.tasks.factory.web import Question, ask, open_session

_MOST_PAGE_BYTES = 64 * 2**20
_ALGORITHM = "sha512-"
_DIGEST_BYTES = 64


async def releases_of(package: str) -> tuple[Release, ...]:
    """Final releases, not deprecated, whose archives have a SHA-512; by version, oldest first.

    Raises ConfigError: no such package, no npm. InfraError: the registry does not answer.
    """
    registry = find_node().registry
    question = Question(f"{registry}/{quote(package, safe='@')}", {"Accept": "application/json"}, _MOST_PAGE_BYTES)
    async with open_session() as session:
        answer = await ask(session, question)
    if answer.status != 200:
        raise ConfigError(f"the npm registry has no package {package!r} ({question.shown}: HTTP {answer.status}); check its spelling")
    try:
        listing = json.loads(answer.body)
    except ValueError:
        raise ConfigError(f"{question.shown} answers with no JSON; is `npm config get registry` an npm registry?") from None
    return tuple(sorted(_releases(listing), key=lambda release: release.version))


async def fetch(archive: Archive) -> Path:
    """The archive on this host, downloaded if it is not there: packages of environments lie in the same place.

    Raises TaskError: it cannot be had, or is another file than the registry promised. Rejection (select): it is too large.
    """
    check_size(archive)
    package = LockedPackage(archive.filename, "", archive.digest.removeprefix("sha512:"), archive.url)
    await fetch_archives([package])
    return place_of(package)


def _releases(listing: Mapping[str, Any]) -> Iterable[Release]:
    times = listing.get("time", {})
    for number, described in listing.get("versions", {}).items():
        told = described.get("dist", {})
        version, digest = _version(number), _digest(str(told.get("integrity", "")))
        if version is None or digest is None or number not in times or described.get("deprecated"):
            continue
        url = str(told["tarball"])
        archive = Archive(PurePosixPath(urlsplit(url).path).name, url, f"sha512:{digest}", int(told.get("unpackedSize") or 0))
        yield Release(version, dt.datetime.fromisoformat(str(times[number])), archive)


def _version(number: str) -> Version | None:
    """None for what is not final, such as '2.0.0-rc.1', and for words of its own."""
    try:
        version = Version(number)
    except InvalidVersion:
        return None
    return None if version.is_prerelease or version.is_postrelease else version


def _digest(integrity: str) -> str | None:
    """Of the SHA-512 of several hashes, hexadecimal."""
    for word in integrity.split():
        if word.startswith(_ALGORITHM):
            try:
                digest = base64.b64decode(word.removeprefix(_ALGORITHM), validate=True)
            except binascii.Error:
                return None
            return digest.hex() if len(digest) == _DIGEST_BYTES else None
    return None
