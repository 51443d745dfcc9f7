"""Answers of an engine on the wire: exact there and back, and as vLLM writes them."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trunkline.engine.wire import WireGeneration
from trunkline.types import Generation, PolicyVersion, RoutedExperts, VersionSpan

GENERATION = Generation((5, 6, 7), (-0.5, -1 / 3, -2.0), "stop", (VersionSpan(0, 3, PolicyVersion(1, 4)),))
routed = st.builds(
    lambda first, shape, seed: RoutedExperts(first, *shape[1:], np.random.default_rng(seed).integers(0, 2**16, shape, np.uint16).tobytes()),
    st.integers(0, 10**6),
    st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(1, 8)),
    st.integers(0, 99),
)


def sent(generation: Generation) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(msgspec.json.encode(WireGeneration.pack("r", generation)))
    return answer


def received(answer: dict[str, Any]) -> Generation:
    return msgspec.json.decode(json.dumps(answer), type=WireGeneration).unpack()


def npy(array: NDArray[Any]) -> str:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return base64.b64encode(buffer.getvalue()).decode()


@given(st.none() | routed)
def test_a_generation_survives_the_wire(routes: RoutedExperts | None) -> None:
    generation = replace(GENERATION, routes=routes)
    assert received(sent(generation)) == generation


def test_routes_are_an_npy_array_in_base64_and_a_dense_answer_has_no_key_of_them() -> None:
    (choice,) = sent(replace(GENERATION, routes=RoutedExperts(4, 1, 2, np.array([7, 300, 1, 2], "<u2").tobytes())))["choices"]
    array = np.load(io.BytesIO(base64.b64decode(choice["routed_experts"])), allow_pickle=False)
    assert (array.dtype, array.tolist()) == (np.uint16, [[[7, 300]], [[1, 2]]])
    assert choice["routed_experts_start"] == 4
    assert set(sent(GENERATION)["choices"][0]) == {"index", "token_ids", "logprobs", "finish_reason", "weight_versions"}


def test_routes_as_vllm_writes_them_are_read() -> None:
    """Bytes, from the prompt's first token on, and no key that says so."""
    answer = sent(GENERATION)
    answer["choices"][0]["routed_experts"] = npy(np.arange(12, dtype=np.uint8).reshape(6, 1, 2))
    assert received(answer).routes == RoutedExperts(0, 1, 2, np.arange(12, dtype="<u2").tobytes())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (base64.b64encode(b"what?").decode(), "no .npy array"),
        (npy(np.array([{"a": 1}], dtype=object)), "no .npy array"),
        (npy(np.zeros((3, 2), np.uint8)), r"uint8 of shape \(3, 2\)"),
        (npy(np.zeros((3, 2, 1), np.float32)), "float32"),
        (npy(np.zeros((3, 0, 1), np.uint8)), "0 layers"),
    ],
)
def test_routes_that_cannot_be_read_are_named(value: str, message: str) -> None:
    answer = sent(GENERATION)
    answer["choices"][0]["routed_experts"] = value
    with pytest.raises(ValueError, match=message):
        received(answer)
