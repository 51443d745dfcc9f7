"""Anthropic's Messages: what requests decode to, and what answers, events and errors say to the official client."""

import json
import time

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import BudgetExceeded, EngineUnavailable, MalformedRequest, TrunklineError, UnknownSession
from trunkline.gateway.messages_answer import encode_token_count
from trunkline.gateway.messages_blocks import UNREADABLE_KEY
from trunkline.gateway.messages_wire import MessagesWire
from trunkline.gateway.sampling import AskedSampling
from trunkline.gateway.wire import Answer, Ask, Committed, Failed, failed
from trunkline.types import (
    CallFacts,
    Completion,
    Generation,
    Message,
    PolicyVersion,
    SamplingParams,
    ToolCall,
    ToolSpec,
    VersionSpan,
)

WIRE = MessagesWire()
HI = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
READ = {"name": "Read", "description": "Reads a file", "input_schema": SCHEMA}
MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


def no_past(completion_id):
    return None


def decode(messages=HI, **keys):
    return WIRE.decode(json.dumps({"model": "claude", "max_tokens": 100, "messages": messages, **keys}).encode(), no_past)


def messages_of(messages=HI, **keys):
    return decode(messages, **keys).ask.messages


def unkept(messages=HI, **keys):
    return decode(messages, **keys).ask.not_honoured


def text(words, **more):
    return {"type": "text", "text": words, **more}


def use(call_id, name, arguments, **more):
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments, **more}


def result(call_id, content, **more):
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **more}


def user(*blocks):
    return [{"role": "user", "content": list(blocks)}]


def assistant(*blocks):
    return [{"role": "assistant", "content": list(blocks)}]


# --- messages ---------------------------------------------------------------------------------------------------------


def test_system_is_a_string_or_blocks_in_lines_of_their_own():
    assert messages_of(system="be brief") == (Message("system", "be brief"), Message("user", "hi"))
    assert messages_of(system=[text("be brief"), text("be kind")])[0] == Message("system", "be brief\nbe kind")
    assert messages_of(system=[])[0] == messages_of(system="")[0] == Message("user", "hi")


def test_line_with_which_claude_code_bills_its_calls_is_no_part_of_the_system_prompt():
    lines = [f"x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=cli; cch={nonce};" for nonce in ("36ee5", "0aaa9")]
    first, second = (messages_of(system=[text(line), text("You are an agent.", **MARK)]) for line in lines)
    assert first == second == (Message("system", "You are an agent."), Message("user", "hi"))
    assert messages_of(system=f"{lines[0]}\nYou are an agent.") == first


def test_turns_of_role_system_or_developer_stay_where_they_are():
    turns = [*HI, {"role": "system", "content": [text("be brief")]}, {"role": "developer", "content": "be kind"}]
    assert messages_of(turns) == (Message("user", "hi"), Message("system", "be brief"), Message("system", "be kind"))


def test_system_turn_for_one_user_turn_is_gone_at_the_next():
    note = {"role": "system", "content": "only now", "clear_at": "next_user_message"}
    assert messages_of([*HI, note])[1] == Message("system", "only now")
    assert messages_of([*HI, note, *assistant(text("yes")), *HI]) == (Message("user", "hi"), Message("assistant", "yes"), Message("user", "hi"))


def test_string_and_one_text_block_are_the_same_message():
    assert messages_of(user(text("hi", **MARK))) == messages_of(HI)
    assert messages_of(assistant(text("hi"))) == messages_of([{"role": "assistant", "content": "hi"}])


def test_results_become_tool_messages_in_order_and_words_follow_them():
    turn = user(text("look"), result("b", "two"), result("a", [text("one"), text("more")]), text("go on"))
    assert messages_of(turn) == (
        Message("tool", "two", tool_call_id="b"),
        Message("tool", "one\nmore", tool_call_id="a"),
        Message("user", "look\ngo on"),
    )


def test_result_alone_makes_no_user_message():
    assert messages_of(user(result("a", None))) == (Message("tool", "", tool_call_id="a"),)


