"""The optimiser step over a prefix forest. Owns policy, optimiser and step count; losses see flat log-probabilities alone.

samples ─► forest, recorded routes ─► walk: forward, logits at trained tokens, loss, backward ─► clip ─► AdamW ─► selection bias
           (each distinct context      (all at once, or partition by partition where
            once, replay.py)            memory asks for it; the gradient is the same)
"""

# F flat tokens of all samples, M trained ones among them, N forest tokens, P those of a partition, L layers, E experts

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trunkline.attention.choose import check_trainable, forest_attend
from trunkline.attention.forest import Forest, Ints
from trunkline.errors import TrainerError
from trunkline.models.base import Policy
from trunkline.models.decoder import Decoder
from trunkline.models.routing import Route, TopK
from trunkline.trainer.balancing import load_violation, update_bias_
from trunkline.trainer.batch import DemonstrationBatch, SampleBatch
from trunkline.trainer.clock import Clock
from trunkline.trainer.config import OptimizerConfig, PhaseConfig, PhaseKind, TrainerConfig
from trunkline.trainer.flops import flop_ratio, parameters_a_token
from trunkline.trainer.logprobs import find_targets
from trunkline.trainer.memory import WalkChoice, activation_bytes, check_fits, choose_walk, free_bytes, token_budget
from trunkline.trainer.objective import Objective
from trunkline.trainer.precision import computing_in
from trunkline.trainer.replay import ReplayedRoutes, RoutePlan, plan_routes
from trunkline.trainer.schedule import learning_rate
from trunkline.trainer.sft import sft_loss
from trunkline.trainer.walk import Attention, PartOfLoss, Walked, walk, walk_coupled
from trunkline.types import StepStats

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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
class _Work:
    """A step's samples, as the walk takes them."""

    plan: RoutePlan
    """The forest and its recorded routes."""
    routes: ReplayedRoutes | None
    """Who chooses the experts; None for a dense policy."""
    trained_F: NDArray[np.bool_]
    """Which flat tokens are trained."""
    temperature_F: NDArray[np.float64]
    """What divides their logits."""
    seconds: float
    """Wall time of laying it out."""

    @property
    def forest(self) -> Forest:
        """Of all samples."""
        return self.plan.forest

    def route_for(self, index_P: Ints) -> Route:
        """See walk."""
        return TopK() if self.routes is None else self.routes.for_tokens(index_P)


