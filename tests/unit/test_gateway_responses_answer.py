"""Answers of OpenAI's Responses as bytes: what they say, whole and as events, and that an echo is the turn that was sampled."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.unit.responses_scene import ALL_TOOLS, HELLO, WIRE, answered, call, canonical, decode, events_of, told
from trunkline.errors import BudgetExceeded, EngineUnavailable, MalformedRequest
from trunkline.gateway.wire import failed
from trunkline.types import Message

EVENT = TypeAdapter(ResponseStreamEvent)


def test_an_answer_is_a_response_object_of_the_sdk():
    message = Message("assistant", "let me see", (call('{"x": 1}'),), reasoning="hm")
    request = decode(tools=ALL_TOOLS, instructions="Be brief.", metadata={"a": "b"}, temperature=0.1)
    said = answered(message, request)
    Response.model_validate(said, strict=True)
    assert [item["type"] for item in said["output"]] == ["reasoning", "message", "function_call"]
    assert (said["status"], said["instructions"], said["metadata"], said["temperature"]) == ("completed", "Be brief.", {"a": "b"}, 1.0)
    assert (said["usage"]["input_tokens"], said["usage"]["output_tokens"], said["usage"]["total_tokens"]) == (3, 11, 14)
    assert said["output"][2] == {
        "type": "function_call",
        "id": "fc_s0a.1_0",
        "call_id": "call_1_0",
        "name": "get",
        "arguments": '{"x": 1}',
        "status": "completed",
    }


def test_a_turn_that_only_calls_has_no_message_and_an_empty_one_has():
    assert [item["type"] for item in answered(Message("assistant", "", (call("{}"),)))["output"]] == ["function_call"]
    assert [item["type"] for item in answered(Message("assistant", "", reasoning="hm"))["output"]] == ["reasoning", "message"]


def test_a_cut_answer_is_incomplete():
    said = answered(Message("assistant", "and th"), finish="length")
    assert (said["status"], said["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert said["output"][0]["status"] == "incomplete"
    assert events_of(Message("assistant", "and th"), finish="length")[-1][0] == "response.incomplete"


def test_encrypted_reasoning_comes_if_it_is_asked_for():
    message = Message("assistant", "a", reasoning="hm")
    assert "encrypted_content" not in answered(message)["output"][0]
    item = answered(message, decode(include=["reasoning.encrypted_content"]))["output"][0]
    assert base64.b64decode(item["encrypted_content"]) == b"hm"


def test_calls_are_answered_as_the_items_of_their_tools():
    calls = {
        "apply": '{"input": "*** Begin"}',
        "crm__get": "{}",
        "crm__apply": '{"input": ""}',
        "local_shell": '{"command": ["ls"], "timeout_ms": 5}',
        "shell": '{"commands": ["ls"]}',
        "apply_patch": '{"type": "create_file", "path": "a", "diff": "+x"}',
    }
    reply = Message("assistant", "", tuple(call(text, name, f"call_1_{place}") for place, (name, text) in enumerate(calls.items())))
    said = answered(reply)
    Response.model_validate(said, strict=True)
    custom, function, custom_of_namespace, local_shell, shell, patch = said["output"]
    assert (custom["type"], custom["name"], custom["input"]) == ("custom_tool_call", "apply", "*** Begin")
    assert (function["type"], function["name"], function["namespace"]) == ("function_call", "get", "crm")
    assert (custom_of_namespace["name"], custom_of_namespace["namespace"]) == ("apply", "crm")
    assert local_shell["action"] == {"type": "exec", "env": {}, "command": ["ls"], "timeout_ms": 5}
    assert (shell["type"], shell["action"]) == ("shell_call", {"commands": ["ls"]})
    assert patch["operation"] == {"type": "create_file", "path": "a", "diff": "+x"}


ODD_CALLS = [
    ("apply", '{"input": 3}'),
    ("apply", '{"text": "x"}'),
    ("apply", '{"input": "{\\"input\\": 3}"}'),
    ("apply", "[]"),
    ("crm__apply", '{"input": "a", "more": 1}'),
    ("crm__get", '{"x": 1}'),
    ("local_shell", '{"command": "ls"}'),
    ("local_shell", '{"command": ["ls"], "env": {}}'),
    ("local_shell", '{"command": ["ls"], "type": "exec"}'),
    ("local_shell", '{"command": ["ls"], "env": {"A": "b"}, "working_directory": "/"}'),
    ("shell", '{"commands": ["ls"], "timeout_ms": null}'),
    ("shell", "3"),
    ("apply_patch", '{"type": "delete_file", "path": "a", "diff": "+"}'),
    ("apply_patch", '{"input": "*** Begin"}'),
    ("apply_patch", '{"type": "update_file", "path": "a", "diff": "+"}'),
    ("tool_search", '{"query": "x", "limit": 3}'),
    ("tool_search", "[]"),
    ("unknown", '{"x": 18446744073709551616}'),
]


@pytest.mark.parametrize(("name", "arguments"), ODD_CALLS)
def test_the_echo_of_any_call_is_that_call(name, arguments):
    message = Message("assistant", "", (call(arguments, name),))
    said = answered(message)
    Response.model_validate(said, strict=True)
    assert [canonical(got) for got in told(*said["output"])] == [canonical(message)]


def test_the_output_of_a_call_with_odd_arguments_answers_that_call():
    message = Message("assistant", "", (call("[]", "apply"),))
    item = answered(message)["output"][0]
    assert item["input"] == "[]"
    output = {"type": "custom_tool_call_output", "call_id": item["call_id"], "output": "not a patch"}
    assert told(item, output) == (message, Message("tool", "not a patch", tool_call_id="call_1_0"))


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
CALLS = st.sampled_from(["get", "crm__get", "other"]).flatmap(
    lambda name: st.dictionaries(st.text(max_size=3), WORDS, max_size=2).map(lambda keys: (name, json.dumps(keys)))
) | WORDS.map(lambda text: ("apply", json.dumps({"input": text})))


@settings(max_examples=150, deadline=None)
@given(WORDS, WORDS, st.lists(CALLS | st.sampled_from(ODD_CALLS), max_size=3), st.sets(st.sampled_from(["id", "content", "status"])))
def test_echoed_items_are_the_turn_that_was_answered(content, reasoning, calls, dropped):
    """Whatever of the keys a client may drop; reasoning without content is kept as encrypted_content."""
    called = tuple(call(arguments, name, f"call_1_{place}") for place, (name, arguments) in enumerate(calls))
    message = Message("assistant", content, called, reasoning=reasoning)
    request = decode(tools=ALL_TOOLS, include=["reasoning.encrypted_content"])
    items = answered(message, request)["output"]
    for item in items:
        for key in dropped - ({"content"} if item["type"] == "message" else set()):
            item.pop(key, None)
    got = told(*HELLO, *items, *HELLO)
    assert [canonical(one) for one in got[1:-1]] == [canonical(message)]


@settings(max_examples=100, deadline=None)
@given(WORDS, WORDS, st.lists(CALLS | st.sampled_from(ODD_CALLS), max_size=2), st.sampled_from(["stop", "length"]))
def test_events_say_what_the_object_says(content, reasoning, calls, finish):
    called = tuple(call(arguments, name, f"call_1_{place}") for place, (name, arguments) in enumerate(calls))
    message = Message("assistant", content, called, reasoning=reasoning)
    whole, events = answered(message, finish=finish), events_of(message, finish=finish)
    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    assert [name for name, _ in events] == [data["type"] for _, data in events]
    assert [name for name, _ in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1][1]["response"] == whole
    assert [data["item"] for name, data in events if name == "response.output_item.done"] == whole["output"]
    deltas = "".join(data["delta"] for name, data in events if name.endswith(".delta"))
    done = [data for name, data in events if name.endswith(("_text.done", "arguments.done", "input.done"))]
    assert deltas == "".join(data.get("text", data.get("arguments", data.get("input"))) for data in done)
    for _, data in events:
        EVENT.validate_python(data, strict=True)


def test_no_event_holds_a_long_piece():
    deltas = [data["delta"] for name, data in events_of(Message("assistant", "x" * 1000)) if name.endswith(".delta")]
    assert [len(delta) for delta in deltas] == [256, 256, 256, 232]


# --- log-probabilities ------------------------------------------------------------------------------------------------

TOKENS = ["<think>", "hm", "</think>", "\n\n", "He", "llo", "é", "<end>", " so"]


def text_of(token_ids):
    return "".join(TOKENS[token] for token in token_ids)


def test_log_probabilities_are_those_of_the_tokens_of_the_text():
    request = decode(include=["message.output_text.logprobs"])
    message, options = Message("assistant", "Helloé", reasoning="hm"), {"token_ids": tuple(range(8)), "text": text_of}
    said = answered(message, request, **options)
    Response.model_validate(said, strict=True)
    part = said["output"][1]["content"][0]
    assert [(one["token"], one["logprob"]) for one in part["logprobs"]] == [("He", -2.0), ("llo", -2.5), ("é", -3.0)]
    assert part["logprobs"][2]["bytes"] == list("é".encode())
    events = events_of(message, request, **options)
    assert [data["logprobs"] for name, data in events if name == "response.output_text.delta"] == [part["logprobs"]]
    for _, data in events:
        EVENT.validate_python(data, strict=True)


def test_a_token_that_writes_more_than_the_text_is_one_of_its_tokens():
    request = decode(include=["message.output_text.logprobs"])
    part = answered(Message("assistant", "so"), request, token_ids=(8, 7), text=text_of)["output"][0]["content"][0]
    assert [one["token"] for one in part["logprobs"]] == [" so"]


def test_log_probabilities_are_left_out_where_the_text_is_not_that_of_the_tokens():
    request = decode(include=["message.output_text.logprobs"])
    said = answered(Message("assistant", "rewritten"), request, token_ids=(4, 5), text=text_of)
    assert said["output"][0]["content"][0]["logprobs"] == []
    assert answered(Message("assistant", "He"), decode(), token_ids=(4,), text=text_of)["output"][0]["content"][0]["logprobs"] == []


def test_part_of_a_character_has_no_bytes():
    request = decode(include=["message.output_text.logprobs"])

    def text(token_ids):
        return b"".join((b"a", b"\xc3", b"\xa9")[token] for token in token_ids).decode(errors="replace")

    part = answered(Message("assistant", "aé"), request, token_ids=(0, 1, 2), text=text)["output"][0]["content"][0]
    assert [(one["token"], one["bytes"]) for one in part["logprobs"]] == [("a", [97]), ("\ufffd", []), ("\ufffd", [])]


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_refusal_names_the_key_that_is_wrong():
    error = json.loads(WIRE.refusal(failed(MalformedRequest("input[3].content[0]: Expected `object`, got `int`"))))["error"]
    assert error == {
        "message": "input[3].content[0]: Expected `object`, got `int`",
        "type": "invalid_request_error",
        "param": "input[3].content[0]",
        "code": "malformed_request",
    }
    assert json.loads(WIRE.refusal(failed(BudgetExceeded("spent"))))["error"]["param"] is None


def test_a_failure_in_a_stream_is_an_error_and_a_failed_response():
    first, second = WIRE.failure_event(failed(EngineUnavailable("the engine is away"))).decode().removesuffix("\n\n").split("\n\n")
    name, data = first.split("\n")
    error = json.loads(data.removeprefix("data: "))
    assert (name, error["error"]["message"], error["code"]) == ("event: error", "the engine is away", "engine_unavailable")
    EVENT.validate_python(error, strict=True)
    name, data = second.split("\n")
    lost = json.loads(data.removeprefix("data: "))
    assert (name, lost["response"]["error"]["code"]) == ("event: response.failed", "server_error")
    EVENT.validate_python(lost, strict=True)
