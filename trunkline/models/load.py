"""Any supported model's folder, read into a policy and written from one. Owns whose code computes it: ours, else that of transformers.

model_type llama, qwen3, minimax_m2, and GGUF ──► Decoder (ours)
these with a feature that ours lacks (rope scaling, biases, windows), and any other that transformers knows ──► HfDecoder
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from trunkline.errors import ConfigError
from trunkline.models.atomic import replacing
from trunkline.models.base import Policy
from trunkline.models.checkpoint import load_decoder, save_decoder
from trunkline.models.decoder import Decoder
from trunkline.models.source import CONFIG_FILE, SafetensorsFolder, open_model

if TYPE_CHECKING:
    from trunkline.models.hf import HfDecoder

_SHOWN_PROBLEMS = 5


def load_policy(path: Path, *, dtype: torch.dtype = torch.float32) -> Policy:
    """Reads a model folder (config.json and safetensors) or a GGUF file, and casts to `dtype`. Code in a folder is never run.

    Raises:
        ConfigError: a missing or unreadable file, weights that do not fit the config, an architecture that neither we nor
            transformers' classes compute over branches.
    """
    source = open_model(path)
    try:
        source.config()
    except ConfigError as refusal:
        if not isinstance(source, SafetensorsFolder):
            raise
        return _load_theirs(source, dtype, refusal)
    return load_decoder(path, dtype=dtype)


def save_policy(policy: Policy, folder: Path) -> None:
    """Writes config.json and model.safetensors (and theirs, generation_config.json), in the layout of transformers; each appears whole.

    Raises ConfigError if the folder cannot be written.
    """
    if isinstance(policy, Decoder):
        save_decoder(policy, folder)
        return
    from trunkline.models.hf import HfDecoder

    assert isinstance(policy, HfDecoder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".saving.", dir=folder) as temporary:
            policy.theirs.save_pretrained(temporary, max_shard_size=2**62)  # one file
            for written in sorted(Path(temporary).iterdir(), key=lambda file: file.name == CONFIG_FILE):
                with replacing(folder / written.name) as target:
                    os.replace(written, target)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot write the model to {folder}: {error}; check space and permissions") from error


def check_known(mapping: Mapping[str, Any], refusal: ConfigError) -> None:
    """Raises ConfigError unless transformers' own classes have the model of this config.json; `refusal` says why it is none of ours."""
    if any(name.startswith("AutoModel") for name in mapping.get("auto_map") or {}):
        raise ConfigError(f"{refusal}; code of a folder (auto_map) is never run: remove auto_map from config.json if the weights need none")
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES  # see _load_theirs

    if (model_type := mapping.get("model_type")) not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ConfigError(f"{refusal}; nor has the installed transformers a causal language model of type {model_type!r}")


def _load_theirs(source: SafetensorsFolder, dtype: torch.dtype, refusal: ConfigError) -> HfDecoder:
    """`refusal` says why the model is none of ours."""
    check_known(source.mapping, refusal)
    if source.quantization:
        raise ConfigError(f"{refusal}; save the weights unquantised, without quantization_config")
    source.stored()  # headers first: they say more clearly what is damaged or not floating point
    # Here, because importing transformers' models takes seconds that our own need not wait.
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from trunkline.models.hf import HfDecoder

    logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.path,
            dtype=dtype,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # told below, like what is missing: a report that is a line, not a table
            output_loading_info=True,
        )
    except (StrictDataclassError, OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError, ImportError) as error:
        raise ConfigError(f"transformers cannot load the {source.mapping['model_type']} model in {source.path}: {error}") from error
    theirs, report = loaded
    if problems := [f"{kind.removesuffix('_keys')} {key}" for kind, keys in report.items() for key in sorted(map(str, keys))]:
        more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise ConfigError(f"the weights in {source.path} do not fit its config: {'; '.join(problems[:_SHOWN_PROBLEMS])}{more}")
    return HfDecoder.around(theirs)
