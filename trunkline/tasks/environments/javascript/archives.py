"""Archives of npm packages on this host, by their hash. Owns no choice of packages; nothing is unpacked here.

$TRUNKLINE_HOME/packages/npm/sha512/ab/cd/...     as npm's own cache lays them out, so that npm finds them by hash alone
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import aiohttp

from trunkline.errors import TaskError
from trunkline.home import cache_home
from trunkline.tasks.environments.javascript.lock import LockedPackage
from trunkline.tasks.environments.javascript.resolve import write_whole

_MAX_BYTES = 200 * 2**20
_AT_ONCE = 8
_TRIES = 3
_PAUSE_S = 1.0
_TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=30, sock_read=60)


async def fetch_archives(packages: Iterable[LockedPackage]) -> None:
    """Downloads what is not there yet. Raises TaskError if an archive is not to be had, or its content is not what its hash says."""
    missing = [package for package in packages if not place_of(package).is_file()]
    if not missing:
        return
    turn = asyncio.Semaphore(_AT_ONCE)
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session, asyncio.TaskGroup() as group:
            for package in missing:
                group.create_task(_fetch(session, turn, package))
    except ExceptionGroup as faults:
        raise faults.exceptions[0] from None


def place_of(package: LockedPackage) -> Path:
    """Where its archive is kept."""
    return _store() / below_store(package)


def below_store(package: LockedPackage) -> Path:
    """The same within the folder that npm calls content-v2."""
    return Path("sha512") / package.sha512[:2] / package.sha512[2:4] / package.sha512[4:]


def lay_archives(packages: Iterable[LockedPackage], target: Path) -> None:
    """A folder with these archives and no others: an installation sees nothing of other projects. Any user can read it."""
    target.mkdir()
    for package in packages:
        place = target / below_store(package)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(place_of(package), place)
        except OSError:  # of another file system
            place.write_bytes(place_of(package).read_bytes())
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _store() -> Path:
    return cache_home() / "packages" / "npm"


async def _fetch(session: aiohttp.ClientSession, turn: asyncio.Semaphore, package: LockedPackage) -> None:
    async with turn:
        content = await _content(session, package)
    found = hashlib.sha512(content).hexdigest()
    if found != package.sha512:
        raise TaskError(
            f"{package.url} has the SHA-512 {found[:16]}..., the lock of {package.name} {package.version} says {package.sha512[:16]}...; "
            "it is not what was locked, nothing of it is used"
        )
    await asyncio.to_thread(write_whole, place_of(package), content)


async def _content(session: aiohttp.ClientSession, package: LockedPackage) -> bytes:
    for remaining in reversed(range(_TRIES)):
        try:
            async with session.get(package.url) as response:
                response.raise_for_status()
                return await _read(response, package)
        except (aiohttp.ClientError, TimeoutError) as error:
            is_final = isinstance(error, aiohttp.ClientResponseError) and 400 <= error.status < 500 and error.status != 429
            if is_final or not remaining:
                raise TaskError(f"{package.name} {package.version} cannot be downloaded from {package.url}: {error!r}") from error
        await asyncio.sleep(_PAUSE_S * (_TRIES - remaining))
    raise AssertionError("the last try returns or raises")


async def _read(response: aiohttp.ClientResponse, package: LockedPackage) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(2**16):
        content += chunk
        if len(content) > _MAX_BYTES:
            raise TaskError(f"{package.url} has more than {_MAX_BYTES:,} bytes, no package needs as many")
    return bytes(content)
