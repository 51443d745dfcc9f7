"""`trunkline bench engine`: tokens a CPU-second of the local engine and of transformers. Owns the order of runs and the rows.

One process, one thread, fp32, by turns: every round runs each batch size with each contender on a prompt of its own.

decoded           tokens after prefill over CPU-seconds after prefill
whole request     all tokens over all CPU-seconds, the prompt computed once a batch by every contender
prompt per row    of the static batch: as generate() does, the prompt's CPU-seconds times the rows; computed from the others
"""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from trunkline.bench.engine.contenders import BatchRun, Contender, ContinuousBatching, Ours, StaticBatch, load_theirs, logprob_error
from trunkline.bench.result import Demand, Result, Row
from trunkline.models.checkpoint import init_decoder, save_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.fetch import resolve_model
from trunkline.models.source import open_model

Progress = Callable[[str, int, int], None]

SPARSE = DecoderConfig(
    vocab_size=8192,
    hidden_size=256,
    intermediate_size=256,
    num_layers=6,
    num_heads=8,
    num_kv_heads=2,
    head_dim=32,
    qk_norm="full",
    rotary_dim=16,
    num_experts=32,
    experts_per_token=4,
)
_TINY = DecoderConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, max_positions=256
)
_LOGPROB_TOLERANCE = 5e-5
_CHECKED_ROWS = 2  # a batch of the first round; a full forward costs as much as a prefill


@dataclass(frozen=True)
class EngineBenchPlan:
    """What is measured."""

    model: str | None = "smollm2"
    """Name of a fetched model or a folder; None: a tiny random one."""
    num_rounds: int = 5
    """Runs of each batch size with each contender."""
    num_continuous_rounds: int = 1
    """The same for continuous batching, which takes most of the time."""
    batches: tuple[int, ...] = (1, 8, 16, 32)
    """Completions of one prompt at once."""
    num_prompt: int = 513
    """Tokens of the prompt: no multiple of any engine's block."""
    num_new: int = 64
    """Tokens of each completion."""
    is_judged: bool = True
    """Whether the dense model's figures are held against the demands."""


QUICK = EngineBenchPlan(None, 1, 1, (1, 3), 41, 5, is_judged=False)
"""Whether it works; its numbers say nothing."""


@dataclass
class _Measured:
    """Of one model."""

    name: str
    runs: dict[tuple[str, int], list[BatchRun]] = field(default_factory=lambda: defaultdict(list))
    errors: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def decoded(self, contender: str, batch: int) -> list[float]:
        """Tokens a CPU-second after prefill, of each run."""
        return [run.num_decoded / run.decode_s for run in self.runs[contender, batch]]

    def whole(self, contender: str, batch: int, *, num_prompts: int = 1) -> float:
        """Median tokens a CPU-second of whole requests, if the prompt's CPU-seconds are spent `num_prompts` times."""
        runs = self.runs[contender, batch]
        return statistics.median(sum(len(ids) for ids, _ in run.completions) / (num_prompts * run.prefill_s + run.decode_s) for run in runs)

    def prefill(self, contender: str) -> float:
        """Median CPU-seconds of the prompt."""
        return statistics.median(run.prefill_s for (name, _), runs in self.runs.items() if name == contender for run in runs)


