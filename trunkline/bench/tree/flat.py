"""The baseline: samples forward and backward in padded micro-batches, each with its whole context. Owns the batching alone."""

# B sequences of a micro-batch, T tokens of the longest, H query heads, K key/value heads, D head_dim, M trained tokens of all samples

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trunkline.attention.forest import Ints
from trunkline.bench.tree.workloads import Sequences, trained_places
from trunkline.models.base import Policy
from trunkline.models.routing import Route, TopK


@dataclass(frozen=True)
class PaddedCausalAttend:
    """Attend over B sequences of T tokens laid end to end; a shorter one is padded behind, where nothing of it looks."""

    num_sequences: int
    """B."""
    length: int
    """T."""

    def __call__(self, layer: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        """See Attend; `layer` is not used."""
        q_BHTD, k_BKTD, v_BKTD = (x.unflatten(0, (self.num_sequences, self.length)).transpose(1, 2) for x in (q_THD, k_TKD, v_TKD))
        group = q_THD.shape[1] // k_TKD.shape[1]
        if group > 1 and q_THD.is_cuda and q_THD.dtype == torch.float32:
            # No fused CUDA kernel for fp32 knows grouped heads: torch would compute all B x H x T x T scores.
            k_BKTD, v_BKTD = (x.repeat_interleave(group, dim=1) for x in (k_BKTD, v_BKTD))
            group = 1
        out_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BKTD, v_BKTD, is_causal=True, enable_gqa=group > 1)
        return out_BHTD.transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class MicroBatch:
    """Some of the samples as one padded block, made before the clock runs."""

    samples: Ints
    """Which."""
    attend: PaddedCausalAttend
    """B and T."""
    token_ids_T: Tensor
    """All B x T."""
    positions_T: Tensor
    """Of each."""
    predicting_M: Tensor
    """Places whose hidden state predicts a trained token."""
    target_M: Tensor
    """The trained tokens."""
    weight_M: Tensor
    """What their log-probabilities count in the loss."""


def micro_batches(sequences: Sequences, weight_M: Tensor, size: int) -> list[MicroBatch]:
    """Samples by length, `size` at a time, so that little is padding. `weight_M` is in the order of the samples."""
    order = np.argsort([len(tokens) for tokens in sequences.tokens], kind="stable")
    places = trained_places(sequences)
    first_S = np.cumsum([0, *map(len, places)])
    batches = []
    for start in range(0, len(order), size):
        samples = order[start : start + size]
        length = max(len(sequences.tokens[sample]) for sample in samples)
        token_ids_BT = np.zeros((len(samples), length), np.int64)
        for row, sample in enumerate(samples):
            token_ids_BT[row, : len(sequences.tokens[sample])] = sequences.tokens[sample]
        flat_M = np.concatenate([row * length + places[sample] for row, sample in enumerate(samples)])
        weights = [weight_M[first_S[sample] : first_S[sample + 1]] for sample in samples]
        device = weight_M.device
        batches.append(
            MicroBatch(
                samples,
                PaddedCausalAttend(len(samples), length),
                torch.from_numpy(token_ids_BT.ravel()).to(device),
                torch.arange(length, device=device).repeat(len(samples)),
                torch.from_numpy(flat_M - 1).to(device),
                torch.from_numpy(token_ids_BT.ravel()[flat_M]).to(device),
                torch.cat(weights),
            )
        )
    return batches


def backward(policy: Policy, batch: MicroBatch, route: Route | None = None) -> None:
    """Adds the gradient of one micro-batch's weighted log-likelihood; logits at trained tokens alone, as the forest has them."""
    hidden_TC = policy(batch.token_ids_T, batch.positions_T, batch.attend, route or TopK())
    logits_MV = policy.logits(hidden_TC.index_select(0, batch.predicting_M))
    logits_MV = logits_MV.to(torch.promote_types(logits_MV.dtype, torch.float32))
    logp_M = -F.cross_entropy(logits_MV, batch.target_M, reduction="none")
    (batch.weight_M * logp_M).sum().backward()
