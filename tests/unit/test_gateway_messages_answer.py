"""Anthropic's Messages: what answers, events and errors say to the official client, and that what it sends back is the same turn."""

import json

import anthropic
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import BudgetExceeded, EngineUnavailable, MalformedRequest, TrunklineError, UnknownSession
from trunkline.gateway.messages_answer import UNSUPPORTED_THREAD, encode_token_count
from trunkline.gateway.messages_blocks import UNREADABLE_KEY
from trunkline.gateway.messages_wire import MessagesWire
from trunkline.gateway.wire import Answer, Committed, Failed, failed
from trunkline.types import CallFacts, Completion, Generation, Message, PolicyVersion, SamplingParams, ToolCall, VersionSpan

WIRE = MessagesWire()
HI = [{"role": "user", "content": "hi"}]


def decode(messages=HI, **keys):
    return WIRE.decode(json.dumps({"messages": messages, **keys}).encode(), lambda completion_id: None)


def sent_back(body):
    return decode([*HI, {"role": "assistant", "content": body["content"]}]).ask.messages[-1]


def answer(message, *, finish="stop", stop_string=None, num_discarded=0):
    generation = Generation((5, 6, 7), (-0.5,) * 3, finish, (VersionSpan(0, 3, PolicyVersion(1, 0)),))
    completion = Completion("c1", "s", (1, 2, 3, 4), generation, SamplingParams(9), 0, 1, facts=CallFacts(num_discarded=num_discarded))
    return Answer((Committed(completion, message, (), stop_string),), "tiny", 0, lambda ids: "")


def body_of(message, *, request=None, **more):
    return json.loads((request or decode()).body(answer(message, **more)))


