"""How much memory a pass takes, and how a forest is walked within it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from trunkline.attention.forest import Forest, build_forest
from trunkline.attention.partition import partition_forest
from trunkline.errors import TrainerError
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder
from trunkline.trainer.memory import (
    WalkChoice,
    activation_bytes,
    cgroup_rooms,
    check_fits,
    choose_walk,
    free_bytes,
    most_alive,
    token_budget,
)

torch.set_num_threads(1)


def make_decoder(num_layers: int, dtype: torch.dtype = torch.float32) -> Decoder:
    config = DecoderConfig(
        vocab_size=7,
        hidden_size=16,
        intermediate_size=32,
        num_layers=num_layers,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        max_positions=512,
    )
    return init_decoder(config, seed=0, dtype=dtype)


def branches(num_branches: int, *, prompt: int, length: int) -> Forest:
    return build_forest([[*range(prompt), *[1000 + branch] * length] for branch in range(num_branches)])


def test_activations_grow_with_layers_and_precision() -> None:
    two, four = activation_bytes(make_decoder(2)), activation_bytes(make_decoder(4))
    layer = (four - two) / 2
    assert 10 * 16 * 4 < layer < 60 * 16 * 4  # some tens of values a channel
    assert activation_bytes(make_decoder(4, torch.float64)) == pytest.approx(2 * four, rel=0.1)


def test_recomputed_layers_keep_their_inputs_and_the_inside_of_one() -> None:
    decoder = make_decoder(8)
    kept = activation_bytes(decoder)
    decoder.checkpoint_layers = True
    assert kept / 8 < activation_bytes(decoder) < kept / 3
    assert decoder.checkpoint_layers


def test_a_forest_within_the_budget_is_computed_at_once() -> None:
    forest = branches(4, prompt=10, length=10)
    assert choose_walk(forest, budget=50) == WalkChoice(50, recompute=False)


def test_a_shallow_forest_beyond_the_budget_keeps_its_trunk() -> None:
    forest = branches(10, prompt=10, length=10)
    chosen = choose_walk(forest, budget=40)
    assert chosen == WalkChoice(20, recompute=False)
    assert most_alive(partition_forest(forest, max_tokens=chosen.max_tokens)) <= 40


def test_a_chain_beyond_the_budget_is_computed_twice() -> None:
    assert choose_walk(build_forest([np.arange(100)]), budget=30) == WalkChoice(30, recompute=True)


def test_the_budget_is_tokens_within_free_memory() -> None:
    decoder = make_decoder(2)
    assert 0 < token_budget(decoder) * activation_bytes(decoder) < 1.5 * free_bytes(torch.device("cpu"))


def test_a_forest_beyond_memory_is_refused_with_its_size_and_a_remedy() -> None:
    check_fits(10_000, bytes_a_token=1e5, free=2 * 10**9)
    with pytest.raises(TrainerError, match=r"100,000 tokens needs about 13.0 GB, 2.0 GB are free, .* switch them on"):
        check_fits(100_000, bytes_a_token=1e5, free=2 * 10**9)


@pytest.mark.parametrize("version", [1, 2])
def test_the_room_of_every_control_group_above_counts(tmp_path: Path, version: int) -> None:
    """The outer group has a limit of 1,000 bytes, 600 used, 50 of them cache; the inner one none."""
    root = tmp_path / "cgroup" if version == 2 else tmp_path / "cgroup" / "memory"
    limit, used, cache = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    for folder, bound in ((root / "outer", "1000"), (root / "outer" / "inner", "max" if version == 2 else str(2**62))):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text(f"{bound}\n")
        (folder / used).write_text("600\n")
        (folder / "memory.stat").write_text(f"anon 500\n{cache} 50\n")
    line = "0::/outer/inner" if version == 2 else "4:cpu,memory:/outer/inner"
    (tmp_path / "of_process").write_text(f"3:pids:/elsewhere\n{line}\n")
    assert min(cgroup_rooms(tmp_path / "of_process", tmp_path / "cgroup")) == 450
