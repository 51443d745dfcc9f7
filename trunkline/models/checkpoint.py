"""Decoders made at random, read from and written to model folders. Owns values; what a path holds is source.py's, never pickle."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trunkline.errors import ConfigError
from trunkline.models.atomic import replacing
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder
from trunkline.models.source import CONFIG_FILE, WEIGHTS_FILE, SafetensorsFolder, open_model
from trunkline.models.stored import EMBEDDING_NAME, HEAD_NAME, check_fit

if TYPE_CHECKING:
    from trunkline.models.gguf import GgufFile


def init_decoder(config: DecoderConfig, *, seed: int, dtype: torch.dtype = torch.float32) -> Decoder:
    """A random decoder, the same for the same config and seed (drawn in fp32, then cast; the global generator is untouched).

    Linears are normal with std 1/sqrt(fan_in); o_proj and down_proj, which write to the residual stream, are further
    divided by sqrt(2 * num_layers); the embedding has std 1/sqrt(hidden_size); norms are 1.
    """
    decoder = _on_meta(config).to(dtype).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            std = 1 / math.sqrt(parameter.shape[1])  # fan_in of a linear, hidden_size of the embedding
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std /= math.sqrt(2 * config.num_layers)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return decoder


def load_decoder(path: Path, *, dtype: torch.dtype = torch.float32) -> Decoder:
    """Reads a folder's config.json and model.safetensors (or its shards), or a GGUF file, and casts to `dtype`.

    Raises:
        ConfigError: a missing or unreadable file, an unsupported architecture, weights that do not fit the config.
    """
    source = open_model(path)
    config = source.config()
    check_fit(source.path, config, source.stored())
    tensors = _read_shards(source, dtype) if isinstance(source, SafetensorsFolder) else _read_gguf(source, dtype)
    if config.tie_embeddings and HEAD_NAME in tensors and not torch.equal(tensors[HEAD_NAME], tensors[EMBEDDING_NAME]):
        raise ConfigError(f"{path} ties the head to the embedding but stores another {HEAD_NAME}; set tie_word_embeddings to false")
    decoder = _on_meta(config)
    decoder.load_state_dict({name: tensors[name] for name in config.parameter_shapes()}, assign=True)
    return decoder


def save_decoder(decoder: Decoder, folder: Path) -> None:
    """Writes config.json and model.safetensors, which transformers' AutoModelForCausalLM loads; each appears whole or not at all.

    The weights keep their dtype; a tied head is not stored twice. Raises ConfigError if the folder cannot be written.
    """
    state = decoder.state_dict()
    dtype = str(next(iter(state.values())).dtype).removeprefix("torch.")
    config = {**decoder.config.to_hf(), "dtype": dtype, "torch_dtype": dtype}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / WEIGHTS_FILE) as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in state.items()}, temporary, metadata={"format": "pt"})
        with replacing(folder / CONFIG_FILE) as temporary:
            temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot write the model to {folder}: {error}; check space and permissions") from error


def _on_meta(config: DecoderConfig) -> Decoder:
    with torch.device("meta"):  # no memory and no random numbers for values that are overwritten at once
        return Decoder(config)


def _read_shards(source: SafetensorsFolder, dtype: torch.dtype) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for shard in source.files:
        try:
            tensors.update({name: tensor.to(dtype) for name, tensor in load_file(shard).items()})
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"cannot read the weights {shard}: {error}; is the file complete?") from None
    return tensors


def _read_gguf(source: GgufFile, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: torch.tensor(values, dtype=dtype) for name, values in source.tensors()}
