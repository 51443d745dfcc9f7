"""What every test runs under: one torch thread, fixed property-test examples, a home of its own; which files begin first."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

# Before anything imports torch, here or in a child process: two threads on contended cores cost more than they give.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import hypothesis
import pytest

from tests.made_once import common_folder

_USERS_HOME = os.environ.get("TRUNKLINE_HOME")
# A file is the work of one process: a long one that begins last leaves the others idle. Longest first, the rest as collected.
_LONGEST = (
    "test_quickstart_learns", "test_crash_resume", "test_sandbox_ordinary_user", "test_tasks_command", "test_run_endings", "test_doctor",
    "test_mine_release_pairs", "test_certify_task", "test_swe_verifier", "test_context_management", "test_sparse_run",
    "test_foreign_model_trains", "test_clients_give_identical_samples", "test_bench_engine", "test_bench_verifier", "test_bench_gateway",
)  # fmt: skip

# Collecting imports all there is and keeps it: looking for garbage in that takes a quarter of the time, and finds none.
gc.disable()

# The same examples on every machine; a new failure is the change's, not the draw's.
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None, max_examples=60, print_blob=False)
hypothesis.settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first."""
    place = {name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)) if "slow" not in item.path.parts else len(place))


def pytest_collection_finish() -> None:
    """Garbage is looked for from here on, but not among what collecting has made."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def trunkline_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Certificates and caches of tests stay out of the user's home; all processes of a test run have one home, as a user's runs do."""
    with pytest.MonkeyPatch.context() as patch:
        home = common_folder(tmp_path_factory) / "home"
        home.mkdir(exist_ok=True)
        patch.setenv("TRUNKLINE_HOME", str(home))
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
