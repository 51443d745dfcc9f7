"""Decoders made at random, read from and written to Hugging Face folders. Owns names and shapes; safetensors only, never pickle."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trunkline.errors import ConfigError
from trunkline.models.atomic import replacing
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


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


def load_decoder(folder: Path, *, dtype: torch.dtype = torch.float32) -> Decoder:
    """Reads config.json and model.safetensors (or its shards) and casts to `dtype`.

    Raises:
        ConfigError: a missing or unreadable file, an unsupported architecture, weights that do not fit the config.
    """
    decoder = _on_meta(DecoderConfig.from_hf(_read_json(folder / CONFIG_FILE)))
    tensors = _read_tensors(folder)
    if decoder.config.tie_embeddings:
        tensors.pop("lm_head.weight", None)  # some writers store the tied head a second time
    _check_fit(folder, expected=decoder.state_dict(), found=tensors)
    decoder.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()}, assign=True)
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


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; a model folder holds {CONFIG_FILE} and {WEIGHTS_FILE}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    if (folder / WEIGHTS_FILE).exists():
        return _read_shard(folder / WEIGHTS_FILE)
    if not (folder / INDEX_FILE).exists():
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        hint = f"; {pickles[0]} is a pickle and is not read, convert it to safetensors" if pickles else ""
        raise ConfigError(f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}{hint}")
    shard_of = _read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(shard_of, Mapping) or not all(Path(str(name)).name == name for name in shard_of.values()):
        raise ConfigError(f"{folder / INDEX_FILE}: weight_map must map tensor names to file names of this folder")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(shard_of.values())):
        tensors.update(_read_shard(folder / shard))
    return tensors


def _read_shard(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot read the weights {path}: {error}; is the file complete?") from None


def _check_fit(folder: Path, *, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    problems = [f"missing {name}" for name in expected.keys() - found.keys()]
    problems += [f"unexpected {name}" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} has shape {list(found[name].shape)}, the config says {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ConfigError(f"the weights in {folder} do not fit its {CONFIG_FILE}: {shown}")
