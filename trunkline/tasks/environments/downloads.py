"""Files of packages on this host, by the hash of their content, fetched once. Owns no choice of what is fetched."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from trunkline.errors import InfraError, TaskError
from trunkline.home import cache_home
from trunkline.tasks.environments.lock import LockedFile

_MAX_BYTES = 300 * 2**20
_AT_ONCE = 6
_TRIES = 3
_TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=20, sock_read=60)


async def fetch_all(files: Sequence[LockedFile]) -> dict[str, Path]:
    """By file name, where each lies. Raises TaskError if one is not what its hash says, InfraError if it cannot be had."""
    gate = asyncio.Semaphore(_AT_ONCE)
    missing = [one for one in files if not place_of(one).is_file()]
    if missing:
        async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session:

            async def one(file: LockedFile) -> None:
                async with gate:
                    await _fetch(session, file)

            await asyncio.gather(*map(one, missing))
    return {one.file: place_of(one) for one in files}


def place_of(file: LockedFile) -> Path:
    """Where it lies once it is fetched."""
    return cache_home() / "packages" / file.sha256 / file.file


async def _fetch(session: aiohttp.ClientSession, file: LockedFile) -> None:
    for attempt in range(1, _TRIES + 1):
        try:
            return await _fetch_once(session, file)
        except (aiohttp.ClientError, TimeoutError) as error:
            is_final = isinstance(error, aiohttp.ClientResponseError) and 400 <= error.status < 500 and error.status != 429
            if attempt == _TRIES or is_final:
                why = str(error) or type(error).__name__
                raise InfraError(f"cannot fetch {file.url}: {why}; the task's environment needs {file.name} {file.version}") from error
            await asyncio.sleep(2.0**attempt)


async def _fetch_once(session: aiohttp.ClientSession, file: LockedFile) -> None:
    folder = cache_home() / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    digest, num_bytes = hashlib.sha256(), 0
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as scratch:
        new = Path(scratch) / "new"
        async with session.get(file.url, raise_for_status=True) as response:
            with new.open("wb") as target:
                async for chunk in response.content.iter_chunked(2**18):
                    num_bytes += len(chunk)
                    if num_bytes > _MAX_BYTES:
                        raise TaskError(f"{file.url} is larger than {_MAX_BYTES:,} bytes; no task's environment needs that")
                    digest.update(chunk)
                    target.write(chunk)
        if digest.hexdigest() != file.sha256:
            raise TaskError(
                f"{file.url} is not the file that was locked: its SHA-256 is {digest.hexdigest()}, not {file.sha256}; "
                "it was changed since, or the lock was: make the task again"
            )
        new.chmod(0o644)
        target_path = place_of(file)
        target_path.parent.mkdir(exist_ok=True)
        target_path.parent.chmod(0o755)
        os.replace(new, target_path)
