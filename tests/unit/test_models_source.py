"""What real model folders hold beside the plain case: read, or refused by name. Owns folders; GGUF files are test_models_gguf.py's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.unit.test_models_config import RELEASED_M2
from trunkline.errors import ConfigError
from trunkline.models.checkpoint import init_decoder, load_decoder, save_decoder, stored_views
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder
from trunkline.models.info import count_parameters, describe_model
from trunkline.models.source import open_model
from trunkline.models.tokenizer import Tokenizer, build_tiny_tokenizer

CONFIG = DecoderConfig(
    vocab_size=60,
    hidden_size=64,
    intermediate_size=128,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    max_positions=64,
    tie_embeddings=True,
    eos_token_id=2,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_decoder(init_decoder(CONFIG, seed=0), tmp_path)
    build_tiny_tokenizer(special_tokens=["<|end|>"], pieces=[], characters="abc<|>end").save(tmp_path)
    return tmp_path


def edit_json(path: Path, **changes: object) -> None:
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**before, **changes}))


def edit_tensors(folder: Path, edit: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(edit(tensors), folder / "model.safetensors")


@pytest.mark.parametrize(
    "changes",
    [{}, {"qk_norm": "head"}, {"tie_embeddings": True}, {"qk_norm": "full", "num_experts": 5, "experts_per_token": 2, "rotary_dim": 8}],
)
def test_the_shapes_that_a_config_promises_are_those_of_the_decoders_files(changes: dict[str, Any]) -> None:
    config = dataclasses.replace(CONFIG, **{"tie_embeddings": False, **changes})
    decoder = init_decoder(config, seed=0)
    assert config.parameter_shapes() == {name: tuple(tensor.shape) for name, tensor in stored_views(decoder.state_dict()).items()}
    assert count_parameters(config) == sum(parameter.numel() for parameter in decoder.parameters())


def test_rotary_frequencies_that_old_checkpoints_store_are_left_out(folder: Path) -> None:
    expected = load_decoder(folder).state_dict()
    edit_tensors(folder, lambda tensors: tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    assert load_decoder(folder).state_dict().keys() == expected.keys()


def test_a_tied_head_stored_with_other_values_is_an_error(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors | {"lm_head.weight": torch.ones(60, 64)})
    with pytest.raises(ConfigError, match="stores another lm_head.weight; set tie_word_embeddings to false"):
        load_decoder(folder)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_cast_exactly(stored: torch.dtype, folder: Path) -> None:
    edit_tensors(folder, lambda tensors: {name: tensor.to(stored) for name, tensor in tensors.items()})
    held = load_file(folder / "model.safetensors")
    loaded = load_decoder(folder).state_dict()
    assert all(tensor.dtype == torch.float32 and torch.equal(tensor, held[name].float()) for name, tensor in loaded.items())


def test_the_ends_of_a_completion_are_those_of_the_generation_config(folder: Path) -> None:
    edit_json(folder / "generation_config.json", eos_token_id=[2, 7])
    assert open_model(folder).config().eos_token_id == (2, 7)
    edit_json(folder / "generation_config.json", eos_token_id=None)
    assert open_model(folder).config().eos_token_id == 2


def test_a_folder_with_safetensors_beside_a_gguf_file_is_the_safetensors(folder: Path) -> None:
    (folder / "model.gguf").write_bytes(b"not read")
    assert load_decoder(folder).config == CONFIG


def no_weights(folder: Path, other: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / other).write_text("{}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: edit_json(f / "config.json", auto_map={"AutoModelForCausalLM": "modeling_x.X"}),
            "code of the folder, which is never run",
        ),
        (lambda f: edit_json(f / "config.json", model_type="qwen2"), "model_type 'qwen2' is not supported; supported: llama, qwen3"),
        (lambda f: (f / "generation_config.json").write_text("["), "generation_config.json is not valid JSON"),
        (lambda f: edit_tensors(f, lambda t: t | {"model.norm.weight": torch.ones(64, dtype=torch.int8)}), "is stored as I8, not F64"),
        (
            lambda f: edit_tensors(f, lambda t: {name: tensor.to(torch.float8_e4m3fn) for name, tensor in t.items()}),
            "is stored as F8_E4M3, not F64.*convert the fp8 checkpoint, with its scales, to bf16 first",
        ),
        (lambda f: no_weights(f, "adapter_config.json"), "holds an adapter, merge it"),
        (lambda f: no_weights(f, "consolidated.00.pth"), "consolidated.00.pth is a pickle and is not read"),
    ],
)
def test_what_is_not_read_is_refused_by_name(damage: Callable[[Path], object], message: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(ConfigError, match=message):
        load_decoder(folder)


def test_code_for_the_tokenizer_alone_is_left_aside(folder: Path) -> None:
    edit_json(folder / "config.json", auto_map={"AutoTokenizer": ["tokenization_x.X", None]})
    (folder / "tokenization_x.py").write_text("raise SystemExit('ran code of the folder')")
    edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_x.X", None]})
    assert load_decoder(folder).config == CONFIG
    assert Tokenizer.load(folder).vocab_size == 10


def test_the_path_of_a_pickle_is_refused_as_one(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ConfigError, match="model.bin is a pickle and is never read; give a Hugging Face folder"):
        load_decoder(tmp_path / "model.bin")


@pytest.mark.parametrize("older", ["tokenizer.model", "vocab.json"])
def test_a_tokenizer_of_an_older_kind_is_an_error_that_says_how_to_convert_it(older: str, folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / older)
    with pytest.raises(ConfigError, match=rf"has {older} but no tokenizer.json.*save_pretrained"):
        Tokenizer.load(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": {"10": {"content": "<tool>", "special": True}}}),
        ("added_tokens.json", {"<tool>": 10}),
    ],
)
def test_an_added_token_that_only_the_files_beside_a_tokenizer_name_is_an_error(name: str, content: dict[str, Any], folder: Path) -> None:
    edit_json(folder / name, **content)
    with pytest.raises(ConfigError, match="lists the added token '<tool>' as id 10, but tokenizer.json has it as None"):
        Tokenizer.load(folder)


def test_a_model_is_described_without_its_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    size = path.stat().st_size
    with path.open("r+b") as file:  # as many bytes, none of the values
        header_bytes = 8 + int.from_bytes(file.read(8), "little")
        file.truncate(header_bytes)
        file.truncate(size)
    edit_json(folder / "tokenizer_config.json", chat_template="{% if tools %}{{ tools }}{% endif %}")
    described = describe_model(folder)
    assert described.architecture == "llama"
    assert described.num_parameters == sum(parameter.numel() for parameter in init_decoder(CONFIG, seed=0).parameters())
    assert described.num_embedding_parameters == 60 * 64
    assert described.stored_dtypes == {"F32": described.num_parameters}
    assert described.disk_bytes == size
    assert described.kv_bytes_per_token == 2 * 2 * 2 * 16 * 4
    assert described.training_bytes == 16 * described.num_parameters
    assert described.tokenizer.special_tokens == {"<|end|>": 0}
    assert described.tokenizer.template_reads_tools


def test_the_released_minimax_m2_is_described_from_its_config_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(RELEASED_M2))
    for path in (tmp_path, tmp_path / "config.json"):
        described = describe_model(path)
        assert described.path == str(path)
        assert round(described.num_parameters / 1e9, 2) == 228.69
        assert round(described.num_active_parameters / 1e9, 2) == 9.8
        assert round((described.num_active_parameters + described.num_embedding_parameters) / 1e9, 2) == 11.03
        assert (described.kv_bytes_per_token_bf16, described.kv_bytes_per_token) == (253_952, 507_904)
        assert (described.quantization, described.tokenizer, described.stored_dtypes, described.disk_bytes) == ("fp8", None, {}, 0)


def test_the_full_size_decoder_has_the_described_parameters() -> None:
    config = DecoderConfig.from_hf(RELEASED_M2)
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in Decoder(config).parameters()) == count_parameters(config) == 228_689_748_992


def test_quantised_weights_are_described_though_they_are_not_loaded(folder: Path) -> None:
    edit_json(folder / "config.json", quantization_config={"quant_method": "fp8"})
    scales = {"model.layers.0.self_attn.q_proj.weight_scale_inv": torch.ones(1, 1)}
    edit_tensors(folder, lambda tensors: {name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors.items()} | scales)
    described = describe_model(folder)
    assert described.quantization == "fp8"
    assert described.stored_dtypes == {"F8_E4M3": described.num_parameters}


@pytest.mark.parametrize(
    ("template", "reads_tools"),
    [("{# tools #}{{ messages }} tools", False), ("{% generation %}{{ tools }}", True), ("{{ 'tools' }}", False), ("{{ broken ", False)],
)
def test_only_a_template_whose_code_names_tools_reads_them(template: str, reads_tools: bool, folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(template)
    assert describe_model(folder).tokenizer.template_reads_tools == reads_tools


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows_is_an_error(folder: Path) -> None:
    build_tiny_tokenizer(special_tokens=["<|end|>"], pieces=[], characters=[chr(192 + index) for index in range(60)]).save(folder)
    with pytest.raises(ConfigError, match="has ids up to 60, but the embedding has 60 rows"):
        describe_model(folder)