def bench_engine(plan: EngineBenchPlan, folder: Path, progress: Progress) -> Result:
    """Runs it; `folder` is scratch. Raises ConfigError for a model that is not there or not ours."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        save_decoder(init_decoder(SPARSE, seed=0), folder / "sparse")
        measured = [_measure(plan, _dense(plan, folder), plan.model or "tiny", progress)]
        measured.append(_measure(plan, folder / "sparse", "tiny MiniMax-M2", progress))
    finally:
        torch.set_num_threads(threads)
    rows = [row for one, is_judged in zip(measured, (plan.is_judged, False), strict=True) for row in _rows(plan, one, is_judged=is_judged)]
    samples = {
        f"{batch} rows, {name}": measured[0].decoded(name, batch) for name, batch in sorted(measured[0].runs, key=lambda key: key[1])
    }
    title = f"Decoding after a shared prefix of {plan.num_prompt} tokens, {plan.num_new} new tokens a row, fp32, one thread"
    return Result(title, tuple(rows), samples, "tokens/CPU-s")


def _dense(plan: EngineBenchPlan, folder: Path) -> Path:
    if plan.model is None:
        save_decoder(init_decoder(_TINY, seed=0), folder / "tiny")
        return folder / "tiny"
    path = resolve_model(plan.model)
    open_model(path).config()  # refuses here what the engine cannot run
    return path


def _measure(plan: EngineBenchPlan, folder: Path, name: str, progress: Progress) -> _Measured:
    measured = _Measured(name)
    theirs = load_theirs(folder)
    contenders: tuple[Contender, ...] = (Ours(folder), StaticBatch(theirs), ContinuousBatching(theirs))
    rng = random.Random(0)

    def prompt() -> tuple[int, ...]:
        return tuple(rng.randrange(theirs.config.vocab_size) for _ in range(plan.num_prompt))

    for contender in contenders:  # first runs allocate and choose kernels
        contender.run(prompt(), batch=2, num_new=3)
    for index in range(plan.num_rounds):
        for batch_index, batch in enumerate(plan.batches):
            progress(name, index * len(plan.batches) + batch_index, plan.num_rounds * len(plan.batches))
            for contender in contenders[: 3 if index < plan.num_continuous_rounds else 2]:
                asked = prompt()
                run = contender.run(asked, batch=batch, num_new=plan.num_new)
                measured.runs[contender.name, batch].append(run)
                for token_ids, logprobs in run.completions[:_CHECKED_ROWS] if index == 0 else ():
                    error = logprob_error(theirs, asked, token_ids, logprobs)
                    measured.errors[contender.name] = max(error, measured.errors[contender.name])
    return measured


def _rows(plan: EngineBenchPlan, measured: _Measured, *, is_judged: bool) -> list[Row]:
    rows = []
    for batch in plan.batches:
        for contender in (Ours.name, StaticBatch.name, ContinuousBatching.name):
            where = f"{measured.name}, {batch} rows: {contender}"
            rows.append(Row(where, "decoded", statistics.median(measured.decoded(contender, batch)), "tokens/CPU-s"))
            rows.append(Row(where, "whole request", measured.whole(contender, batch), "tokens/CPU-s"))
            if contender == StaticBatch.name and batch > 1:
                per_row = measured.whole(contender, batch, num_prompts=batch)
                rows.append(Row(where, "whole request, prompt per row", per_row, "tokens/CPU-s"))
        ours = statistics.median(measured.decoded(Ours.name, batch))
        for other in (StaticBatch.name, ContinuousBatching.name):
            demand = Demand(">=", 1.5) if is_judged and batch == 16 and other == StaticBatch.name else None
            where = f"{measured.name}, {batch} rows: Trunkline over {other}"
            rows.append(Row(where, "decoded", ours / statistics.median(measured.decoded(other, batch)), "x", demand))
            rows.append(Row(where, "whole request", measured.whole(Ours.name, batch) / measured.whole(other, batch), "x"))
    if {16, 32} <= set(plan.batches):
        gain = statistics.median(measured.decoded(Ours.name, 32)) / statistics.median(measured.decoded(Ours.name, 16))
        rows.append(Row(f"{measured.name}: Trunkline", "decoded, 32 rows over 16", gain, "x", Demand(">=", 1.0) if is_judged else None))
    for contender, error in measured.errors.items():
        demand = Demand("<=", _LOGPROB_TOLERANCE) if plan.is_judged and contender == Ours.name else None
        rows.append(Row(f"{measured.name}: {contender}", "prompt, once", measured.prefill(contender), "CPU-s"))
        rows.append(Row(f"{measured.name}: {contender}", "largest logprob error", error, "nat", demand))
    return rows
