"""What `trunkline bench engine` compares: our engine, transformers' static batch and its continuous batching. Owns running one batch.

All sample at temperature 1 with logprobs, in this process; the time is CPU-seconds of the process, all its threads.
"""

# B rows, T tokens, V vocabulary

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, DynamicCache, GenerationConfig

from trunkline.engine.local import LocalEngine
from trunkline.errors import EngineError
from trunkline.types import GenerationRequest, PolicyVersion, SamplingParams

_PAGE_TOKENS = 32  # of continuous batching: 512 of 513 prompt tokens are shared then


@dataclass(frozen=True)
class BatchRun:
    """One batch: B completions of one prompt."""

    prefill_s: float
    """CPU-seconds until the prompt is computed."""
    decode_s: float
    """CPU-seconds from there to the end."""
    num_decoded: int
    """Tokens sampled in `decode_s`."""
    completions: list[tuple[tuple[int, ...], tuple[float, ...]]]
    """Tokens and their recorded logprobs, a row each."""


class Contender(Protocol):
    """Samples batches."""

    name: str

    def run(self, prompt: tuple[int, ...], *, batch: int, num_new: int) -> BatchRun:
        """`batch` completions of `num_new` tokens of a prompt that it has not seen."""
        ...


class Ours:
    """The local engine, driven directly: no HTTP."""

    name = "Trunkline"

    def __init__(self, folder: Path) -> None:
        self.engine = LocalEngine.load(folder, version=PolicyVersion(1, 1), dtype=torch.float32)
        self._num_requests = 0

    def run(self, prompt: tuple[int, ...], *, batch: int, num_new: int) -> BatchRun:
        """See Contender; the step that computes the prompt also samples each row's first token."""
        for _ in range(batch):
            self._num_requests += 1
            sampling = SamplingParams(num_new, 1.0, seed=self._num_requests)
            self.engine.add(GenerationRequest(str(self._num_requests), prompt, sampling))
        began = time.process_time()
        finished = self.engine.step()
        computed = time.process_time()
        while self.engine.has_work:
            finished += self.engine.step()
        decode_s = time.process_time() - computed
        completions = [(one.generation.token_ids, one.generation.logprobs) for one in finished]
        return BatchRun(computed - began, decode_s, batch * (num_new - 1), completions)


def load_theirs(folder: Path) -> Any:
    """Transformers' model of a folder, for both of its contenders and as the reference of the logprobs."""
    logging.getLogger("transformers").setLevel(logging.ERROR)  # of continuous batching: its defaults without a GPU
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()


class StaticBatch:
    """transformers' model and KV cache in a loop as generate()'s.

    Kinder than generate(), which computes the prompt for each row: it is computed once and its cache copied to all rows. Decoding,
    each row reads its own copy.
    """

    name = "transformers static"

    def __init__(self, model: Any) -> None:
        self._model = model

    @torch.inference_mode()
    def run(self, prompt: tuple[int, ...], *, batch: int, num_new: int) -> BatchRun:
        """See Contender; the first token is sampled with the prompt's logits, in the prefill."""
        began = time.process_time()
        cache = DynamicCache(config=self._model.config)
        output = self._model(torch.tensor([prompt]), past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(batch)
        tokens: list[Tensor] = []
        logprobs: list[Tensor] = []
        self._sample(output.logits[:, -1].expand(batch, -1), tokens, logprobs)
        computed = time.process_time()
        for _ in range(num_new - 1):
            output = self._model(tokens[-1], past_key_values=cache, use_cache=True)
            self._sample(output.logits[:, -1], tokens, logprobs)
        decode_s = time.process_time() - computed
        rows = zip(torch.cat(tokens, 1).tolist(), torch.cat(logprobs, 1).tolist(), strict=True)
        return BatchRun(computed - began, decode_s, batch * (num_new - 1), [(tuple(ids), tuple(logp)) for ids, logp in rows])

    @staticmethod
    def _sample(logits_BV: Tensor, tokens: list[Tensor], logprobs: list[Tensor]) -> None:
        logprobs_BV = torch.log_softmax(logits_BV, -1)
        tokens.append(torch.multinomial(logprobs_BV.exp(), 1))
        logprobs.append(logprobs_BV.gather(1, tokens[-1]))


class ContinuousBatching:
    """transformers' continuous batching with shared blocks: one request puts the prompt into its prefix cache, then the batch comes."""

    name = "transformers continuous"

    def __init__(self, model: Any) -> None:
        self._model = model

    def run(self, prompt: tuple[int, ...], *, batch: int, num_new: int) -> BatchRun:
        """See Contender; decoding includes the prompt's last tokens, which fill no block."""
        num_tokens = len(prompt) + batch * (num_new + _PAGE_TOKENS)
        with self._manager(num_blocks=2 * (num_tokens // _PAGE_TOKENS + 2), num_tokens=len(prompt) + batch) as manager:
            began = time.process_time()
            self._ask(manager, prompt, 1, 1)
            computed = time.process_time()
            completions = self._ask(manager, prompt, batch, num_new)
            return BatchRun(computed - began, time.process_time() - computed, batch * num_new, completions)

    @contextmanager
    def _manager(self, *, num_blocks: int, num_tokens: int) -> Iterator[Any]:
        sampling = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, eos_token_id=-1, pad_token_id=0)
        batching = ContinuousBatchingConfig(
            page_size=_PAGE_TOKENS,
            num_blocks=num_blocks,
            max_batch_tokens=num_tokens,
            return_logprobs=True,
            auto_switch_to_flash=False,
        )
        with self._model.continuous_batching_context_manager(
            generation_config=sampling, continuous_batching_config=batching, warmup=False
        ) as manager:
            yield manager

    @staticmethod
    def _ask(manager: Any, prompt: tuple[int, ...], batch: int, num_new: int) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
        manager.add_requests([list(prompt)] * batch, max_new_tokens=num_new)
        completions: list[tuple[tuple[int, ...], tuple[float, ...]]] = []
        while len(completions) < batch:
            result = manager.get_result(timeout=1)
            if result is None and not manager.is_running():
                raise EngineError("transformers' continuous batching ended by itself; its log says why")
            if result is not None and result.error:
                raise EngineError(f"transformers' continuous batching failed: {result.error}")
            if result is not None and result.is_finished():
                completions.append((tuple(result.generated_tokens), tuple(result.logprobs)))
        return completions


@torch.inference_mode()
def logprob_error(model: Any, prompt: tuple[int, ...], token_ids: tuple[int, ...], logprobs: tuple[float, ...]) -> float:
    """Largest difference of recorded logprobs from those of a full forward pass of transformers' model, in nats."""
    ids_1T = torch.tensor([prompt + token_ids])
    logits_TV = model(ids_1T, use_cache=False, logits_to_keep=len(token_ids) + 1).logits[0, :-1].double()
    full_T = torch.log_softmax(logits_TV, -1).gather(1, ids_1T[0, len(prompt) :, None]).squeeze(1)
    return float((full_T - torch.tensor(logprobs, dtype=torch.float64)).abs().max())
