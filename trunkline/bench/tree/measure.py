"""One workload measured: flat calls, whole trajectories and the forest, interleaved. Owns the clock, the sweep and the gradient error."""

# M trained tokens of all samples, E experts chosen of a token, L layers

from __future__ import annotations

import functools
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from trunkline.attention.choose import forest_attend
from trunkline.attention.forest import Forest, Ints, build_forest
from trunkline.bench.tree import flat
from trunkline.bench.tree.workloads import Sequences, Workload
from trunkline.models.checkpoint import init_decoder
from trunkline.models.decoder import Decoder
from trunkline.models.routing import Route, TopK
from trunkline.trainer.logprobs import Targets, find_targets
from trunkline.trainer.precision import computing_in
from trunkline.trainer.walk import walk

_SWEPT_TOKENS = 40_000
_SIZES = (1, 2, 4, 8, 16)
_MOST_BLOCK_TOKENS = {"cpu": 40_000, "cuda": 24_000}  # a GPU is busy from a few thousand on
NUM_SIZES = len(_SIZES)
"""Sizes of micro-batches that a sweep tries at most."""
Advance = Callable[[str], None]
"""Told what begins."""


@dataclass(frozen=True)
class Timed:
    """One contender."""

    name: str
    """Such as 'forest'."""
    run: Callable[[], None]
    """Forward and backward of all samples, from token ids to gradients."""
    seconds: list[float] = field(default_factory=list)
    """Of each round: of the processor on CPU, of the wall on a GPU."""

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Setting:
    """What a workload is measured on."""

    device: torch.device
    """Where."""
    dtype: torch.dtype = torch.float32
    """Of weights."""
    num_rounds: int = 5
    """Interleaved runs of each contender."""
    compute_dtype: torch.dtype | None = None
    """What forward and backward run in, as trainer.compute_dtype says; None: the dtype of the weights."""

    @property
    def activations(self) -> torch.dtype:
        """Their dtype."""
        return self.compute_dtype or self.dtype


class Bench:
    """A workload with its model, ready to run in any of its forms."""

    def __init__(self, workload: Workload, setting: Setting) -> None:
        self.workload, self.setting = workload, setting
        self.calls, self.trajectories = workload.make()
        self.policy: Decoder = init_decoder(workload.config, seed=0, device=setting.device).to(setting.dtype)
        self.weight_M = torch.randn(sum(mask.sum() for mask in self.calls.trained), generator=torch.Generator().manual_seed(1)).to(
            setting.device, setting.dtype
        )

    @property
    def baselines(self) -> dict[str, Sequences]:
        """What the forest is compared with; where agents make one call, trajectories are calls."""
        has_trajectories = len(self.trajectories.tokens) < len(self.calls.tokens)
        return {"calls": self.calls, **({"trajectories": self.trajectories} if has_trajectories else {})}

    def forest(self) -> Forest:
        """Of the calls."""
        return build_forest(self.calls.tokens)

    def lay_out(self) -> tuple[Forest, Targets]:
        """What the host does before a pass: merging, and finding what is predicted."""
        forest = self.forest()
        trained_F = np.concatenate(self.calls.trained)
        return forest, find_targets(forest, trained_F, np.ones(len(trained_F)))

    def run_forest(self, *, max_tokens: int | None = None, recompute: bool = False, route: Route | None = None) -> None:
        """Adds the gradient of all calls, each context computed once."""
        forest, targets = self.lay_out()

        def part_of_loss(logp_M: Tensor, places_M: Tensor) -> Tensor:
            return (self.weight_M[places_M] * logp_M).sum()

        with self.computing():
            walk(
                self.policy,
                forest,
                targets,
                part_of_loss,
                max_tokens=forest.num_tokens if max_tokens is None else max_tokens,
                recompute=recompute,
                route_for=lambda index_P: route or TopK(),
                attention=functools.partial(forest_attend, device=self.setting.device, dtype=self.setting.activations),
            )

    def computing(self) -> AbstractContextManager[None]:
        """In the precision of the setting, as the trainer does it."""
        return computing_in(self.policy, self.setting.activations)

    def flat_batches(self, sequences: Sequences, size: int) -> list[flat.MicroBatch]:
        """The baseline's micro-batches; of trajectories, trained tokens come in the order of the calls."""
        return flat.micro_batches(sequences, self.weight_M, size)

    def run_flat(self, batches: Sequence[flat.MicroBatch]) -> None:
        """Adds the gradient of all calls, each with its whole context."""
        with self.computing():
            for batch in batches:
                flat.backward(self.policy, batch)

    def seconds(self, work: Callable[[], None]) -> float:
        """What one run takes, from cleared gradients."""
        self.policy.zero_grad(set_to_none=True)
        gc.collect()
        if self.setting.device.type == "cuda":
            torch.cuda.synchronize()
            started = time.perf_counter()
            work()
            torch.cuda.synchronize()
            return time.perf_counter() - started
        started = time.process_time()
        work()
        return time.process_time() - started

    def gradient(self) -> Tensor:
        """All of it, flat."""
        return torch.cat([p.grad.flatten() if p.grad is not None else torch.zeros_like(p).flatten() for p in self.policy.parameters()])


