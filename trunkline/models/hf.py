"""Any causal language model of transformers as a policy. Owns the way through its own code, and the proof that it computes the same.

tokens ──► their base model ──► their layers, each attending through the caller's Attend ──► hidden_TC ──► their head ──► logits

Files are load.py's; the attention function, the calls and the sizes are those of hf_attention.py, hf_forward.py and
hf_shape.py. What else an architecture computes is its own code: if that looks along the flat tokens (a convolution, a
recurrent state), it sees across branches, and the proof fails.
"""

# T flat tokens, N chosen tokens, C hidden_size, V vocabulary

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from trunkline.attention.base import Attend
from trunkline.attention.choose import forest_attend
from trunkline.attention.forest import Ints, build_forest
from trunkline.attention.layout import TreeLayout
from trunkline.errors import ConfigError
from trunkline.models.hf_attention import NAME, SUPPORTED, Call, register
from trunkline.models.hf_forward import head_logits, hidden_states
from trunkline.models.hf_shape import HfShape, observe
from trunkline.models.routing import Route, TopK

# Relative difference of logits between two ways that are equal on paper. transformers computes norms and rotary angles in
# fp32 even in an fp64 model, which makes a difference in the last fp64 digit one in the last fp32 digit.
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.1}


class HfDecoder(nn.Module):
    """A *ForCausalLM whose attention is the caller's. Parameters and their names are the model's; a tied head has none of its own.

    Its inside is always in evaluation mode, so that neither dropout nor router jitter acts.

    >>> policy = HfDecoder.around(Gemma3ForCausalLM(config))
    >>> hidden_TC = policy(token_ids_T, positions_T, CausalAttend())
    """

    def __init__(self, theirs: PreTrainedModel, config: HfShape, *, stock_attention: str) -> None:
        """Use `around`; `stock_attention` names the attention that the model came with."""
        super().__init__()
        self.config = config
        self._hidden = (theirs,)  # in a tuple, which nn.Module does not look into: its children keep their names
        self._stock_attention = stock_attention
        self._checkpoint_layers = False
        for name, child in theirs.named_children():
            if not (self._is_tied and child is self._head):
                self.add_module(name, child)

    @classmethod
    def around(cls, theirs: PreTrainedModel) -> HfDecoder:
        """Takes a model over, and proves on a small forest that it computes what it computed before.

        Raises ConfigError if our attention does not reach every layer, or is not all that looks along the tokens.
        """
        if not theirs._can_set_attn_implementation():
            raise ConfigError(f"{theirs.config.model_type} does not use the AttentionInterface; {SUPPORTED}")
        register()
        stock = theirs.config._attn_implementation
        theirs.eval().set_attn_implementation(NAME)
        if theirs.dtype == torch.float64 and theirs._can_set_experts_implementation():
            theirs.set_experts_implementation("eager")  # torch's grouped_mm has no fp64
        policy = cls(theirs, observe(theirs), stock_attention=stock)
        policy.check()
        return policy

    @property
    def theirs(self) -> PreTrainedModel:
        """The model of transformers."""
        return self._hidden[0]

    @property
    def _head(self) -> nn.Linear:
        head: nn.Linear = self.theirs.get_output_embeddings()
        return head

    @property
    def _is_tied(self) -> bool:
        return self._head.weight is self.theirs.get_input_embeddings().weight

    @property
    def checkpoint_layers(self) -> bool:
        """See Policy. Setting it raises ConfigError where the architecture cannot."""
        return self._checkpoint_layers

    @checkpoint_layers.setter
    def checkpoint_layers(self, on: bool) -> None:
        layers = [module for module in self.modules() if isinstance(module, GradientCheckpointingLayer)]
        if on and not (layers and self.theirs.supports_gradient_checkpointing):
            raise ConfigError(f"transformers cannot compute layers of {self.config.family} again; train without recomputation")
        name = "activation" if hasattr(self.theirs, "activation_checkpointing_enable") else "gradient"  # the older name
        if on:
            getattr(self.theirs, f"{name}_checkpointing_enable")({"use_reentrant": False, "preserve_rng_state": False})
        elif layers:
            getattr(self.theirs, f"{name}_checkpointing_disable")()
        for layer in layers:
            layer.training = on  # the layer's own flag, which its recomputation asks; what is inside it stays in evaluation mode
            for rate in [name for name, value in vars(layer).items() if "drop" in name and isinstance(value, float)]:
                setattr(layer, rate, 0.0)  # old architectures (OPT) ask the same flag for their dropout
        self._checkpoint_layers = on

    def train(self, mode: bool = True) -> HfDecoder:
        """Sets the flag alone: the inside stays in evaluation mode."""
        self.training = mode
        return self

    def forward(self, token_ids_T: Tensor, positions_T: Tensor, attend: Attend, route: Route = TopK()) -> Tensor:
        """See Policy; `route` is never asked. Raises ConfigError if a position reaches max_positions."""
        longest = int(positions_T.max()) + 1
        if longest > self.config.max_positions:
            most = f"{self.config.max_positions}, {self.config.bound}"
            raise ConfigError(f"a context of {longest} tokens: {self.config.family} is computed exactly up to {most}; cap the context")
        return hidden_states(self.theirs, token_ids_T, positions_T, Call(attend))

    def logits(self, hidden_NC: Tensor) -> Tensor:
        """See Policy: all that their code does after the final norm, scales and soft caps of logits included."""
        return head_logits(self.theirs, hidden_NC.to(self._head.weight.dtype))

    def full_precision_parameters(self) -> list[Tensor]:
        """See Policy: a head of its own. Their code does not cast what comes from an embedding, so a tied one is not among them."""
        return [] if self._is_tied else list(self._head.parameters())

    @torch.no_grad()
    def check(self) -> None:
        """Tries two branches on a trunk. Other tokens in one branch must change nothing in the other (a relative difference of
        at most 2e-6 in fp64, 2e-4 in fp32, 0.02 in half precision), and the logits of each must be those of the model's own
        forward pass (1e-5, 1e-3, 0.1).

        Raises ConfigError if they are not.
        """
        device, dtype = self.theirs.device, self.theirs.dtype
        samples = _probe_samples(self.config)
        forest = build_forest(samples)
        _, one, other = (slice(s, e) for s, e in zip(forest.node_start_U, forest.node_end_U, strict=True))
        ids_T, positions_T = (torch.from_numpy(x).to(device) for x in (forest.token_ids_N, forest.positions_N))
        attend = forest_attend(TreeLayout.of(forest), device, dtype)
        hidden_TC = self(ids_T, positions_T, attend)
        changed_T = ids_T.clone()
        changed_T[one] = (changed_T[one] + 1) % self.config.vocab_size
        leak = _difference(self(changed_T, positions_T, attend)[other], hidden_TC[other])
        if not leak <= _TOLERANCE[dtype] / 5:
            raise ConfigError(
                f"in {self.config.family} a branch sees the tokens of another (hidden states differ by {leak:.1e} in {dtype}): something "
                f"besides causal attention looks along the tokens; {SUPPORTED}"
            )
        logits_TV = self.logits(hidden_TC)
        with self._own_attention():
            for index, sample in enumerate(samples):
                expected_TV = self.theirs(input_ids=torch.from_numpy(sample).to(device).unsqueeze(0), use_cache=False).logits[0]
                gap = _difference(logits_TV[torch.from_numpy(forest.path(index)).to(device)], expected_TV)
                if not gap <= _TOLERANCE[dtype]:
                    raise ConfigError(
                        f"{self.config.family} computes other logits through our attention than by itself (they differ by {gap:.1e} in "
                        f"{dtype}); {SUPPORTED}"
                    )

    @contextmanager
    def _own_attention(self) -> Iterator[None]:
        self.theirs.set_attn_implementation(self._stock_attention)
        try:
            yield
        finally:
            self.theirs.set_attn_implementation(NAME)


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _probe_samples(config: HfShape) -> list[Ints]:
    """Two branches of other tokens on a trunk."""
    size = max(1, min(8, config.max_positions // 2))
    trunk, one = np.random.default_rng(0).integers(0, config.vocab_size, (2, size))
    return [np.concatenate((trunk, branch)) for branch in (one, (one + 1 + np.arange(size)) % config.vocab_size)]
