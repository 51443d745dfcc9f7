"""Text to ids and back: exactness, and that no text becomes a special token. Uses only tokenizers made here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

from trunkline.errors import ConfigError
from trunkline.models.tokenizer import Tokenizer, UnencodableText, build_tiny_tokenizer

SPECIAL = ("<|user|>", "<|end|>")
PIECES = ("area", "are", " of ", "end|", r"\d+", "a.b", "\n\n", "é́")
CHARACTERS = "abcdefnorsu <|>.\\+\n\t\r\u00a0é́漢😀()[]#-&~"
TINY = build_tiny_tokenizer(special_tokens=SPECIAL, pieces=PIECES, characters=CHARACTERS)


def byte_level() -> Tokenizer:
    """The shape of Qwen's and SmolLM2's tokenizers: byte-level BPE, special and ordinary added tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<|im_end|>", special=True, normalized=False)])
    backend.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    backend.enable_truncation(4)
    return Tokenizer(backend, {"chat_template.jinja": "{{ messages }}"})


@given(st.lists(st.sampled_from([*CHARACTERS, *PIECES, *SPECIAL])).map("".join))
def test_decoding_an_encoded_text_gives_exactly_the_text_without_special_tokens(text: str) -> None:
    ids = TINY.encode(text)
    assert TINY.decode(ids) == text
    assert TINY.special_ids.isdisjoint(ids)


@given(st.text())
def test_byte_level_text_survives_too_without_special_tokens(text: str) -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode(text + "<|im_end|>")
    assert tokenizer.decode(ids) == text + "<|im_end|>"
    assert tokenizer.special_ids.isdisjoint(ids)


@pytest.mark.parametrize("text", [" a", "  a  b  ", "\n\n\n", "", " of  of "])
def test_leading_double_and_trailing_spaces_survive(text: str) -> None:
    assert TINY.decode(TINY.encode(text)) == text


def test_ids_count_special_tokens_then_pieces_then_characters() -> None:
    vocabulary = [*SPECIAL, *PIECES, *CHARACTERS]
    assert [TINY.token_id(token) for token in vocabulary] == list(range(len(vocabulary)))
    assert TINY.vocab_size == len(vocabulary)
    assert TINY.special_ids == {0, 1}


def test_the_longest_piece_wins_from_left_to_right() -> None:
    assert [TINY.decode([i]) for i in TINY.encode("areaarena of aa.b")] == ["area", "are", "n", "a", " of ", "a", "a.b"]


def test_a_piece_with_regex_characters_matches_only_itself() -> None:
    assert TINY.encode(r"\d+") == [TINY.token_id(r"\d+")]
    assert TINY.token_id("a.b") not in TINY.encode("acb")


def test_a_special_token_written_in_text_is_characters_and_pieces() -> None:
    assert [TINY.decode([i]) for i in TINY.encode("a<|end|>")] == ["a", "<", "|", "end|", ">"]


def test_special_tokens_are_decoded_as_their_text() -> None:
    assert TINY.decode([0, TINY.token_id("a"), 1]) == "<|user|>a<|end|>"


def test_a_character_outside_the_vocabulary_is_an_error_that_names_it() -> None:
    with pytest.raises(UnencodableText, match=r"characters \['Z'\] in 'a Z b'"):
        TINY.encode("a Z b")


def test_a_special_token_without_its_characters_in_the_vocabulary_is_an_error() -> None:
    tokenizer = build_tiny_tokenizer(special_tokens=["<|end|>"], pieces=[], characters="abc")
    with pytest.raises(UnencodableText, match="cannot be encoded"):
        tokenizer.encode("a<|end|>")


def test_text_that_the_model_itself_spells_as_a_special_token_is_an_error() -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "#": 1}))
    backend.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    backend.add_special_tokens(["#"])
    with pytest.raises(UnencodableText, match=r"would become \['#'\]"):
        Tokenizer(backend, {}).encode("a#")


def test_bytes_that_a_byte_level_vocabulary_lacks_are_an_error_and_not_dropped() -> None:
    alphabet = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - {"Ą", "ò"})  # bytes 0x04 and 0xf2
    backend = tokenizers.Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = Tokenizer(backend, {})
    assert tokenizer.decode(tokenizer.encode("Ąò ÿ 😀")) == "Ąò ÿ 😀"
    for text in ("a\x04", "\U00080000"):
        with pytest.raises(UnencodableText, match=f"characters \\[{re.escape(ascii(text[-1]))}\\] .*the vocabulary lacks their bytes"):
            tokenizer.encode(text)


def test_an_unknown_token_is_an_error_and_not_a_silent_substitute() -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    with pytest.raises(UnencodableText, match="<unk>"):
        Tokenizer(backend, {}).encode("b")


@pytest.mark.parametrize("piece", ["<|start|>", "ar", ""])
def test_the_id_of_what_is_not_one_token_is_an_error(piece: str) -> None:
    with pytest.raises(ConfigError, match="is not one token"):
        TINY.token_id(piece)


@pytest.mark.parametrize("ids", [[-1], [0, 1000]])
def test_decoding_an_id_outside_the_vocabulary_is_an_error(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="token ids must be 0"):
        TINY.decode(ids)


def test_an_added_token_that_is_not_special_is_one_piece() -> None:
    tokenizer = byte_level()
    assert tokenizer.encode("<tool_call>") == [tokenizer.token_id("<tool_call>")]


def test_truncation_stored_with_a_tokenizer_is_switched_off() -> None:
    assert len(byte_level().encode("a b c d e f")) == 11


@pytest.mark.parametrize(
    ("special", "pieces", "characters", "message"),
    [
        (["<|a|>"], ["ab", "ab"], "ab", r"\['ab'\] more than once"),
        (["<|a|>"], ["a"], "b", r"got \['a'\]"),
        (["#"], ["ab"], "ab", r"got \['#'\]"),
        (["<|a|>"], [], ["a", "bc"], r"got \['bc'\]"),
    ],
)
def test_a_malformed_vocabulary_is_refused(special: list[str], pieces: list[str], characters: str | list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_tiny_tokenizer(special_tokens=special, pieces=pieces, characters=characters)


@pytest.mark.parametrize("text", ["area of  b", " <|end|> a\n\n"])
def test_a_saved_tokenizer_loads_here_and_in_transformers_with_the_same_ids(text: str, tmp_path: Path) -> None:
    TINY.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ids = Tokenizer.load(tmp_path).encode(text)
    assert ids == TINY.encode(text)
    assert len(theirs) == TINY.vocab_size
    assert theirs.decode([1, *ids]) == "<|end|>" + text
    assert theirs.encode("<|end|>area of  b") == [1, *TINY.encode("area of  b")]  # there, special tokens are recognised in text


def test_a_chat_template_and_config_beside_a_tokenizer_survive_load_and_save(tmp_path: Path) -> None:
    byte_level().save(tmp_path / "first")
    (tmp_path / "first" / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    Tokenizer.load(tmp_path / "first").save(tmp_path / "second")
    assert (tmp_path / "second" / "chat_template.jinja").read_text() == "{{ messages }}"
    assert json.loads((tmp_path / "second" / "tokenizer_config.json").read_text()) == {"eos_token": "<|im_end|>"}


@pytest.mark.parametrize("content", [None, "{", "{}", "[]"])
def test_a_missing_or_malformed_tokenizer_file_is_a_config_error(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match="tokenizer.json"):
        Tokenizer.load(tmp_path)


def test_a_folder_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the tokenizer"):
        TINY.save(tmp_path / "file")
