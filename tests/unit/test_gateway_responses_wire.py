"""Requests of OpenAI's Responses as bytes: what they decode to, and what is refused."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.responses_scene import (
    ALL_TOOLS,
    CUSTOM,
    FUNCTION,
    HELLO,
    NAMESPACE,
    SEARCH,
    WIRE,
    answer_of,
    answered,
    ask,
    call,
    canonical,
    decode,
    no_past,
    refused,
    told,
)
from trunkline.errors import MalformedRequest
from trunkline.gateway.wire import Ask, failed
from trunkline.types import Message, ToolCall


def test_a_text_is_a_user_message_behind_the_instructions():
    request = decode(input="hi", instructions="Be brief.")
    assert request.ask.messages == (Message("system", "Be brief."), Message("user", "hi"))
    assert (request.ask.wire, request.is_streamed, request.ask.keeps_reasoning) == ("responses", False, False)


def test_messages_come_with_or_without_their_type_and_in_parts():
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    said = {"type": "message", "role": "assistant", "id": "msg_x", "content": [{"type": "output_text", "text": "yes", "annotations": []}]}
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    assert told({"role": "developer", "content": "d"}, {"type": "message", "role": "user", "content": parts}, said) == (
        Message("system", "d"),
        Message("user", "ab"),
        Message("assistant", "yes"),
    )
    assert told(refusal) == (Message("assistant", "no"),)


def test_images_and_files_leave_a_mark_in_the_text_and_in_the_record():
    content = [
        {"type": "input_text", "text": "see "},
        {"type": "input_image"},
        {"type": "input_file", "file_id": "f"},
    ]
    got = ask({"role": "user", "content": content}, {"role": "user", "content": content})
    assert got.messages[0].content == "see [input_image][input_file]"
    assert got.not_honoured == (
        "a content part of type 'input_image': the model reads '[input_image]' in its place",
        "a content part of type 'input_file': the model reads '[input_file]' in its place",
    )


def test_reasoning_message_and_calls_are_one_turn_and_outputs_answer_it():
    got = told(
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "let me see"}]},
        {"type": "function_call", "call_id": "a", "name": "get", "arguments": "{}"},
        {"type": "function_call", "call_id": "b", "name": "get", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "2"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "so"}]},
        {"role": "assistant", "content": "3"},
    )
    assert got == (
        Message("assistant", "let me see", (ToolCall("a", "get", "{}"), ToolCall("b", "get", "{}")), reasoning="hm"),
        Message("tool", "1", tool_call_id="a"),
        Message("tool", "2", tool_call_id="b"),
        Message("assistant", "3", reasoning="so"),
    )


def test_turns_that_follow_one_another_stay_apart():
    assert told({"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}) == (
        Message("assistant", "a"),
        Message("assistant", "b"),
    )
    called = {"type": "function_call", "call_id": "a", "name": "get", "arguments": "{}"}
    assert [len(message.tool_calls) for message in told(called, {"role": "assistant", "content": "b"})] == [1, 0]


@pytest.mark.parametrize("with_ids", [True, False])
def test_outputs_between_the_calls_of_one_turn_do_not_split_it(with_ids):
    calls = [{"type": "function_call", "call_id": f"call_4_{place}", "name": "get", "arguments": "{}"} for place in range(2)]
    if with_ids:
        calls = [one | {"id": f"fc_s0a.1_{place}", "call_id": f"own{place}"} for place, one in enumerate(calls)]
    outputs = [{"type": "function_call_output", "call_id": one["call_id"], "output": "x"} for one in calls]
    got = told(calls[0], outputs[0], calls[1], outputs[1])
    assert [message.role for message in got] == ["assistant", "tool", "tool"]
    assert [one.call_id for one in got[0].tool_calls] == [one["call_id"] for one in calls]


def test_two_answers_in_a_row_are_told_apart_by_the_ids_of_their_items():
    items = [
        {"type": "reasoning", "id": "rs_s0a.1", "summary": [], "content": [{"type": "reasoning_text", "text": "one"}]},
        {"type": "reasoning", "id": "rs_s0a.2", "summary": [], "content": [{"type": "reasoning_text", "text": "two"}]},
        {"type": "message", "id": "msg_s0a.2", "role": "assistant", "content": "b"},
    ]
    assert told(*items) == (Message("assistant", reasoning="one"), Message("assistant", "b", reasoning="two"))


def test_ids_of_another_house_say_nothing_of_turns():
    items = [
        {"type": "reasoning", "id": "rs_68aa", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "id": "msg_68bb", "role": "assistant", "content": "a"},
        {"type": "function_call", "id": "fc_68cc", "call_id": "c", "name": "get", "arguments": "{}"},
    ]
    assert told(*items) == (Message("assistant", "a", (ToolCall("c", "get", "{}"),), reasoning="hm"),)


def test_reasoning_of_which_nothing_is_left_makes_no_turn():
    assert told({"type": "reasoning", "id": "rs_68aa", "summary": []}, *HELLO) == (Message("user", "hello"),)


def test_empty_instructions_are_none():
    request = decode(instructions="")
    assert request.ask.messages == (Message("user", "hello"),)
    assert answered(Message("assistant", "a"), request)["id"] == "resp_s0a.1"


def test_reasoning_is_read_from_what_the_client_kept_of_it():
    kept = base64.b64encode("häm".encode()).decode()
    earlier = {"s0a.1": (Message("user", "q"), Message("assistant", "a", reasoning="as sampled"))}

    def reasoning(**item):
        got = ask({"type": "reasoning", "summary": [], **item}, {"role": "assistant", "content": "a"}, past=earlier.get)
        assert got.keeps_reasoning
        return got.messages[0].reasoning, bool(got.not_honoured)

    assert reasoning(encrypted_content=kept) == ("häm", False)
    assert reasoning(id="rs_s0a.1") == ("as sampled", False)
    summary = [{"type": "summary_text", "text": "short"}]
    assert reasoning(id="rs_other", encrypted_content="gAAAAABo=", summary=summary) == ("short", True)


def test_a_client_that_asks_for_encrypted_reasoning_keeps_it():
    assert decode(include=["reasoning.encrypted_content"]).ask.keeps_reasoning


def test_calls_of_the_clients_own_tools_have_json_arguments():
    got = told(
        {"type": "custom_tool_call", "call_id": "c", "name": "apply", "input": "*** Begin"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "done"},
        {"type": "local_shell_call", "id": "lsh_1", "call_id": "l", "action": {"type": "exec", "command": ["ls"], "env": {}, "user": None}},
        {"type": "local_shell_call_output", "id": "l", "output": "a.txt"},
        {"type": "shell_call", "call_id": "s", "action": {"commands": ["ls"]}},
        {
            "type": "shell_call_output",
            "call_id": "s",
            "output": [{"stdout": "a", "stderr": "", "outcome": {"type": "timeout"}}],
        },
        {"type": "apply_patch_call", "call_id": "p", "status": "completed", "operation": {"type": "delete_file", "path": "a"}},
        {"type": "apply_patch_call_output", "call_id": "p", "status": "failed", "output": "no such file"},
    )
    assert [(message.tool_calls[0].name, json.loads(message.tool_calls[0].arguments)) for message in got[::2]] == [
        ("apply", {"input": "*** Begin"}),
        ("local_shell", {"command": ["ls"]}),
        ("shell", {"commands": ["ls"]}),
        ("apply_patch", {"type": "delete_file", "path": "a"}),
    ]
    assert [(message.tool_call_id, message.content) for message in got[1::2]] == [
        ("c", "done"),
        ("l", "a.txt"),
        ("s", '[{"stdout":"a","stderr":"","outcome":{"type":"timeout"}}]'),
        ("p", "failed\nno such file"),
    ]


def test_items_of_hosted_tools_and_unknown_items_are_left_out_and_recorded_once():
    searches = [{"type": "web_search_call", "id": f"ws_{one}", "status": "completed", "action": {}} for one in range(3)]
    got = ask(*HELLO, *searches, {"type": "compaction", "encrypted_content": "x"}, {"type": "brand_new", "x": [1]})
    assert got.messages == (Message("user", "hello"),)
    kinds = ("web_search_call", "compaction", "brand_new")
    assert got.not_honoured == tuple(f"an input item of type {kind!r}: it is left out" for kind in kinds)


def test_the_conversation_behind_a_response_comes_before_the_input():
    earlier = (Message("user", "q"), Message("assistant", "a"))
    got = decode({"s0a.1": earlier}.get, previous_response_id="resp_s0a.1")
    assert got.ask.messages == (*earlier, Message("user", "hello"))


def test_instructions_of_an_earlier_response_are_not_carried_over():
    first = decode(instructions="Old.")
    response_id = answered(Message("assistant", "a"), first)["id"]
    past = {"s0a.1": (*first.ask.messages, Message("assistant", "a"))}.get
    assert [message.content for message in decode(past, previous_response_id=response_id).ask.messages] == ["hello", "a", "hello"]
    renewed = decode(past, previous_response_id=response_id, instructions="New.")
    assert [message.content for message in renewed.ask.messages] == ["New.", "hello", "a", "hello"]


def test_a_system_message_of_the_input_is_carried_over():
    first = decode(input=[{"role": "developer", "content": "Keep."}, *HELLO])
    response_id = answered(Message("assistant", "a"), first)["id"]
    past = {"s0a.1": (*first.ask.messages, Message("assistant", "a"))}.get
    assert decode(past, previous_response_id=response_id).ask.messages[0] == Message("system", "Keep.")


def test_an_unknown_previous_response_is_said_as_openai_says_it():
    message = refused({"input": "x", "previous_response_id": "resp_gone"})
    error = json.loads(WIRE.refusal(failed(MalformedRequest(message))))["error"]
    assert (error["type"], error["param"], error["code"]) == (
        "invalid_request_error",
        "previous_response_id",
        "previous_response_not_found",
    )


def test_references_to_items_of_earlier_answers_are_resolved():
    reply = Message("assistant", "text", (call("{}", call_id="a"), call('{"x":1}', call_id="b")), reasoning="hm")
    past = {"s0a.1": (Message("user", "q"), reply)}.get
    items = [{"id": item["id"], "type": "item_reference"} for item in answered(reply)["output"]]
    assert told(*items, past=past) == (reply,)
    assert told({"id": items[2]["id"]}, past=past) == (Message("assistant", tool_calls=reply.tool_calls[:1]),)
    assert "input[0].id: no item 'msg_gone'" in refused({"input": [{"type": "item_reference", "id": "msg_gone"}]})


# --- keys -------------------------------------------------------------------------------------------------------------


def test_tools_are_offered_by_their_kind_and_equal_ones_have_equal_keys():
    offer = decode(tools=ALL_TOOLS).ask.tools
    names = ["get", "apply", "crm__get", "crm__apply", "local_shell", "shell", "apply_patch", "tool_search"]
    assert [spec.name for spec in offer.specs] == names
    assert list(offer.specs[1].parameters["properties"]) == ["input"]
    assert offer.key == decode(tools=json.loads(json.dumps(ALL_TOOLS, indent=1)), input="other").ask.tools.key
    assert offer.key != decode(tools=[FUNCTION]).ask.tools.key
    assert decode(tools=[]).ask.tools.key == decode().ask.tools.key == b""


def test_tools_that_come_among_the_items_are_offered_too():
    further = {"type": "additional_tools", "role": "developer", "tools": [{**NAMESPACE, "name": "functions"}]}
    got = decode(input=[further, *HELLO], tools=[FUNCTION | {"description": "Replaced"}, {"type": "shell"}])
    assert [(spec.name, spec.description) for spec in got.ask.tools.specs] == [
        ("get", "One fact"),
        ("shell", "Runs shell commands, one after another."),
        ("apply", "Free text"),
    ]
    assert got.ask.not_honoured == ()
    item = answered(Message("assistant", "", (call("{}"),)), got)["output"][0]
    assert (item["name"], item["namespace"]) == ("get", "functions")


def test_tools_that_a_search_finds_are_offered_from_then_on():
    message = Message("assistant", "", (call('{"query": "crm"}', "tool_search"),))
    (item,) = answered(message)["output"]
    assert (item["type"], item["execution"], item["arguments"]) == ("tool_search_call", "client", {"query": "crm"})
    found = {"type": "tool_search_output", "call_id": item["call_id"], "execution": "client", "tools": [NAMESPACE]}
    got = ask(item, found, tools=[SEARCH])
    assert canonical(got.messages[0]) == canonical(message)
    assert json.loads(got.messages[1].content) == [NAMESPACE]
    assert [spec.name for spec in got.tools.specs] == ["tool_search", "crm__get", "crm__apply"]


def test_a_grammar_is_told_to_the_model():
    tool = CUSTOM | {"format": {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}}
    assert decode(tools=[tool]).ask.tools.specs[0].description == 'Free text\n\nThe input follows this lark grammar:\nstart: "x"'


def test_hosted_and_unknown_tools_are_recorded_and_not_offered():
    got = decode(tools=[FUNCTION, {"type": "web_search"}, {"type": "mcp", "server_label": "x"}, {"type": "new"}])
    assert [spec.name for spec in got.ask.tools.specs] == ["get"]
    assert got.ask.not_honoured == tuple(f"a tool of type {kind!r}: it is not offered" for kind in ("web_search", "mcp", "new"))
    assert answered(Message("assistant", "x"), got)["tools"] == [FUNCTION]


def test_the_sampler_is_asked_what_the_client_asks():
    request = decode(max_output_tokens=9, temperature=0.2, top_p=0.9, stream=True)
    assert request.ask.asked.stated() == {"max_tokens": 9, "temperature": 0.2, "top_p": 0.9}
    assert request.is_streamed


def test_tool_choice_none_forbids_calls_and_others_are_recorded():
    assert not decode(tool_choice="none").ask.may_call
    assert decode(tool_choice="auto").ask.not_honoured == ()
    assert decode(tool_choice="required").ask.not_honoured == ('tool_choice "required": calls cannot be forced',)
    forced = decode(tool_choice={"type": "function", "name": "get"})
    assert forced.ask.may_call and forced.ask.not_honoured[0].startswith('tool_choice {"type":"function"')


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("text", {"format": {"type": "json_schema", "name": "x", "schema": {}}}, "text.format 'json_schema': the text is not constrained"),
        ("text", {"verbosity": "low"}, "text.verbosity 'low'"),
        ("reasoning", {"effort": "high", "summary": "auto"}, "reasoning.effort 'high'"),
        ("truncation", "auto", 'truncation "auto"'),
        ("parallel_tool_calls", False, "parallel_tool_calls false"),
        ("top_logprobs", 5, "top_logprobs 5"),
        ("prompt", {"id": "pmpt_1"}, "unknown key 'prompt'"),
        ("frobnicate", 1, "unknown key 'frobnicate'"),
    ],
)
def test_a_key_that_would_change_answers_is_recorded(key, value, said):
    assert decode(**{key: value}).ask.not_honoured == (said,)


def test_keys_that_change_no_token_are_accepted():
    harmless = {
        "store": False,
        "metadata": {"a": "b"},
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "service_tier": "auto",
        "stream_options": {"include_obfuscation": False},
        "client_metadata": {"x": "y"},
        "include": ["message.output_text.logprobs", "file_search_call.results"],
        "truncation": "disabled",
        "parallel_tool_calls": True,
        "text": {"format": {"type": "text"}},
        "reasoning": {"summary": "auto"},
        "max_tool_calls": 3,
        "background": False,
        "prompt": None,
    }
    assert decode(**harmless).ask.not_honoured == ()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body: "),
        (b"[]", "the body: Expected `object`, got `array`"),
        (b'{"input": NaN}', "the body: JSON is malformed"),
        (b'{"input": "\\ud800"}', "the body: "),
        (b'{"input": "\xff"}', "the body: 'utf-8' codec"),
        (b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "the body: maximum recursion depth"),
        ({}, "input: it is missing"),
        ({"input": []}, "input: it is empty"),
        ({"input": 3}, "input: Expected `str | array | null`, got `int`"),
        ({"input": [3]}, "input[0]: Expected `object`, got `int`"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role: Invalid enum value 'robot'"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": 3}]}]}, "input[0].content[0].text: Expected `str | null`"),
        ({"input": [{"role": "user", "content": [7]}]}, "input[0].content[0]: Expected `object`, got `int`"),
        ({"input": [{"type": "function_call", "call_id": "a", "name": "b"}]}, "input[0].arguments: a function_call needs it, as a string"),
        ({"input": [{"type": "function_call", "name": "b", "arguments": "{}"}]}, "input[0].call_id: a function_call needs it, as a string"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0]: a function_call_output needs the call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "a", "output": 1}]}, "input[0].output: Expected `str | array | null`"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens: it must be at least 1, got 0"),
        ({"input": "x", "temperature": "hot"}, "temperature: Expected `float | null`, got `str`"),
        ({"input": "x", "tools": [FUNCTION, FUNCTION]}, "tools: names must differ"),
        ({"input": "x", "tools": [{"type": "function"}]}, "tools[0]: a function tool needs a name"),
        ({"input": "x", "tools": [{"type": "custom", "name": 3}]}, "tools[0].name: Expected `str | null`, got `int`"),
        ({"input": "x", "background": True}, "background: "),
        ({"input": "x", "conversation": "conv_1"}, "conversation: "),
    ],
)
def test_a_wrong_request_is_refused_with_the_place_of_what_is_wrong(body, said):
    assert refused(body).startswith(said)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
CALL_TYPES = ["function_call", "custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call", "tool_search_call"]
OUTPUT_TYPES = [f"{one}_output" for one in CALL_TYPES]
OTHER_TYPES = ["message", "reasoning", "additional_tools", "tool_search_output", "item_reference", "x", ""]
TYPES = st.sampled_from([*CALL_TYPES, *OUTPUT_TYPES, *OTHER_TYPES])
TEXTS = st.text(max_size=4) | st.sampled_from(["rs_s0a.1", "fc_s0a.1_0", "fc_s0a.1_9", "msg_s0a.1", "call_1_0", "{}"])
PART = st.fixed_dictionaries({"type": st.sampled_from(["input_text", "refusal", "z"])}, optional={"text": TEXTS | JSON})
PARTS = st.lists(PART, max_size=2)
ITEM_VALUES = {
    "role": st.sampled_from(["user", "assistant", "developer", "tool"]),
    "content": TEXTS | PARTS | JSON,
    "summary": PARTS | JSON,
    "encrypted_content": TEXTS,
    "output": TEXTS | PARTS | JSON,
    **dict.fromkeys(["id", "call_id", "name", "namespace", "arguments", "input"], TEXTS),
    **dict.fromkeys(["action", "operation", "extra", "tools"], JSON),
}
ITEMS = st.fixed_dictionaries({"type": TYPES}, optional=ITEM_VALUES)
TOOLS = st.fixed_dictionaries(
    {"type": st.sampled_from(["function", "custom", "namespace", "shell", "mcp"])},
    optional={"name": TEXTS, "parameters": JSON, "description": JSON, "tools": JSON, "format": JSON},
)
BODIES = st.fixed_dictionaries(
    {"input": TEXTS | st.lists(ITEMS | JSON, max_size=5)},
    optional={
        "tools": st.lists(TOOLS | JSON, max_size=3),
        "previous_response_id": st.sampled_from(["resp_s0a.1", "resp_", "x"]) | JSON,
        "include": JSON,
        **dict.fromkeys(["instructions", "text", "reasoning", "tool_choice", "metadata", "truncation", "zzz", "conversation"], JSON),
        **dict.fromkeys(["temperature", "max_output_tokens", "stream", "top_logprobs"], JSON),
    },
)


@settings(max_examples=150, deadline=None)
@given(BODIES)
def test_any_body_is_asked_or_refused(body):
    past = {"s0a.1": (Message("user", "q"), Message("assistant", "a", (call("{}"),), reasoning="r"))}.get
    try:
        got = WIRE.decode(json.dumps(body).encode(), past)
    except MalformedRequest:
        return
    assert isinstance(got.ask, Ask) and got.ask.messages
    assert all(message.content.isascii() or message.content.encode() for message in got.ask.messages)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=20) | st.binary(max_size=8).map(lambda some: b'{"input":[{"role":"user","content":"' + some + b'"}]}'))
def test_any_bytes_are_asked_or_refused(body):
    try:
        WIRE.decode(body, no_past)
    except MalformedRequest as error:
        assert str(error)


@pytest.mark.parametrize("depth", [300, 900, 960, 980, 1000, 1500])
@pytest.mark.parametrize(
    "body",
    [
        '{"input":"x","tool_choice":{"a":DEEP}}',
        '{"input":"x","frobnicate":DEEP}',
        '{"input":"x","tools":[{"type":"function","name":"a","parameters":{"a":DEEP}}]}',
        '{"input":[{"type":"shell_call","call_id":"a","action":{"a":DEEP}}]}',
        '{"input":[{"type":"shell_call_output","call_id":"a","output":[{"a":DEEP}]}]}',
    ],
)
def test_deep_nesting_is_asked_or_refused(body, depth):
    deep = body.replace("DEEP", "[" * depth + "]" * depth).encode()
    try:
        assert WIRE.decode(deep, no_past).body(answer_of(Message("assistant", "ok")))
    except MalformedRequest as error:
        assert "recursion" in str(error)
