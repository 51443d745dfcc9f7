"""A model path, opened: a Hugging Face folder of safetensors, or a GGUF file. Owns finding and headers; reads no weights; no torch.

Nothing in a folder is run or unpickled: only JSON, safetensors, GGUF and tokenizer.json are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from trunkline.errors import ConfigError
from trunkline.models.config import DecoderConfig
from trunkline.models.stored import StoredTensor

if TYPE_CHECKING:
    from trunkline.models.gguf import GgufFile

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SOURCE_FILE = "source.json"
GGUF_SUFFIX = ".gguf"
_FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")
_PICKLE_SUFFIXES = frozenset((".bin", ".pt", ".pth", ".pkl"))


class SafetensorsFolder:
    """config.json and model.safetensors or its shards."""

    def __init__(self, folder: Path, files: tuple[Path, ...], *, config_file: Path | None = None) -> None:
        """`files` are those that hold weights; `config_file` is the folder's config.json by default."""
        self.path = folder
        self.files = files
        self._config_file = config_file or folder / CONFIG_FILE

    @property
    def mapping(self) -> Mapping[str, Any]:
        """The content of config.json. Raises ConfigError if it is missing or malformed."""
        return read_json(self._config_file)

    @property
    def license(self) -> str | None:
        """What a fetched model's source.json says; other folders state it in prose, which is not parsed."""
        if not (self.path / SOURCE_FILE).exists():
            return None
        name = read_json(self.path / SOURCE_FILE).get("license")
        return name if isinstance(name, str) else None

    def config(self) -> DecoderConfig:
        """The decoder's shape; what ends a completion is generation_config.json's word where it has one.

        Raises ConfigError for a missing or malformed file and for what the decoder does not compute.
        """
        mapping = dict(self.mapping)
        generation = read_json(self.path / GENERATION_FILE) if (self.path / GENERATION_FILE).exists() else {}
        if generation.get("eos_token_id") is not None:  # chat models list the end of a turn only here
            mapping["eos_token_id"] = generation["eos_token_id"]
        return DecoderConfig.from_hf(mapping)

    @property
    def quantization(self) -> str | None:
        """How config.json says that the weights are quantised, such as 'fp8'; None if it says nothing."""
        quantization = self.mapping.get("quantization_config")
        return str(quantization.get("quant_method", quantization)) if isinstance(quantization, Mapping) else None

    def headers(self) -> dict[str, StoredTensor]:
        """Every tensor as the files describe it, of any type. Raises ConfigError for an unreadable file."""
        stored: dict[str, StoredTensor] = {}
        for shard in self.files:
            try:
                with safe_open(shard, framework="np") as file:
                    for name in file.keys():  # noqa: SIM118 - not a mapping
                        header = file.get_slice(name)
                        stored[name] = StoredTensor(tuple(header.get_shape()), header.get_dtype())
            except (OSError, SafetensorError) as error:
                raise ConfigError(f"cannot read the weights {shard}: {error}; is the file complete?") from None
        return stored

    def stored(self) -> dict[str, StoredTensor]:
        """The same, where it can be read as it is. Raises ConfigError for weights that are not plain floating point too."""
        stored = self.headers()
        if others := sorted(name for name, tensor in stored.items() if tensor.dtype not in _FLOAT_DTYPES):
            dtype = stored[others[0]].dtype
            remedy = (
                "convert the fp8 checkpoint, with its scales, to bf16 first" if dtype.startswith("F8") else "save the weights unquantised"
            )
            raise ConfigError(f"{self.path}: {others[0]} is stored as {dtype}, not {', '.join(_FLOAT_DTYPES)}; {remedy}")
        return stored


def open_model(path: Path) -> SafetensorsFolder | GgufFile:
    """What `path` names: a folder of safetensors, a folder with one .gguf file, or a .gguf file.

    Raises ConfigError if it is none of these, saying what is there instead.
    """
    if path.is_file() and path.suffix != GGUF_SUFFIX:
        reason = "a pickle and is never read" if path.suffix in _PICKLE_SUFFIXES else "neither a folder nor a .gguf file"
        raise ConfigError(f"{path} is {reason}; give a Hugging Face folder with safetensors, or a .gguf file")
    gguf_path = find_gguf(path)
    if gguf_path is None:
        return SafetensorsFolder(path, _shards(path))
    from trunkline.models.gguf import GgufFile  # here, because only such a file needs the package

    return GgufFile.open(gguf_path)


def open_description(path: Path) -> SafetensorsFolder | GgufFile:
    """As open_model, but a config.json alone, or a folder that holds one and no weights, is enough: `files` is empty then."""
    if path.suffix == ".json" and path.is_file():
        return SafetensorsFolder(path.parent, (), config_file=path)
    if (path / CONFIG_FILE).exists() and not any((path / name).exists() for name in (WEIGHTS_FILE, INDEX_FILE)) and not find_gguf(path):
        return SafetensorsFolder(path, ())
    return open_model(path)


def find_gguf(path: Path) -> Path | None:
    """The GGUF file that `path` means: itself, or the only one of a folder without safetensors; else None.

    Raises ConfigError where several could be meant.
    """
    if path.suffix == GGUF_SUFFIX and not path.is_dir():
        return path
    if (path / WEIGHTS_FILE).exists() or (path / INDEX_FILE).exists():
        return None
    candidates = sorted(path.glob(f"*{GGUF_SUFFIX}"))
    if len(candidates) > 1:
        raise ConfigError(f"{path} holds {', '.join(file.name for file in candidates)}; give the path of one of them")
    return candidates[0] if candidates else None


def read_json(path: Path) -> Mapping[str, Any]:
    """The JSON object in `path`. Raises ConfigError if it is missing or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; a model folder holds {CONFIG_FILE} and {WEIGHTS_FILE}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def _shards(folder: Path) -> tuple[Path, ...]:
    if (folder / WEIGHTS_FILE).exists():
        return (folder / WEIGHTS_FILE,)
    if not (folder / INDEX_FILE).exists():
        if not folder.is_dir():
            raise ConfigError(f"cannot read {folder}: there is no such folder or .gguf file")
        raise ConfigError(f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE} nor a .gguf file{_hint(folder)}")
    shard_of = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(shard_of, Mapping) or not all(Path(str(name)).name == name for name in shard_of.values()):
        raise ConfigError(f"{folder / INDEX_FILE}: weight_map must map tensor names to file names of this folder")
    return tuple(folder / shard for shard in sorted(set(shard_of.values())))


def _hint(folder: Path) -> str:
    if (folder / "adapter_config.json").exists():
        return "; it holds an adapter, merge it into its base model first"
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLE_SUFFIXES)
    return f"; {pickles[0]} is a pickle and is not read, convert it to safetensors" if pickles else ""
