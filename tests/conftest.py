"""What every test runs under: one torch thread, fixed property-test examples, a home of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Before anything imports torch, here or in a child process: two threads on contended cores cost more than they give.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import hypothesis
import pytest

# The same examples on every machine; a new failure is the change's, not the draw's.
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None, max_examples=60, print_blob=False)
hypothesis.settings.load_profile("ci")


@pytest.fixture(scope="session", autouse=True)
def trunkline_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Certificates and caches of tests stay out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_HOME", str(tmp_path_factory.mktemp("home")))
        yield
