"""The dense decoder of the Llama and Qwen3 families over flat tokens. Owns the forward pass; attention is the caller's Attend.

Parameter names are those of transformers, so that state dicts interchange; a tied head has no parameter of its own.
"""

# T flat tokens, N chosen tokens, C hidden_size, H query heads, K key/value heads, J = H + K, D head_dim, P positions, V vocabulary

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trunkline.attention.base import Attend
from trunkline.models.config import DecoderConfig


class Decoder(nn.Module):
    """Token ids in, hidden states out; logits only where asked.

    >>> hidden_TC = decoder(token_ids_T, positions_T, CausalAttend())
    >>> logits_NV = decoder.logits(hidden_TC[trained_N])
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Trunk(config)
        if not config.tie_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, token_ids_T: Tensor, positions_T: Tensor, attend: Attend) -> Tensor:
        """hidden_TC after the final norm. Tokens are flat; `positions_T` (integers below max_positions) turn the rotary
        embedding, `attend` alone decides which token sees which."""
        hidden_TC: Tensor = self.model(token_ids_T, positions_T, attend)
        return hidden_TC

    def logits(self, hidden_NC: Tensor) -> Tensor:
        """logits_NV of the chosen hidden states, in their dtype."""
        head = self.model.embed_tokens if self.config.tie_embeddings else self.lm_head
        return F.linear(hidden_NC, head.weight)


class _Trunk(nn.Module):
    """Everything below the head."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(_Layer(config, index) for index in range(config.num_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary = RotaryTable(config.head_dim, theta=config.rope_theta, max_positions=config.max_positions)

    def forward(self, token_ids_T: Tensor, positions_T: Tensor, attend: Attend) -> Tensor:
        hidden_TC = self.embed_tokens(token_ids_T)
        cos_T1D, sin_T1D = self.rotary.rows(positions_T, hidden_TC.dtype)
        for layer in self.layers:
            hidden_TC = layer(hidden_TC, cos_T1D, sin_T1D, attend)
        normed_TC: Tensor = self.norm(hidden_TC)
        return normed_TC


class _Layer(nn.Module):
    """Pre-norm attention and feed-forward, each added to the residual stream."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self.self_attn = _SelfAttention(config, index)
        self.mlp = _GatedMlp(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, hidden_TC: Tensor, cos_T1D: Tensor, sin_T1D: Tensor, attend: Attend) -> Tensor:
        hidden_TC = hidden_TC + self.self_attn(self.input_layernorm(hidden_TC), cos_T1D, sin_T1D, attend)
        return hidden_TC + self.mlp(self.post_attention_layernorm(hidden_TC))


class _SelfAttention(nn.Module):
    """Projections, head norms and rotation around the caller's Attend."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, config.num_heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.num_kv_heads * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.num_kv_heads * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.num_heads * config.head_dim, config.hidden_size, bias=False)
        self.q_norm = nn.RMSNorm(config.head_dim, eps=config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(config.head_dim, eps=config.rms_norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x_TC: Tensor, cos_T1D: Tensor, sin_T1D: Tensor, attend: Attend) -> Tensor:
        q_THD = self.q_norm(self.q_proj(x_TC).unflatten(-1, (self.num_heads, self.head_dim)))
        k_TKD = self.k_norm(self.k_proj(x_TC).unflatten(-1, (self.num_kv_heads, self.head_dim)))
        v_TKD = self.v_proj(x_TC).unflatten(-1, (self.num_kv_heads, self.head_dim))
        # One rotation for queries and keys: at small sizes the number of operations is the cost.
        rotated_TJD = rotate(torch.cat((q_THD, k_TKD), dim=1), cos_T1D, sin_T1D)
        q_THD, k_TKD = rotated_TJD.split((self.num_heads, self.num_kv_heads), dim=1)
        projected_TC: Tensor = self.o_proj(attend(self.index, q_THD, k_TKD, v_TKD).flatten(1))
        return projected_TC


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


def rotate(x_TJD: Tensor, cos_T1D: Tensor, sin_T1D: Tensor) -> Tensor:
    """Turns the pair (x[i], x[i + D/2]) of every head by its position's angle (RoPE in the half layout of transformers).

    `sin_T1D` comes from RotaryTable with its first half negated, so that a roll replaces the rotate-half of two slices.
    """
    return torch.addcmul(x_TJD * cos_T1D, x_TJD.roll(x_TJD.shape[-1] // 2, dims=-1), sin_T1D)


class RotaryTable:
    """Cosines and sines by position, made on first use per dtype and device.

    Not a buffer: a cast of the module would turn an fp32 table into a wrong fp64 one, and a module built on the meta
    device would lose it. Angles are fp32 as in transformers, so that long contexts agree with other engines; fp64 models
    get fp64 angles.
    """

    def __init__(self, head_dim: int, *, theta: float, max_positions: int) -> None:
        self.head_dim, self.theta, self.max_positions = head_dim, theta, max_positions
        self._tables: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def rows(self, positions_T: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos_T1D and sin_T1D (first half negated) of `positions_T`, in `dtype` on its device."""
        key = (dtype, positions_T.device)
        if key not in self._tables:
            self._tables[key] = self._build(dtype, positions_T.device)
        cos_P1D, sin_P1D = self._tables[key]
        return cos_P1D[positions_T], sin_P1D[positions_T]

    @torch.inference_mode(False)  # a table first made while sampling must still serve autograd
    def _build(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        precise = torch.promote_types(dtype, torch.float32)
        exponent = torch.arange(0, self.head_dim, 2, dtype=precise, device=device) / self.head_dim
        angle_PF = torch.outer(torch.arange(self.max_positions, dtype=precise, device=device), 1.0 / self.theta**exponent)
        cos_PF, sin_PF = angle_PF.cos(), angle_PF.sin()
        cos_P1D = torch.cat((cos_PF, cos_PF), dim=-1).to(dtype).unsqueeze(1)
        sin_P1D = torch.cat((-sin_PF, sin_PF), dim=-1).to(dtype).unsqueeze(1)
        return cos_P1D, sin_P1D
