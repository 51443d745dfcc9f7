"""Architectures of transformers that we do not write ourselves: gradients over a forest equal those of the stock model, one
sample at a time, through its own attention; what cannot be computed over a forest is refused with a reason.

transformers computes most norms in fp32 even in an fp64 model, where a difference in the last fp64 digit becomes one in the
last fp32 digit. So fp64 is held to 1e-12 where norms are fp64 (GPT-NeoX), to FP32_NORMS elsewhere.
"""

# T tokens of one sample

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    FalconH1Config,
    FalconH1ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Glm4Config,
    Glm4ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from trunkline.attention.base import CausalAttend
from trunkline.attention.blocks import ForestAttend
from trunkline.attention.forest import Forest, build_forest
from trunkline.engine.local import LocalEngine
from trunkline.errors import ConfigError
from trunkline.models.hf import HfDecoder
from trunkline.trainer.logprobs import Targets, find_targets, trained_logprobs
from trunkline.trainer.walk import walk
from trunkline.types import Generation, GenerationRequest, PolicyVersion, SamplingParams

torch.set_num_threads(1)

FP32 = 2e-6
FP32_NORMS = 1e-7
SIZES: dict[str, Any] = {
    "vocab_size": 53,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
SPARSE: dict[str, Any] = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT: dict[str, Any] = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}
STATE_SPACE: dict[str, Any] = {
    "mamba_d_ssm": 32,
    "mamba_n_heads": 4,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
}
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
SINKS: dict[str, Any] = {"num_local_experts": 4, "layer_types": SLIDING}


@dataclass(frozen=True)
class Kind:
    config_class: Any
    model_class: Any
    changes: dict[str, Any]
    fp64: float = FP32_NORMS

    def stock(self, dtype: torch.dtype) -> PreTrainedModel:
        torch.manual_seed(0)
        model = self.model_class(self.config_class(**{**SIZES, **self.changes})).to(dtype).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # far from the initial values, norms included
                parameter.add_(torch.randn_like(parameter) * 0.1)
        if dtype == torch.float64:
            model.set_experts_implementation("eager")  # torch's grouped_mm has no fp64
        return model


NEOX = Kind(GPTNeoXConfig, GPTNeoXForCausalLM, {"hidden_dropout": 0.3, "attention_dropout": 0.3}, fp64=1e-12)
GEMMA3 = Kind(
    Gemma3TextConfig,
    Gemma3ForCausalLM,
    {"sliding_window": 40, "layer_types": SLIDING, "query_pre_attn_scalar": 24, "final_logit_softcapping": 5.0},
)
QWEN3_MOE = Kind(Qwen3MoeConfig, Qwen3MoeForCausalLM, SPARSE)
TRAINED = {
    "gpt_neox": NEOX,  # LayerNorm with biases, parallel residual, rotary part of the head, fused projections
    "gemma3": GEMMA3,  # head norms, two kinds of layers, scaled embedding, own score scale, soft cap of logits, tied head
    "glm4": Kind(Glm4Config, Glm4ForCausalLM, {}),  # interleaved partial rotation, norms around each part
    "olmo2": Kind(Olmo2Config, Olmo2ForCausalLM, {}),  # norms after each part, of all heads at once
    "phi3": Kind(Phi3Config, Phi3ForCausalLM, {}),  # fused projections
    "cohere": Kind(CohereConfig, CohereForCausalLM, {"logit_scale": 0.3}),  # scaled logits
    "qwen3_moe": QWEN3_MOE,
    "deepseek_v3": Kind(DeepseekV3Config, DeepseekV3ForCausalLM, LATENT),  # values narrower than keys
}
REFUSED = {
    "a recurrent state beside attention": (Kind(FalconH1Config, FalconH1ForCausalLM, STATE_SPACE), "a branch sees the tokens of another"),
    "linear attention": (
        Kind(Qwen3NextConfig, Qwen3NextForCausalLM, SPARSE),
        "qwen3_next attends in 0 of its 3 layers",
    ),
    "attention sinks": (Kind(GptOssConfig, GptOssForCausalLM, SINKS), "asks its attention for s_aux"),
    "soft caps of scores": (Kind(Gemma2Config, Gemma2ForCausalLM, {}), "asks its attention for softcap"),
    "keyword arguments lost": (Kind(OPTConfig, OPTForCausalLM, {"ffn_dim": 32, "word_embed_proj_dim": 32}), "does not receive"),
}


Sample = tuple[list[int], list[int]]  # prompt and response