class Learner:
    """A policy that learns, phase after phase; each phase has a fresh optimiser and counts its own steps.

    >>> learner = Learner(load_policy(folder))
    >>> learner.begin_phase(PhaseConfig(kind="rl", optimizer=OptimizerConfig(lr=3e-4)))
    >>> stats = learner.train_step(SampleBatch.from_samples(samples))

    Args:
        policy: which it owns from here on, on the device that it trains on.
        config: how steps are computed; the policy lies on its device already.
    """

    def __init__(self, policy: Policy, config: TrainerConfig | None = None) -> None:
        self.policy = policy
        self.config = config = config or TrainerConfig()
        self.progress: Progress | None = None
        self._budget: int | None = None
        policy.checkpoint_layers = config.checkpoint_layers

    def begin_phase(self, config: PhaseConfig) -> None:
        """Starts a phase: fresh optimiser, step count 0. Raises ConfigError on a schedule without an end, or a device that cannot train."""
        check_trainable(self._device)
        learning_rate(config.optimizer.warmup_steps + 1, config.optimizer)
        self.progress = Progress(config, make_optimizer(self.policy, config.optimizer))

    def train_step(self, batch: SampleBatch) -> StepStats:
        """One RL step on the samples of a step's kept groups: loss sum over their trained tokens, divided by their number.

        Raises TrainerError, with weights and optimiser untouched, on another phase, on ids, lengths or routes beyond the model's,
        on a forest beyond memory where partitions are off, and on a loss or gradient that is not finite.
        """
        started = time.perf_counter()
        progress = self._expect("rl")
        if not batch.mask_F.any():
            raise TrainerError(f"none of the {len(batch.lengths_S)} samples has a trained token; skip the step")
        routes = _no_routes(len(batch.mask_F)) if self.config.replay == "off" else (batch.route_of_F, batch.routes_RLK)
        work = self._lay_out(batch.sequences(), batch.mask_F, np.repeat(batch.temperatures_S, batch.lengths_S), *routes)
        objective = Objective(progress.config.loss)
        old_logp_M, advantage_M = (self._like(stream_F[batch.mask_F]) for stream_F in (batch.logprobs_F, batch.advantages_F))
        sample_M = self._like(np.repeat(np.arange(len(batch.lengths_S)), batch.lengths_S)[batch.mask_F])

        def part_of_loss(logp_M: Tensor, place_M: Tensor) -> Tensor:
            found = objective(logp_M, old_logp_M[place_M], advantage_M[place_M], sample_M[place_M])
            return found.total / len(old_logp_M)

        walked = self._walk(work, part_of_loss, is_token_local=objective.is_token_local)
        result = objective(walked.logp_M, old_logp_M, advantage_M, sample_M)
        current_M = self._like(np.repeat(batch.is_current_S, batch.lengths_S)[batch.mask_F])
        extra = {
            **result.stats,
            **_logprob_gaps((walked.logp_M - old_logp_M).abs(), current_M),
            "entropy": -old_logp_M.mean().item(),
        }
        return self._update(progress, work, walked, result.total / len(old_logp_M), extra=extra, started=started)

    def supervised_step(self, batch: DemonstrationBatch) -> StepStats:
        """One step of weighted likelihood. Raises TrainerError as train_step does, and on weights that sum to nothing."""
        started = time.perf_counter()
        progress = self._expect("supervised")
        if not batch.weights_F.sum() > 0:
            raise TrainerError(
                f"the loss weights of {len(batch.lengths_S)} demonstrations sum to {batch.weights_F.sum()}; nothing to imitate"
            )
        trained_F = batch.weights_F != 0
        work = self._lay_out(batch.sequences(), trained_F, np.ones(len(trained_F)), *_no_routes(len(trained_F)))
        weight_M = self._like(batch.weights_F[trained_F])

        def part_of_loss(logp_M: Tensor, place_M: Tensor) -> Tensor:
            return sft_loss(logp_M, weight_M[place_M]) * (weight_M[place_M].sum() / weight_M.sum())

        walked = self._walk(work, part_of_loss, is_token_local=True)
        return self._update(progress, work, walked, sft_loss(walked.logp_M, weight_M), extra={}, started=started)

    def _expect(self, kind: PhaseKind) -> Progress:
        found = self.progress.config.kind if self.progress else None
        if self.progress is None or found != kind:
            raise TrainerError(f"a step of kind {kind!r} came in a phase of kind {found!r}; begin a {kind!r} phase first")
        return self.progress

    def _lay_out(
        self,
        sequences: Sequence[Ints],
        trained_F: NDArray[np.bool_],
        temperature_F: NDArray[np.float64],
        route_of_F: Ints,
        routes_RLK: NDArray[np.uint16],
    ) -> _Work:
        started = time.perf_counter()
        shape = self.policy.config
        longest, largest = max(map(len, sequences)), max(int(sequence.max()) for sequence in sequences)
        if longest > shape.max_positions:
            raise TrainerError(f"a sample of {longest} tokens exceeds the model's {shape.max_positions} positions; cap the context")
        if largest >= shape.vocab_size:
            raise TrainerError(f"token id {largest} is outside the model's vocabulary of {shape.vocab_size}; wrong tokenizer?")
        plan = plan_routes(sequences, route_of_F, routes_RLK, vocab_size=shape.vocab_size)
        routes = None
        if shape.num_experts:
            routes = ReplayedRoutes.load(
                plan, num_layers=shape.num_layers, num_experts=shape.num_experts, top_k=shape.experts_per_token, device=self._device
            )
        return _Work(plan, routes, trained_F, temperature_F, time.perf_counter() - started)

    def _walk(self, work: _Work, part_of_loss: PartOfLoss, *, is_token_local: bool) -> Walked:
        targets = find_targets(work.forest, work.trained_F, work.temperature_F)
        dtype = _DTYPES[self.config.compute_dtype] if self._dtype == torch.float32 else self._dtype
        attention = functools.partial(forest_attend, device=self._device, dtype=dtype)
        run = walk if is_token_local else walk_coupled
        self.policy.zero_grad(set_to_none=True)
        with computing_in(self.policy, dtype):
            how = self._choose_walk(work.forest, attention)
            return run(
                self.policy,
                work.forest,
                targets,
                part_of_loss,
                max_tokens=how.max_tokens,
                recompute=how.recompute,
                route_for=work.route_for,
                attention=attention,
            )

    def _choose_walk(self, forest: Forest, attention: Attention) -> WalkChoice:
        """How much at once. What fits is found out once, so that a process cuts all its steps alike."""
        if not self.config.partitions:
            bytes_a_token = activation_bytes(self.policy, attention=attention)
            check_fits(forest.num_tokens, bytes_a_token=bytes_a_token, free=free_bytes(self._device))
            return WalkChoice(forest.num_tokens, recompute=False)
        if self._budget is None:
            self._budget = self.config.partition_tokens or token_budget(self.policy, attention=attention)
        return choose_walk(forest, budget=self._budget)

    def _update(
        self, progress: Progress, work: _Work, walked: Walked, loss: Tensor, *, extra: Mapping[str, float], started: float
    ) -> StepStats:
        clock = Clock(self._device)
        backwarded = clock.now()
        step = progress.num_steps + 1
        if not torch.isfinite(loss):
            self.policy.zero_grad(set_to_none=True)
            raise TrainerError(f"the loss of step {step} is {loss.item()}; no update was made; look at {dict(extra)}")
        config = progress.config.optimizer
        grad_norm = self._clip(step, config.clip_norm)
        rate = learning_rate(step, config)
        for group in progress.optimizer.param_groups:
            group["lr"] = rate
        progress.optimizer.step()
        progress.num_steps = step
        extra = {**extra, **self._balance(work)}
        ended = clock.now()
        forest = work.forest
        return StepStats(
            step=step,
            loss=loss.item(),
            grad_norm=grad_norm,
            learning_rate=rate,
            num_samples=len(forest.path_offsets_S1) - 1,
            num_flat_tokens=forest.num_flat_tokens,
            num_forest_tokens=forest.num_tokens,
            num_trained_tokens=len(walked.logp_M),
            flop_ratio=self._flop_ratio(forest),
            seconds=ended - started,
            extra={
                **extra,
                "computed_tokens": walked.num_computed_tokens,
                "partitions": walked.num_partitions,
                "forest_seconds": work.seconds,
                "forward_seconds": walked.forward_seconds,
                "backward_seconds": walked.backward_seconds,
                "optimizer_seconds": ended - backwarded,
            },
        )

    def _balance(self, work: _Work) -> dict[str, float]:
        """Moves the selection bias against the load of this step, and tells of load and replay; nothing for a dense policy."""
        if work.routes is None:
            return {}
        forest = work.forest
        counts_LE = work.routes.counts_LE(np.bincount(forest.paths_F, minlength=forest.num_tokens))
        assert isinstance(self.policy, Decoder), "only our own policies have routes of ours"
        update_bias_(self.policy, counts_LE, self.config.balance_rate)
        violation, mismatch = load_violation(counts_LE), work.routes.mismatch
        return {
            "load_violation": violation.mean,
            "load_violation_worst": violation.worst,
            "replayed_tokens": int((work.plan.route_of_N >= 0).sum()),
            "route_mismatch": mismatch.sets,
            "expert_mismatch": mismatch.experts,
            "route_split_tokens": work.plan.num_split_tokens,
        }

    def _clip(self, step: int, clip_norm: float) -> float:
        gradients = [parameter.grad for parameter in self.policy.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            self.policy.zero_grad(set_to_none=True)
            raise TrainerError(f"the gradient of step {step} has norm {norm.item()}; no update was made; lower the learning rate?")
        nn.utils.clip_grads_with_norm_(self.policy.parameters(), clip_norm, norm)
        return norm.item()

    def _flop_ratio(self, forest: Forest) -> float:
        shape = self.policy.config
        return flop_ratio(
            forest,
            num_parameters=self._parameters_a_token,
            attention_width=shape.num_heads * shape.head_dim,
            num_layers=shape.num_layers,
        )

    @functools.cached_property
    def _parameters_a_token(self) -> int:
        return parameters_a_token(self.policy)

    @property
    def _device(self) -> torch.device:
        return next(self.policy.parameters()).device

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.policy.parameters()).dtype

    def _like(self, values_M: NDArray[np.generic]) -> Tensor:
        """On the policy's device; numbers in the dtype of its log-probabilities."""
        tensor_M = torch.from_numpy(values_M)
        dtype = torch.promote_types(self._dtype, torch.float32) if tensor_M.is_floating_point() else tensor_M.dtype
        return tensor_M.to(self._device, dtype)


def make_optimizer(policy: Policy, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices only; one fused kernel, for on small models the calls are the cost."""
    parameters = list(policy.parameters())
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def _no_routes(num_flat_tokens: int) -> tuple[Ints, NDArray[np.uint16]]:
    return np.full(num_flat_tokens, -1), np.empty((0, 0, 0), np.uint16)


def _logprob_gaps(gap_M: Tensor, current_M: Tensor) -> dict[str, float]:
    """|trainer's logp - recorded logp|: staleness included, and where there is none, so that only an error of ours is left."""
    gaps = {"max_abs_logprob_gap": gap_M.max().item(), "mean_abs_logprob_gap": gap_M.mean().item()}
    return {**gaps, "sampler_trainer_gap": gap_M[current_M].max().item()} if current_M.any() else gaps
