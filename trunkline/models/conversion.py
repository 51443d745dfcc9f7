"""A GGUF file written as a Hugging Face folder in fp32. Owns the order of work and its progress; no torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from trunkline.models.atomic import replacing
from trunkline.models.gguf import GgufFile
from trunkline.models.source import CONFIG_FILE, WEIGHTS_FILE
from trunkline.models.stored import HEAD_NAME, check_fit
from trunkline.models.tokenizer import Tokenizer

OnProgress = Callable[[str, int, int], None]
"""Called with what is done, how far it is and where it ends: on_progress("convert", 3, 134515008)."""


def convert_gguf(path: Path, folder: Path, on_progress: OnProgress) -> None:
    """Writes config.json, model.safetensors and the tokenizer, which load_decoder, Tokenizer.load and transformers read.

    Values are those of the file, dequantised to fp32. Progress counts values. Raises ConfigError for a file that
    cannot be read or an architecture that the decoder does not compute, OSError if the folder cannot be written.
    """
    source = GgufFile.open(path)
    config = source.config()
    check_fit(path, config, source.stored())
    Tokenizer.load(path).save(folder)
    total = sum(tensor.num_values for tensor in source.stored().values())
    tensors = {}
    done = 0
    for name, values in source.tensors():
        tensors[name] = np.ascontiguousarray(values)
        done += values.size
        on_progress("convert", done, total)
    if config.tie_embeddings:
        tensors.pop(HEAD_NAME, None)
    on_progress("write", 0, total)
    with replacing(folder / WEIGHTS_FILE) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    with replacing(folder / CONFIG_FILE) as temporary:
        written = {**config.to_hf(), "dtype": "float32", "torch_dtype": "float32"}
        temporary.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    on_progress("write", total, total)
