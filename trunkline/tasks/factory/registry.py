"""Releases of Python packages as their index tells them: versions, dates, files with their hashes. Installs nothing.

The index speaks JSON (PEP 691) with sizes and upload times (PEP 700), as pypi.org and the usual mirrors do.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from packaging.utils import InvalidSdistFilename, canonicalize_name, parse_sdist_filename
from packaging.version import Version

from trunkline.errors import ConfigError
from trunkline.tasks.environments.downloads import fetch_all
from trunkline.tasks.environments.lock import LockedFile
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.web import Question, ask, open_session, public

DEFAULT_INDEX = "https://pypi.org/simple"
_INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
_JSON = "application/vnd.pypi.simple.v1+json"
_MOST_PAGE_BYTES = 64 * 2**20
_MOST_ARCHIVE_BYTES = 16 * 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Archive:
    """A release's files on a registry."""

    filename: str
    """Such as 'toolz-0.11.2.tar.gz'."""
    url: str
    """Where it is fetched."""
    digest: str
    """Of its bytes: 'sha256:' or 'sha512:' and hexadecimal digits."""
    num_bytes: int = 0
    """Its size; 0 if the index does not say."""


@dataclass(frozen=True)
class Release:
    """A final version of a package that has a source archive."""

    version: Version
    """As its file says."""
    uploaded: dt.datetime
    """When its archive came to the index, UTC."""
    archive: Archive
    """Its .tar.gz or .tgz."""


def index_url() -> str:
    """The index of this environment: $UV_DEFAULT_INDEX, $UV_INDEX_URL, $PIP_INDEX_URL, else pypi.org."""
    return next((os.environ[name] for name in _INDEX_VARIABLES if os.environ.get(name)), DEFAULT_INDEX)


async def releases_of(package: str) -> tuple[Release, ...]:
    """Final releases, not yanked, that have a .tar.gz with a hash; by version, oldest first.

    Raises ConfigError: no such package, an index that speaks no JSON or gives no upload times. InfraError: it does not answer.
    """
    base = index_url().rstrip("/") + "/"
    page = urljoin(base, f"{canonicalize_name(package)}/")
    question = Question(page, {"Accept": f"{_JSON}, text/html;q=0.1"}, _MOST_PAGE_BYTES)
    async with open_session() as session:
        answer = await ask(session, question)
    if answer.status != 200:
        hint = "check its spelling" if answer.status == 404 else "check the index's URL and its credentials"
        raise ConfigError(f"the index has no package {package!r} ({question.shown}: HTTP {answer.status}); {hint}")
    try:
        listing = json.loads(answer.body)
    except ValueError:
        raise ConfigError(f"{question.shown} answers with no JSON; use an index that speaks PEP 691, such as {DEFAULT_INDEX}") from None
    return tuple(sorted(_releases(listing.get("files", ()), page), key=lambda release: release.version))


async def fetch(archive: Archive) -> Path:
    """The archive on this host, downloaded if it is not there: packages of environments lie in the same place.

    Raises InfraError: it cannot be had. TaskError: another file than the index promised. Rejection (select): it is too large.
    """
    check_size(archive)
    name, version = parse_sdist_filename(archive.filename)
    file = LockedFile(name=name, version=str(version), url=archive.url, sha256=archive.digest.removeprefix("sha256:"), is_source=True)
    return (await fetch_all([file]))[file.file]


def check_size(archive: Archive) -> None:
    """Raises Rejection (select) for what is too large to be looked at."""
    if archive.num_bytes > _MOST_ARCHIVE_BYTES:
        raise Rejection("select", "archive too large", f"{archive.filename}: {archive.num_bytes} bytes, at most {_MOST_ARCHIVE_BYTES}")


def _releases(files: Iterable[Mapping[str, Any]], page: str) -> Iterable[Release]:
    for entry in files:
        filename, sha256 = str(entry.get("filename", "")), str(entry.get("hashes", {}).get("sha256", ""))
        version = _version_of(filename)
        if version is None or version.is_prerelease or version.is_postrelease or entry.get("yanked") or not _SHA256.fullmatch(sha256):
            continue
        uploaded = entry.get("upload-time")
        if not uploaded:
            raise ConfigError(
                f"{public(page)} gives no upload times (PEP 700), so no environment can be dated; use another, such as {DEFAULT_INDEX}"
            )
        date = dt.datetime.fromisoformat(str(uploaded))
        date = date if date.tzinfo else date.replace(tzinfo=dt.UTC)
        yield Release(version, date, Archive(filename, urljoin(page, str(entry["url"])), f"sha256:{sha256}", int(entry.get("size") or 0)))


def _version_of(filename: str) -> Version | None:
    """Of a .tar.gz; None for any other file, and for names from before versions had rules."""
    if not filename.endswith(".tar.gz"):
        return None
    try:
        return parse_sdist_filename(filename)[1]
    except InvalidSdistFilename:
        return None
