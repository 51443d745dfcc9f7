"""Tests that need a CUDA device: the kernels they compare have no backward, or no implementation, elsewhere. Run: pytest tests/gpu."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.timeout(900))  # the first use of a kernel compiles it
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device; torch sees none"))


@pytest.fixture(autouse=True)
def exact_fp32() -> Iterator[None]:
    """No TF32, whose 10 bits would hide errors; and each test its own compiled kernels, of which a process may have only so many."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    torch._dynamo.reset()
    yield
