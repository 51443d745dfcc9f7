"""The shapes of agent training that `bench tree` measures, as token sequences. Owns their sizes and models; measures nothing.

Every workload exists twice: as calls (one sample per request, its whole context in front) and as trajectories (the calls of
one agent concatenated wherever one extends the other), which is the best that can be had without a forest.
"""

# S samples, T tokens of one

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trunkline.attention.forest import Ints
from trunkline.models.config import DecoderConfig

_VOCAB = 1024


@dataclass(frozen=True, eq=False)
class Sequences:
    """Samples with their trained tokens."""

    tokens: tuple[Ints, ...]
    """Token ids of each."""
    trained: tuple[NDArray[np.bool_], ...]
    """Which of its tokens are trained; never the first."""

    @property
    def num_tokens(self) -> int:
        """Of all samples."""
        return sum(map(len, self.tokens))


@dataclass(frozen=True)
class Workload:
    """One shape of training data, and the model it is trained with."""

    name: str
    """As the table calls it."""
    shape: str
    """In words."""
    config: DecoderConfig
    """The model; random weights do."""
    make: Callable[[], tuple[Sequences, Sequences]]
    """(calls, trajectories): the same trained tokens in the same contexts."""
    least_fraction: float | None
    """Of the FLOP ratio that the speed-up must reach; None: nothing is demanded."""
    partitions: str | None = None
    """How it is also measured in partitions of an eighth of its tokens: 'kept' or 'recomputed' graphs; None: not."""


def workloads(device: str = "cpu", compute_dtype: str = "float32") -> tuple[Workload, ...]:
    """A, B, C, H and the sparse A and B of the benchmark; on cuda also D, C and D sparse, and models that keep a GPU busy."""
    if device == "cuda":
        return _on_gpu(compute_dtype)
    dense = model(hidden_size=256, num_layers=4)
    small = model(hidden_size=128, num_layers=2)
    sparse = model(hidden_size=256, num_layers=4, num_experts=32)
    return (
        Workload("A", "prompt 2,048, 16 answers of 64", dense, _a, 0.85),
        Workload("B", "prompt 512, 8 answers of 512", dense, _b, 0.85, "recomputed"),
        Workload("C", "8 agents, 10 calls of 100 tokens on 512", dense, _c, 0.85, "kept"),
        Workload("H", "4 agents, 100 calls of 20 tokens on 400", small, _h, 0.6),
        Workload("A sparse", "A on 32 experts, 4 a token", sparse, _a, 0.85),
        Workload("B sparse", "B on 32 experts, 4 a token", sparse, _b, 0.85),
    )


def _on_gpu(compute_dtype: str) -> tuple[Workload, ...]:
    """The same samples. Of fp32 matrix products a GPU does a tenth as many as in bf16: a quarter of the layers there."""
    cut = 4 if compute_dtype == "float32" else 1
    dense = model(hidden_size=2048, num_layers=16 // cut, head_dim=128)
    small = model(hidden_size=2048, num_layers=8 // cut, head_dim=128)
    sparse = model(hidden_size=2048, num_layers=8 // cut, num_experts=32, head_dim=128)
    least = 0.8 if compute_dtype == "bfloat16" else None  # of forests from 8,000 tokens: smaller ones do not fill a GPU
    return (
        Workload("A", "prompt 2,048, 16 answers of 64", dense, _a, None),
        Workload("B", "prompt 512, 8 answers of 512", dense, _b, None),
        Workload("C", "8 agents, 10 calls of 100 tokens on 512", dense, _c, least, "kept"),
        Workload("D", "8 agents, 8 calls of 256 tokens on 1,024", dense, _d, least, "kept"),
        Workload("H", "4 agents, 100 calls of 20 tokens on 400", small, _h, least),
        Workload("A sparse", "A on 32 experts, 4 a token", sparse, _a, None),
        Workload("B sparse", "B on 32 experts, 4 a token", sparse, _b, None),
        Workload("C sparse", "C on 32 experts, 4 a token", sparse, _c, least),
        Workload("D sparse", "D on 32 experts, 4 a token", sparse, _d, least),
    )


def model(*, hidden_size: int, num_layers: int, num_experts: int = 0, head_dim: int = 64) -> DecoderConfig:
    """A Qwen3-like decoder with half as many key/value heads as heads, or one of MiniMax-M2's shape with `num_experts`."""
    sizes: dict[str, Any] = {
        "vocab_size": _VOCAB,
        "hidden_size": hidden_size,
        "num_layers": num_layers,
        "num_heads": hidden_size // head_dim,
        "num_kv_heads": hidden_size // head_dim // 2,
        "head_dim": head_dim,
        "max_positions": 4096,
    }
    if num_experts:
        return DecoderConfig(
            **sizes,
            intermediate_size=hidden_size // 2,
            num_experts=num_experts,
            experts_per_token=4,
            qk_norm="full",
            rotary_dim=head_dim // 2,
        )
    return DecoderConfig(**sizes, intermediate_size=3 * hidden_size, qk_norm="head")


def _a() -> tuple[Sequences, Sequences]:
    return group(prompt=2048, response=64, attempts=16)


def _b() -> tuple[Sequences, Sequences]:
    return group(prompt=512, response=512, attempts=8)


def _c() -> tuple[Sequences, Sequences]:
    return agents(prompt=512, sampled=50, observed=50, calls=10, attempts=8)


def _d() -> tuple[Sequences, Sequences]:
    return agents(prompt=1024, sampled=128, observed=128, calls=8, attempts=8)


def _h() -> tuple[Sequences, Sequences]:
    return agents(prompt=400, sampled=10, observed=10, calls=100, attempts=4)


def group(*, prompt: int, response: int, attempts: int) -> tuple[Sequences, Sequences]:
    """Attempts at one task in a single call each."""
    return agents(prompt=prompt, sampled=response, observed=0, calls=1, attempts=attempts)


def agents(*, prompt: int, sampled: int, observed: int, calls: int, attempts: int) -> tuple[Sequences, Sequences]:
    """Attempts of several calls: each samples `sampled` tokens and is answered by `observed` ones before the next."""
    rng = np.random.default_rng(0)
    trunk = rng.integers(0, _VOCAB, prompt)
    contexts, masks, whole, whole_masks = [], [], [], []
    for _ in range(attempts):
        context, mask = trunk, np.zeros(prompt, np.bool_)
        for call in range(calls):
            if call:
                context, mask = _longer(context, mask, rng.integers(0, _VOCAB, observed), is_trained=False)
            alone = np.zeros(len(context), np.bool_)
            answer = rng.integers(0, _VOCAB, sampled)
            masks.append(_longer(context, alone, answer, is_trained=True)[1])
            context, mask = _longer(context, mask, answer, is_trained=True)
            contexts.append(context)
        whole.append(context)
        whole_masks.append(mask)
    return Sequences(tuple(contexts), tuple(masks)), Sequences(tuple(whole), tuple(whole_masks))


def _longer(tokens: Ints, mask: NDArray[np.bool_], new: Ints, *, is_trained: bool) -> tuple[Ints, NDArray[np.bool_]]:
    return np.concatenate((tokens, new)), np.concatenate((mask, np.full(len(new), is_trained)))


def trained_places(sequences: Sequences) -> Sequence[Ints]:
    """Of each sample: the places of its trained tokens."""
    return [np.flatnonzero(mask) for mask in sequences.trained]
