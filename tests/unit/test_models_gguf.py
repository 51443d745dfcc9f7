"""GGUF files as models: the same values and ids as transformers, the rules of cutting text, and every way a file can be wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quantize
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, Qwen2Tokenizer, Qwen3ForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from trunkline.attention.base import CausalAttend
from trunkline.errors import ConfigError
from trunkline.models.checkpoint import load_decoder
from trunkline.models.conversion import convert_gguf
from trunkline.models.tokenizer import Tokenizer

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = [("Ċ", "Ċ"), ("Ġ", "Ġ"), ("Ġ", "a"), ("a", "b"), ("1", "2"), ("12", "3"), ("123", "4"), ("'", "S")]
CONTROL, USER_DEFINED, UNUSED = ("<|im_start|>", "<|im_end|>"), ("<tool_call>",), ("[PAD0]", "[PAD1]")
PIECES = [*CONTROL, *ALPHABET, *("".join(pair) for pair in MERGES), *USER_DEFINED, *UNUSED]
FAMILIES = {"llama": LlamaForCausalLM, "qwen3": Qwen3ForCausalLM}
SIZES = {"num_layers": 2, "width": 64, "inner": 96, "num_heads": 4, "num_kv_heads": 2, "head_dim": 32}


def write_gguf(
    path: Path,
    *,
    architecture: str = "llama",
    tied: bool = False,
    pre: str = "smollm",
    stored: GGMLQuantizationType = GGMLQuantizationType.Q8_0,
    extra: Callable[[GGUFWriter], object] = lambda writer: None,
    drop: str = "",
) -> Path:
    """A tiny random model as llama.cpp's converter lays it out."""
    width, head_dim, inner = SIZES["width"], SIZES["head_dim"], SIZES["inner"]
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(SIZES["num_layers"])
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(SIZES["num_heads"])
    writer.add_head_count_kv(SIZES["num_kv_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_license("apache-2.0")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(PIECES)
    kinds = dict.fromkeys(CONTROL, TokenType.CONTROL) | dict.fromkeys(USER_DEFINED, TokenType.USER_DEFINED)
    kinds |= dict.fromkeys(UNUSED, TokenType.UNUSED)
    writer.add_token_types([kinds.get(piece, TokenType.NORMAL) for piece in PIECES])
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template("{{ messages }} {% if tools %}{{ tools }}{% endif %}")
    extra(writer)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (len(PIECES), width), "output_norm": (width,)}
    if not tied:
        shapes["output"] = (len(PIECES), width)
    for layer in range(SIZES["num_layers"]):
        block = {
            "attn_norm": (width,),
            "attn_q": (SIZES["num_heads"] * head_dim, width),
            "attn_k": (SIZES["num_kv_heads"] * head_dim, width),
            "attn_v": (SIZES["num_kv_heads"] * head_dim, width),
            "attn_output": (width, SIZES["num_heads"] * head_dim),
            "ffn_norm": (width,),
            "ffn_gate": (inner, width),
            "ffn_up": (inner, width),
            "ffn_down": (width, inner),
        }
        if architecture == "qwen3":
            block |= {"attn_q_norm": (head_dim,), "attn_k_norm": (head_dim,)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    generator = np.random.default_rng(0)
    for name, shape in shapes.items():
        if name == drop:
            continue
        values = generator.normal(1.0 if len(shape) == 1 else 0.0, 0.2, shape).astype(np.float32)
        kind = GGMLQuantizationType.F32 if len(shape) == 1 else stored
        writer.add_tensor(f"{name}.weight", quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("architecture", "tied", "stored"),
    [
        ("llama", False, GGMLQuantizationType.Q8_0),
        ("llama", True, GGMLQuantizationType.F16),
        ("qwen3", True, GGMLQuantizationType.Q4_1),
        ("qwen3", False, GGMLQuantizationType.BF16),
    ],
)
def test_a_gguf_file_gives_exactly_the_weights_that_transformers_reads(
    architecture: str, tied: bool, stored: GGMLQuantizationType, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "model.gguf", architecture=architecture, tied=tied, stored=stored)
    ours = load_decoder(path)
    theirs = FAMILIES[architecture](AutoConfig.for_model(**ours.config.to_hf())).eval()
    expected = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=theirs)["tensors"]
    assert expected.keys() - {"lm_head.weight"} == ours.state_dict().keys() - {"lm_head.weight"}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())
    theirs.load_state_dict(expected, strict=not tied)
    assert ours.config.rms_norm_eps == 1e-5
    token_ids_T = torch.randint(0, len(PIECES), (60,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits_TV = ours.logits(ours(token_ids_T, torch.arange(60), CausalAttend()))
        assert (logits_TV - theirs(token_ids_T.unsqueeze(0)).logits[0]).abs().max() <= 1e-4


def test_a_folder_with_one_gguf_file_is_a_model_and_a_converted_one_is_the_same_here_and_in_transformers(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf")
    seen: list[tuple[str, int, int]] = []
    convert_gguf(path, tmp_path / "made", lambda *progress: seen.append(progress))
    assert [stage for stage, done, total in seen if done == total] == ["convert", "write"]
    direct, made, theirs = load_decoder(tmp_path), load_decoder(tmp_path / "made"), AutoModelForCausalLM.from_pretrained(tmp_path / "made")
    assert direct.config == made.config
    for name, tensor in direct.state_dict().items():
        assert torch.equal(tensor, made.state_dict()[name])
        assert torch.equal(tensor, theirs.state_dict()[name])
    text = "ab 1234\n\n<|im_end|> <tool_call>"
    assert Tokenizer.load(tmp_path / "made").encode(text) == Tokenizer.load(tmp_path).encode(text)


def pieces_of(pre: str, text: str, tmp_path: Path) -> list[str]:
    tokenizer = Tokenizer.load(write_gguf(tmp_path / "model.gguf", pre=pre))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    return [tokenizer.decode([token_id]) for token_id in ids]


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["\n", "\n", "1234", "ab", " a"]),
        ("smollm", ["\n\n", "1", "2", "3", "4", "ab", " a"]),
        ("qwen2", ["\n\n", "1", "2", "3", "4", "ab", " a"]),
        ("llama-bpe", ["\n\n", "123", "4", "ab", " a"]),
    ],
)
def test_text_is_cut_by_the_rule_that_the_file_names(pre: str, pieces: list[str], tmp_path: Path) -> None:
    assert pieces_of(pre, "\n\n1234ab a", tmp_path) == pieces


