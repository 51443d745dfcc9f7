"""The decoder of the Llama, Qwen3 and MiniMax-M2 families over flat tokens. Owns the forward pass; attention is the caller's
Attend, the choice of experts the caller's Route.

Parameter names are those of the families' checkpoints, so that state dicts interchange, but for experts, which are stacked
(checkpoint.py translates); a tied head has no parameter of its own.
"""

# T flat tokens, N chosen tokens, C hidden_size, H query heads, K key/value heads (in sparse layers: experts a token), J = H + K,
# D head_dim, R rotary_dim, W width of all heads, E experts, P positions, V vocabulary

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trunkline.attention.base import Attend
from trunkline.models.config import DecoderConfig
from trunkline.models.experts import Experts
from trunkline.models.routing import Route, TopK

_HEAD_PART = 1024  # rows of the head


class Decoder(nn.Module):
    """Token ids in, hidden states out; logits only where asked.

    >>> hidden_TC = decoder(token_ids_T, positions_T, CausalAttend())
    >>> logits_NV = decoder.logits(hidden_TC[trained_N])
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_layers = False
        """Keep only each layer's input for the backward pass and compute the layer again there."""
        self.model = _Trunk(config)
        if not config.tie_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, token_ids_T: Tensor, positions_T: Tensor, attend: Attend, route: Route = TopK()) -> Tensor:
        """hidden_TC after the final norm. Tokens are flat; `positions_T` (integers below max_positions) turn the rotary
        embedding, `attend` alone decides which token sees which, `route` which experts a token goes to (asked in sparse
        models only, layer by layer; with `checkpoint_layers` once more in the backward pass, and must answer the same)."""
        recompute = self.checkpoint_layers and torch.is_grad_enabled()
        hidden_TC: Tensor = self.model(token_ids_T, positions_T, attend, route, recompute)
        return hidden_TC

    def logits(self, hidden_NC: Tensor) -> Tensor:
        """logits_NV of the chosen hidden states, in the dtype of the head."""
        head = self.model.embed_tokens if self.config.tie_embeddings else self.lm_head
        hidden_NC = hidden_NC.to(head.weight.dtype)
        if torch.is_grad_enabled() or not hidden_NC.is_cpu:
            return F.linear(hidden_NC, head.weight)
        # While sampling, few rows meet a large vocabulary: in parts that fit the cache, MKL takes a quarter less time for 8 to 32 rows.
        return torch.cat([F.linear(hidden_NC, part) for part in head.weight.split(_HEAD_PART)], dim=-1)

    def full_precision_parameters(self) -> list[Tensor]:
        """See Policy: the head (tied: the embedding) and the routers' gates."""
        head = self.model.embed_tokens if self.config.tie_embeddings else self.lm_head
        return [head.weight, *(module.gate.weight for module in self.modules() if isinstance(module, _SparseMlp))]


class _Trunk(nn.Module):
    """Everything below the head."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(_Layer(config, index) for index in range(config.num_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary = RotaryTable(config.rotary_dim or config.head_dim, theta=config.rope_theta, max_positions=config.max_positions)

    def forward(self, token_ids_T: Tensor, positions_T: Tensor, attend: Attend, route: Route, recompute: bool) -> Tensor:
        hidden_TC = self.embed_tokens(token_ids_T).to(self.norm.weight.dtype)  # a tied embedding may be wider than the layers
        cos_T1R, sin_T1R = self.rotary.rows(positions_T, hidden_TC.dtype)
        for layer in self.layers:
            if recompute:
                arguments = (hidden_TC, cos_T1R, sin_T1R, attend, route)
                hidden_TC = checkpoint(layer, *arguments, use_reentrant=False, preserve_rng_state=False)
            else:
                hidden_TC = layer(hidden_TC, cos_T1R, sin_T1R, attend, route)
        normed_TC: Tensor = self.norm(hidden_TC)
        return normed_TC


class _Layer(nn.Module):
    """Pre-norm attention and feed-forward, each added to the residual stream."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self.is_sparse = config.is_sparse
        self.self_attn = _SelfAttention(config, index)
        if config.is_sparse:
            self.block_sparse_moe = _SparseMlp(config, index)
        else:
            self.mlp = _GatedMlp(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, hidden_TC: Tensor, cos_T1R: Tensor, sin_T1R: Tensor, attend: Attend, route: Route) -> Tensor:
        hidden_TC = hidden_TC + self.self_attn(self.input_layernorm(hidden_TC), cos_T1R, sin_T1R, attend)
        normed_TC = self.post_attention_layernorm(hidden_TC)
        return hidden_TC + (self.block_sparse_moe(normed_TC, route) if self.is_sparse else self.mlp(normed_TC))


