"""The events of a streamed answer: joined by a client's rules they are the answer, whatever it holds."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from trunkline.gateway.chat_answer import ChatForm, chat_completion, chat_events, encode
from trunkline.gateway.sse import PIECE_CHARS
from trunkline.gateway.wire import Answer, Committed
from trunkline.types import Completion, Generation, Message, PolicyVersion, SamplingParams, ToolCall, VersionSpan

TEXT = st.builds(str.__mul__, st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.integers(0, PIECE_CHARS // 2))
NAMES = st.sampled_from(["get", "custom"])
CALLS = st.lists(st.builds(ToolCall, st.text(min_size=1), NAMES, TEXT), max_size=3).map(tuple)
MESSAGES = st.builds(Message, st.just("assistant"), TEXT, CALLS, reasoning=TEXT)


def answer_of(messages, finish):
    """What a gateway would answer with."""
    generation = Generation((1, 2), (-0.25, -0.5), finish, (VersionSpan(0, 2, PolicyVersion(1, 0)),))
    completion = Completion("c1", "s1", (7, 8, 9), generation, SamplingParams(4), 0, 1)
    return Answer(tuple(Committed(completion, message, ()) for message in messages), "tiny", 7, lambda ids: "é" * len(ids))


def joined(chunks, index):
    """The choice that a client puts together."""
    message, finish, logprobs = {}, None, None
    for choice in (choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index):
        finish = choice["finish_reason"] or finish
        if choice["logprobs"]:
            logprobs = {"content": (logprobs or {"content": []})["content"] + choice["logprobs"]["content"]}
        delta = choice["delta"]
        for key in ("role", "content", "reasoning_content"):
            if key in delta:
                message[key] = delta[key] if message.get(key) is None else message[key] + delta[key]
        for more in delta.get("tool_calls", ()):
            calls = message.setdefault("tool_calls", [])
            kind, text = ("custom", "input") if "custom" in more else ("function", "arguments")
            if more["index"] == len(calls):
                calls.append({"id": more["id"], "type": more["type"], kind: {"name": more[kind]["name"], text: ""}})
            calls[more["index"]][kind][text] += more[kind][text]
    return {"index": index, "message": message, "finish_reason": finish, "logprobs": logprobs}


@given(
    messages=st.lists(MESSAGES, min_size=1, max_size=3),
    finish=st.sampled_from(["stop", "length"]),
    form=st.builds(ChatForm, st.booleans(), st.booleans(), st.just(frozenset(("custom",)))),
)
@example(messages=[Message("assistant", "é\u2028\u0085\U0001f600" * PIECE_CHARS)], finish="stop", form=ChatForm(with_usage=True))
def test_chunks_joined_are_the_json_answer(messages, finish, form):
    answer = answer_of(messages, finish)
    *events, done = (event.removeprefix(b"data: ").removesuffix(b"\n\n") for event in chat_events(answer, form))
    chunks, whole = [json.loads(event) for event in events], json.loads(encode(chat_completion(answer, form)))
    assert done == b"[DONE]"
    assert [joined(chunks, index) for index in range(len(messages))] == whole["choices"]
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk"
        assert all(chunk[key] == whole[key] for key in ("id", "model", "created"))
    if form.with_usage:
        assert [chunk["usage"] for chunk in chunks] == [None] * (len(chunks) - 1) + [whole["usage"]]
        assert chunks[-1]["choices"] == []
    else:
        assert not any("usage" in chunk for chunk in chunks)