def test_failed_result_says_so_in_its_text():
    assert messages_of(user(result("a", "no such file", is_error=True)))[0].content == "[error] no such file"
    assert messages_of(user(result("a", "fine", is_error=False)))[0].content == "fine"


def test_assistant_blocks_become_reasoning_text_and_calls():
    turn = assistant(
        {"type": "thinking", "thinking": "first", "signature": "s"},
        text("I look"),
        use("a", "Read", {"path": "/é", "n": [1, 2.5, None]}),
        text(" twice"),
        {"type": "thinking", "thinking": "then", "signature": "s"},
        use("b", "Read", {}),
    )
    assert messages_of(turn) == (
        Message(
            "assistant",
            "I look twice",
            (ToolCall("a", "Read", '{"path":"/é","n":[1,2.5,null]}'), ToolCall("b", "Read", "{}")),
            reasoning="first\nthen",
        ),
    )


def test_assistant_turns_in_a_row_are_one_and_user_turns_are_not():
    turns = [*HI, *HI, *assistant(text("a")), *assistant(use("x", "Read", {})), *assistant(text("b"))]
    assert messages_of(turns) == (
        Message("user", "hi"),
        Message("user", "hi"),
        Message("assistant", "ab", (ToolCall("x", "Read", "{}"),)),
    )


def test_assistant_turn_may_come_last():
    assert messages_of([*HI, {"role": "assistant", "content": "The answer is ("}])[-1] == Message("assistant", "The answer is (")


def test_empty_content_is_an_empty_message():
    assert messages_of([{"role": "user", "content": ""}, {"role": "assistant", "content": []}]) == (Message("user"), Message("assistant"))


def test_marks_for_the_cache_change_no_message_and_no_tools():
    def conversation(mark):
        return [
            *user(text("hi", **mark)),
            *assistant(text("look", **mark), use("a", "Read", {"path": "x"}, **mark)),
            *user(result("a", [text("one", **mark)], **mark), text("go on", **mark)),
        ]

    plain = decode(conversation({}), system=[text("be brief")], tools=[READ]).ask
    marked = decode(conversation(MARK), system=[text("be brief", **MARK)], tools=[{**READ, **MARK}], **MARK).ask
    assert plain == marked
    assert not marked.not_honoured


def test_images_and_pdfs_stand_as_their_kind_and_are_reported():
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}
    pdf = {"type": "document", "title": "Plan", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}}
    asked = decode([*user(text("see"), image, pdf), *assistant(use("a", "Read", {})), *user(result("a", [image]))]).ask
    assert [message.content for message in asked.messages] == ["see\n[image]\n[document]", "", "[image]"]
    assert asked.not_honoured == (
        "a block of type 'image': the model reads '[image]' in its place",
        "a block of type 'document': the model reads '[document]' in its place",
    )


def test_documents_and_search_results_are_told_by_their_text():
    plain = {"type": "document", "title": "Plan", "source": {"type": "text", "media_type": "text/plain", "data": "Build it."}}
    parts = {"type": "document", "source": {"type": "content", "content": [text("one"), text("two")]}}
    found = {"type": "search_result", "title": "Peru", "source": "https://peru.example", "content": [text("Lima")]}
    asked = decode(user(plain, parts, found)).ask
    assert asked.messages[0].content == "Plan\nBuild it.\none\ntwo\nPeru\nhttps://peru.example\nLima"
    assert not asked.not_honoured


def test_server_tools_of_earlier_answers_are_told_as_text():
    turn = assistant(
        text("I search."),
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "Peru"}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "s",
            "content": [{"type": "web_search_result", "title": "Peru", "url": "https://p.example", "encrypted_content": "xyz"}],
        },
        {
            "type": "bash_code_execution_tool_result",
            "tool_use_id": "t",
            "content": {"type": "bash_code_execution_result", "stdout": "out", "stderr": "err", "return_code": 1, "content": []},
        },
        text("Done."),
    )
    assert messages_of(turn)[0].content == 'I search.\nweb_search({"query":"Peru"})\n\nPeru\nhttps://p.example\n\nout\nerr\nDone.'


