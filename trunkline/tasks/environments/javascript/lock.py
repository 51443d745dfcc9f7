"""The packages that npm has chosen, each with the hash of its archive. Owns no choice (resolve.py) and no download (archives.py)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from trunkline.errors import TaskError
from trunkline.tasks.environments.javascript.node import this_platform

_FORMATS = (2, 3)
_MODULES = "node_modules/"
_ALGORITHM = "sha512-"
_DIGEST_BYTES = 64


@dataclass(frozen=True)
class LockedPackage:
    """One archive."""

    name: str
    """As the registry calls it."""
    version: str
    """Such as '1.2.3'."""
    sha512: str
    """Of its archive, hexadecimal."""
    url: str
    """Where it is."""


@dataclass(frozen=True)
class NpmLock:
    """A package-lock.json that can be installed from archives alone."""

    text: str
    """Of the file; every entry says where its archive is, and its hash."""
    packages: tuple[LockedPackage, ...]
    """What this host needs of it, each archive once, by name and version."""


def read_lock(text: str, *, registry: str) -> NpmLock:
    """Checks a package-lock.json. Archives come from the registry, whatever address it says.

    Raises TaskError: it is of another format, or has packages from elsewhere, or without a hash.
    """
    content = _parsed(text)
    _drop_unchosen(content["packages"])
    packages: dict[str, LockedPackage] = {}
    for place, entry in content["packages"].items():
        if place == "" or entry.get("inBundle"):
            continue
        if entry.get("link") or not place.startswith(_MODULES):
            raise TaskError(
                f"{place} is a part of the project and no package of the registry; projects of several packages cannot be built"
            )
        name = str(entry.get("name") or place.rpartition(_MODULES)[2])
        package = LockedPackage(name, str(entry.get("version", "")), _hash_of(name, entry), _url_of(name, entry, registry))
        entry["resolved"] = package.url
        if _fits(entry, this_platform()):
            packages[package.sha512] = package
    ordered = sorted(packages.values(), key=lambda package: (package.name, package.version))
    return NpmLock(json.dumps(content, indent=1, sort_keys=True) + "\n", tuple(ordered))


def _parsed(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise TaskError(f"package-lock.json is no JSON: {error}; let npm write it again") from None
    version = content.get("lockfileVersion") if isinstance(content, dict) else None
    packages = content.get("packages") if isinstance(content, dict) else None
    if version not in _FORMATS or not isinstance(packages, dict) or not all(isinstance(entry, dict) for entry in packages.values()):
        raise TaskError(f"package-lock.json is of lockfileVersion {version!r}, known are {_FORMATS}; let npm write it again")
    return {"lockfileVersion": 3, "requires": True, "packages": packages} | {
        key: content[key] for key in ("name", "version") if key in content
    }


def _drop_unchosen(entries: dict[str, dict[str, Any]]) -> None:
    """Optional packages of which npm found no version, as for a platform that came later: `npm ci` refuses a lock that misses them."""
    unchosen = [
        place for place, entry in entries.items() if place and entry.get("optional") and not (entry.get("version") or entry.get("link"))
    ]
    for place in unchosen:
        del entries[place]
    names = {place.rpartition(_MODULES)[2] for place in entries}
    for place, entry in entries.items():
        optional = entry.get("optionalDependencies")
        if place and isinstance(optional, dict):
            entry["optionalDependencies"] = {name: version for name, version in optional.items() if name in names}


def _hash_of(name: str, entry: Mapping[str, Any]) -> str:
    for word in str(entry.get("integrity", "")).split():
        if word.startswith(_ALGORITHM):
            try:
                digest = base64.b64decode(word.removeprefix(_ALGORITHM).partition("?")[0], validate=True)
            except binascii.Error:
                continue
            if len(digest) == _DIGEST_BYTES:
                return digest.hex()
    raise TaskError(f"{name} {entry.get('version')} has no SHA-512 in package-lock.json, so its archive cannot be checked; lock it again")


def _url_of(name: str, entry: Mapping[str, Any], registry: str) -> str:
    """As the lock says if that is at the registry, else where registries have it; a lock of a stranger leads nowhere else."""
    said, home = urlsplit(str(entry.get("resolved", ""))), urlsplit(registry)
    if (said.scheme, said.netloc) == (home.scheme, home.netloc) and said.path.startswith(home.path):
        return said.geturl()
    if said.scheme not in ("", "http", "https"):
        raise TaskError(f"{name} comes from {said.scheme}:..., not from the registry; such packages cannot be built")
    return f"{registry}/{name}/-/{name.rpartition('/')[2]}-{entry.get('version')}.tgz"


def _fits(entry: Mapping[str, Any], host: Mapping[str, str]) -> bool:
    """Whether npm would install it here. Those that do not fit are optional, else npm itself refuses."""
    return all(_names(entry.get(key), host[key]) for key in ("os", "cpu", "libc"))


def _names(wanted: Any, value: str) -> bool:
    words = [str(word) for word in wanted] if isinstance(wanted, list) else [str(wanted)] if isinstance(wanted, str) else []
    excluded = {word[1:] for word in words if word.startswith("!")}
    included = {word for word in words if not word.startswith("!")}
    return value not in excluded and (not included or value in included or "any" in included)
