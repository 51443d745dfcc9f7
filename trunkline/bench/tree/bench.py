"""`trunkline bench tree`: what a forest saves against flat samples, against the ideal. Owns the rows; measuring is measure.py's.

speed-up   CPU-seconds (on a GPU wall time, until it is done) of forward and backward, from token ids to gradients: baseline over forest
FLOP ratio the same by count (trainer/flops.py): what could be saved at most
fraction   speed-up over FLOP ratio
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from trunkline.attention.forest import build_forest
from trunkline.bench.result import Demand, Result, Row
from trunkline.bench.tree.measure import NUM_SIZES, Bench, Setting, Timed, best_micro_batch, gradient_error, race, rounding_errors
from trunkline.bench.tree.memory import peak_bytes
from trunkline.bench.tree.workloads import Sequences, Workload, workloads
from trunkline.errors import ConfigError
from trunkline.trainer.flops import flop_ratio, parameters_a_token

Progress = Callable[[str, int, int], None]
_PARTITIONS = 8
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TreeBenchPlan:
    """What is measured."""

    names: tuple[str, ...] = ()
    """Workloads; none: all."""
    num_rounds: int = 5
    """Interleaved runs of each contender."""
    device: str = "cpu"
    """Where."""
    compute_dtype: str = "float32"
    """What forward and backward run in, float32 or bfloat16, over fp32 weights."""
    with_memory: bool = True
    """Also peak memory, in processes of their own."""


def bench_tree(plan: TreeBenchPlan, progress: Progress) -> Result:
    """Runs it. Raises ConfigError for an unknown workload or precision, or a device that is not there."""
    chosen = _chosen(plan)
    if plan.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: this torch sees no CUDA device; install a CUDA build, or measure on cpu")
    rows: list[Row] = []
    samples: dict[str, Sequence[float]] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for workload in chosen:
            setting = Setting(torch.device(plan.device), num_rounds=plan.num_rounds, compute_dtype=_DTYPES[plan.compute_dtype])
            measured = _Workload(workload, setting, progress)
            rows += measured.rows(plan.with_memory)
            samples |= measured.samples
    finally:
        torch.set_num_threads(threads)
    device = torch.cuda.get_device_name() if plan.device == "cuda" else plan.device
    return Result(f"Forests against flat samples, {device}, {plan.compute_dtype}", tuple(rows), samples, "s")


def _chosen(plan: TreeBenchPlan) -> tuple[Workload, ...]:
    if plan.compute_dtype not in _DTYPES:
        raise ConfigError(f"unknown precision {plan.compute_dtype!r}; known: {', '.join(_DTYPES)}")
    known = {workload.name: workload for workload in workloads(plan.device, plan.compute_dtype)}
    if unknown := [name for name in plan.names if name not in known]:
        raise ConfigError(f"unknown workload {unknown[0]!r}; known: {', '.join(known)}")
    return tuple(known[name] for name in plan.names) or tuple(known.values())


class _Workload:
    """One workload's rows."""

    def __init__(self, workload: Workload, setting: Setting, progress: Progress) -> None:
        self.workload, self.setting, self.progress = workload, setting, progress
        self.bench = Bench(workload, setting)
        self.num_done = 0
        self.samples: dict[str, Sequence[float]] = {}
        self._rows: list[Row] = []

    def rows(self, with_memory: bool) -> list[Row]:
        """All of them."""
        bench, size = self.bench, self._sizes()
        sweep = {name: best_micro_batch(bench, part, self._advance) for name, part in bench.baselines.items()}
        for name, found in sweep.items():
            for micro_batch, seconds in sorted(found.items()):
                self._add(f"{name} in micro-batches of {micro_batch}", seconds, "s/1,000 tokens")
        best = {name: next(iter(found)) for name, found in sweep.items()}
        self._times(best, size)
        if with_memory:
            self._memory(best["calls"])
        del self.bench, bench  # the gradients are those of models of their own
        self._gradients(best["calls"])
        return self._rows

    def _advance(self, what: str) -> None:
        """One more thing is under way: a size of the sweep, or a run of a contender."""
        num_baselines = len(self.bench.baselines)
        total = num_baselines * NUM_SIZES + (self.setting.num_rounds + 1) * (1 + num_baselines + (self.workload.partitions is not None))
        self.progress(self.workload.name, min(self.num_done, total - 1), total)
        self.num_done += 1

    def _add(self, metric: str, value: float, unit: str, demand: Demand | None = None) -> None:
        self._rows.append(Row(f"{self.workload.name}: {self.workload.shape}", metric, value, unit, demand))

    def _sizes(self) -> dict[str, float]:
        """FLOP ratios by baseline."""
        bench, forest = self.bench, self.bench.forest()
        self._add("tokens of the calls", forest.num_flat_tokens, "tokens")
        if "trajectories" in bench.baselines:
            self._add("tokens of the trajectories", bench.trajectories.num_tokens, "tokens")
        self._add("tokens of the forest", forest.num_tokens, "tokens")
        self._add("parameters that a token passes", parameters_a_token(bench.policy) / 1e6, "M")
        ratios = {name: self._flop_ratio(part) for name, part in bench.baselines.items()}
        for name, ratio in ratios.items():
            self._add(f"FLOP ratio to the {name}", ratio, "x")
        return ratios

    def _times(self, best: dict[str, int], ratios: dict[str, float]) -> None:
        bench = self.bench
        batches = {name: bench.flat_batches(part, best[name]) for name, part in bench.baselines.items()}
        forest = Timed("forest", bench.run_forest)
        contenders = [forest, *(Timed(name, functools.partial(bench.run_flat, batches[name])) for name in batches)]
        if self.workload.partitions is not None:
            contenders.append(Timed("partitions", lambda: bench.run_forest(max_tokens=self._partition_tokens, recompute=self._recomputes)))
        race(bench, contenders, self._advance)
        if self.setting.device.type == "cuda":
            self._add("of the forest, laid out on the host before", _host_seconds(bench), "s")
        for contender in contenders:
            self._add(f"{contender.name}, median", contender.median, "s")
            self.samples[f"{self.workload.name}, {contender.name}"] = contender.seconds
        for contender in contenders[1 : 1 + len(batches)]:
            speed_up = contender.median / forest.median
            least = self.workload.least_fraction
            demand = Demand(">=", least) if contender.name == "calls" and least is not None else None
            self._add(f"speed-up over the {contender.name}", speed_up, "x")
            self._add(f"fraction of the FLOP ratio to the {contender.name}", speed_up / ratios[contender.name], "", demand)
        if self.workload.partitions is not None:
            ratio = contenders[-1].median / forest.median
            self._add(f"partitions ({self.workload.partitions}), time", ratio, "of the whole", self._on_cpu(Demand("<=", 1.25)))

    def _memory(self, micro_batch: int) -> None:
        peaks = {form: peak_bytes(self.bench, form, micro_batch=micro_batch) for form in ("flat", "forest")}
        for form, peak in peaks.items():
            self._add(f"{'calls' if form == 'flat' else form}, peak memory", peak / 1e6, "MB")
        if self.workload.partitions is not None:
            peak = peak_bytes(self.bench, self.workload.partitions, micro_batch=micro_batch)
            self._add(f"partitions ({self.workload.partitions}), peak memory", peak / 1e6, "MB")
            demand = self._on_cpu(Demand("<=", 0.4))
            self._add(f"partitions ({self.workload.partitions}), memory", peak / peaks["forest"], "of the whole", demand)

    def _gradients(self, micro_batch: int) -> None:
        """On CUDA of the first two layers: the whole in fp32 would take longer than all else, and fp64 has no fused attention."""
        setting, workload = self.setting, self.workload
        if setting.device.type == "cuda":
            workload = replace(workload, config=replace(workload.config, num_layers=2))
        # A wide model's fp32 gradients are sums over thousands of tokens, which products on a GPU take one after the other.
        fp32_bound = 2e-6 if setting.device.type == "cpu" else 1e-5
        for dtype, bound in ((torch.float32, fp32_bound), (torch.float64, 1e-12)):
            if dtype == torch.float32 or setting.device.type == "cpu":
                error = gradient_error(workload, setting, dtype, micro_batch)
                self._add(f"gradient error, {str(dtype).removeprefix('torch.')}", error, "of the summed norms", Demand("<=", bound))
        if setting.activations != torch.float32:
            for form, error in zip(("forest", "calls"), rounding_errors(workload, setting, micro_batch), strict=True):
                self._add(f"gradient of the {form} in bfloat16, distance from fp32", error, "of its norm")

    def _on_cpu(self, demand: Demand) -> Demand | None:
        """Demands that come from measurements on CPU."""
        return demand if self.setting.device.type == "cpu" else None

    def _flop_ratio(self, sequences: Sequences) -> float:
        config = self.workload.config
        return flop_ratio(
            build_forest(sequences.tokens),
            num_parameters=parameters_a_token(self.bench.policy),
            attention_width=config.num_heads * config.head_dim,
            num_layers=config.num_layers,
        )

    @property
    def _partition_tokens(self) -> int:
        return -(-self.bench.forest().num_tokens // _PARTITIONS)

    @property
    def _recomputes(self) -> bool:
        return self.workload.partitions == "recomputed"


def _host_seconds(bench: Bench) -> float:
    found = []
    for _ in range(bench.setting.num_rounds):
        started = time.perf_counter()
        bench.lay_out()
        found.append(time.perf_counter() - started)
    return statistics.median(found)
