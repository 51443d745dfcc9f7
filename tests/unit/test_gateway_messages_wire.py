"""Anthropic's Messages: what requests decode to, and how bad ones are refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import MalformedRequest
from trunkline.gateway.messages_answer import UNSUPPORTED_THREAD
from trunkline.gateway.messages_wire import MessagesWire
from trunkline.gateway.sampling import AskedSampling
from trunkline.gateway.wire import Ask
from trunkline.types import Message, ToolCall, ToolSpec

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
    assert messages_of([*HI, note, *assistant(text("yes")), *HI]) == (
        Message("user", "hi"),
        Message("assistant", "yes"),
        Message("user", "hi"),
    )


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


@pytest.mark.parametrize(
    "kind", ["web_search_20250305", "code_execution_20250825", "memory_20250818", "computer_20251124", "mcp_toolset", "x"]
)
def test_tools_of_other_types_are_not_offered_and_reported(kind):
    asked = decode(tools=[{"type": kind, "name": "x"}, READ]).ask
    assert [spec.name for spec in asked.tools.specs] == ["Read"]
    assert asked.not_honoured == (f"a tool of type {kind!r}: it is not offered",)


def test_what_a_tool_asks_of_the_sampler_is_reported():
    tool = {
        **READ,
        "strict": True,
        "defer_loading": True,
        "input_examples": [{"path": "x"}],
        "allowed_callers": ["code_execution_20260120"],
    }
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


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": []}, "messages is empty"),
        ({}, "the body: Object missing required field `messages`"),
        ({"messages": HI, "max_tokens": "100"}, "max_tokens: Expected `int | null`, got `str`"),
        ({"messages": HI, "max_tokens": 0}, "max_tokens must be at least 1, got 0"),
        ({"messages": HI, "stop_sequences": ["a", ""]}, "stop_sequences[1] is empty"),
        ({"messages": HI, "thread": {"type": "create"}}, "thread: no conversation is held here"),
        ({"messages": [*HI, {"role": "tool", "content": ""}]}, "messages[1].role: Invalid enum value 'tool'"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content: Expected `str | array | null`, got `int`"),
        ({"messages": [*HI, *user("x")]}, "messages[1].content[0]: Expected `object`, got `str`"),
        ({"messages": user(text(None))}, "messages[0].content[0].text: a text block needs a string, got None"),
        ({"messages": assistant(text(5))}, "messages[0].content[0].text: Expected `str`, got `int`"),
        ({"messages": assistant({"type": "tool_use", "name": "x"})}, "messages[0].content[0]: Object missing required field `id`"),
        ({"messages": user({"type": "tool_result"})}, "messages[0].content[0]: Object missing required field `tool_use_id`"),
        ({"messages": user(result("a", 5))}, "messages[0].content[0].content: Expected `str | object | array | null`, got `int`"),
        (
            {"messages": user(result("a", [text("x"), text(None)]))},
            "messages[0].content[0].content[1].text: a text block needs a string, got None",
        ),
        ({"messages": user(use("a", "x", {}))}, "messages[0].content[0]: a tool_use block belongs in an assistant turn"),
        ({"messages": assistant(result("a", ""))}, "messages[0].content[0]: a tool_result block belongs in a user turn"),
        ({"messages": HI, "tools": [READ, {"name": "x"}]}, "tools[1].input_schema: the tool 'x' needs"),
        ({"messages": HI, "tools": [{"input_schema": {}}]}, "tools[0].name: a tool needs a name"),
        ({"messages": HI, "tools": [{"name": 1}]}, "tools[0].name: Expected `str`, got `int`"),
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
BLOCKS = st.builds(
    lambda kind, rest: {**rest, "type": kind}, st.sampled_from(KINDS), st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5)
)
TURNS = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": st.lists(BLOCKS, max_size=3) | VALUES}
)
TOOLS = st.fixed_dictionaries(
    {}, optional={"type": VALUES, "name": VALUES, "input_schema": VALUES, "strict": VALUES, "allowed_callers": VALUES}
)
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


def test_thread_is_refused_by_the_code_upon_which_official_clients_send_everything():
    with pytest.raises(MalformedRequest) as raised:
        decode(thread={"type": "create"})
    assert raised.value.code == UNSUPPORTED_THREAD
