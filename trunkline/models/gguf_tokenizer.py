"""The tokenizer inside a GGUF file, as a tokenizers.Tokenizer and its companions. Owns byte-level BPE of four kinds; no torch.

A GGUF file holds vocabulary and merges, and only the *name* of the rule that cuts text before merging; converters that
ignore the name (transformers') tokenise blanks before digits otherwise than the model learned. Sentencepiece
vocabularies are refused: put the family's tokenizer.json beside the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from trunkline.errors import ConfigError


class UnsupportedVocabulary(ConfigError):
    """The file's vocabulary is of a kind that is not translated."""


# gguf.constants.TokenType
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LETTERS = r"|[^\r\n\p{L}\p{N}]?\p{L}+"


def _byte_level(*first: Any, gpt2_words: bool) -> Any:
    return pre_tokenizers.Sequence([*first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=gpt2_words)])


# How text is cut before merging, by the name that `tokenizer.ggml.pre` gives it; each as in the family's own tokenizer.json.
_CUTS = {
    "gpt-2": lambda: _byte_level(gpt2_words=True),
    "smollm": lambda: _byte_level(pre_tokenizers.Digits(individual_digits=True), gpt2_words=True),
    "qwen2": lambda: _byte_level(
        pre_tokenizers.Split(Regex(_CONTRACTIONS + _LETTERS + r"|\p{N}" + _REST), behavior="isolated"), gpt2_words=False
    ),
    "llama-bpe": lambda: _byte_level(
        pre_tokenizers.Split(Regex(_CONTRACTIONS + _LETTERS + r"|\p{N}{1,3}" + _REST), behavior="isolated"), gpt2_words=False
    ),
}


def tokenizer_from_metadata(metadata: Mapping[str, Any], *, where: Path) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    """The tokenizer and the texts of the files that go beside tokenizer.json (tokenizer_config.json, chat_template.jinja).

    Control tokens become special, user-defined ones ordinary added tokens; unused ids are left out. `where` names the
    file in errors. Raises ConfigError for a vocabulary that is not byte-level BPE, or cut by a rule we do not know.
    """
    kind, cut = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2" or cut not in _CUTS:
        name = f"{kind!r} vocabulary" if kind != "gpt2" else f"byte-level vocabulary cut by {cut!r}"
        raise UnsupportedVocabulary(
            f"{where} has a {name}; supported: byte-level, cut by {', '.join(_CUTS)}; or put a tokenizer.json beside it"
        )
    pieces: list[str] = metadata.get("tokenizer.ggml.tokens") or []
    types: list[int] = metadata.get("tokenizer.ggml.token_type") or [_NORMAL] * len(pieces)
    used = {piece: token_id for token_id, piece in enumerate(pieces) if types[token_id] != _UNUSED}
    merges = [tuple(merge.split(" ")) for merge in metadata.get("tokenizer.ggml.merges") or ()]
    try:
        # Llama 3 looks a whole word up before it merges; its vocabulary holds words that no merge reaches.
        backend = tokenizers.Tokenizer(models.BPE(used, merges, ignore_merges=cut == "llama-bpe"))
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(f"the vocabulary in {where} does not fit its merges: {error}") from error
    if cut == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = _CUTS[cut]()
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([_added(piece, special=True) for piece in used if types[used[piece]] == _CONTROL])
    backend.add_tokens([_added(piece, special=False) for piece in used if types[used[piece]] == _USER_DEFINED])
    first_id = metadata.get("tokenizer.ggml.bos_token_id")
    if metadata.get("tokenizer.ggml.add_bos_token", False) and first_id is not None:
        first = pieces[first_id]
        backend.post_processor = processors.TemplateProcessing(single=f"{first} $A", special_tokens=[(first, first_id)])
    return backend, _companions(metadata, pieces)


def _added(piece: str, *, special: bool) -> AddedToken:
    return AddedToken(piece, special=special, normalized=False)


def _companions(metadata: Mapping[str, Any], pieces: list[str]) -> dict[str, str]:
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        token_id = metadata.get(f"tokenizer.ggml.{theirs}_token_id")
        if token_id is not None and 0 <= token_id < len(pieces):
            config[f"{ours}_token"] = pieces[token_id]
    files = {"tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n"}
    if template := metadata.get("tokenizer.chat_template"):
        files["chat_template.jinja"] = template
    return files
