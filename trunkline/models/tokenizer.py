"""Text to token ids and back, exactly. Owns loading, saving and small character tokenizers; no chat template, no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from trunkline.errors import ConfigError
from trunkline.models.atomic import replacing

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
        self._vocab_size = 1 + max(backend.get_vocab(with_added_tokens=True).values(), default=-1)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Reads tokenizer.json of a Hugging Face folder. Raises ConfigError if it is missing or malformed."""
        path = folder / TOKENIZER_FILE
        try:
            text = path.read_text(encoding="utf-8")
            companions = {name: (folder / name).read_text(encoding="utf-8") for name in _COMPANION_FILES if (folder / name).exists()}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the tokenizer {path}: {error}; a model folder holds {TOKENIZER_FILE}") from None
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise ConfigError(f"{path} is not a tokenizer of the tokenizers library: {error}") from error
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

    def encode(self, text: str) -> list[int]:
        """Ids of `text` as content: nothing is added, and a special token written in it is split like any other characters.

        Added tokens that are not marked special (Qwen's <tool_call>, say) are ordinary pieces.

        Raises:
            UnencodableText: a character outside the vocabulary.
        """
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