def test_blocks_without_words_for_the_model_are_reported_and_never_refused():
    turns = [
        *user({"type": "hologram", "payload": {}}, {"type": "container_upload", "file_id": "f"}),
        *assistant({"type": "redacted_thinking", "data": "xyz"}, text("a")),
    ]
    asked = decode(turns).ask
    assert [message.content for message in asked.messages] == ["[hologram]\n[container_upload]", "a"]
    assert asked.not_honoured[2] == "a block of type 'redacted_thinking': it is left out"


# --- tools ------------------------------------------------------------------------------------------------------------


def test_client_tools_are_offered_as_they_are():
    offer = decode(tools=[READ, {"type": "custom", "name": "now", "input_schema": {"type": "object"}}]).ask.tools
    assert offer.specs == (ToolSpec("Read", "Reads a file", SCHEMA), ToolSpec("now", "", {"type": "object"}))
    assert decode(tools=[]).ask.tools == decode(tools=None).ask.tools == decode().ask.tools == Ask(()).tools


def test_offers_are_equal_if_and_only_if_what_the_model_may_call_is():
    one, same, other = (
        decode(tools=[tool]).ask.tools for tool in (READ, {**READ, **MARK, "type": "custom"}, {**READ, "description": "Other"})
    )
    assert one == same
    assert one.key != other.key


def test_bash_and_the_text_editor_are_offered_with_the_schema_that_the_request_leaves_out():
    tools = [{"type": "bash_20250124", "name": "bash"}, {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}]
    asked = decode(tools=tools).ask
    bash, editor = asked.tools.specs
    assert (bash.name, set(bash.parameters["properties"])) == ("bash", {"command", "restart"})
    assert editor.name == "str_replace_based_edit_tool"
    assert editor.parameters["properties"]["command"]["enum"] == ["view", "create", "str_replace", "insert"]
    assert "insert_text" in editor.parameters["properties"]
    assert not asked.not_honoured
    older = decode(tools=[{"type": "text_editor_20250124", "name": "str_replace_editor"}]).ask.tools.specs[0].parameters["properties"]
    assert "undo_edit" in older["command"]["enum"]
    assert "insert_text" not in older


@pytest.mark.parametrize("kind", ["web_search_20250305", "code_execution_20250825", "memory_20250818", "computer_20251124", "mcp_toolset", "x"])
def test_tools_of_other_types_are_not_offered_and_reported(kind):
    asked = decode(tools=[{"type": kind, "name": "x"}, READ]).ask
    assert [spec.name for spec in asked.tools.specs] == ["Read"]
    assert asked.not_honoured == (f"a tool of type {kind!r}: it is not offered",)


def test_what_a_tool_asks_of_the_sampler_is_reported():
    tool = {**READ, "strict": True, "defer_loading": True, "input_examples": [{"path": "x"}], "allowed_callers": ["code_execution_20260120"]}
    assert unkept(tools=[tool]) == ("tools.strict", "tools.defer_loading", "tools.input_examples", "tools.allowed_callers")
    assert unkept(tools=[{**READ, "strict": False, "eager_input_streaming": True, "allowed_callers": ["direct"]}]) == ()


# --- sampling and other keys ------------------------------------------------------------------------------------------


def test_sampling_is_taken_over():
    asked = decode(max_tokens=7, temperature=0.5, top_p=0.9, stop_sequences=["END", "\n\n"]).ask.asked
    assert asked == AskedSampling(7, 0.5, 0.9, None, ("END", "\n\n"))
    assert decode(max_tokens=None).ask.asked == AskedSampling()


