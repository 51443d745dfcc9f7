"""Text to token ids and back, exactly. Owns loading, saving and small character tokenizers; no chat template, no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from trunkline.errors import ConfigError
from trunkline.models.atomic import replacing
from trunkline.models.source import find_gguf, read_json

TOKENIZER_FILE = "tokenizer.json"
# Written back as they were read, so that a trained model keeps its family's chat template and special-token names.
_COMPANION_FILES = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_TINY_CONFIG = '{\n  "tokenizer_class": "PreTrainedTokenizerFast",\n  "clean_up_tokenization_spaces": false\n}\n'


class UnencodableText(ValueError):
    """The text cannot be written in this vocabulary; the message names what and where."""


class Tokenizer:
    """A tokenizers.Tokenizer under which text can never become a special token.

    >>> tokenizer = build_tiny_tokenizer(special_tokens=["<|end|>"], pieces=["area"], characters="abc <|>end")
    >>> tokenizer.encode("area <|end|>") == [1, *map(tokenizer.token_id, " <|end|>")]
    True
    """

    def __init__(self, backend: tokenizers.Tokenizer, companions: Mapping[str, str]) -> None:
        """`backend` is taken over and adjusted; `companions` are the texts of the files saved beside tokenizer.json."""
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # in text, the characters of a special token are characters
        self._backend = backend
        self._companions = dict(companions)
        added = backend.get_added_tokens_decoder()
        self._special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        unknown_id = backend.token_to_id(getattr(backend.model, "unk_token", None) or "")
        self._forbidden_ids = self._special_ids if unknown_id is None else self._special_ids | {unknown_id}
        self._missing_bytes = _missing_bytes(backend)
        self._vocab_size = 1 + max(backend.get_vocab(with_added_tokens=True).values(), default=-1)

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Reads tokenizer.json of a Hugging Face folder, or the vocabulary in its only GGUF file or in a GGUF file itself.

        Raises ConfigError if it is missing or malformed, or if the files beside it speak of other tokens.
        """
        if path.is_dir() and (path / TOKENIZER_FILE).exists():
            return cls._from_folder(path)
        gguf_path = find_gguf(path)
        if gguf_path is None:
            raise ConfigError(_missing(path))
        from trunkline.models.gguf import GgufFile  # here, because only such a file needs the package
        from trunkline.models.gguf_tokenizer import UnsupportedVocabulary, tokenizer_from_metadata

        try:
            return cls(*tokenizer_from_metadata(GgufFile.open(gguf_path).metadata, where=gguf_path))
        except UnsupportedVocabulary:
            if not (gguf_path.parent / TOKENIZER_FILE).exists():
                raise
            return cls._from_folder(gguf_path.parent)

    @classmethod
    def _from_folder(cls, folder: Path) -> Tokenizer:
        path = folder / TOKENIZER_FILE
        try:
            text = path.read_text(encoding="utf-8")
            companions = {name: (folder / name).read_text(encoding="utf-8") for name in _COMPANION_FILES if (folder / name).exists()}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the tokenizer {path}: {error}") from None
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise ConfigError(f"{path} is not a tokenizer of the tokenizers library: {error}") from error
        _check_added_tokens(backend, folder)
        return cls(backend, companions)

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json and its companions, which transformers' AutoTokenizer loads."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in {TOKENIZER_FILE: self._backend.to_str(pretty=True), **self._companions}.items():
                with replacing(folder / name) as temporary:
                    temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write the tokenizer to {folder}: {error}; check space and permissions") from error

    @property
    def vocab_size(self) -> int:
        """One past the largest token id."""
        return self._vocab_size

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that `encode` never yields; only `token_id` gives them."""
        return self._special_ids

    @property
    def chat_template(self) -> str | None:
        """The family's own chat format (Jinja), if the files have one; among named ones, the default."""
        if (template := self._companions.get("chat_template.jinja")) is not None:
            return template
        try:
            stored = json.loads(self._companions.get("tokenizer_config.json", "{}")).get("chat_template")
        except (ValueError, AttributeError):
            return None
        if isinstance(stored, list):  # transformers 4 kept several in one list of {name, template}
            stored = {entry.get("name"): entry.get("template") for entry in stored}.get("default")
        return stored if isinstance(stored, str) else None

    def encode(self, text: str) -> list[int]:
        """Ids of `text` as content: nothing is added, and a special token written in it is split like any other characters.

        Added tokens that are not marked special (Qwen's <tool_call>, say) are ordinary pieces.

        Raises:
            UnencodableText: a character outside the vocabulary.
        """
        if self._missing_bytes and not self._missing_bytes.isdisjoint(text.encode(errors="ignore")):
            lost = [character for character in dict.fromkeys(text) if not self._missing_bytes.isdisjoint(character.encode(errors="ignore"))]
            raise UnencodableText(f"characters {lost[:8]} in {text!r:.80} cannot be encoded: the vocabulary lacks their bytes")
        try:
            ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises bare Exception for a piece outside the vocabulary
            raise UnencodableText(f"{self._unknown_characters(text)} in {text!r:.80} cannot be encoded: {error}") from error
        if not self._forbidden_ids.isdisjoint(ids):  # the unknown token, or a special token that the model spells by itself
            pieces = sorted({str(self._backend.id_to_token(token_id)) for token_id in self._forbidden_ids.intersection(ids)})
            raise UnencodableText(f"{text!r:.80} would become {pieces}, which may not come from text")
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, special tokens included, nothing cleaned up; after `encode` it is the same text.

        Raises ValueError for an id outside the vocabulary.
        """
        ids = list(ids)
        if ids and not 0 <= min(ids) <= max(ids) < self._vocab_size:
            raise ValueError(f"token ids must be 0..{self._vocab_size - 1}, got {min(ids)}..{max(ids)}")
        text: str = self._backend.decode(ids, skip_special_tokens=False)
        return text

    def token_id(self, piece: str) -> int:
        """The id of the token whose text is exactly `piece`. Raises ConfigError if there is none (never a substitute)."""
        token_id: int | None = self._backend.token_to_id(piece)
        if token_id is None:
            raise ConfigError(f"{piece!r} is not one token of this vocabulary of {self._vocab_size}")
        return token_id

    def _unknown_characters(self, text: str) -> str:
        unknown = [character for character in dict.fromkeys(text) if self._backend.token_to_id(character) is None]
        return f"characters {unknown[:8]}" if unknown else "text"


def _missing_bytes(backend: tokenizers.Tokenizer) -> frozenset[int]:
    """Bytes that a byte-level vocabulary cannot write and would drop without a word: SmolLM2's lacks 21 (control characters
    such as U+0004, and what only characters beyond U+3FFFF begin with)."""
    if not isinstance(backend.decoder, decoders.ByteLevel):
        return frozenset()
    # The alphabet of GPT-2: printable bytes stand for themselves, the others for the characters from U+0100 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + index) for index, byte in enumerate(others)}
    return frozenset(byte for byte, character in characters.items() if backend.token_to_id(character) is None)


def _missing(folder: Path) -> str:
    if older := [name for name in ("tokenizer.model", "vocab.json", "vocab.txt") if (folder / name).exists()]:
        command = f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        return f"{folder} has {older[0]} but no {TOKENIZER_FILE}, which alone is read; transformers writes it: {command}"
    return f"cannot read the tokenizer {folder / TOKENIZER_FILE}: no such file; a model folder holds {TOKENIZER_FILE}"


def _check_added_tokens(backend: tokenizers.Tokenizer, folder: Path) -> None:
    """transformers adds what these files list, so that a folder may name tokens that tokenizer.json lacks: an error here."""
    listed: dict[str, Any] = {}
    if (folder / "tokenizer_config.json").exists():
        decoder = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
        listed |= {entry["content"]: int(token_id) for token_id, entry in decoder.items()}
    if (folder / "added_tokens.json").exists():
        listed |= read_json(folder / "added_tokens.json")
    for piece, token_id in listed.items():
        if (found := backend.token_to_id(piece)) != token_id:
            problem = f"lists the added token {piece!r} as id {token_id}, but {TOKENIZER_FILE} has it as {found}"
            raise ConfigError(f"{folder} {problem}; save the tokenizer again with transformers")


def build_tiny_tokenizer(*, special_tokens: Sequence[str], pieces: Sequence[str], characters: Sequence[str]) -> Tokenizer:
    """A vocabulary of `special_tokens`, `pieces` (two characters or more, matched whole, longest first), then `characters`.

    Text is cut from left to right into the longest piece that fits, else one character. Nothing is normalised and there
    is no unknown token. Raises ConfigError for duplicates and for entries of the wrong length.
    """
    vocabulary = [*special_tokens, *pieces, *characters]
    if duplicates := sorted({token for token in vocabulary if vocabulary.count(token) > 1}):
        raise ConfigError(f"tokens must be distinct, got {duplicates} more than once")
    if wrong := [token for token in (*special_tokens, *pieces) if len(token) < 2] + [token for token in characters if len(token) != 1]:
        raise ConfigError(f"special tokens and pieces have two characters or more, characters exactly one; got {wrong}")
    backend = tokenizers.Tokenizer(models.WordLevel({token: token_id for token_id, token in enumerate(vocabulary)}))
    longest_first = [re.escape(piece) for piece in sorted(pieces, key=len, reverse=True)]
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("|".join([*longest_first, r"[\s\S]"])), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens])
    return Tokenizer(backend, {"tokenizer_config.json": _TINY_CONFIG})
