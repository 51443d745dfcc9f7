"""SmolLM2-135M-Instruct as fetched: the numbers of transformers, the ids of its own tokenizer, ChatML with tools. Needs the model."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from typer.testing import CliRunner

from trunkline.attention.base import CausalAttend
from trunkline.gateway.markup import CHATML, MarkupRenderer
from trunkline.models.checkpoint import load_decoder
from trunkline.models.decoder import Decoder
from trunkline.models.tokenizer import Tokenizer, UnencodableText
from trunkline.run.cli import app
from trunkline.types import Message, ToolCall, ToolSpec

TEXT = """The trunk of a tree carries water to every branch. In 1869 a line was laid from Suez to Aden, 1,308 nautical miles long;
its operators wrote "line clear" (in Morse) before each message.

    for station in stations:
        relay(station, retries=3)

A captain's log of 12 November: wind NW 7, sea rough, one cable parted at 3,200 fathoms — spliced by dawn. Qu'est-ce que c'est?"""
TOOLS = (
    ToolSpec("population", "How many live there.", {"type": "object", "properties": {"city": {"type": "string"}}}),
    ToolSpec(
        "largest",
        "The largest cities of a country.",
        {"type": "object", "properties": {"country": {"type": "string"}, "limit": {"type": "integer"}}},
    ),
)


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Tokenizer:
    return Tokenizer.load(smollm2)


@pytest.fixture(scope="module")
def renderer(tokenizer: Tokenizer) -> MarkupRenderer:
    return MarkupRenderer(tokenizer, CHATML)


@pytest.fixture(scope="module")
def decoder(smollm2: Path) -> Decoder:
    return load_decoder(smollm2)


def our_logits(decoder: Decoder, token_ids_T: Tensor) -> Tensor:
    with torch.no_grad():
        return decoder.logits(decoder(token_ids_T, torch.arange(len(token_ids_T)), CausalAttend()))


def test_our_logits_on_a_real_text_are_those_of_transformers_within_1e_4_of_their_scale(
    smollm2: Path, decoder: Decoder, tokenizer: Tokenizer
) -> None:
    token_ids_T = torch.tensor(tokenizer.encode(TEXT))
    logits_TV = our_logits(decoder, token_ids_T)
    theirs = AutoModelForCausalLM.from_pretrained(smollm2)
    assert type(theirs) is LlamaForCausalLM
    with torch.no_grad():
        expected_TV = theirs(token_ids_T.unsqueeze(0)).logits[0]
    assert (logits_TV - expected_TV).abs().max() <= 1e-4 * expected_TV.abs().max()


def test_it_knows_what_a_pretrained_model_knows(decoder: Decoder, tokenizer: Tokenizer) -> None:
    logits_TV = our_logits(decoder, torch.tensor(tokenizer.encode("The capital of France is")))
    assert tokenizer.decode([int(logits_TV[-1].argmax())]) == " Paris"


def test_ids_are_those_of_transformers_and_give_the_text_back(smollm2: Path, tokenizer: Tokenizer) -> None:
    theirs = AutoTokenizer.from_pretrained(smollm2)
    assert len(theirs) == tokenizer.vocab_size == 49_152
    assert (theirs.bos_token, theirs.eos_token, theirs.pad_token) == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
    generator = random.Random(0)
    blocks = ["abcdefghij XYZ", "\n\t\r  ", "0123456789", "éüßñ", "漢字かな", "😀👩‍👩‍👧", "\u0301\u200b\ufeff", ".,;:'\"()<>|{}[]"]
    for _ in range(400):
        text = "".join(generator.choice(generator.choice(blocks)) for _ in range(generator.randrange(60)))
        text += chr(generator.choice([generator.randrange(0x20, 0xD800), generator.randrange(0xE000, 0x40000)]))
        ids = tokenizer.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False), repr(text)
        assert tokenizer.decode(ids) == text


def test_no_text_becomes_a_special_token(tokenizer: Tokenizer) -> None:
    specials = [tokenizer.decode([token_id]) for token_id in tokenizer.special_ids]
    assert len(specials) == 17
    for text in ("".join(specials), *(f"a{special}b" for special in specials)):
        ids = tokenizer.encode(text)
        assert tokenizer.special_ids.isdisjoint(ids)
        assert tokenizer.decode(ids) == text


