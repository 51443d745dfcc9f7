"""Release pairs from an npm registry on this host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.index_scene import MIT, Index, SpokenScript, archive_of, serving_index
from trunkline.errors import ConfigError, TaskError
from trunkline.tasks.factory.candidate import Candidate, Rejected
from trunkline.tasks.factory.release_source import ReleaseSource

pytestmark = pytest.mark.anyio

PACKAGE = "@counting/abacus"
OLD = {"LICENSE": MIT, "package.json": '{"description": "Adds up"}', "index.js": "x = 0\n", "test/index.test.js": "old\n"}
NEW = OLD | {"index.js": "x = 1\n", "test/index.test.js": "new\n"}


@pytest.fixture
async def index(anyio_backend: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Index]:
    monkeypatch.setenv("TRUNKLINE_HOME", str(tmp_path / "home"))
    async with serving_index() as served:
        monkeypatch.setenv("npm_config_registry", served.url.removesuffix("/simple"))
        yield served


async def found(word: str = f"npm:{PACKAGE}") -> list[Candidate | Rejected]:
    return [each async for each in ReleaseSource([word], [SpokenScript()]).candidates()]


async def test_neighbouring_releases_of_an_npm_package_are_candidates(index: Index, tmp_path: Path) -> None:
    index.add_npm(PACKAGE, "1.0.0", OLD, day="2021-01-02")
    index.add_npm(PACKAGE, "1.1.0", NEW, day="2021-02-02")
    (candidate,) = await found()
    assert (candidate.candidate_id, candidate.project) == ("npm-counting-abacus-1.0.0-1.1.0", f"npm/{PACKAGE}")
    assert (candidate.facts["licence"], candidate.facts["summary"]) == ("MIT", "Adds up")
    await ReleaseSource([f"npm:{PACKAGE}"], [SpokenScript()]).lay(candidate, "before", tmp_path / "before")
    assert (tmp_path / "before" / "index.js").read_text() == "x = 0\n"


async def test_unfinished_and_deprecated_releases_are_passed_over(index: Index) -> None:
    index.add_npm(PACKAGE, "1.0.0", OLD, day="2021-01-02")
    index.add_npm(PACKAGE, "1.1.0-rc.1", NEW, day="2021-01-03")
    index.add_npm(PACKAGE, "1.1.0", NEW, day="2021-02-02", deprecated="broken")
    index.add_npm(PACKAGE, "1.1.1", NEW, day="2021-02-03", dist={"tarball": "x", "integrity": "sha1-abc"})
    index.add_npm(PACKAGE, "1.2.0", NEW, day="2021-03-02")
    assert [each.candidate_id for each in await found()] == ["npm-counting-abacus-1.0.0-1.2.0"]


async def test_another_archive_than_the_registry_promised_is_refused(index: Index) -> None:
    index.add_npm(PACKAGE, "1.0.0", OLD, day="2021-01-02")
    index.add_npm(PACKAGE, "1.1.0", NEW, day="2021-02-02")
    index.content["abacus-1.1.0.tgz"] = archive_of("package", {"index.js": "evil\n"})
    with pytest.raises(TaskError, match="nothing of it is used"):
        await found()


async def test_an_unknown_npm_package_is_named(index: Index) -> None:
    with pytest.raises(ConfigError, match="the npm registry has no package 'nothing'"):
        await found("npm:nothing")
