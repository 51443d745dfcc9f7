"""The forward pass of a transformers model over flat tokens, in two halves: to the final norm, and from there. Owns the calls alone."""

# T flat tokens, N chosen tokens, C hidden_size, V vocabulary

from __future__ import annotations

import copy

from torch import Tensor
from transformers import PreTrainedModel

from trunkline.errors import ConfigError
from trunkline.models.hf_attention import KEYWORD, SUPPORTED, Call


def hidden_states(theirs: PreTrainedModel, token_ids_T: Tensor, positions_T: Tensor, call: Call) -> Tensor:
    """hidden_TC after the final norm. Raises ConfigError if the model is not one base model and a head."""
    _, base = _base(theirs)
    given = {KEYWORD: call, "use_cache": False}
    hidden_1TC: Tensor = base(input_ids=token_ids_T.unsqueeze(0), position_ids=positions_T.unsqueeze(0), **given)[0]
    return hidden_1TC.squeeze(0)


def head_logits(theirs: PreTrainedModel, hidden_NC: Tensor) -> Tensor:
    """logits_NV, with whatever scales and soft caps the model's own code applies.

    That code runs on a copy of the model that shares all but the base model, which has its hidden states already.
    """
    name, base = _base(theirs)
    head_only, known = copy.copy(theirs), copy.copy(base)
    known.forward = lambda *_, inputs_embeds, **__: _Outputs((inputs_embeds,))
    head_only._modules = {**theirs._modules, name: known}
    logits_NV: Tensor = head_only(inputs_embeds=hidden_NC.unsqueeze(0), use_cache=False).logits.squeeze(0)
    return logits_NV


def _base(theirs: PreTrainedModel) -> tuple[str, PreTrainedModel]:
    """The model below the head, with its name."""
    children = [(name, child) for name, child in theirs.named_children() if isinstance(child, PreTrainedModel)]
    if len(children) != 1:
        raise ConfigError(f"{theirs.config.model_type} is made of {len(children)} models below its head; {SUPPORTED}")
    return children[0]


class _Outputs(tuple[Tensor]):
    """What a base model returns, hidden states alone; whatever else is asked of it is None."""

    def __getattr__(self, name: str) -> Tensor | None:
        return self[0] if name == "last_hidden_state" else None
