"""What a model is, from config, headers and tokenizer. Owns the description; loads no weights; torch for transformers' models alone."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trunkline.errors import ConfigError
from trunkline.models.config import DecoderConfig
from trunkline.models.source import SafetensorsFolder, open_description
from trunkline.models.stored import EMBEDDING_NAME, HEAD_NAME, SELECTION_BIAS_SUFFIX, check_fit
from trunkline.models.tokenizer import TOKENIZER_FILE, Tokenizer

if TYPE_CHECKING:
    from trunkline.models.gguf import GgufFile
    from trunkline.models.hf_shape import HfShape

_FP32_BYTES, _BF16_BYTES = 4, 2
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
    """The family: 'llama', 'qwen3' or 'minimax_m2', or transformers' model_type of a model that its code computes."""
    num_parameters: int
    """Values that gradients change; a tied head counts once, a router's selection biases do not."""
    num_embedding_parameters: int
    """Of these, in the embedding and in a head of its own."""
    num_other_parameters: int
    """Of these, all the rest."""
    num_active_parameters: int | None
    """Of the rest, those that a token is multiplied with: all but the experts that it does not go to. None for transformers' models."""
    config: DecoderConfig | HfShape
    """Layers, heads, vocabulary, context; an HfShape if transformers' code computes the model."""
    stored_dtypes: dict[str, int]
    """Values by the type that they are stored as; empty if the weights are not there."""
    quantization: str | None
    """How its config says that the weights are quantised, such as 'fp8'; such weights are described, not loaded."""
    disk_bytes: int
    """Size of the files of weights; 0 if they are not there."""
    kv_bytes_per_token: int
    """Keys and values of a token in fp32."""
    kv_bytes_per_token_bf16: int
    """Keys and values of a token in bf16."""
    weight_bytes: int
    """The weights in memory in fp32."""
    training_bytes: int
    """Weights, gradients and AdamW's two averages in fp32; activations come on top and grow with the tokens of a step."""
    tokenizer: TokenizerInfo | None
    """Its tokenizer; None if only the config is there."""
    license: str | None
    """What the files say of the licence."""


def describe_model(path: Path) -> ModelInfo:
    """Reads headers only: seconds for any size. A config.json alone is enough, as file or as folder.

    Raises:
        ConfigError: an architecture that neither we nor transformers know, files that are missing or damaged, weights or a
            tokenizer that do not fit.
    """
    source = open_description(path)
    sizes, stored, quantization = _sizes(source), source.headers(), source.quantization
    config, num_parameters = sizes.config, sizes.num_parameters
    if isinstance(config, DecoderConfig):
        if source.files and not quantization:  # a quantised checkpoint stores its scales too
            check_fit(source.path, config, stored)
        stored = {name: stored[name] for name in config.parameter_shapes().keys() & stored.keys()}
    dtypes: Counter[str] = Counter()
    for tensor in stored.values():
        dtypes[tensor.dtype] += tensor.num_values
    kv_values_per_token = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    has_tokenizer = bool(source.files) or (path / TOKENIZER_FILE).exists()
    return ModelInfo(
        path=str(source.path if source.files else path),
        architecture=config.family,
        num_parameters=num_parameters,
        num_embedding_parameters=sizes.num_embedding_parameters,
        num_other_parameters=num_parameters - sizes.num_embedding_parameters,
        num_active_parameters=sizes.num_active_parameters,
        config=config,
        stored_dtypes=dict(dtypes.most_common()),
        quantization=quantization,
        disk_bytes=sum(file.stat().st_size for file in source.files),
        kv_bytes_per_token=kv_values_per_token * _FP32_BYTES,
        kv_bytes_per_token_bf16=kv_values_per_token * _BF16_BYTES,
        weight_bytes=num_parameters * _FP32_BYTES,
        training_bytes=num_parameters * _FP32_BYTES * _TRAINING_COPIES,
        tokenizer=_describe_tokenizer(path, config) if has_tokenizer else None,
        license=source.license,
    )


@dataclass(frozen=True)
class _Sizes:
    """See the fields of these names in ModelInfo."""

    config: DecoderConfig | HfShape
    num_parameters: int
    num_embedding_parameters: int
    num_active_parameters: int | None


def _sizes(source: SafetensorsFolder | GgufFile) -> _Sizes:
    try:
        config = source.config()
    except ConfigError as refusal:
        if not isinstance(source, SafetensorsFolder):
            raise
        from trunkline.models.hf_describe import describe_theirs  # seconds of imports, torch among them

        theirs = describe_theirs(source, refusal)
        return _Sizes(theirs.shape, theirs.num_parameters, theirs.num_embedding_parameters, None)
    shapes, total = config.parameter_shapes(), count_parameters(config)
    num_embedding = sum(math.prod(shapes[name]) for name in (EMBEDDING_NAME, HEAD_NAME) if name in shapes)
    return _Sizes(config, total, num_embedding, total - num_embedding - _count_resting_parameters(config))


def count_parameters(config: DecoderConfig) -> int:
    """Values that gradients change; a router's selection biases follow the load instead (balancing)."""
    return sum(math.prod(shape) for name, shape in config.parameter_shapes().items() if not name.endswith(SELECTION_BIAS_SUFFIX))


def _count_resting_parameters(config: DecoderConfig) -> int:
    """Parameters of the experts that a token does not go to."""
    return config.num_layers * (config.num_experts - config.experts_per_token) * 3 * config.hidden_size * config.intermediate_size


def _describe_tokenizer(path: Path, config: DecoderConfig | HfShape) -> TokenizerInfo:
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
