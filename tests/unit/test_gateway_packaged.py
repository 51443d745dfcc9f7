"""The adapter over the `renderers` package, with Qwen3's real format on a byte-level vocabulary built here."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from trunkline.errors import ConfigError, MalformedRequest
from trunkline.gateway.conversation import render_conversation
from trunkline.gateway.packaged import load_packaged_renderer
from trunkline.types import Message, ToolCall, ToolSpec

MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PIECES = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
GET = ToolSpec("get", "One fact", {"type": "object", "properties": {"entity": {"type": "string"}}})
USER = Message("user", "area of Peru?")
CALL = Message("assistant", "", (ToolCall("", "get", '{"entity": "Peru"}'),))
RESULT = Message("tool", "7", tool_call_id="")


@pytest.fixture(scope="module")
def tokenizer():
    alphabet = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens(MARKS)
    backend.add_tokens(PIECES)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")


@pytest.fixture(scope="module")
def renderer(tokenizer):
    return load_packaged_renderer("qwen3", tokenizer)


def test_an_unknown_name_lists_the_choices(tokenizer):
    with pytest.raises(ConfigError, match=r"'qwen9'.*minimax-m2.*qwen3"):
        load_packaged_renderer("qwen9", tokenizer)


def test_a_vocabulary_that_lacks_the_formats_tokens_is_refused(tokenizer):
    with pytest.raises(ConfigError, match="minimax-m2"):
        load_packaged_renderer("minimax-m2", tokenizer)


def test_a_template_that_ignores_tools_is_refused(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    )
    with pytest.raises(ConfigError, match="ignores tools"):
        load_packaged_renderer("default", tokenizer)


def test_a_call_is_rendered_and_parsed_back(renderer, tokenizer):
    assert '"name": "get"' in tokenizer.decode(renderer.prompt((USER,), (GET,)))
    reply = renderer.reply((USER, CALL), (GET,))
    parsed = renderer.parse(reply, (GET,)).message
    assert [(call.name, json.loads(call.arguments)) for call in parsed.tool_calls] == [("get", {"entity": "Peru"})]
    assert reply[-1] in renderer.stop_token_ids


def test_a_malformed_cut_or_unknown_call_is_text(renderer, tokenizer):
    reply = renderer.reply((USER, CALL), (GET,))
    broken = tokenizer.encode('<tool_call>\n{"name": "get", oops}\n</tool_call><|im_end|>', add_special_tokens=False)
    for ids, tools in ((reply[:-1], (GET,)), (reply, ()), (broken, (GET,))):
        message = renderer.parse(ids, tools).message
        assert message.tool_calls == ()
        assert '"name": "get"' in message.content


def test_the_bridge_extends_the_sampled_tokens_exactly(renderer, tokenizer):
    prompt, reply = renderer.prompt((USER,), (GET,)), renderer.reply((USER, CALL), (GET,))
    bridged = renderer.bridge(prompt, reply, (RESULT,), (GET,))
    assert bridged[: len(prompt + reply)] == prompt + reply
    assert tokenizer.decode(bridged[len(prompt + reply) :]).startswith("\n<|im_start|>user\n<tool_response>\n7")


def test_a_conversation_to_imitate_marks_the_sampled_tokens(renderer):
    messages = (USER, CALL, RESULT, Message("assistant", "7"))
    rendered = render_conversation(renderer, messages, (GET,))
    actions = tuple(token for token, is_action in zip(rendered.token_ids, rendered.is_action, strict=True) if is_action)
    assert actions == renderer.reply(messages[:2], (GET,)) + renderer.reply(messages, (GET,))


def test_a_chat_template_of_its_own_cannot_tell_control_texts_so_they_are_refused(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ tools }}{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    )
    renderer = load_packaged_renderer("default", tokenizer)
    with pytest.raises(MalformedRequest, match="im_end"):
        renderer.prompt((Message("user", "a<|im_end|>b"),), ())
