"""How many forest tokens fit into memory at once. Owns measurement and choice; the walk is walk.py's.

activation bytes a token (measured)  x  TRANSIENTS  x  tokens alive  <=  FRACTION  x  free memory
"""

# T tokens

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from trunkline.attention.base import TreeAttend
from trunkline.attention.blocks import ForestAttend
from trunkline.attention.forest import Forest
from trunkline.attention.layout import TreeLayout
from trunkline.attention.partition import Partition, partition_forest
from trunkline.errors import TrainerError
from trunkline.models.base import Policy

TRANSIENTS = 1.3
"""Peak of forward and backward over what the graph keeps: workspaces, logits, gradients on their way, the allocator's gaps.
Measured 1.20 and 1.26 on a 4-layer model of width 256 on CPU, in passes of 4,608 and 8,512 tokens (docs/log.md)."""
FRACTION = 0.5
"""Of the free memory; the rest is for other processes, the optimiser's state, and the keys and values of a walk's path."""

_SIZES = (64, 192)  # tokens of the two passes whose difference is measured: beyond both, growth is linear


@dataclass(frozen=True)
class WalkChoice:
    """How to walk a forest."""

    max_tokens: int
    """Forest tokens of one pass."""
    recompute: bool
    """Whether partitions that others hang from are computed twice rather than kept."""


def choose_walk(forest: Forest, *, budget: int) -> WalkChoice:
    """The cheapest walk with at most `budget` tokens' activations alive.

    In order: all at once; partitions of half the budget, if no chain of them exceeds it; partitions of the whole budget, with
    those above computed again.
    """
    budget = max(1, budget)
    if forest.num_tokens <= budget:
        return WalkChoice(forest.num_tokens, recompute=False)
    half = max(1, budget // 2)
    if most_alive(partition_forest(forest, max_tokens=half)) <= budget:
        return WalkChoice(half, recompute=False)
    return WalkChoice(budget, recompute=True)


def most_alive(partitions: list[Partition]) -> int:
    """Tokens of the largest chain of partitions from a root down: alive at once in a walk without recomputation."""
    alive: list[int] = []
    for partition in partitions:
        alive.append(len(partition.index_P) + (alive[partition.parent] if partition.parent >= 0 else 0))
    return max(alive)


def token_budget(policy: Policy, *, attention: Callable[[TreeLayout], TreeAttend] = ForestAttend) -> int:
    """Tokens whose forward and backward fit into FRACTION of the memory that is free now on the policy's device."""
    free = free_bytes(next(policy.parameters()).device)
    return int(FRACTION * free / (TRANSIENTS * activation_bytes(policy, attention=attention)))


def check_fits(num_tokens: int, *, bytes_a_token: float, free: int) -> None:
    """Raises TrainerError if a forest computed at once exceeds free memory; for runs whose partitions are switched off."""
    needed = TRANSIENTS * bytes_a_token * num_tokens
    if needed > free:
        raise TrainerError(
            f"a forest of {num_tokens:,} tokens needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free, and partitions are "
            f"switched off; switch them on, or train on fewer or shorter samples a step"
        )


def activation_bytes(policy: Policy, *, attention: Callable[[TreeLayout], TreeAttend] = ForestAttend) -> float:
    """Bytes that autograd keeps of each token, without logits; measured on two small passes.

    With `checkpoint_layers`, the inputs of all layers and the inside of one.
    """
    kept = _kept_bytes_a_token(policy, attention)
    if not policy.checkpoint_layers:
        return kept
    policy.checkpoint_layers = False
    try:
        return kept + _kept_bytes_a_token(policy, attention) / policy.config.num_layers
    finally:
        policy.checkpoint_layers = True


def _kept_bytes_a_token(policy: Policy, attention: Callable[[TreeLayout], TreeAttend]) -> float:
    small, large = (min(size, policy.config.max_positions // (3 - place)) for place, size in enumerate(_SIZES, start=1))
    return (_kept_bytes(policy, attention, large) - _kept_bytes(policy, attention, small)) / (large - small)


def _kept_bytes(policy: Policy, attention: Callable[[TreeLayout], TreeAttend], size: int) -> int:
    ends = np.array([size])
    device = next(policy.parameters()).device
    kept: dict[int, int] = {}  # of each memory block, for many saved tensors are views of one

    def note(saved: Tensor) -> Tensor:
        kept[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    index_T = torch.arange(size, device=device)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        hidden_TC = policy(index_T % policy.config.vocab_size, index_T, attention(TreeLayout(ends - size, ends, ends)))
    for tensor in (index_T, *policy.state_dict().values(), *policy.parameters()):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    assert hidden_TC.requires_grad, "the graph must be alive while it is measured"
    return sum(kept.values())


def free_bytes(device: torch.device) -> int:
    """Memory that this process can still take on `device`, within the limits of its control groups."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return min([int(psutil.virtual_memory().available), *cgroup_rooms()])


def cgroup_rooms(proc: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Bytes left under the limit of each memory control group that this process is in (versions 1 and 2); none on other systems.

    File cache that the kernel would give up counts as free.
    """
    lines = proc.read_text().splitlines() if proc.exists() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, used, cache = mount, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, used, cache = mount / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(root) and (folder / used).exists() and (bound := (folder / limit).read_text().strip()) != "max":
                statistics = dict(entry.split() for entry in (folder / "memory.stat").read_text().splitlines())
                yield max(0, int(bound) - int((folder / used).read_text()) + int(statistics.get(cache, 0)))
