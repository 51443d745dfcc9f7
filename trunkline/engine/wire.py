"""The bodies on the wire between engine and client, in the shape of vLLM's. Owns structs and their translation; no torch.

A key that is not listed is an error: an engine that ignored a sampling knob would answer with another distribution.
"""

# T tokens with a record, L layers, K experts a token and layer

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from trunkline.types import FinishReason, Generation, GenerationRequest, PolicyVersion, RoutedExperts, SamplingParams, VersionSpan

GENERATE, ABORT = "/inference/v1/generate", "/inference/v1/abort_requests"


class WireSampling(msgspec.Struct, forbid_unknown_fields=True):
    """vLLM's sampling_params, as far as this engine honours them."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    stop_token_ids: list[int] = []
    logprobs: Literal[0] | None = 0
    """Alternatives to report beside each sampled token; only 0 is honoured, and the sampled token's is always there."""


class WireRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a generate call."""

    request_id: str
    token_ids: Sequence[int]  # a long prompt is encoded from the tuple as it is
    sampling_params: WireSampling

    @classmethod
    def pack(cls, request: GenerationRequest) -> WireRequest:
        """The inverse of unpack."""
        sampling = request.sampling
        params = WireSampling(
            sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed, list(sampling.stop_token_ids), logprobs=0
        )
        return cls(request.request_id, request.token_ids, params)

    def unpack(self) -> GenerationRequest:
        """Raises ValueError on a value outside its range."""
        params = self.sampling_params
        checks = (
            ("max_tokens", params.max_tokens, "at least 1", params.max_tokens >= 1),
            ("temperature", params.temperature, "at least 0", params.temperature >= 0),
            ("top_p", params.top_p, "in (0, 1]", 0 < params.top_p <= 1),
            ("seed", params.seed, "in 0..2**64 - 1", 0 <= params.seed < 2**64),
            ("stop_token_ids", params.stop_token_ids, "in 0..2**31 - 1", all(0 <= token_id < 2**31 for token_id in params.stop_token_ids)),
        )
        for name, value, wanted, is_right in checks:
            if not is_right:
                raise ValueError(f"sampling_params.{name} must be {wanted}, got {value}")
        sampling = SamplingParams(
            params.max_tokens, params.temperature, params.top_p, params.seed, stop_token_ids=tuple(params.stop_token_ids)
        )
        return GenerationRequest(self.request_id, tuple(self.token_ids), sampling)


class WireLogprob(msgspec.Struct):
    """One sampled token."""

    token_id: int
    logprob: float


class WireLogprobs(msgspec.Struct):
    """All sampled tokens, in order."""

    content: list[WireLogprob]


class WireSpan(msgspec.Struct):
    """Tokens [start, end) were sampled under `version`."""

    start: int
    end: int
    version: str


class WireChoice(msgspec.Struct, omit_defaults=True):
    """The one completion of a call."""

    index: int
    token_ids: list[int]
    logprobs: WireLogprobs
    finish_reason: FinishReason
    weight_versions: list[WireSpan]
    routed_experts: bytes | None = None
    """Of a sparse model: experts_TLK of a run of tokens as .npy, uint16, or uint8 as vLLM writes it (in JSON: its base64)."""
    routed_experts_start: int = 0
    """Place of the first of them in prompt and completion; vLLM, which reports all from the first token on, has no such key."""


class WireGeneration(msgspec.Struct):
    """Answer of a generate call."""

    request_id: str
    choices: list[WireChoice]

    @classmethod
    def pack(cls, request_id: str, generation: Generation) -> WireGeneration:
        """The inverse of unpack."""
        content = [WireLogprob(*pair) for pair in zip(generation.token_ids, generation.logprobs, strict=True)]
        spans = [WireSpan(span.start, span.end, str(span.version)) for span in generation.version_spans]
        choice = WireChoice(0, list(generation.token_ids), WireLogprobs(content), generation.finish_reason, spans)
        if generation.routes is not None:
            choice.routed_experts, choice.routed_experts_start = _npy(generation.routes), generation.routes.first
        return cls(request_id, [choice])

    def unpack(self) -> Generation:
        """Raises ValueError on a version that is none, and on routed experts that cannot be read."""
        (choice,) = self.choices
        return Generation(
            tuple(choice.token_ids),
            tuple([token.logprob for token in choice.logprobs.content]),
            choice.finish_reason,
            tuple([VersionSpan(span.start, span.end, PolicyVersion.parse(span.version)) for span in choice.weight_versions]),
            None if choice.routed_experts is None else _routes(choice.routed_experts, first=choice.routed_experts_start),
        )


def _npy(routes: RoutedExperts) -> bytes:
    experts_TLK = np.frombuffer(routes.data, "<u2").reshape(routes.num_tokens, routes.num_layers, routes.top_k)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, experts_TLK, allow_pickle=False)
    return buffer.getvalue()


def _routes(npy: bytes, *, first: int) -> RoutedExperts:
    try:
        experts_TLK = np.lib.format.read_array(io.BytesIO(npy), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"routed_experts is no .npy array: {error}; it must hold uint8 or uint16 in [token, layer, choice]") from None
    if experts_TLK.ndim != 3 or experts_TLK.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"routed_experts must be uint8 or uint16 in [token, layer, choice], got {experts_TLK.dtype} of shape {experts_TLK.shape}"
        )
    return RoutedExperts(first, experts_TLK.shape[1], experts_TLK.shape[2], experts_TLK.astype("<u2").tobytes())


class WireAbort(msgspec.Struct, forbid_unknown_fields=True):
    """Body of an abort call."""

    request_ids: list[str]


class WireUpdate(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a weight update."""

    path: str
    version: str


class WireHealth(msgspec.Struct):
    """Answer of a health call; tokens are counted since the start."""

    status: Literal["running", "paused"]
    weight_version: str
    max_context: int
    """Most tokens of a prompt and its completion: the longest context that the model computes exactly."""
    tokens_computed: int
    tokens_reused: int
    tokens_sampled: int
    num_steps: int
    running: int
    waiting: int


class WireProblem(msgspec.Struct):
    """What went wrong."""

    type: str
    message: str


class WireError(msgspec.Struct):
    """Body of an answer that is an error."""

    error: WireProblem
