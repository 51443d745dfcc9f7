"""What engine and trainer need of a model, whoever wrote it. Owns the two Protocols; no weights, no forward pass."""

# T flat tokens, N chosen tokens, C hidden_size, V vocabulary

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from trunkline.attention.base import Attend
from trunkline.models.routing import Route


class PolicyShape(Protocol):
    """The sizes by which caches are allocated and batches are checked. DecoderConfig is one."""

    @property
    def vocab_size(self) -> int:
        """Width of the logits, one past the largest token id."""
        ...

    @property
    def hidden_size(self) -> int:
        """Width of what `logits` takes."""
        ...

    @property
    def num_layers(self) -> int:
        """Layers that attend; Attend sees 0 .. num_layers - 1."""
        ...

    @property
    def num_heads(self) -> int:
        """Query heads, in every layer."""
        ...

    @property
    def num_kv_heads(self) -> int:
        """Key/value heads; divides num_heads."""
        ...

    @property
    def head_dim(self) -> int:
        """Width of a head of queries, keys and values."""
        ...

    @property
    def max_positions(self) -> int:
        """Longest context in tokens."""
        ...

    @property
    def num_experts(self) -> int:
        """Experts of each layer whose choice is recorded and replayed; 0: there is nothing to replay."""
        ...

    @property
    def experts_per_token(self) -> int:
        """Experts that each token goes to; 0 where num_experts is."""
        ...

    @property
    def is_sparse(self) -> bool:
        """Whether there are experts, num_experts > 0."""
        ...


class Policy(Protocol):
    """A model that samples and trains: an nn.Module over flat tokens whose attention is the caller's.

    Decoder and HfDecoder are the two kinds.

    >>> hidden_TC = policy(token_ids_T, positions_T, CausalAttend())
    >>> logits_NV = policy.logits(hidden_TC[trained_N])
    """

    checkpoint_layers: bool
    """While gradients are on, keep each layer's input alone and compute the layer again in the backward pass."""

    @property
    def config(self) -> PolicyShape:
        """Its sizes."""
        ...

    def __call__(self, token_ids_T: Tensor, positions_T: Tensor, attend: Attend, route: Route = ...) -> Tensor:
        """hidden_TC after the final norm; `positions_T` are below max_positions."""
        ...

    def logits(self, hidden_NC: Tensor) -> Tensor:
        """logits_NV of the chosen hidden states."""
        ...

    def full_precision_parameters(self) -> list[Tensor]:
        """Those that may stay in fp32 while the others compute in bf16, and better do: its code casts what meets them."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Each once, a tied head within the embedding."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """With the names of transformers."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Parameters and persistent buffers; no two share memory."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Copies values of the same names and shapes into place."""
        ...

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients."""
        ...

    def to(self, device: torch.device) -> Self:
        """Moves it there, in place."""
        ...

    def eval(self) -> Self:
        """As any nn.Module; there is no dropout to turn off."""
        ...

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As any nn.Module."""
        ...