class _SelfAttention(nn.Module):
    """Projections, norms and rotation around the caller's Attend."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, config.num_heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.num_kv_heads * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.num_kv_heads * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.num_heads * config.head_dim, config.hidden_size, bias=False)
        self.norms_all_heads = config.qk_norm == "full"
        self.q_norm, self.k_norm = (_query_key_norm(config, heads) for heads in (config.num_heads, config.num_kv_heads))

    def forward(self, x_TC: Tensor, cos_T1R: Tensor, sin_T1R: Tensor, attend: Attend) -> Tensor:
        q_THD = self._normed_heads(self.q_proj(x_TC), self.q_norm)
        k_TKD = self._normed_heads(self.k_proj(x_TC), self.k_norm)
        v_TKD = self.v_proj(x_TC).unflatten(-1, (self.num_kv_heads, self.head_dim))
        # One rotation for queries and keys: at small sizes the number of operations is the cost.
        rotated_TJD = rotate(torch.cat((q_THD, k_TKD), dim=1), cos_T1R, sin_T1R)
        q_THD, k_TKD = rotated_TJD.split((self.num_heads, self.num_kv_heads), dim=1)
        projected_TC: Tensor = self.o_proj(attend(self.index, q_THD, k_TKD, v_TKD).flatten(1))
        return projected_TC

    def _normed_heads(self, x_TW: Tensor, norm: nn.Module) -> Tensor:
        if self.norms_all_heads:
            x_TW = norm(x_TW)
        x_THD = x_TW.unflatten(-1, (-1, self.head_dim))
        return x_THD if self.norms_all_heads else norm(x_THD)


def _query_key_norm(config: DecoderConfig, num_heads: int) -> nn.Module:
    if config.qk_norm == "none":
        return nn.Identity()
    return nn.RMSNorm(config.head_dim * (num_heads if config.qk_norm == "full" else 1), eps=config.rms_norm_eps)


class _GatedMlp(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x_TC: Tensor) -> Tensor:
        out_TC: Tensor = self.down_proj(F.silu(self.gate_proj(x_TC)) * self.up_proj(x_TC))
        return out_TC


class _SparseMlp(nn.Module):
    """The MiniMax-M2 feed-forward layer: sigmoid scores in fp32 (fp64 in fp64 models), plus a bias that only selects."""

    e_score_correction_bias: Tensor
    """(E,). Trained by balancing, not by gradients; kept in at least fp32, whatever the module is cast to."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self.index, self.top_k = index, config.experts_per_token
        self.gate = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = Experts(config.num_experts, config.hidden_size, config.intermediate_size)
        self.register_buffer("e_score_correction_bias", torch.zeros(config.num_experts))

    def forward(self, x_TC: Tensor, route: Route) -> Tensor:
        dtype = self.e_score_correction_bias.dtype
        scores_TE = F.linear(x_TC.to(dtype), self.gate.weight.to(dtype)).sigmoid()
        experts_TK = route(self.index, scores_TE.detach() + self.e_score_correction_bias, self.top_k)
        chosen_TK = scores_TE.gather(1, experts_TK)
        out_TC: Tensor = self.experts(x_TC, experts_TK, chosen_TK / chosen_TK.sum(-1, keepdim=True))
        return out_TC

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        exact_E = self.e_score_correction_bias
        super()._apply(fn, recurse)
        if self.e_score_correction_bias.dtype.itemsize < torch.float32.itemsize:
            self.e_score_correction_bias = exact_E.to(self.e_score_correction_bias.device)
        return self


def rotate(x_TJD: Tensor, cos_T1R: Tensor, sin_T1R: Tensor) -> Tensor:
    """Turns the pair (x[i], x[i + R/2]) of every head by its position's angle (RoPE in the half layout of transformers);
    what is beyond R passes.

    `sin_T1R` comes from RotaryTable with its first half negated, so that a roll replaces the rotate-half of two slices.
    """
    rotary_dim = cos_T1R.shape[-1]
    if rotary_dim < x_TJD.shape[-1]:
        turned_TJR = rotate(x_TJD[..., :rotary_dim], cos_T1R, sin_T1R)
        return torch.cat((turned_TJR, x_TJD[..., rotary_dim:]), dim=-1)
    return torch.addcmul(x_TJD * cos_T1R, x_TJD.roll(rotary_dim // 2, dims=-1), sin_T1R)


class RotaryTable:
    """Cosines and sines by position, made on first use per dtype and device.

    Not a buffer: a cast of the module would turn an fp32 table into a wrong fp64 one, and a module built on the meta
    device would lose it. Angles are fp32 as in transformers, so that long contexts agree with other engines; fp64 models
    get fp64 angles.
    """

    def __init__(self, rotary_dim: int, *, theta: float, max_positions: int) -> None:
        self.rotary_dim, self.theta, self.max_positions = rotary_dim, theta, max_positions
        self._tables: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def rows(self, positions_T: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos_T1R and sin_T1R (first half negated) of `positions_T`, in `dtype` on its device."""
        key = (dtype, positions_T.device)
        if key not in self._tables:
            self._tables[key] = self._build(dtype, positions_T.device)
        cos_P1R, sin_P1R = self._tables[key]
        return cos_P1R[positions_T], sin_P1R[positions_T]

    @torch.inference_mode(False)  # a table first made while sampling must still serve autograd
    def _build(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        precise = torch.promote_types(dtype, torch.float32)
        exponent = torch.arange(0, self.rotary_dim, 2, dtype=precise, device=device) / self.rotary_dim
        angle_PF = torch.outer(torch.arange(self.max_positions, dtype=precise, device=device), 1.0 / self.theta**exponent)
        cos_PF, sin_PF = angle_PF.cos(), angle_PF.sin()
        cos_P1R = torch.cat((cos_PF, cos_PF), dim=-1).to(dtype).unsqueeze(1)
        sin_P1R = torch.cat((-sin_PF, sin_PF), dim=-1).to(dtype).unsqueeze(1)
        return cos_P1R, sin_P1R
