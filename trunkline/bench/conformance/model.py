"""The kit's model: a small byte-level vocabulary with Qwen3's chat marks, and Qwen3's chat format over it. Owns no sampling.

Every target loads the same folder, so that all of them write and read the same format. Text can be written in more than one
way (pieces or single bytes), which is what the cases of re-tokenisation need.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

MODEL_NAME = "stub"
"""What the engine calls its model."""
CHAT_FORMAT = "qwen3"
"""Name of the format in the renderers package."""

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
_PIECES = (
    "hello",
    " world",
    "answer",
    "name",
    "arguments",
    "city",
    "Paris",
    " the",
    " is",
    '": "',
    '{"',
    '"}',
    "user",
    "assistant",
    "\n\n",
)
_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces": False,
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
}


def write_model(folder: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json, which transformers' AutoTokenizer loads."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    for piece in _PIECES:
        letters = _as_byte_letters(piece)
        for left, right in itertools.pairwise(itertools.accumulate(letters)):
            pair = (left, right[len(left) :])
            if right not in vocabulary:
                vocabulary[right] = len(vocabulary)
                merges.append(pair)
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in _MARKS])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(backend.to_str(pretty=True), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(_CONFIG, indent=1) + "\n", encoding="utf-8")


def _as_byte_letters(text: str) -> str:
    ((piece, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return piece


@dataclass(frozen=True)
class Said:
    """A sampled turn as an OpenAI-compatible engine would answer it."""

    content: str
    """Text; malformed calls are part of it."""
    reasoning: str
    """Thinking, without its marks."""
    calls: tuple[tuple[str, str], ...]
    """Name and JSON arguments of each well-formed call."""


class ChatModel:
    """The vocabulary and the format, loaded.

    >>> model = ChatModel.load(folder)
    >>> model.text(model.ids("hello")) == "hello"
    True
    """

    def __init__(self, tokenizer: Any, renderer: Any) -> None:
        self.tokenizer = tokenizer
        """transformers' tokenizer, for a target in this process."""
        self._renderer = renderer
        self.end_id = int(tokenizer.convert_tokens_to_ids("<|im_end|>"))
        """Ends a turn; sampled by the model."""

    @classmethod
    def load(cls, folder: Path) -> ChatModel:
        """From a folder of write_model."""
        import renderers  # here, because both are slow to import and the command line does without them
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        config = renderers.config_from_name(CHAT_FORMAT)
        assert config is not None
        return cls(tokenizer, renderers.create_renderer(tokenizer, config))

    def ids(self, text: str) -> tuple[int, ...]:
        """The canonical tokens of a text; marks in it become their tokens."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def byte_ids(self, text: str) -> tuple[int, ...]:
        """The same text one byte a token: what no encoder writes, and a model may well sample."""
        letters = _as_byte_letters(text)
        return tuple(int(self.tokenizer.convert_tokens_to_ids(letter)) for letter in letters)

    def drifted_ids(self, text: str) -> tuple[int, ...]:
        """One byte a token, but for the marks, which have no other spelling."""
        parts = re.split("(" + "|".join(_MARKS) + ")", text)
        return tuple(token for part in parts if part for token in (self.ids(part) if part in _MARKS else self.byte_ids(part)))

    def text(self, ids: Sequence[int]) -> str:
        """What tokens say, marks included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def prompt(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> tuple[int, ...]:
        """Messages of Chat Completions as an engine renders them: from scratch. Raises ValueError for what cannot be written."""
        written = [_for_renderer(message) for message in messages]
        return tuple(self._renderer.render_ids(written, tools=list(tools) if tools else None, add_generation_prompt=True))

    def said(self, ids: Sequence[int], tools: Sequence[Mapping[str, Any]] | None) -> Said:
        """What an engine's parsers make of sampled tokens; any malformed call makes all calls text, as vLLM's hermes parser does."""
        parsed = self._renderer.parse_response(list(ids), tools=list(tools) if tools else None)
        content = parsed.content or ""
        if any(str(getattr(call.status, "value", call.status)) != "ok" for call in parsed.tool_calls):
            return Said(content + "".join(call.raw for call in parsed.tool_calls), parsed.reasoning_content or "", ())
        calls = tuple(
            (call.name, call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)) for call in parsed.tool_calls
        )
        return Said(content, parsed.reasoning_content or "", calls)


def _for_renderer(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content)
    role = message.get("role")
    written = {**message, "role": "system" if role == "developer" else role, "content": content or ""}
    if message.get("tool_calls"):
        written["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": json.loads(call["function"].get("arguments") or "{}")}}
            for call in message["tool_calls"]
        ]
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    return {**written, "reasoning_content": reasoning} if reasoning else written