def test_tool_choice_none_forbids_calls_and_what_cannot_be_forced_is_reported():
    assert decode(tool_choice={"type": "auto"}).ask.may_call
    assert not decode(tool_choice={"type": "none"}).ask.may_call
    assert unkept(tool_choice={"type": "none"}) == unkept(tool_choice={"type": "auto", "disable_parallel_tool_use": False}) == ()
    assert unkept(tool_choice={"type": "any"}) == ("tool_choice 'any': calls cannot be forced",)
    assert unkept(tool_choice={"type": "tool", "name": "Read", "disable_parallel_tool_use": True}) == (
        "tool_choice 'tool' 'Read': calls cannot be forced",
        "tool_choice.disable_parallel_tool_use",
    )


def test_keys_that_change_no_token_are_accepted_silently():
    keys = {
        "metadata": {"user_id": "u"},
        "service_tier": "auto",
        "speed": "fast",
        "inference_geo": "eu",
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "mcp_servers": [],
        "container": None,
    }
    assert unkept(**keys) == ()


def test_keys_that_would_change_an_answer_are_reported():
    words = unkept(
        top_k=40,
        thinking={"type": "enabled", "budget_tokens": 2048},
        output_config={"effort": "high", "format": {"type": "json_schema", "schema": {}}, "task_budget": None},
        context_management={"edits": [{"type": "clear_tool_uses_20250919"}]},
        mcp_servers=[{"type": "url", "url": "https://mcp.example"}],
        brand_new=1,
    )
    assert words == (
        "mcp_servers",
        "unknown key 'brand_new'",
        "top_k 40",
        "thinking.budget_tokens 2048",
        "output_config.effort 'high'",
        "output_config.format",
        "context_management 'clear_tool_uses_20250919'",
    )


def test_thousands_of_unknown_keys_are_counted_not_listed():
    words = unkept(**{f"k{number}": 1 for number in range(1000)})
    assert len(words) == 33
    assert words[-1] == "and 968 more"


def test_client_that_is_shown_thinking_is_expected_to_send_it_back():
    assert decode().ask.keeps_reasoning
    assert decode(thinking={"type": "enabled", "budget_tokens": 1024}).ask.keeps_reasoning
    hidden = decode(thinking={"type": "disabled"})
    assert not hidden.ask.keeps_reasoning
    assert hidden.ask.not_honoured == ("thinking 'disabled': it is hidden, not prevented",)


