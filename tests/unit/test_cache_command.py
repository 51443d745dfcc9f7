"""`trunkline cache`: what is kept is listed with its size, and goes when it is told to."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.in_process import trunkline
from trunkline.errors import ConfigError

DAY_S = 86_400


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRUNKLINE_HOME", str(tmp_path))
    return tmp_path


def keep(home: Path, name: str, num_bytes: int, *, days: float = 0) -> Path:
    """An entry of so many bytes that was not used for so many days."""
    entry = home / name
    (entry / "inside").mkdir(parents=True)
    (entry / "inside" / "file").write_bytes(b"x" * num_bytes)
    (entry / "inside" / "file").chmod(0o444)
    os.utime(entry, (time.time(), time.time() - days * DAY_S))
    return entry


def listed() -> dict[str, tuple[int, int, int]]:
    found = json.loads(trunkline("cache", "list", "--json").output)["kept"]
    return {kept["kind"]: (kept["num_entries"], kept["num_bytes"], round(kept["unused_days"])) for kept in found}


def test_what_is_kept_is_listed_by_kind(home: Path) -> None:
    keep(home, "environments/a", 1_000_000, days=40)
    keep(home, "environments/b", 500_000)
    keep(home, "environments/.new-x", 7)
    (home / "facts-1.json").write_text("{}")
    assert listed() == {"environments": (2, 1_500_000, 40), "facts": (1, 2, 0)}
    shown = trunkline("cache", "list").output
    assert "1.5 MB" in shown and "40 days" in shown


def test_an_empty_cache_is_no_error(home: Path) -> None:
    assert listed() == {}
    assert "nothing" in trunkline("cache", "clean", "packages").output


def test_what_was_not_used_for_long_goes_and_the_rest_stays(home: Path) -> None:
    old, used, other = (
        keep(home, "environments/a", 10, days=40),
        keep(home, "environments/b", 10, days=3),
        keep(home, "packages/c", 10, days=90),
    )
    assert "would take away 1 entries" in trunkline("cache", "clean", "environments", "--unused-days", "30", "--dry-run").output
    assert old.exists()
    assert "took away 1 entries" in trunkline("cache", "clean", "environments", "--unused-days", "30").output
    assert not old.exists() and used.exists() and other.exists()
    assert [path.name for path in (home / "environments").iterdir()] == ["b"]


def test_links_go_and_what_they_lead_to_stays(home: Path, tmp_path: Path) -> None:
    target = keep(tmp_path, "elsewhere", 10)
    (home / "models").mkdir()
    (home / "models" / "linked").symlink_to(target)
    trunkline("cache", "clean", "models")
    assert not (home / "models" / "linked").is_symlink() and (target / "inside" / "file").is_file()


def test_an_unknown_kind_is_refused_and_nothing_goes(home: Path) -> None:
    kept = keep(home, "packages/c", 10)
    with pytest.raises(ConfigError, match="nothing of the kind 'wheels' is kept; known are models"):
        trunkline("cache", "clean", "packages", "wheels")
    assert kept.exists()
