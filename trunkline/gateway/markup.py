"""One small renderer, told by a Markup what surrounds a turn. Owns TINY and CHATML; the big families are packaged.py's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trunkline.errors import ConfigError, MalformedRequest
from trunkline.gateway.base import Parsed
from trunkline.gateway.call_syntax import CallSyntax, LineCalls, MarkedCalls, Turn
from trunkline.models.tokenizer import Tokenizer, UnencodableText
from trunkline.types import Message, ToolSpec


@dataclass(frozen=True)
class Opening:
    """How a turn of one role begins."""

    mark: str
    """Its special token."""
    header: str = ""
    """Text after the mark, before the content."""


@dataclass(frozen=True)
class Markup:
    """What surrounds the turns of a conversation."""

    system: Opening
    """Of the system turn, which also lists the tools."""
    user: Opening
    """Of a user's turn."""
    assistant: Opening
    """Of an assistant's turn; it is the generation prompt."""
    tool: Opening
    """Of a tool's result."""
    end: str
    """Special token that ends every turn; sampled by the model, hence the stop token."""
    after_end: str
    """Text between an end and the next opening; never sampled."""
    calls: CallSyntax
    """How tools and calls are written."""

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Every token that the vocabulary must have as a single one, each once."""
        openings = (self.system, self.user, self.assistant, self.tool)
        return tuple(dict.fromkeys((*(opening.mark for opening in openings), self.end, *self.calls.special_tokens)))


TINY = Markup(
    system=Opening("<|system|>"),
    user=Opening("<|user|>"),
    assistant=Opening("<|assistant|>"),
    tool=Opening("<|tool|>"),
    end="<|end|>",
    after_end="",
    calls=MarkedCalls(),
)
"""For models of our own: one token a mark, nothing else."""

CHATML = Markup(
    system=Opening("<|im_start|>", "system\n"),
    user=Opening("<|im_start|>", "user\n"),
    assistant=Opening("<|im_start|>", "assistant\n"),
    tool=Opening("<|im_start|>", "user\nresult: "),
    end="<|im_end|>",
    after_end="\n",
    calls=LineCalls(),
)
"""For ChatML models without tool markup such as SmolLM2, whose own template ignores tools; results are a user's turns."""


class MarkupRenderer:
    """A Renderer (gateway/base.py) for one Markup over one tokenizer.

    Args:
        tokenizer: its special tokens never come out of content text; see models/tokenizer.py.
        markup: TINY, CHATML or another.

    Raises:
        ConfigError: the vocabulary lacks one of the markup's special tokens.
    """

    def __init__(self, tokenizer: Tokenizer, markup: Markup) -> None:
        missing = [token for token in markup.special_tokens if not _is_special(tokenizer, token)]
        if missing:
            raise ConfigError(f"the vocabulary lacks the special tokens {missing}; add them, or choose another markup")
        self._tokenizer = tokenizer
        self._markup = markup
        self._openings = {
            role: (tokenizer.token_id(opening.mark), opening.header)
            for role, opening in (
                ("system", markup.system),
                ("user", markup.user),
                ("tool", markup.tool),
            )
        }
        self._end_id = tokenizer.token_id(markup.end)
        self._after_end = tuple(self._encode(markup.after_end))
        self._generation = (tokenizer.token_id(markup.assistant.mark), *self._encode(markup.assistant.header))

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """The end mark."""
        return (self._end_id,)

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> tuple[int, ...]:
        """Every turn, then the generation prompt. Tools go into the first system turn, which is made if there is none."""
        ids: list[int] = []
        if tools and not (messages and messages[0].role == "system"):
            ids += self._turn(Message("system"), tools=tools, offered=tools)
        for index, message in enumerate(messages):
            is_first_system = index == 0 and message.role == "system"
            ids += self._turn(message, tools=tools, offered=tools if is_first_system else ())
        return (*ids, *self._generation)

    def bridge(
        self,
        prompt_ids: Sequence[int],
        completion_ids: Sequence[int],
        new_messages: Sequence[Message],
        tools: Sequence[ToolSpec],
    ) -> tuple[int, ...] | None:
        """Always possible: no turn of these formats depends on another."""
        is_closed = bool(completion_ids) and completion_ids[-1] == self._end_id
        ids: list[int] = [] if is_closed else [self._end_id]
        ids += self._after_end
        for message in new_messages:
            ids += self._turn(message, tools=tools, offered=())
        new_ids = (*completion_ids, *ids, *self._generation)
        return tuple(prompt_ids) + new_ids  # copies a long prompt once; (*prompt_ids, ...) does so twice

    def reply(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> tuple[int, ...]:
        """The turn's body and its end mark."""
        return (*self._body(messages[-1], tools), self._end_id)

    def parse(self, completion_ids: Sequence[int], tools: Sequence[ToolSpec]) -> Parsed:
        """A turn that lacks its end was cut: its calls are not complete and stay text."""
        is_closed = bool(completion_ids) and completion_ids[-1] == self._end_id
        body = completion_ids[:-1] if is_closed else completion_ids
        # Models whose embedding is padded beyond the vocabulary may sample ids that have no text.
        if max(body, default=-1) >= self._tokenizer.vocab_size:
            return Parsed(Message("assistant", self.text(body)), "tokens without text")
        turn = self._markup.calls.read_turn(self._tokenizer, body, tools)
        if turn is None:
            return Parsed(Message("assistant", self._tokenizer.decode(body)), "a call that cannot be read")
        if turn.calls and not is_closed:
            return Parsed(Message("assistant", self._tokenizer.decode(body)), "a call that was cut")
        return Parsed(Message("assistant", turn.content, turn.calls))

    def text(self, token_ids: Sequence[int]) -> str:
        """As the tokenizer decodes them; what has no text is one U+FFFD at the end."""
        known = [token for token in token_ids if token < self._tokenizer.vocab_size]
        return self._tokenizer.decode(known) + ("\ufffd" if len(known) < len(token_ids) else "")

    def _turn(self, message: Message, *, tools: Sequence[ToolSpec], offered: Sequence[ToolSpec]) -> list[int]:
        """A whole turn with what follows its end; `offered` tools are listed in it."""
        if message.role == "assistant":
            return [*self._generation, *self._body(message, tools), self._end_id, *self._after_end]
        mark_id, header = self._openings[message.role]
        listed = self._markup.calls.write_tools(self._tokenizer, offered) if offered else []
        return [mark_id, *self._encode(header + message.content), *listed, self._end_id, *self._after_end]

    def _body(self, message: Message, tools: Sequence[ToolSpec]) -> list[int]:
        try:
            return self._markup.calls.write_turn(self._tokenizer, Turn(message.content, message.tool_calls), tools)
        except UnencodableText as error:
            raise MalformedRequest(str(error)) from error

    def _encode(self, text: str) -> list[int]:
        try:
            return self._tokenizer.encode(text) if text else []
        except UnencodableText as error:
            raise MalformedRequest(str(error)) from error


def _is_special(tokenizer: Tokenizer, token: str) -> bool:
    try:
        return tokenizer.token_id(token) in tokenizer.special_ids
    except ConfigError:
        return False
