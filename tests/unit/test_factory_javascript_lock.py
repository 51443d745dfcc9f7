"""Locks of npm: what is taken from them, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from trunkline.errors import TaskError
from trunkline.tasks.environments.javascript.lock import read_lock

REGISTRY = "https://registry.example/npm"
DIGEST = hashlib.sha512(b"x").digest()
INTEGRITY = f"sha512-{base64.b64encode(DIGEST).decode()}"


def lock(**entries: dict[str, Any]) -> str:
    """A lock with these packages, all of them with a hash."""
    packages = {place.replace("__", "/"): {"version": "1.0.0", "integrity": INTEGRITY, **entry} for place, entry in entries.items()}
    return json.dumps({"name": "x", "lockfileVersion": 3, "packages": {"": {}, **packages}})


def test_archives_are_at_the_registry_whatever_the_lock_says():
    found = read_lock(lock(node_modules__a={"resolved": "https://elsewhere.example/a.tgz"}), registry=REGISTRY)

    assert [(package.name, package.version, package.url) for package in found.packages] == [("a", "1.0.0", f"{REGISTRY}/a/-/a-1.0.0.tgz")]
    assert found.packages[0].sha512 == DIGEST.hex()


def test_an_address_at_the_registry_is_kept():
    found = read_lock(lock(node_modules__a={"resolved": f"{REGISTRY}/files/a.tgz"}), registry=REGISTRY)

    assert found.packages[0].url == f"{REGISTRY}/files/a.tgz"


def test_a_scoped_package_within_another_has_its_own_name():
    text = lock(**{"node_modules__b__node_modules__@s__a": {}})

    assert read_lock(text, registry=REGISTRY).packages[0].url == f"{REGISTRY}/@s/a/-/a-1.0.0.tgz"


def test_packages_for_other_platforms_are_not_downloaded():
    text = lock(node_modules__a={"os": ["win32"], "optional": True}, node_modules__b={"os": ["!linux"], "optional": True})

    assert read_lock(text, registry=REGISTRY).packages == ()


def test_optional_packages_without_a_version_are_dropped_with_their_mention():
    text = lock(node_modules__a={"optionalDependencies": {"b": "1", "c": "1"}}, node_modules__b={"optional": True, "version": ""})

    content = json.loads(read_lock(text, registry=REGISTRY).text)

    assert "node_modules/b" not in content["packages"]
    assert content["packages"]["node_modules/a"]["optionalDependencies"] == {}


def test_the_same_lock_is_read_from_what_was_written():
    once = read_lock(lock(node_modules__a={}, node_modules__b={}), registry=REGISTRY)

    assert read_lock(once.text, registry=REGISTRY) == once


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        (json.dumps({"lockfileVersion": 1, "dependencies": {}}), "lockfileVersion 1"),
        (lock(node_modules__a={"integrity": "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="}), "no SHA-512"),
        (lock(node_modules__a={"integrity": "sha512-AAAA"}), "no SHA-512"),
        (lock(node_modules__a={"resolved": "git+ssh://git@host/x.git#abc"}), "git"),
        (lock(node_modules__a={"link": True, "resolved": "packages/a"}), "part of the project"),
        (lock(packages__a={}), "part of the project"),
    ],
)
def test_what_cannot_be_checked_or_is_from_elsewhere_is_refused(text, words):
    with pytest.raises(TaskError, match=words):
        read_lock(text, registry=REGISTRY)
