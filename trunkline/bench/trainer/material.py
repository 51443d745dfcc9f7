"""What both trainers are given: one model, one batch of prompts, completions and rewards. Owns making it; imports no peer."""

# S samples

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trunkline.attention.forest import Ints
from trunkline.models.checkpoint import init_decoder, save_decoder
from trunkline.models.config import DecoderConfig

VOCAB = 44


@dataclass(frozen=True)
class Shape:
    """One step's data."""

    name: str
    """As the table calls it."""
    num_prompts: int
    """Groups."""
    group_size: int
    """Attempts at each."""
    prompt: int
    """Tokens of a prompt."""
    completion: int
    """Tokens of a completion."""
    least_ratio: float
    """CPU-seconds of the peer over ours that are demanded."""
    micro_batches: tuple[int, ...]
    """Samples of one forward pass of the peer; the fastest counts."""

    @property
    def num_samples(self) -> int:
        """Prompts times attempts."""
        return self.num_prompts * self.group_size

    def prompts(self) -> list[Ints]:
        """One a group."""
        rng = np.random.default_rng(0)
        return [rng.integers(3, VOCAB, self.prompt) for _ in range(self.num_prompts)]

    def completions(self) -> list[Ints]:
        """One a sample, groups one after the other."""
        rng = np.random.default_rng(1)
        return [rng.integers(3, VOCAB, self.completion) for _ in range(self.num_samples)]

    def rewards(self) -> list[float]:
        """One a sample."""
        return np.random.default_rng(2).random(self.num_samples).round(3).tolist()


SHAPES = (
    Shape("1 prompt x 16, 512 + 16 tokens", 1, 16, 512, 16, 4.0, (16, 8, 4, 2)),
    Shape("8 prompts x 8, 16 + 16 tokens", 8, 8, 16, 16, 1.0, (64, 32, 16)),
)


def save_model(folder: Path) -> None:
    """A random Qwen3 of 0.8 million parameters."""
    config = DecoderConfig(
        vocab_size=VOCAB,
        hidden_size=128,
        intermediate_size=384,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        qk_norm="head",
        tie_embeddings=True,
        max_positions=1024,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    save_decoder(init_decoder(config, seed=0), folder)


def environment() -> dict[str, str]:
    """Of a measured process: one thread, no network, a malloc that suits small steps, the same for both."""
    quiet = {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30), **quiet}
