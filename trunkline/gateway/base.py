"""The gateway's plug point: what turns messages into token ids and back. Owns no implementation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from trunkline.types import Message, ToolSpec


class Parsed(NamedTuple):
    """What sampled ids say."""

    message: Message
    """The assistant's turn; calls that cannot be read are part of its text."""
    format_error: str | None = None
    """Why calls could not be read; None if the turn is well formed."""


class Renderer(Protocol):
    """One model family's chat format, exact to the token. `MarkupRenderer(tokenizer, TINY)` is the smallest real one.

    A turn that the model sampled is never written again from its message: `bridge` continues from the sampled ids.
    """

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Tokens that end an assistant turn."""
        ...

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> tuple[int, ...]:
        """The whole context from scratch, generation prompt included.

        Raises MalformedRequest for text that the vocabulary cannot write, ConfigError for tools it cannot offer.
        """
        ...

    def bridge(
        self,
        prompt_ids: Sequence[int],
        completion_ids: Sequence[int],
        new_messages: Sequence[Message],
        tools: Sequence[ToolSpec],
    ) -> tuple[int, ...] | None:
        """The next turn's context: prompt_ids + completion_ids, then the new messages and the generation prompt.

        Tokens that the template puts after a stop token are added; a completion cut by its length gets the end that
        it lacks. None if the format cannot continue this way (the caller then renders a new branch).
        """
        ...

    def reply(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> tuple[int, ...]:
        """What a model would have sampled to say messages[-1], an assistant turn, after the rest: its stop included."""
        ...

    def parse(self, completion_ids: Sequence[int], tools: Sequence[ToolSpec]) -> Parsed:
        """The assistant message that these sampled ids say; a malformed or cut call comes back as plain text, with the reason.

        Calls without an id of their own in the format get call_id ''; the recorder names them.
        """
        ...

    def text(self, token_ids: Sequence[int]) -> str:
        """What token ids read as, special tokens included; for stop strings and for log-probabilities by token."""
        ...
