"""What every test runs under: one torch thread, fixed property-test examples, a home of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Before anything imports torch, here or in a child process: two threads on contended cores cost more than they give.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import hypothesis
import pytest

_USERS_HOME = os.environ.get("TRUNKLINE_HOME")

# The same examples on every machine; a new failure is the change's, not the draw's.
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None, max_examples=60, print_blob=False)
hypothesis.settings.load_profile("ci")


@pytest.fixture(scope="session", autouse=True)
def trunkline_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Certificates and caches of tests stay out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def users_home(trunkline_home: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own cache, for what is slow to fetch: a published agent is installed there on first use, and stays."""
    if _USERS_HOME is None:
        monkeypatch.delenv("TRUNKLINE_HOME")
    else:
        monkeypatch.setenv("TRUNKLINE_HOME", _USERS_HOME)


@pytest.fixture(scope="session")
def smollm2(trunkline_home: None) -> Path:
    """The folder of SmolLM2-135M-Instruct in the user's own cache, fetched on first use; skips where it cannot be had."""
    from trunkline.errors import InfraError
    from trunkline.models.fetch import fetch_model

    with pytest.MonkeyPatch.context() as patch:
        if _USERS_HOME is None:
            patch.delenv("TRUNKLINE_HOME")
        else:
            patch.setenv("TRUNKLINE_HOME", _USERS_HOME)
        try:
            return fetch_model("smollm2", lambda stage, done, total: None)
        except InfraError as error:
            pytest.skip(f"SmolLM2 is not in the cache and cannot be downloaded: {error}")
