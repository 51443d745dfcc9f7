"""What a model is, from its config, its weights' headers and its tokenizer. Owns the description; loads no weights; no torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import ConfigError
from trunkline.models.config import DecoderConfig
from trunkline.models.source import open_model
from trunkline.models.stored import EMBEDDING_NAME, HEAD_NAME, check_fit
from trunkline.models.tokenizer import Tokenizer

_FP32_BYTES = 4
# AdamW in fp32: weights, gradients, running mean, running square.
_TRAINING_COPIES = 4


@dataclass(frozen=True)
class TokenizerInfo:
    """What a model's tokenizer is."""

    vocab_size: int
    """One past its largest id; the embedding may have more rows."""
    special_tokens: dict[str, int]
    """Tokens that never come out of text, with their ids, in the order of these."""
    has_chat_template: bool
    """The family's own chat format lies beside it."""
    template_reads_tools: bool
    """That format looks at the tools it is given; one that does not is never shown any."""


@dataclass(frozen=True)
class ModelInfo:
    """What `trunkline model info` knows of a model; sizes are of the whole model, in bytes where they say so."""

    path: str
    """Where it lies."""
    architecture: str
    """'llama' or 'qwen3'."""
    num_parameters: int
    """Values that training changes; a tied head counts once."""
    num_embedding_parameters: int
    """Of these, in the embedding and in a head of its own."""
    num_other_parameters: int
    """Of these, all the rest."""
    config: DecoderConfig
    """Layers, heads, vocabulary, context."""
    stored_dtypes: dict[str, int]
    """Values by the type that they are stored as."""
    disk_bytes: int
    """Size of the files of weights."""
    kv_bytes_per_token: int
    """Keys and values of a token in fp32."""
    weight_bytes: int
    """The weights in memory in fp32."""
    training_bytes: int
    """Weights, gradients and AdamW's two averages in fp32; activations come on top and grow with the tokens of a step."""
    tokenizer: TokenizerInfo
    """Its tokenizer."""
    license: str | None
    """What the files say of the licence."""


def describe_model(path: Path) -> ModelInfo:
    """Reads headers only: seconds for any size.

    Raises:
        ConfigError: an unsupported architecture, files that are missing or damaged, weights or a tokenizer that do not fit.
    """
    source = open_model(path)
    config, stored = source.config(), source.stored()
    check_fit(source.path, config, stored)
    shapes = config.parameter_shapes()
    num_parameters = sum(stored[name].num_values for name in shapes)
    num_embedding = sum(stored[name].num_values for name in (EMBEDDING_NAME, HEAD_NAME) if name in shapes)
    dtypes: Counter[str] = Counter()
    for name in shapes:
        dtypes[stored[name].dtype] += stored[name].num_values
    return ModelInfo(
        path=str(source.path),
        architecture="qwen3" if config.qk_norm else "llama",
        num_parameters=num_parameters,
        num_embedding_parameters=num_embedding,
        num_other_parameters=num_parameters - num_embedding,
        config=config,
        stored_dtypes=dict(dtypes.most_common()),
        disk_bytes=sum(file.stat().st_size for file in source.files),
        kv_bytes_per_token=2 * config.num_layers * config.num_kv_heads * config.head_dim * _FP32_BYTES,
        weight_bytes=num_parameters * _FP32_BYTES,
        training_bytes=num_parameters * _FP32_BYTES * _TRAINING_COPIES,
        tokenizer=_describe_tokenizer(path, config),
        license=source.license,
    )


def _describe_tokenizer(path: Path, config: DecoderConfig) -> TokenizerInfo:
    tokenizer = Tokenizer.load(path)
    if tokenizer.vocab_size > config.vocab_size:
        raise ConfigError(
            f"the tokenizer of {path} has ids up to {tokenizer.vocab_size - 1}, but the embedding has {config.vocab_size} rows; "
            "it belongs to another model, or the embedding was not enlarged"
        )
    template = tokenizer.chat_template
    return TokenizerInfo(
        vocab_size=tokenizer.vocab_size,
        special_tokens={tokenizer.decode([token_id]): token_id for token_id in sorted(tokenizer.special_ids)},
        has_chat_template=template is not None,
        template_reads_tools=template is not None and _reads_tools(template),
    )


def _reads_tools(template: str) -> bool:
    """Whether the variable `tools` occurs in the template's code; the template is cut into tokens and never run."""
    from jinja2 import Environment, TemplateSyntaxError  # here, because only this asks for it

    try:
        return any(kind == "name" and text == "tools" for _, kind, text in Environment(autoescape=False).lex(template))
    except TemplateSyntaxError:
        return False