def samples_on_trunks() -> list[Sample]:
    """Two trunks, one response within another's prompt, one sample twice."""
    rng = np.random.default_rng(5)
    trunks = [rng.integers(0, 53, size).tolist() for size in (14, 5)]
    samples = [(trunks[i % 2], rng.integers(0, 53, 3 + 2 * i).tolist()) for i in range(5)]
    inside = (samples[0][0] + samples[0][1], rng.integers(0, 53, 4).tolist())
    return [*samples, inside, samples[1]]


def targets_of(samples: list[Sample]) -> tuple[Forest, Targets]:
    forest = build_forest([prompt + response for prompt, response in samples])
    trained_F = np.concatenate([[False] * len(prompt) + [True] * len(response) for prompt, response in samples])
    return forest, find_targets(forest, trained_F, np.ones(len(trained_F)))


def forest_gradient(policy: HfDecoder, samples: list[Sample], weight_M: Tensor) -> dict[str, Tensor]:
    forest, targets = targets_of(samples)
    policy.zero_grad()
    hidden_TC = policy(torch.from_numpy(forest.token_ids_N), torch.from_numpy(forest.positions_N), ForestAttend(forest))
    logp_M = trained_logprobs(hidden_TC, targets, logits=policy.logits, vocab_size=policy.config.vocab_size)
    (logp_M * weight_M).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in policy.named_parameters() if parameter.grad is not None}


def stock_gradients(stock: PreTrainedModel, samples: list[Sample], weight_M: Tensor) -> tuple[dict[str, Tensor], float]:
    """Their sum over samples, and the sum of the samples' norms."""
    total: dict[str, Tensor] = {}
    norms, start = 0.0, 0
    for prompt, response in samples:
        ids_T = torch.tensor(prompt + response)
        logp_TV = torch.log_softmax(stock(input_ids=ids_T.unsqueeze(0), use_cache=False).logits[0], dim=-1)
        logp_T = logp_TV[len(prompt) - 1 : -1].gather(1, ids_T[len(prompt) :, None])[:, 0]
        stock.zero_grad()
        (logp_T * weight_M[start : start + len(response)]).sum().backward()
        start += len(response)
        parts = {name: parameter.grad.clone() for name, parameter in stock.named_parameters() if parameter.grad is not None}
        norms += float(torch.cat([part.flatten() for part in parts.values()]).norm())
        total = {name: total[name] + part if name in total else part for name, part in parts.items()}
    return total, norms


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
@pytest.mark.parametrize("name", TRAINED)
def test_gradients_over_a_forest_equal_those_of_the_stock_model_sample_by_sample(name: str, dtype: torch.dtype) -> None:
    """Within FP32 and, in fp64, FP32_NORMS or 1e-12, of the sum of the samples' norms; with and without recomputed layers."""
    kind, samples = TRAINED[name], samples_on_trunks()
    stock = kind.stock(dtype)
    policy = HfDecoder.around(copy.deepcopy(stock))
    policy.train()  # which must draw no random numbers
    weight_M = torch.from_numpy(np.random.default_rng(1).standard_normal(sum(len(response) for _, response in samples))).to(dtype)
    expected, scale = stock_gradients(stock, samples, weight_M)
    found = forest_gradient(policy, samples, weight_M)
    assert found.keys() == expected.keys()
    error = torch.cat([(found[key] - expected[key]).flatten() for key in expected]).norm()
    assert error <= (kind.fp64 if dtype == torch.float64 else FP32) * scale
    policy.checkpoint_layers = True
    again = forest_gradient(policy, samples, weight_M)
    assert all(torch.equal(again[key], found[key]) for key in found)


@pytest.mark.parametrize("reason", REFUSED)
def test_what_a_forest_cannot_compute_is_refused_by_name(reason: str) -> None:
    kind, message = REFUSED[reason]
    with pytest.raises(ConfigError, match=rf"{message}.*supported are decoders of transformers whose layers all attend causally"):
        HfDecoder.around(kind.stock(torch.float32))


