"""A GGUF file as a model: its config and its tensors under our names. Owns the translation; dequantising is the gguf package's; no torch.

Only files whose architecture the decoder computes are read; the tokenizer in them is gguf_tokenizer.py's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor, dequantize

from trunkline.errors import ConfigError
from trunkline.models.config import DecoderConfig
from trunkline.models.stored import StoredTensor

# What llama.cpp assumes where the file is silent.
_DEFAULT_ROPE_BASE = 10000.0
_ARCHITECTURES = ("llama", "qwen3")

_TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_TENSOR = re.compile(r"blk\.(\d+)\.(\w+)\.weight")


class GgufFile:
    """One opened file: metadata read, tensors mapped from disk and dequantised when asked.

    >>> model = GgufFile.open(Path("SmolLM2-135M-Instruct.Q4_1.gguf"))
    >>> model.config().num_layers
    30
    """

    def __init__(self, path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, ReaderTensor]) -> None:
        self.path = path
        self.metadata = metadata
        self._tensors = tensors

    @classmethod
    def open(cls, path: Path) -> GgufFile:
        """Reads the metadata. Raises ConfigError if the file is missing, damaged, or one part of several."""
        try:
            reader = GGUFReader(path)
            metadata = {name: field.contents() for name, field in reader.fields.items()}
        except (OSError, ValueError, IndexError, KeyError, UnicodeDecodeError, OverflowError) as error:  # what damaged bytes lead it to
            raise ConfigError(f"cannot read {path} as GGUF: {error}; is the file complete?") from error
        if (num_parts := metadata.get("split.count", 1)) > 1:
            raise ConfigError(f"{path} is one of {num_parts} parts; join them with `llama-gguf-split --merge`")
        return cls(path, metadata, {tensor.name: tensor for tensor in reader.tensors})

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that hold weights: this one."""
        return (self.path,)

    quantization = None
    """Stored types say it tensor by tensor."""

    @property
    def license(self) -> str | None:
        """What the file says of its licence, such as 'apache-2.0'."""
        return self.metadata.get("general.license")

    def config(self) -> DecoderConfig:
        """The decoder's shape. Raises ConfigError for an architecture or feature that the decoder does not compute."""
        architecture = self.metadata.get("general.architecture")
        if architecture not in _ARCHITECTURES:
            raise ConfigError(f"{self.path}: architecture {architecture!r} is not supported; supported: {', '.join(_ARCHITECTURES)}")
        if unsupported := [*self._unsupported_features()]:
            raise ConfigError(f"{self.path} asks for what the decoder does not compute: {'; '.join(unsupported)}")
        end_ids = [self.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
        eos = list(dict.fromkeys(token_id for token_id in end_ids if token_id is not None))
        num_heads = self._required("attention.head_count")
        if "token_embd.weight" not in self._tensors:
            raise ConfigError(f"{self.path} holds no token_embd.weight; a vocabulary alone is no model")
        return DecoderConfig(
            vocab_size=int(self._tensors["token_embd.weight"].shape[-1]),
            hidden_size=self._required("embedding_length"),
            intermediate_size=self._required("feed_forward_length"),
            num_layers=self._required("block_count"),
            num_heads=num_heads,
            num_kv_heads=self._given("attention.head_count_kv", num_heads),
            head_dim=self._head_dim(),
            rope_theta=_shortest(self._given("rope.freq_base", _DEFAULT_ROPE_BASE)),
            rms_norm_eps=_shortest(self._given("attention.layer_norm_rms_epsilon", 1e-6)),
            qk_norm="head" if architecture == "qwen3" else "none",
            tie_embeddings="output.weight" not in self._tensors,
            max_positions=self._required("context_length"),
            bos_token_id=self.metadata.get("tokenizer.ggml.bos_token_id"),
            eos_token_id=tuple(eos) if len(eos) > 1 else (eos[0] if eos else None),
            pad_token_id=self.metadata.get("tokenizer.ggml.padding_token_id"),
        )

    def headers(self) -> dict[str, StoredTensor]:
        """As stored()."""
        return self.stored()

    def stored(self) -> dict[str, StoredTensor]:
        """Every tensor's header under our names; a name that we do not know stays as the file has it."""
        return {
            _our_name(name): StoredTensor(tuple(int(size) for size in tensor.shape[::-1]), tensor.tensor_type.name)  # fastest axis first
            for name, tensor in self._tensors.items()
        }

    def tensors(self) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]]:
        """(our name, fp32 values) of each tensor in the file's order; one is in memory at a time.

        Raises ConfigError for a quantisation that the gguf package does not undo.
        """
        config = self.config()
        heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads} if self.metadata["general.architecture"] == "llama" else {}
        for name, tensor in self._tensors.items():
            try:
                values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
            except NotImplementedError as error:
                raise ConfigError(f"{self.path}: {name} is stored as {tensor.tensor_type.name}, which cannot be read: {error}") from error
            match = _LAYER_TENSOR.fullmatch(name)
            if match and match[2] in heads:
                values = _half_layout(values, heads[match[2]])
            yield _our_name(name), values

    def _unsupported_features(self) -> Iterator[str]:
        if (scaling := self._given("rope.scaling.type", "none")) != "none":
            yield f"rope scaling {scaling!r} (supported: none)"
        if "rope_freqs.weight" in self._tensors:
            yield "rope scaling by factors, as llama3 has (supported: none)"
        head_dim = self._head_dim()
        if (turned := self._given("rope.dimension_count", head_dim)) != head_dim:
            yield f"a rotary embedding of {turned} of {head_dim} dimensions"
        if (value_length := self._given("attention.value_length", head_dim)) != head_dim:
            yield f"values {value_length} wide beside keys {head_dim} wide"
        if num_experts := self._given("expert_count", 0):
            yield f"{num_experts} experts"
        if window := self._given("attention.sliding_window", 0):
            yield f"a sliding window of {window}"

    def _head_dim(self) -> int:
        return int(self._given("attention.key_length", self._required("embedding_length") // self._required("attention.head_count")))

    def _given(self, key: str, default: Any) -> Any:
        return self.metadata.get(f"{self.metadata['general.architecture']}.{key}", default)

    def _required(self, key: str) -> int:
        value = self._given(key, None)
        if not isinstance(value, int) or value < 1:  # a list where the layers differ
            raise ConfigError(f"{self.path} needs one positive integer {key!r}, got {value!r}")
        return value


def _our_name(name: str) -> str:
    """'blk.3.attn_q.weight' -> 'model.layers.3.self_attn.q_proj.weight'; an unknown name is returned as it is."""
    if (match := _LAYER_TENSOR.fullmatch(name)) and match[2] in _LAYER_NAMES:
        return f"model.layers.{match[1]}.{_LAYER_NAMES[match[2]]}.weight"
    stem, _, kind = name.rpartition(".")
    return f"{_TOP_NAMES[stem]}.{kind}" if stem in _TOP_NAMES else name


def _half_layout(rows_OI: np.ndarray[Any, Any], num_heads: int) -> np.ndarray[Any, Any]:
    """Rows of a query or key projection from neighbours-are-pairs (llama.cpp) to halves-are-pairs (transformers, our `rotate`).

    The inverse of `permute` in llama.cpp's convert_hf_to_gguf.py, which only its llama architecture applies.
    """
    num_rows, width = rows_OI.shape
    return rows_OI.reshape(num_heads, num_rows // num_heads // 2, 2, width).swapaxes(1, 2).reshape(num_rows, width)


def _shortest(value: float) -> float:
    """The shortest decimal that is the same fp32 number: files store 1e-05 as 9.999999747378752e-06."""
    return float(str(np.float32(value)))