def test_request_to_count_tokens_is_decoded_alike():
    counted = WIRE.decode(json.dumps({"model": "claude", "messages": HI, "tools": [READ]}).encode(), no_past).ask
    assert counted.messages == messages_of()
    assert json.loads(encode_token_count(17)) == {"input_tokens": 17}


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": []}, "messages is empty"),
        ({}, "the body: object missing required field messages"),
        ({"messages": HI, "max_tokens": "100"}, "max_tokens: expected int"),
        ({"messages": HI, "max_tokens": 0}, "max_tokens must be at least 1, got 0"),
        ({"messages": HI, "stop_sequences": ["a", ""]}, "stop_sequences[1] is empty"),
        ({"messages": HI, "thread": {"type": "continue", "previous_message_id": "m"}}, "thread.type must be 'create', got 'continue'"),
        ({"messages": [*HI, {"role": "tool", "content": ""}]}, "messages[1].role: invalid enum value 'tool'"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content: expected str | array | null, got int"),
        ({"messages": [*HI, *user("x")]}, "messages[1].content[0]: expected object, got str"),
        ({"messages": user(text(None))}, "messages[0].content[0].text: expected str, got null"),
        ({"messages": assistant(text(5))}, "messages[0].content[0].text: expected str, got int"),
        ({"messages": assistant({"type": "tool_use", "name": "x"})}, "messages[0].content[0]: object missing required field id"),
        ({"messages": user({"type": "tool_result"})}, "messages[0].content[0]: object missing required field tool_use_id"),
        ({"messages": user(result("a", 5))}, "messages[0].content[0].content: expected str"),
        ({"messages": user(result("a", [text("x"), text(None)]))}, "messages[0].content[0].content[1].text: expected str"),
        ({"messages": user(use("a", "x", {}))}, "messages[0].content[0]: a tool_use block belongs in an assistant turn"),
        ({"messages": assistant(result("a", ""))}, "messages[0].content[0]: a tool_result block belongs in a user turn"),
        ({"messages": HI, "tools": [READ, {"name": "x"}]}, "tools[1].input_schema: the tool 'x' needs"),
        ({"messages": HI, "tools": [{"input_schema": {}}]}, "tools[0].name: a tool needs a name"),
        ({"messages": HI, "tools": [{"name": 1}]}, "tools[0].name: expected str, got int"),
        ({"messages": HI, "tools": [READ, READ]}, "tools: names must differ"),
        ({"messages": [{"role": "system", "content": ""}]}, "messages say nothing"),
    ],
)
def test_bad_request_is_refused_with_its_place(body, words):
    with pytest.raises(MalformedRequest) as raised:
        WIRE.decode(json.dumps(body).encode(), no_past)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"messages": [',
        b"\xff\xfe",
        b'{"messages":[{"role":"user","content":"\xff"}]}',
        b'{"messages":[{"role":"user","content":"\xed\xa0\x80"}]}',
        b'{"messages":[{"role":"user","content":"\\ud83d"}]}',
        b'{"messages":[{"role":"user","content":"x"}],"temperature":NaN}',
        b'{"messages":[{"role":"user","content":"x"}],"temperature":1e999}',
        b'{"messages":[{"role":"user","content":"x"}],"temperature":"0.5"}',
        b'{"messages":[{"role":"user","content":"x"}],"z":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"messages":[{"role":"user","content":[{"type":"x","content":' + b'[{"content":' * 300 + b"1" + b"}]" * 300 + b"}]}]}",
        b'{"messages":[{"role":"user","content":[{"type":"x","content":' + b'[{"content":' * 490 + b"1" + b"}]" * 490 + b"}]}]}",
        b'{"messages":[{"role":"user","content":"x"}],"tools":[{"name":"a","input_schema":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}]}",
    ],
)
def test_what_is_no_json_of_ours_is_refused_by_name(body):
    with pytest.raises(MalformedRequest):
        WIRE.decode(body, no_past)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
KINDS = ["text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking", "server_tool_use", "x_tool_result", ""]
KEYS = ["type", "text", "id", "name", "input", "tool_use_id", "content", "source", "data", "title", "thinking", "is_error", "cache_control"]
VALUES = st.recursive(
    SCALARS | st.sampled_from(KINDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)
BLOCKS = st.builds(lambda kind, rest: {**rest, "type": kind}, st.sampled_from(KINDS), st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5))
TURNS = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": st.lists(BLOCKS, max_size=3) | VALUES})
TOOLS = st.fixed_dictionaries({}, optional={"type": VALUES, "name": VALUES, "input_schema": VALUES, "strict": VALUES, "allowed_callers": VALUES})
BODIES = st.fixed_dictionaries(
    {"messages": st.lists(TURNS, max_size=3) | VALUES},
    optional={
        "system": VALUES,
        "tools": st.lists(TOOLS, max_size=2) | VALUES,
        "tool_choice": VALUES,
        "thinking": VALUES,
        "output_config": VALUES,
        "context_management": st.fixed_dictionaries({"edits": st.lists(VALUES, max_size=2)}) | VALUES,
        "stop_sequences": VALUES,
        "max_tokens": VALUES,
    },
)


@given(BODIES)
def test_any_json_is_an_ask_or_refused_by_name(body):
    try:
        asked = WIRE.decode(json.dumps(body).encode(), no_past).ask
    except MalformedRequest:
        return
    assert asked.messages


@given(st.binary())
def test_any_bytes_are_refused_by_name(body):
    with pytest.raises(MalformedRequest):
        WIRE.decode(body, no_past)


# --- answers ----------------------------------------------------------------------------------------------------------


