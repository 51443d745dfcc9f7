"""What the benchmark's conversations are made of: text, tools, a tokenizer, replies. Owns no clock and no process."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from trunkline.gateway.markup import CHATML, MarkupRenderer
from trunkline.models.fetch import MODELS
from trunkline.models.tokenizer import Tokenizer
from trunkline.types import Message, ToolCall, ToolSpec

SYSTEM = "You are a coding agent. Work in small steps: look at files, change them, run the tests, and say what you found. " * 6
"""Some 150 tokens."""
_SMALL_VOCABULARY = 8192
_CHARACTERS_A_TOKEN = 3.9  # of this text, in SmolLM2's vocabulary
_STRING = {"type": "string"}


def _tool(name: str, description: str, *arguments: str) -> ToolSpec:
    return ToolSpec(name, description, {"type": "object", "properties": dict.fromkeys(arguments, _STRING), "required": list(arguments)})


TOOLS = (
    _tool("run", "Run a shell command in the repository and return what it wrote.", "command"),
    _tool("read", "Read lines of a file.", "path", "lines"),
    _tool("edit", "Replace a text in a file by another; the text must occur exactly once.", "path", "old", "new"),
)
"""What the agent offers."""


def corpus() -> str:
    """Source text of Python's standard library, ASCII only: what a coding agent reads."""
    files = sorted(Path(argparse.__file__).parent.glob("[a-z]*.py"))[:90]
    text = "\n".join(file.read_text(encoding="utf-8", errors="ignore") for file in files)
    return "".join(character for character in text if character == "\n" or " " <= character <= "~")


def open_tokenizer(text: str) -> tuple[Tokenizer, str]:
    """SmolLM2's if it was fetched, else a byte-level BPE trained on `text`; with its name."""
    fetched = MODELS["smollm2"].folder
    if fetched.is_dir():
        tokenizer = Tokenizer.load(fetched)
        return tokenizer, f"SmolLM2's tokenizer, {tokenizer.vocab_size:,} pieces"
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    marks = [AddedToken(mark, special=True, normalized=False) for mark in CHATML.special_tokens]
    trainer = trainers.BpeTrainer(
        vocab_size=_SMALL_VOCABULARY,
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([text[:1_000_000]], trainer)
    tokenizer = Tokenizer(backend, {})
    return tokenizer, f"a BPE of {tokenizer.vocab_size:,} pieces trained on the spot"


def make_replies(renderer: MarkupRenderer, *, num_replies: int = 64) -> list[list[int]]:
    """What the stub says in turn: a sentence and a call, some 50 tokens, its end mark included."""
    replies = []
    for index in range(num_replies):
        content = f"The failing case is number {index}. I will look where the value comes from before I change anything."
        call = ToolCall("", "run", f'{{"command":"grep -rn value_{index * 37} src/module_{index}.py | head -n 20"}}')
        replies.append(list(renderer.reply((Message("assistant", content, (call,)),), TOOLS)))
    return replies


class TextSource:
    """Pieces of a corpus, drawn with a seed."""

    def __init__(self, text: str, seed: int) -> None:
        self._text = text
        self._random = random.Random(seed)

    def take(self, num_tokens: int) -> str:
        """About so many tokens."""
        length = max(1, round(num_tokens * _CHARACTERS_A_TOKEN))
        start = self._random.randrange(max(1, len(self._text) - length))
        return self._text[start : start + length]

    def turns(self, shortest: int, longest: int) -> int:
        """How many calls a conversation lasts."""
        return self._random.randint(shortest, longest)


def chat_tools() -> list[dict[str, Any]]:
    """TOOLS as Chat Completions writes them."""
    return [
        {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters}}
        for tool in TOOLS
    ]
