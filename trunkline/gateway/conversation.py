"""A finished conversation as tokens to imitate. Owns no chat format (base.py's renderers) and no loss weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trunkline.errors import ConfigError
from trunkline.gateway.base import Renderer
from trunkline.types import Message, ToolSpec


@dataclass(frozen=True)
class RenderedConversation:
    """Aligned streams of one conversation: exactly what the gateway would have fed and a model have sampled."""

    token_ids: tuple[int, ...]
    """From the first token of the context to the stop token of the last assistant turn."""
    is_action: tuple[bool, ...]
    """True on the tokens that an assistant turn would have sampled, its stop token included."""


def render_conversation(renderer: Renderer, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> RenderedConversation:
    """Renders turn by turn as a live conversation would: the same bridges, hence the same tokens.

    Raises:
        ConfigError: the last message is not the assistant's, or the format rewrites its own past (then render parts).
    """
    if not messages or messages[-1].role != "assistant":
        raise ConfigError(f"a conversation to imitate ends with an assistant turn, got roles {[message.role for message in messages]}")
    token_ids: tuple[int, ...] = ()
    is_action: list[bool] = []
    reply: tuple[int, ...] = ()
    done = 0
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        if done == 0:
            context: tuple[int, ...] | None = renderer.prompt(messages[:index], tools)
        else:
            context = renderer.bridge(token_ids[: -len(reply)], reply, messages[done:index], tools)
        if context is None or context[: len(token_ids)] != token_ids:
            raise ConfigError(f"the format rewrites the past before message {index}; render the conversation in parts")
        reply = renderer.reply(messages[: index + 1], tools)
        is_action += [False] * (len(context) - len(token_ids)) + [True] * len(reply)
        token_ids = context + reply
        done = index + 1
    return RenderedConversation(token_ids, tuple(is_action))
