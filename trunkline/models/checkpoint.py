"""Decoders made at random, read from and written to model folders. Owns values; what a path holds is source.py's, never pickle."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trunkline.errors import ConfigError
from trunkline.models.atomic import replacing
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder
from trunkline.models.source import CONFIG_FILE, WEIGHTS_FILE, SafetensorsFolder, open_model
from trunkline.models.stored import EMBEDDING_NAME, HEAD_NAME, check_fit

if TYPE_CHECKING:
    from trunkline.models.gguf import GgufFile


def init_decoder(config: DecoderConfig, *, seed: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Decoder:
    """A random decoder, the same for the same config and seed (drawn in fp32, then cast; the global generator is untouched).

    Drawn on `device`, where it stays: seconds for billions of parameters on a GPU, but other values than on the CPU.

    Linears are normal with std 1/sqrt(fan_in), experts and the router's gate too; o_proj, down_proj and the experts' down,
    which write to the residual stream, are further divided by sqrt(2 * num_layers); the embedding has std
    1/sqrt(hidden_size); norms are 1, the router's selection bias 0.
    """
    decoder = _on_meta(config).to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            std = 1 / math.sqrt(parameter.shape[-1])  # fan_in of a linear, hidden_size of the embedding
            if name.endswith(("o_proj.weight", "down_proj.weight", "experts.down")):
                std /= math.sqrt(2 * config.num_layers)
            parameter.copy_(torch.randn(parameter.shape, generator=generator, device=device) * std)
        for bias_E in decoder.buffers():
            bias_E.zero_()
    return decoder


def load_decoder(path: Path, *, dtype: torch.dtype = torch.float32) -> Decoder:
    """Reads a folder's config.json and model.safetensors (or its shards), or a GGUF file, and casts to `dtype`.

    Each stored tensor is copied into its place as it is read, so that beside the decoder memory holds pages of the mapped
    files alone, which the system takes back at need. A sparse model's selection biases stay fp32 where `dtype` is shorter.

    Raises:
        ConfigError: a missing or unreadable file, an unsupported architecture, weights that do not fit the config.
    """
    source = open_model(path)
    config = source.config()
    check_fit(source.path, config, source.stored())
    decoder = _on_meta(config).to(dtype).to_empty(device="cpu")
    places = stored_views(decoder.state_dict())
    tied_head = None
    for name, tensor in _read_shards(source) if isinstance(source, SafetensorsFolder) else _read_gguf(source):
        if name in places:
            places[name].copy_(tensor)
        elif name == HEAD_NAME:
            tied_head = tensor.to(dtype)
    if tied_head is not None and not torch.equal(tied_head, places[EMBEDDING_NAME]):
        raise ConfigError(f"{path} ties the head to the embedding but stores another {HEAD_NAME}; set tie_word_embeddings to false")
    return decoder


def save_decoder(decoder: Decoder, folder: Path) -> None:
    """Writes config.json and model.safetensors, which transformers' AutoModelForCausalLM loads; each appears whole or not at all.

    The weights keep their dtype; a tied head is not stored twice; experts are stored one by one, as released.
    Raises ConfigError if the folder cannot be written.
    """
    state = {name: tensor.cpu() for name, tensor in decoder.state_dict().items()}
    dtype = str(next(iter(state.values())).dtype).removeprefix("torch.")
    config = {**decoder.config.to_hf(), "dtype": dtype, "torch_dtype": dtype}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / WEIGHTS_FILE) as temporary:
            tensors = {name: tensor.contiguous() for name, tensor in stored_views(state).items()}
            save_file(tensors, temporary, metadata={"format": "pt"})
        with replacing(folder / CONFIG_FILE) as temporary:
            temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot write the model to {folder}: {error}; check space and permissions") from error


def stored_views(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A decoder's state dict under the names of files (DecoderConfig.parameter_shapes): each stack of experts cut into theirs.

    Views, no copies: what is written into them is written into the decoder.
    """
    views: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stem, _, stack = name.rpartition(".")
        if stack == "gate_up":
            for expert, gate_up in enumerate(tensor):
                views[f"{stem}.{expert}.w1.weight"], views[f"{stem}.{expert}.w3.weight"] = gate_up.chunk(2)
        elif stack == "down":
            views |= {f"{stem}.{expert}.w2.weight": down for expert, down in enumerate(tensor)}
        else:
            views[name] = tensor
    return views


def _on_meta(config: DecoderConfig) -> Decoder:
    with torch.device("meta"):  # no memory and no random numbers for values that are overwritten at once
        return Decoder(config)


def _read_shards(source: SafetensorsFolder) -> Iterator[tuple[str, Tensor]]:
    for shard in source.files:
        try:
            with safe_open(shard, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    yield name, file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"cannot read the weights {shard}: {error}; is the file complete?") from None


def _read_gguf(source: GgufFile) -> Iterator[tuple[str, Tensor]]:
    for name, values in source.tensors():
        yield name, torch.tensor(values)