def test_text_is_cut_as_the_model_learned_it_with_digits_apart(smollm2: Path, tokenizer: Tokenizer) -> None:
    """transformers' own conversion of the GGUF file has '\\n', '\\n', '4', ' ', ' ', '2' here: it drops the rule's name."""
    assert [tokenizer.decode([token_id]) for token_id in tokenizer.encode("\n\n42  7")] == ["\n\n", "4", "2", "  ", "7"]
    stored = json.loads((smollm2 / "tokenizer.json").read_text(encoding="utf-8"))
    assert [step["type"] for step in stored["pre_tokenizer"]["pretokenizers"]] == ["Digits", "ByteLevel"]
    assert sorted(stored["model"]["vocab"].values()) == list(range(49_152))


def test_text_that_the_vocabulary_would_drop_is_an_error(tokenizer: Tokenizer) -> None:
    for text in ("a\x04b", "plane 4: \U00040000"):
        with pytest.raises(UnencodableText, match="the vocabulary lacks their bytes"):
            tokenizer.encode(text)


def test_tools_are_offered_in_the_system_turn(tokenizer: Tokenizer, renderer: MarkupRenderer) -> None:
    prompt = renderer.prompt((Message("system", "Answer briefly."), Message("user", "Oslo or Bergen?")), TOOLS)
    assert tokenizer.decode(prompt) == (
        "<|im_start|>system\nAnswer briefly.\ntools:\npopulation(city): How many live there.\n"
        "largest(country, limit): The largest cities of a country.\nwrite call: name(value, value) to call one<|im_end|>\n"
        "<|im_start|>user\nOslo or Bergen?<|im_end|>\n<|im_start|>assistant\n"
    )


# What the vocabulary can write, on one line.
_CHARACTERS = st.characters(min_codepoint=0x20, max_codepoint=0x3FFFF, exclude_categories=("Cs",))
_TEXTS = st.text(_CHARACTERS, max_size=30)


@settings(max_examples=40)
@given(text=_TEXTS, city=st.text(_CHARACTERS, max_size=20), limit=st.integers(-10, 10**6))
def test_calls_come_back_as_they_were_written(renderer: MarkupRenderer, text: str, city: str, limit: int) -> None:
    calls = (
        ToolCall("", "population", json.dumps({"city": city}, ensure_ascii=False, separators=(",", ":"))),
        ToolCall("", "largest", json.dumps({"country": city, "limit": limit}, ensure_ascii=False, separators=(",", ":"))),
    )
    written = Message("assistant", "" if text.startswith("call: ") else text, calls)
    parsed = renderer.parse(renderer.reply((Message("user", "?"), written), TOOLS), TOOLS).message
    assert parsed.content == written.content
    assert [(call.name, json.loads(call.arguments)) for call in parsed.tool_calls] == [
        (call.name, json.loads(call.arguments)) for call in calls
    ]


@settings(max_examples=40)
@given(turns=st.lists(st.tuples(_TEXTS, _TEXTS), min_size=1, max_size=4), with_system=st.booleans())
def test_every_prompt_of_a_conversation_extends_the_one_before_and_what_was_sampled(
    renderer: MarkupRenderer, turns: list[tuple[str, str]], with_system: bool
) -> None:
    messages = [Message("system", "Be brief.")] if with_system else []
    messages.append(Message("user", "Start."))
    prompt = renderer.prompt(messages, TOOLS)
    for city, result in turns:
        call = Message("assistant", "", (ToolCall("c", "population", json.dumps({"city": city})),))
        observed = Message("tool", result, tool_call_id="c")
        completion = renderer.reply((*messages, call), TOOLS)
        extended = renderer.bridge(prompt, completion, (observed,), TOOLS)
        messages += [call, observed]
        assert extended is not None
        assert extended[: len(prompt) + len(completion)] == (*prompt, *completion)
        assert extended == renderer.prompt(messages, TOOLS)
        prompt = extended


def test_model_info_describes_it(smollm2: Path) -> None:
    result = CliRunner().invoke(app, ["model", "info", str(smollm2), "--json"], catch_exceptions=False)
    described = json.loads(result.stdout)
    assert (described["architecture"], described["license"]) == ("llama", "Apache-2.0")
    assert described["num_parameters"] == 134_515_008 == described["num_embedding_parameters"] + 106_203_456
    assert described["kv_bytes_per_token"] == 30 * 3 * 64 * 2 * 4
    assert described["tokenizer"]["has_chat_template"]
    assert not described["tokenizer"]["template_reads_tools"]