def best_micro_batch(bench: Bench, sequences: Sequences, advance: Advance) -> dict[int, float]:
    """Seconds per 1,000 tokens by number of sequences, on every n-th of them where all would take too long; fastest first."""
    step = max(1, sequences.num_tokens // _SWEPT_TOKENS)
    chosen = range(0, len(sequences.tokens), step)
    part = Sequences(tuple(sequences.tokens[i] for i in chosen), tuple(sequences.trained[i] for i in chosen))
    longest = max(map(len, part.tokens))
    found = {}
    for size in _SIZES:
        if size > 1 and (size > len(part.tokens) or size * longest > _MOST_BLOCK_TOKENS[bench.setting.device.type]):
            continue
        advance(f"micro-batch {size}")
        batches = bench.flat_batches(part, size)

        def run(batches: list[flat.MicroBatch] = batches) -> None:
            bench.run_flat(batches)

        found[size] = min(bench.seconds(run) for _ in range(2)) / part.num_tokens * 1e3
    return dict(sorted(found.items(), key=lambda item: item[1]))


def race(bench: Bench, contenders: Sequence[Timed], advance: Advance) -> None:
    """Interleaved rounds, so that what the machine does besides hits all alike; the first round warms up and is dropped."""
    for round_index in range(bench.setting.num_rounds + 1):
        for contender in contenders:
            advance(f"{contender.name}, round {round_index} of {bench.setting.num_rounds}")
            seconds = bench.seconds(contender.run)
            if round_index:
                contender.seconds.append(seconds)


def gradient_error(workload: Workload, setting: Setting, dtype: torch.dtype, size: int) -> float:
    """Distance of the forest's gradient from the flat one, over the sum of the norms of what the flat one adds up.

    The sum is over micro-batches, never more than that over single samples. Both take the experts that the forest's router chose.
    """
    bench = Bench(workload, Setting(setting.device, dtype))
    chosen = _Chosen()
    bench.run_forest(route=chosen)
    merged = bench.gradient()
    bench.policy.zero_grad(set_to_none=True)
    forest = bench.forest()
    total, norms = torch.zeros_like(merged), 0.0
    for batch in bench.flat_batches(bench.calls, size):
        flat.backward(bench.policy, batch, chosen.of(_forest_places(forest, batch)))
        share = bench.gradient()
        bench.policy.zero_grad(set_to_none=True)
        total, norms = total + share, norms + share.norm().item()
    return (merged - total).norm().item() / norms


def rounding_errors(workload: Workload, setting: Setting, size: int) -> tuple[float, float]:
    """Distance of the gradient in `compute_dtype` from the flat one in fp32, over its norm: (forest, flat), with the same experts."""
    exact = Bench(workload, Setting(setting.device))
    chosen = _Chosen()
    exact.run_forest(route=chosen)
    exact.policy.zero_grad(set_to_none=True)
    forest = exact.forest()
    batches = [(batch, chosen.of(_forest_places(forest, batch))) for batch in exact.flat_batches(exact.calls, size)]
    for batch, route in batches:
        flat.backward(exact.policy, batch, route)
    expected = exact.gradient()
    rounded = Bench(workload, setting)
    rounded.run_forest(route=chosen)
    merged = rounded.gradient()
    rounded.policy.zero_grad(set_to_none=True)
    with rounded.computing():
        for batch, route in batches:
            flat.backward(rounded.policy, batch, route)
    scale = expected.norm()
    return ((merged - expected).norm() / scale).item(), ((rounded.gradient() - expected).norm() / scale).item()


class _Chosen:
    """A Route that remembers what it chose of each layer, to be taken again."""

    def __init__(self, experts_LTE: dict[int, Tensor] | None = None) -> None:
        self._experts_LTE = {} if experts_LTE is None else experts_LTE

    def __call__(self, layer: int, preference_TE: Tensor, top_k: int) -> Tensor:
        if layer not in self._experts_LTE:
            self._experts_LTE[layer] = TopK()(layer, preference_TE, top_k)
        return self._experts_LTE[layer]

    def of(self, index_T: Tensor) -> _Chosen:
        """The same choice for copies of the tokens."""
        return _Chosen({layer: experts_TE[index_T] for layer, experts_TE in self._experts_LTE.items()})


def _forest_places(forest: Forest, batch: flat.MicroBatch) -> Tensor:
    """Which forest token each token of a padded block is; padding is any."""
    index_BT: Ints = np.zeros((batch.attend.num_sequences, batch.attend.length), np.int64)
    for row, sample in enumerate(batch.samples.tolist()):
        path = forest.path(sample)
        index_BT[row, : len(path)] = path
    return torch.from_numpy(index_BT.ravel()).to(batch.token_ids_T.device)
