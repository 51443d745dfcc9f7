"""The events of a streamed answer: joined by a client's rules they are the answer, whatever it holds."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET

from trunkline.gateway.chat_wire import WireAnswer, WireCall, WireChoice, WireFunction, WireReplyMessage, WireUsage, encode_chat
from trunkline.gateway.sse import PIECE_CHARS, chat_events

TEXT = st.builds(str.__mul__, st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.integers(0, PIECE_CHARS // 2))
CALLS = st.lists(st.builds(WireCall, st.text(min_size=1), st.builds(WireFunction, TEXT, TEXT)), max_size=3)


def joined(chunks):
    """The message and finish reason that a client puts together."""
    message, finish = {}, None
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        finish = choice["finish_reason"] or finish
        delta = choice["delta"]
        for key in ("role", "content"):
            if key in delta:
                message[key] = delta[key] if message.get(key) is None else message[key] + delta[key]
        for more in delta.get("tool_calls", ()):
            calls = message.setdefault("tool_calls", [])
            if more["index"] == len(calls):
                calls.append({"id": more["id"], "type": more["type"], "function": {"name": more["function"]["name"], "arguments": ""}})
            calls[more["index"]]["function"]["arguments"] += more["function"]["arguments"]
    return message, finish


@given(content=st.none() | TEXT, calls=CALLS, finish=st.sampled_from(["stop", "length"]), with_usage=st.booleans())
@example(content="é\u2028\u0085\U0001f600" * PIECE_CHARS, calls=[], finish="stop", with_usage=True)
def test_chunks_joined_are_the_json_answer(content, calls, finish, with_usage):
    reply = WireReplyMessage("assistant", content, calls or UNSET)
    answer = WireAnswer("chatcmpl-1", "tiny", 7, [WireChoice(reply, finish)], WireUsage(3, 4, 7))
    *events, done = chat_events(answer, with_usage=with_usage)
    chunks, whole = [json.loads(event) for event in events], json.loads(encode_chat(answer))
    assert done == b"[DONE]"
    assert joined(chunks) == (whole["choices"][0]["message"], whole["choices"][0]["finish_reason"])
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk"
        assert all(chunk[key] == whole[key] for key in ("id", "model", "created"))
    if with_usage:
        assert [chunk["usage"] for chunk in chunks] == [None] * (len(chunks) - 1) + [whole["usage"]]
        assert chunks[-1]["choices"] == []
    else:
        assert not any("usage" in chunk for chunk in chunks)