def answer(message, *, finish="stop", stop_string=None, num_discarded=0):
    generation = Generation((5, 6, 7), (-0.5,) * 3, finish, (VersionSpan(0, 3, PolicyVersion(1, 0)),))
    completion = Completion("c1", "s", (1, 2, 3, 4), generation, SamplingParams(9), 0, 1, facts=CallFacts(num_discarded=num_discarded))
    return Answer((Committed(completion, message, (), stop_string),), "tiny", int(time.time()), lambda ids: "")


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
    assert messages_of([*HI, {"role": "assistant", "content": body["content"]}])[-1] == Message("assistant")


@pytest.mark.parametrize("arguments", ["[1,2]", '"x"', "", '{"a":', '{"a":NaN}', "[" * 100_000])
def test_arguments_that_are_no_object_come_back_as_they_were_sampled(arguments):
    message = Message("assistant", "", (ToolCall("call_1", "Read", arguments),))
    body = body_of(message)
    assert body["content"][0]["input"] == {UNREADABLE_KEY: arguments}
    assert messages_of([*HI, {"role": "assistant", "content": body["content"]}])[-1] == message


def official_client(serve):
    transport = anthropic.DefaultHttpxClient().__class__.__mro__  # the client's own HTTP library, whichever it is
    library = __import__(next(one.__module__ for one in transport if one.__module__.startswith("httpx")).partition(".")[0])
    http = anthropic.DefaultHttpxClient(transport=library.MockTransport(lambda request: serve(library, request)))
    return anthropic.Anthropic(api_key="k", base_url="http://gateway", http_client=http, max_retries=0)


ARGUMENTS = st.dictionaries(st.text(max_size=5), st.recursive(SCALARS.filter(lambda one: one == one and one not in (float("inf"), float("-inf"))), lambda inner: st.lists(inner, max_size=2)), max_size=3)
CLEAN = st.text(st.characters(exclude_categories=["Cs"]), max_size=600)
REPLIES = st.builds(
    lambda content, reasoning, calls: Message(
        "assistant", content, tuple(ToolCall(f"call_{place}", "Read", json.dumps(one)) for place, one in enumerate(calls)), reasoning=reasoning
    ),
    CLEAN,
    CLEAN,
    st.lists(st.dictionaries(CLEAN, CLEAN | st.integers(-(2**53), 2**53) | st.none(), max_size=3), max_size=2),
)


@given(REPLIES)
def test_official_client_puts_events_together_to_the_json_answer(message):
    request = decode()

    def serve(library, http_request):
        is_streamed = json.loads(http_request.content).get("stream")
        content = b"".join(request.events(answer(message))) if is_streamed else request.body(answer(message))
        kind = "text/event-stream" if is_streamed else "application/json"
        return library.Response(200, content=content, headers={"content-type": kind})

    client = official_client(serve)
    whole = client.messages.create(model="m", max_tokens=9, messages=HI)
    with client.messages.stream(model="m", max_tokens=9, messages=HI) as stream:
        streamed = stream.get_final_message()
    assert streamed.to_dict() == whole.to_dict()
    echoed = messages_of([*HI, {"role": "assistant", "content": whole.to_dict()["content"]}])[-1]
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
    def serve(library, http_request):
        return library.Response(failure.status, content=WIRE.refusal(failure), headers={"content-type": "application/json"})

    with pytest.raises(raised) as error:
        official_client(serve).messages.create(model="m", max_tokens=9, messages=HI)
    assert error.value.body == {"type": "error", "error": {"type": kind, "message": failure.message}, "request_id": None}


def test_official_client_raises_a_failure_that_comes_as_an_event():
    def serve(library, http_request):
        content = b": keep-alive\n\n" + WIRE.failure_event(failed(EngineUnavailable("down")))
        return library.Response(200, content=content, headers={"content-type": "text/event-stream"})

    with pytest.raises(anthropic.APIStatusError, match="down"):
        list(official_client(serve).messages.create(model="m", max_tokens=9, messages=HI, stream=True))