def test_answer_has_thinking_text_and_calls_in_this_order():
    message = Message("assistant", "I look.", (ToolCall("call_1", "Read", '{"path": "x", "n": 1.0}'),), reasoning="Where?")
    assert body_of(message, num_discarded=2) == {
        "id": "msg_c1",
        "type": "message",
        "role": "assistant",
        "model": "tiny",
        "content": [
            {"type": "thinking", "thinking": "Where?", "signature": "c1"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "call_1", "name": "Read", "input": {"path": "x", "n": 1.0}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "stop_details": None,
        "usage": {"input_tokens": 4, "output_tokens": 5, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
    }


def test_answer_carries_the_model_that_was_asked_for():
    assert body_of(Message("assistant"), request=decode(model="claude-opus-4-8"))["model"] == "claude-opus-4-8"


def test_thinking_is_hidden_from_a_client_that_disabled_it():
    message = Message("assistant", "Yes.", reasoning="Where?")
    assert body_of(message, request=decode(thinking={"type": "disabled"}))["content"] == [{"type": "text", "text": "Yes."}]


@pytest.mark.parametrize(
    ("finish", "stop_string", "reason"),
    [("stop", None, "end_turn"), ("length", None, "max_tokens"), ("stop", "END", "stop_sequence")],
)
def test_stop_reason_says_how_the_answer_ended(finish, stop_string, reason):
    body = body_of(Message("assistant", "Yes"), finish=finish, stop_string=stop_string)
    assert (body["stop_reason"], body["stop_sequence"]) == (reason, stop_string)


def test_empty_answer_has_an_empty_text_that_comes_back_as_an_empty_message():
    body = body_of(Message("assistant"))
    assert body["content"] == [{"type": "text", "text": ""}]
    assert sent_back(body) == Message("assistant")


@pytest.mark.parametrize("arguments", ["[1,2]", '"x"', "", '{"a":', '{"a":NaN}', "[" * 100_000])
def test_arguments_that_are_no_object_come_back_as_they_were_sampled(arguments):
    message = Message("assistant", "", (ToolCall("call_1", "Read", arguments),))
    body = body_of(message)
    assert body["content"][0]["input"] == {UNREADABLE_KEY: arguments}
    assert sent_back(body) == message


def official_client(serve):
    http = httpx2.Client(transport=httpx2.MockTransport(serve))
    return anthropic.Anthropic(api_key="k", base_url="http://gateway", http_client=http, max_retries=0)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=600)
INPUTS = st.dictionaries(TEXTS, TEXTS | st.integers(-(2**53), 2**53) | st.none(), max_size=3)
CALLS = st.lists(INPUTS.map(json.dumps), max_size=2).map(
    lambda texts: tuple(ToolCall(f"call_{place}", "Read", text) for place, text in enumerate(texts))
)
REPLIES = st.builds(Message, st.just("assistant"), TEXTS, CALLS, reasoning=TEXTS)


@given(REPLIES)
def test_official_client_puts_events_together_to_the_json_answer(message):
    request = decode()

    def serve(http_request):
        is_streamed = json.loads(http_request.content).get("stream")
        content = b"".join(request.events(answer(message))) if is_streamed else request.body(answer(message))
        kind = "text/event-stream" if is_streamed else "application/json"
        return httpx2.Response(200, content=content, headers={"content-type": kind})

    client = official_client(serve)
    whole = client.messages.create(model="m", max_tokens=9, messages=HI)
    with client.messages.stream(model="m", max_tokens=9, messages=HI) as stream:
        streamed = stream.get_final_message()
    assert streamed.to_dict() == whole.to_dict()
    echoed = sent_back(whole.to_dict())
    assert (echoed.content, echoed.reasoning) == (message.content, message.reasoning)
    assert [json.loads(call.arguments) for call in echoed.tool_calls] == [json.loads(call.arguments) for call in message.tool_calls]


def test_events_come_in_the_order_of_the_official_api():
    message = Message("assistant", "x" * 300, (ToolCall("call_1", "Read", '{"path":"x"}'),), reasoning="Where?")
    frames = b"".join(decode(stream=True).events(answer(message))).decode().split("\n\n")[:-1]
    names = [frame.partition("\n")[0].removeprefix("event: ") for frame in frames]
    events = [json.loads(frame.partition("\ndata: ")[2]) for frame in frames]
    assert names == [event["type"] for event in events]
    assert names == [
        "message_start",
        *["content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"],
        *["content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"],
        *["content_block_start", "content_block_delta", "content_block_stop"],
        "message_delta",
        "message_stop",
    ]
    deltas = [event["delta"]["type"] for event in events if event["type"] == "content_block_delta"]
    assert deltas == ["thinking_delta", "signature_delta", "text_delta", "text_delta", "input_json_delta"]
    assert events[0]["message"]["stop_reason"] is None
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("failure", "kind", "raised"),
    [
        (failed(UnknownSession("no session")), "authentication_error", anthropic.AuthenticationError),
        (failed(MalformedRequest("bad")), "invalid_request_error", anthropic.BadRequestError),
        (failed(BudgetExceeded("spent")), "rate_limit_error", anthropic.RateLimitError),
        (failed(EngineUnavailable("down")), "overloaded_error", anthropic.InternalServerError),
        (failed(TrunklineError("odd")), "api_error", anthropic.InternalServerError),
        (Failed(404, "", "", "no route"), "not_found_error", anthropic.NotFoundError),
        (Failed(413, "", "", "too large"), "request_too_large", anthropic.APIStatusError),
        (Failed(405, "", "", "POST only"), "invalid_request_error", anthropic.APIStatusError),
    ],
)
def test_official_client_raises_its_own_errors(failure, kind, raised):
    def serve(http_request):
        return httpx2.Response(failure.status, content=WIRE.refusal(failure), headers={"content-type": "application/json"})

    with pytest.raises(raised) as error:
        official_client(serve).messages.create(model="m", max_tokens=9, messages=HI)
    assert error.value.body == {"type": "error", "error": {"type": kind, "message": failure.message}, "request_id": None}


def test_official_client_raises_a_failure_that_comes_as_an_event():
    def serve(http_request):
        content = b": keep-alive\n\n" + WIRE.failure_event(failed(EngineUnavailable("down")))
        return httpx2.Response(200, content=content, headers={"content-type": "text/event-stream"})

    with pytest.raises(anthropic.APIStatusError, match="down"):
        list(official_client(serve).messages.create(model="m", max_tokens=9, messages=HI, stream=True))


def test_refused_thread_has_the_details_that_the_official_client_looks_for():
    error = MalformedRequest("thread: no", code=UNSUPPORTED_THREAD)
    assert json.loads(WIRE.refusal(failed(error)))["error"]["details"]["error_code"] == UNSUPPORTED_THREAD


def test_number_of_tokens_is_an_object():
    assert json.loads(encode_token_count(17)) == {"input_tokens": 17}