def test_layers_are_computed_again_with_the_attention_of_their_own_pass() -> None:
    """Two passes alive at once, as partitions are: the second must not lend its attention to the first's backward pass."""
    policy = HfDecoder.around(GEMMA3.stock(torch.float64))
    ids_T = torch.arange(12)

    def gradient(*, overlapping: bool) -> Tensor:
        policy.zero_grad()
        loss = policy.logits(policy(ids_T, ids_T, CausalAttend())).logsumexp(-1).sum()
        if overlapping:
            policy(ids_T, ids_T, ForestAttend(build_forest([ids_T.numpy()[:4], ids_T.numpy()[4:]])))
        loss.backward()
        return torch.cat([parameter.grad.flatten() for parameter in policy.parameters() if parameter.grad is not None])

    plain = gradient(overlapping=False)
    policy.checkpoint_layers = True
    assert torch.equal(gradient(overlapping=True), plain)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_forest_walked_in_partitions_has_the_gradient_of_one_pass(recompute: bool) -> None:
    """Within 1e-12 of its norm, layers recomputed."""
    policy, samples = HfDecoder.around(NEOX.stock(torch.float64)), samples_on_trunks()
    weight_M = torch.from_numpy(np.random.default_rng(1).standard_normal(sum(len(response) for _, response in samples)))
    whole = forest_gradient(policy, samples, weight_M)
    forest, targets = targets_of(samples)
    policy.zero_grad()
    policy.checkpoint_layers = True
    walked = walk(policy, forest, targets, lambda logp, place: (logp * weight_M[place]).sum(), max_tokens=12, recompute=recompute)
    assert walked.num_partitions > 3
    found = {name: parameter.grad for name, parameter in policy.named_parameters() if parameter.grad is not None}
    error = torch.cat([(found[name] - whole[name]).flatten() for name in whole]).norm()
    assert error <= 1e-12 * torch.cat([part.flatten() for part in whole.values()]).norm()


def test_a_context_that_reaches_a_sliding_window_is_refused() -> None:
    policy = HfDecoder.around(GEMMA3.stock(torch.float32))
    assert policy.config.max_positions == 40
    policy(torch.zeros(40, dtype=torch.int64), torch.arange(40), CausalAttend())
    with pytest.raises(ConfigError, match=r"a context of 41 tokens: gemma3_text is computed exactly up to 40, its sliding window"):
        policy(torch.zeros(41, dtype=torch.int64), torch.arange(41), CausalAttend())


def test_a_tied_head_has_no_entry_of_its_own() -> None:
    stock = GEMMA3.stock(torch.float32)
    policy = HfDecoder.around(copy.deepcopy(stock))
    assert policy.state_dict().keys() == stock.state_dict().keys() - {"lm_head.weight"}
    policy.load_state_dict({name: torch.zeros_like(tensor) for name, tensor in policy.state_dict().items()})
    assert not policy.theirs.lm_head.weight.any()


@pytest.mark.parametrize("kind", [GEMMA3, QWEN3_MOE, TRAINED["deepseek_v3"]], ids=["gemma3", "qwen3_moe", "deepseek_v3"])
def test_the_local_engine_samples_with_the_log_probabilities_of_a_full_forward(kind: Kind) -> None:
    """Within 5e-5, for conversations that arrive together and go on."""
    rng = random.Random(1)
    policy = HfDecoder.around(kind.stock(torch.float32))
    engine = LocalEngine.build(policy, version=PolicyVersion(1, 1), num_slots=512, max_batch=6, max_step_tokens=16)
    trunk = tuple(rng.randrange(53) for _ in range(9))
    requests = [
        GenerationRequest(str(n), trunk + tuple(rng.randrange(53) for _ in range(n)), SamplingParams(6, seed=rng.getrandbits(64)))
        for n in range(5)
    ]
    for round_ in range(2):
        for request in requests:
            engine.add(request)
        done = drain(engine)
        for request in requests:
            generation = done[request.request_id]
            assert generation.logprobs == pytest.approx(full_logprobs(policy, request, generation), abs=5e-5)
        requests = [GenerationRequest(f"{r.request_id}/{round_}", r.token_ids + done[r.request_id].token_ids, r.sampling) for r in requests]
    assert engine.scheduler.stats.num_reused > 0


def drain(engine: LocalEngine) -> dict[str, Generation]:
    done: dict[str, Generation] = {}
    while engine.has_work:
        done |= {one.request_id: one.generation for one in engine.step()}
    return done


@torch.no_grad()
def full_logprobs(policy: HfDecoder, request: GenerationRequest, generation: Generation) -> list[float]:
    ids_T = torch.tensor(request.token_ids + generation.token_ids)
    logp_TV = torch.log_softmax(policy.logits(policy(ids_T, torch.arange(len(ids_T)), CausalAttend())).double(), -1)
    first = len(request.token_ids)
    picked_T: list[float] = logp_TV[first - 1 : -1].gather(1, ids_T[first:, None])[:, 0].tolist()
    return picked_T
