"""What transformers says of a model before any weight is read. Owns sizes from its config; what is proved on loading is hf.py's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from trunkline.errors import ConfigError
from trunkline.models.hf_shape import HfShape, bounds
from trunkline.models.load import check_known
from trunkline.models.source import SafetensorsFolder


@dataclass(frozen=True)
class TheirSizes:
    """A model as its config describes it to transformers."""

    shape: HfShape
    """As far as config keys tell; loading observes it instead."""
    num_parameters: int
    """A tied head counts once."""
    num_embedding_parameters: int
    """Of these, in the embedding and in a head of its own."""


def describe_theirs(source: SafetensorsFolder, refusal: ConfigError) -> TheirSizes:
    """Builds the model on torch's meta device, where tensors have shapes and no values. `refusal` says why it is none of ours.

    Raises ConfigError for what the installed transformers has no causal language model of, or cannot build from this config.
    """
    mapping = dict(source.mapping)
    check_known(mapping, refusal)
    mapping.pop("quantization_config", None)  # it speaks of the files
    try:
        config = AutoConfig.for_model(mapping["model_type"]).from_dict(mapping)
        with torch.device("meta"):
            theirs: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        shape = _shape(config)
    except (StrictDataclassError, OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError, ImportError) as error:
        raise ConfigError(f"transformers cannot build the {mapping['model_type']} model of {source.path}: {error}") from error
    ends: Any = {theirs.get_input_embeddings().weight, theirs.get_output_embeddings().weight}  # one if they are tied
    return TheirSizes(shape, sum(parameter.numel() for parameter in theirs.parameters()), sum(weight.numel() for weight in ends))


def _shape(config: Any) -> HfShape:
    text = config.get_text_config()
    num_heads = text.num_attention_heads
    num_kv_heads = getattr(text, "num_key_value_heads", None) or num_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // num_heads
    if getattr(text, "kv_lora_rank", None):  # latent attention hands full keys to our attention, as wide as its queries
        num_kv_heads, head_dim = num_heads, text.qk_nope_head_dim + text.qk_rope_head_dim
    max_positions, bound = min(bounds(text, _windows(text)))
    return HfShape(
        family=config.model_type,
        vocab_size=text.vocab_size,
        hidden_size=text.hidden_size,
        num_layers=text.num_hidden_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        max_positions=max_positions,
        bound=bound,
    )


def _windows(text: Any) -> list[int]:
    if set(getattr(text, "layer_types", None) or ("unknown",)) == {"full_attention"}:
        return []
    found = (getattr(text, key, None) for key in ("sliding_window", "attention_chunk_size"))
    return [window for window in found if window is not None]