def test_qwen_ids_are_those_of_the_familys_own_tokenizer(tmp_path: Path) -> None:
    ours = Tokenizer.load(write_gguf(tmp_path / "model.gguf", pre="qwen2"))
    theirs = Qwen2Tokenizer(vocab={piece: token_id for token_id, piece in enumerate(PIECES[:-2])}, merges=MERGES)
    generator = random.Random(0)
    for _ in range(300):
        text = "".join(
            generator.choice(["a", "b", " ", "  ", "\n", "\r\n", "\t", "1", "23", "'S", "é", "漢", "!", "e\u0301"]) for _ in range(12)
        )
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), repr(text)


def test_control_tokens_are_special_user_defined_ones_are_pieces_and_unused_ones_are_left_out(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(write_gguf(tmp_path / "model.gguf"))
    assert tokenizer.special_ids == {0, 1}
    assert tokenizer.encode("<tool_call>") == [tokenizer.token_id("<tool_call>")]
    assert not tokenizer.special_ids & set(tokenizer.encode("<|im_start|>"))
    assert tokenizer.vocab_size == len(PIECES) - len(UNUSED)
    assert tokenizer.chat_template is not None


def test_a_first_token_that_the_family_adds_is_added_by_transformers_and_never_by_us(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", pre="llama-bpe", extra=lambda writer: writer.add_add_bos_token(True))
    Tokenizer.load(path).save(tmp_path / "made")
    ids = Tokenizer.load(path).encode("ab")
    assert AutoTokenizer.from_pretrained(tmp_path / "made").encode("ab") == [0, *ids]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "gemma3"}, "architecture 'gemma3' is not supported; supported: llama, qwen3"),
        ({"extra": lambda writer: writer.add_string("llama.rope.scaling.type", "yarn")}, "rope scaling 'yarn'"),
        ({"extra": lambda writer: writer.add_tensor("rope_freqs.weight", np.ones(16, np.float32))}, "rope scaling by factors"),
        ({"extra": lambda writer: writer.add_rope_dimension_count(8)}, "a rotary embedding of 8 of 32 dimensions"),
        ({"extra": lambda writer: writer.add_expert_count(8)}, "8 experts"),
        ({"extra": lambda writer: writer.add_sliding_window(64)}, "a sliding window of 64"),
        ({"extra": lambda writer: writer.add_uint16("split.count", 3)}, "one of 3 parts"),
        ({"extra": lambda writer: writer.add_tensor("blk.0.attn_q.bias", np.ones(128, np.float32))}, "unexpected blk.0.attn_q.bias"),
        ({"drop": "blk.1.ffn_up"}, "missing model.layers.1.mlp.up_proj.weight"),
        ({"drop": "token_embd"}, "no token_embd.weight"),
    ],
)
def test_what_the_decoder_does_not_compute_is_refused_by_name(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", **changes)
    with pytest.raises(ConfigError, match=message):
        load_decoder(tmp_path / "model.gguf")


@pytest.mark.parametrize("size", [0, 3, 200, 3000, -5000])
def test_a_damaged_file_is_one_clear_error(size: int, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ConfigError, match="cannot read .*model.gguf"):
        load_decoder(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for load in (load_decoder, Tokenizer.load):
        with pytest.raises(ConfigError, match="absent.gguf"):
            load(tmp_path / "absent.gguf")


def test_an_unknown_rule_of_cutting_is_an_error_unless_a_tokenizer_file_lies_beside(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", pre="tekken")
    with pytest.raises(ConfigError, match="cut by 'tekken'; supported: byte-level, cut by gpt-2, smollm, qwen2, llama-bpe"):
        Tokenizer.load(path)
    Tokenizer.load(write_gguf(tmp_path / "other.gguf")).save(tmp_path)
    assert Tokenizer.load(path).vocab_size == len(PIECES) - len(UNUSED)


def test_of_several_gguf_files_one_must_be_chosen(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf")
    write_gguf(tmp_path / "b.gguf")
    with pytest.raises(ConfigError, match="a.gguf, b.gguf; give the path of one"):
        load_decoder(tmp_path)
