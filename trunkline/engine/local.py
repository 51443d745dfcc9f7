"""The local engine: one decoder sampling for many requests, a step at a time. Owns the model and its steps; no HTTP, no clock.

step() = schedule ──► run ──► postprocess
           rows         model, sampler    finished generations
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trunkline.engine.kv_cache import KvCache, default_num_slots
from trunkline.engine.route_memory import ReturnRoutes, RouteMemory
from trunkline.engine.sampler import Sampled, sample
from trunkline.engine.scheduler import Finished, Scheduler, Step
from trunkline.engine.step_attention import plan_attention
from trunkline.errors import EngineError
from trunkline.models.base import Policy
from trunkline.models.load import load_policy
from trunkline.models.routing import Recording, TopK
from trunkline.types import GenerationRequest, PolicyVersion, WeightRef
from trunkline.weights.files import fetch

_DEFAULT_STEP_TOKENS = 2048


@dataclass
class LocalEngine:
    """Synchronous: whoever holds it calls step() until nothing is left.

    >>> engine = LocalEngine.load(folder, version=PolicyVersion(1, 0), dtype=torch.float32)
    >>> engine.add(request)
    >>> while not (finished := engine.step()): pass
    """

    decoder: Policy
    """The policy."""
    cache: KvCache
    """Keys and values of all cached tokens."""
    scheduler: Scheduler
    """Decides what a step computes."""
    is_paused: bool = False
    """While true, step() does nothing."""

    @classmethod
    def build(
        cls,
        decoder: Policy,
        *,
        version: PolicyVersion,
        max_batch: int = 256,
        num_slots: int | None = None,
        max_step_tokens: int = _DEFAULT_STEP_TOKENS,
        return_routes: ReturnRoutes = "sampled",
    ) -> LocalEngine:
        """An engine around a decoder, which it owns from here on. `num_slots` None takes what 512 MB hold; `return_routes` is
        for sparse models, dense ones have none."""
        config, dtype = decoder.config, next(decoder.parameters()).dtype
        num_slots = default_num_slots(config, dtype) if num_slots is None else num_slots
        cache = KvCache.allocate(config, num_slots=num_slots, dtype=dtype)
        scheduler = Scheduler(
            version=version,
            max_context=config.max_positions,
            max_batch=max_batch,
            num_slots=num_slots,
            max_step_tokens=max(max_step_tokens, max_batch),
            routes=RouteMemory.allocate(num_slots, config.num_layers, config.experts_per_token, reports=return_routes),
        )
        return cls(decoder.eval().requires_grad_(False), cache, scheduler)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        version: PolicyVersion,
        dtype: torch.dtype,
        max_batch: int = 256,
        num_slots: int | None = None,
        return_routes: ReturnRoutes = "sampled",
    ) -> LocalEngine:
        """Reads a Hugging Face folder. Raises ConfigError if it does not hold a supported model."""
        decoder = load_policy(folder, dtype=dtype)
        return cls.build(decoder, version=version, max_batch=max_batch, num_slots=num_slots, return_routes=return_routes)

    @property
    def has_work(self) -> bool:
        """Whether step() would compute anything."""
        return not self.is_paused and self.scheduler.has_work

    def add(self, request: GenerationRequest) -> None:
        """Queues a request. Raises EngineError for token ids outside the vocabulary, and if it can never run."""
        vocab_size = self.decoder.config.vocab_size
        if wrong := [token_id for token_id in request.token_ids if not 0 <= token_id < vocab_size]:
            raise EngineError(f"token ids must be 0..{vocab_size - 1}, got {wrong[:5]} in the prompt")
        self.scheduler.add(request)

    def abort(self, request_ids: Sequence[str]) -> list[Finished]:
        """Ends those of the requests that are still here."""
        return self.scheduler.abort(request_ids)

    def step(self) -> list[Finished]:
        """One forward pass over the new tokens of all rows; returns the requests that it finished."""
        step = None if self.is_paused else self.scheduler.schedule()
        if step is None:
            return []
        sampled = self._run(step)
        return self.scheduler.postprocess(step, sampled.token_ids_N, sampled.logprobs_N)

    def update_weights(self, ref: WeightRef) -> None:
        """Loads published weights between two steps; running requests go on under them on the keys they have.

        Raises:
            InfraError: the file cannot be read or holds another version.
            EngineError: it does not fit the model. The model is unchanged then.
        """
        if ref.version == self.scheduler.version:
            return  # a version is never reused, so these are the weights that are loaded
        tensors = fetch(ref)
        _check_fit(self.decoder.state_dict(), tensors, ref)
        self.decoder.load_state_dict(tensors)
        self.scheduler.change_version(ref.version)

    @torch.inference_mode()
    def _run(self, step: Step) -> Sampled:
        if len(step.token_ids_T):
            self._compute(step)
        rows, sampling_N = self.scheduler.rows, step.sampling_rows_N
        last_slot_N = rows.slots_RX[sampling_N, rows.num_tokens_R[sampling_N] - 1]
        last_slot_U, context_N = np.unique(last_slot_N, return_inverse=True)
        if len(last_slot_U) == len(last_slot_N):  # nothing shared: in the order of the rows, so that no distribution is moved
            last_slot_U, context_N = last_slot_N, np.arange(len(last_slot_N))
        sampled = sample(
            self.decoder.logits(self.cache.hidden_NC[torch.from_numpy(last_slot_U)]),
            context_N=context_N,
            temperature_N=rows.temperature_R[sampling_N],
            top_p_N=rows.top_p_R[sampling_N],
            seed_N=rows.seed_R[sampling_N],
            position_N=rows.num_tokens_R[sampling_N] - rows.num_prompt_R[sampling_N],
        )
        if not np.isfinite(sampled.logprobs_N).all():
            raise EngineError(f"policy version {self.scheduler.version} gives logits that are not finite; its weights have diverged")
        return sampled

    def _compute(self, step: Step) -> None:
        """Keys, values and hidden states of the step's new tokens into their slots."""
        rows, slots_T = self.scheduler.rows, torch.from_numpy(step.slots_T)
        busy = np.flatnonzero(step.count_B)
        length_B = rows.num_computed_R[busy] + step.count_B[busy]
        slots_BL = rows.slots_RX[busy, : length_B.max()]
        attend = plan_attention(
            self.cache, slots_T, start_B=step.start_B[busy], count_B=step.count_B[busy], length_B=length_B, slots_BL=slots_BL
        )
        memory = self.scheduler.routes
        recording = None if memory is None else Recording(len(slots_T), *memory.experts_NLK.shape[1:])
        hidden_TC = self.decoder(torch.from_numpy(step.token_ids_T), torch.from_numpy(step.positions_T), attend, recording or TopK())
        if memory is not None and recording is not None:
            memory.write(step.slots_T, recording.experts_TLK.numpy())
        self.cache.hidden_NC.index_copy_(0, slots_T, hidden_TC)


def _check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], ref: WeightRef) -> None:
    wrong = sorted(expected.keys() ^ found.keys()) or sorted(name for name in expected if expected[name].shape != found[name].shape)
    if wrong:
        raise EngineError(f"{ref.path} does not fit the engine's model, first at {wrong[0]!r} ({len(wrong)} tensors in all)")
