"""The optimiser step over a prefix forest. Owns decoder, optimiser and step count; losses see flat log-probabilities alone.

samples ─► forest ─► forward ─► logits at trained tokens ─► logp a sample's token ─► loss ─► backward ─► AdamW
                │    (each distinct context once)           (losses are blind to forests)       │
                └── beyond max_pass_tokens: parts of the samples, one after the other ──────────┘ gradients add up
"""

# T forest tokens, F flat tokens of all samples, M trained ones among them, C hidden_size

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trunkline.attention.blocks import ForestAttend
from trunkline.attention.forest import Forest, Ints, build_forest
from trunkline.errors import TrainerError
from trunkline.models.decoder import Decoder
from trunkline.trainer.batch import DemonstrationBatch, SampleBatch
from trunkline.trainer.cispo import cispo_loss
from trunkline.trainer.config import LossConfig, OptimizerConfig, PhaseConfig, PhaseKind
from trunkline.trainer.flops import flop_ratio
from trunkline.trainer.logprobs import find_targets, trained_logprobs
from trunkline.trainer.loss import LossSum
from trunkline.trainer.passes import DEFAULT_PASS_TOKENS, split_samples
from trunkline.trainer.schedule import learning_rate
from trunkline.trainer.sft import sft_loss
from trunkline.types import StepStats

PartOfLoss = Callable[[Tensor, Tensor], Tensor]
"""(log-probabilities of some trained tokens, their places among all of the step) -> their share of the loss."""


@dataclass
class Progress:
    """A phase under way."""

    config: PhaseConfig
    """What is trained and how."""
    optimizer: torch.optim.AdamW
    """Its state is this phase's alone."""
    num_steps: int = 0
    """Optimiser steps done in this phase."""


@dataclass(frozen=True)
class _Done:
    """Forward and backward of a step, with what its record needs; gradients lie in the parameters."""

    forest: Forest
    """Of all samples, as one pass would compute it."""
    num_computed: int
    """Tokens put through the model: more than the forest's if it took several passes."""
    logp_M: Tensor
    """Log-probability of each trained token, in flat order, detached."""
    seconds: Mapping[str, float]
    """Wall time of its parts."""


class Learner:
    """A decoder that learns, phase after phase; each phase has a fresh optimiser and counts its own steps.

    >>> learner = Learner(load_decoder(folder))
    >>> learner.begin_phase(PhaseConfig(kind="rl", optimizer=OptimizerConfig(lr=3e-4)))
    >>> stats = learner.train_step(SampleBatch.from_samples(samples))

    Args:
        decoder: the policy, which it owns from here on.
        max_pass_tokens: most forest tokens of one forward and backward pass, whose activations are alive at once. A step with
            more takes several passes; their contexts in common are computed in each, the gradient is the same.
    """

    def __init__(self, decoder: Decoder, *, max_pass_tokens: int = DEFAULT_PASS_TOKENS) -> None:
        self.decoder = decoder
        self.max_pass_tokens = max_pass_tokens
        self.progress: Progress | None = None

    def begin_phase(self, config: PhaseConfig) -> None:
        """Starts a phase: fresh optimiser, step count 0. Raises ConfigError on a schedule without an end."""
        learning_rate(config.optimizer.warmup_steps + 1, config.optimizer)
        self.progress = Progress(config, make_optimizer(self.decoder, config.optimizer))

    def train_step(self, batch: SampleBatch) -> StepStats:
        """One RL step on the samples of a step's kept groups: loss sum over their trained tokens, divided by their number.

        Raises TrainerError, with weights and optimiser untouched, on another phase, on ids or lengths beyond the model's,
        and on a loss or gradient that is not finite.
        """
        started = time.perf_counter()
        progress = self._expect("rl")
        if not batch.mask_F.any():
            raise TrainerError(f"none of the {len(batch.lengths_S)} samples has a trained token; skip the step")
        temperature_F = np.repeat(batch.temperatures_S, batch.lengths_S)
        reference = next(self.decoder.parameters())
        old_logp_M, advantage_M = (_like(stream_F[batch.mask_F], reference) for stream_F in (batch.logprobs_F, batch.advantages_F))

        def part_of_loss(logp_M: Tensor, part_M: Tensor) -> Tensor:
            objective = _objective(progress.config.loss, logp_M, old_logp_M[part_M], advantage_M[part_M])
            return objective.total / len(old_logp_M)

        done = self._backward(batch.sequences(), batch.mask_F, temperature_F, part_of_loss)
        result = _objective(progress.config.loss, done.logp_M, old_logp_M, advantage_M)
        current_M = torch.from_numpy(np.repeat(batch.is_current_S, batch.lengths_S)[batch.mask_F])
        extra = {
            **result.stats,
            **_logprob_gaps((done.logp_M - old_logp_M).abs(), current_M),
            "entropy": -old_logp_M.mean().item(),
        }
        return self._update(progress, done, result.total / len(old_logp_M), extra=extra, started=started)

    def supervised_step(self, batch: DemonstrationBatch) -> StepStats:
        """One step of weighted likelihood. Raises TrainerError as train_step does, and on weights that sum to nothing."""
        started = time.perf_counter()
        progress = self._expect("supervised")
        trained_F = batch.weights_F != 0
        if not batch.weights_F.sum() > 0:
            raise TrainerError(
                f"the loss weights of {len(batch.lengths_S)} demonstrations sum to {batch.weights_F.sum()}; nothing to imitate"
            )
        weight_M = _like(batch.weights_F[trained_F], next(self.decoder.parameters()))

        def part_of_loss(logp_M: Tensor, part_M: Tensor) -> Tensor:
            return sft_loss(logp_M, weight_M[part_M]) * (weight_M[part_M].sum() / weight_M.sum())

        done = self._backward(batch.sequences(), trained_F, np.ones(len(trained_F)), part_of_loss)
        return self._update(progress, done, sft_loss(done.logp_M, weight_M), extra={}, started=started)

    def _expect(self, kind: PhaseKind) -> Progress:
        found = self.progress.config.kind if self.progress else None
        if self.progress is None or found != kind:
            raise TrainerError(f"a step of kind {kind!r} came in a phase of kind {found!r}; begin a {kind!r} phase first")
        return self.progress

    def _backward(
        self, sequences: Sequence[Ints], trained_F: NDArray[np.bool_], temperature_F: NDArray[np.float64], part_of_loss: PartOfLoss
    ) -> _Done:
        """Gradients of a step: pass after pass over parts of its samples, each on the forest of the part."""
        started = time.perf_counter()
        forest = build_forest(sequences)
        self._check_fit(forest)
        parts = split_samples(forest, max_tokens=self.max_pass_tokens)
        first_M = np.cumsum(trained_F) - 1  # of a trained flat token: its place among the trained ones
        logp_M = torch.empty(int(trained_F.sum()), dtype=next(self.decoder.parameters()).dtype)
        spent: defaultdict[str, float] = defaultdict(float, forest_seconds=time.perf_counter() - started)
        num_computed = 0
        self.decoder.zero_grad(set_to_none=True)
        for samples in parts:
            flat = np.concatenate([np.arange(*forest.path_offsets_S1[sample : sample + 2]) for sample in samples])
            if not trained_F[flat].any():
                continue
            part = forest if len(parts) == 1 else build_forest([sequences[sample] for sample in samples])
            part_M = torch.from_numpy(first_M[flat[trained_F[flat]]])
            logp_part_M, seconds = self._forward(part, trained_F[flat], temperature_F[flat])
            for name, value in seconds.items():
                spent[name] += value
            before = time.perf_counter()
            part_of_loss(logp_part_M, part_M).backward()
            spent["backward_seconds"] += time.perf_counter() - before
            logp_M[part_M] = logp_part_M.detach()
            num_computed += part.num_tokens
        return _Done(forest, num_computed, logp_M, spent)

    def _forward(
        self, forest: Forest, trained_F: NDArray[np.bool_], temperature_F: NDArray[np.float64]
    ) -> tuple[Tensor, Mapping[str, float]]:
        started = time.perf_counter()
        targets = find_targets(forest, trained_F, temperature_F)
        attend = ForestAttend(forest)
        planned = time.perf_counter()
        hidden_TC = self.decoder(torch.from_numpy(forest.token_ids_N), torch.from_numpy(forest.positions_N), attend)
        vocab_size = self.decoder.config.vocab_size
        logp_M = trained_logprobs(hidden_TC, targets, logits=self.decoder.logits, vocab_size=vocab_size)
        return logp_M, {"forest_seconds": planned - started, "forward_seconds": time.perf_counter() - planned}

    def _check_fit(self, forest: Forest) -> None:
        config = self.decoder.config
        longest, largest = int(forest.positions_N.max()) + 1, int(forest.token_ids_N.max())
        if longest > config.max_positions:
            raise TrainerError(f"a sample of {longest} tokens exceeds the model's {config.max_positions} positions; cap the context")
        if largest >= config.vocab_size:
            raise TrainerError(f"token id {largest} is outside the model's vocabulary of {config.vocab_size}; wrong tokenizer?")

    def _update(self, progress: Progress, done: _Done, loss: Tensor, *, extra: Mapping[str, float], started: float) -> StepStats:
        backwarded = time.perf_counter()
        step = progress.num_steps + 1
        if not torch.isfinite(loss):
            self.decoder.zero_grad(set_to_none=True)
            raise TrainerError(f"the loss of step {step} is {loss.item()}; no update was made; look at {dict(extra)}")
        config = progress.config.optimizer
        grad_norm = self._clip(step, config.clip_norm)
        rate = learning_rate(step, config)
        for group in progress.optimizer.param_groups:
            group["lr"] = rate
        progress.optimizer.step()
        progress.num_steps = step
        ended = time.perf_counter()
        seconds = {**done.seconds, "optimizer_seconds": ended - backwarded}
        return StepStats(
            step=step,
            loss=loss.item(),
            grad_norm=grad_norm,
            learning_rate=rate,
            num_samples=len(done.forest.path_offsets_S1) - 1,
            num_flat_tokens=done.forest.num_flat_tokens,
            num_forest_tokens=done.forest.num_tokens,
            num_trained_tokens=len(done.logp_M),
            flop_ratio=self._flop_ratio(done.forest),
            seconds=ended - started,
            extra={**extra, "computed_tokens": done.num_computed, **seconds},
        )

    def _clip(self, step: int, clip_norm: float) -> float:
        gradients = [parameter.grad for parameter in self.decoder.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            self.decoder.zero_grad(set_to_none=True)
            raise TrainerError(f"the gradient of step {step} has norm {norm.item()}; no update was made; lower the learning rate?")
        nn.utils.clip_grads_with_norm_(self.decoder.parameters(), clip_norm, norm)
        return norm.item()

    def _flop_ratio(self, forest: Forest) -> float:
        config = self.decoder.config
        return flop_ratio(
            forest,
            num_parameters=sum(parameter.numel() for parameter in self.decoder.model.layers.parameters()),
            attention_width=config.num_heads * config.head_dim,
            num_layers=config.num_layers,
        )


def make_optimizer(decoder: Decoder, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices only; one fused kernel, for on small models the calls are the cost."""
    parameters = list(decoder.parameters())
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def _objective(config: LossConfig, logp_M: Tensor, old_logp_M: Tensor, advantage_M: Tensor) -> LossSum:
    match config.name:
        case "cispo":
            return cispo_loss(logp_M, old_logp_M, advantage_M, is_weight_cap=config.is_weight_cap)


def _logprob_gaps(gap_M: Tensor, current_M: Tensor) -> dict[str, float]:
    """|trainer's logp - recorded logp|: staleness included, and where there is none, so that only an error of ours is left."""
    gaps = {"max_abs_logprob_gap": gap_M.max().item(), "mean_abs_logprob_gap": gap_M.mean().item()}
    return {**gaps, "sampler_trainer_gap": gap_M[current_M].max().item()} if current_M.any() else gaps


def _like(values_M: NDArray[np.float64], reference: Tensor) -> Tensor:
    return torch.from_numpy(values_M).to(reference.dtype)
