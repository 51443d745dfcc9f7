"""Making, loading and saving decoders, and every way a folder can be wrong. Numbers against transformers are tests/parity."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trunkline.errors import ConfigError
from trunkline.models.checkpoint import init_decoder, load_decoder, save_decoder
from trunkline.models.config import DecoderConfig

CONFIG = DecoderConfig(
    vocab_size=60, hidden_size=64, intermediate_size=128, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16, max_positions=64
)
TIED = dataclasses.replace(CONFIG, tie_embeddings=True)
SPARSE = dataclasses.replace(CONFIG, qk_norm="full", rotary_dim=8, num_experts=4, experts_per_token=2)
EXPERTS = "model.layers.1.block_sparse_moe.experts"
Edit = Callable[[dict[str, torch.Tensor]], object]


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, second, other = (init_decoder(CONFIG, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_the_seed_means_the_same_weights_in_every_dtype() -> None:
    exact, rounded = init_decoder(CONFIG, seed=1).state_dict(), init_decoder(CONFIG, seed=1, dtype=torch.bfloat16).state_dict()
    assert all(torch.equal(exact[name].bfloat16(), rounded[name]) for name in exact)


def test_initial_weights_have_the_documented_scale_within_10_percent() -> None:
    state = init_decoder(CONFIG, seed=0).state_dict()
    into_stream = 1 / math.sqrt(2 * CONFIG.num_layers)
    expected = {
        "model.embed_tokens.weight": 64**-0.5,
        "model.layers.0.self_attn.q_proj.weight": 64**-0.5,
        "model.layers.1.self_attn.o_proj.weight": 64**-0.5 * into_stream,
        "model.layers.1.mlp.up_proj.weight": 64**-0.5,
        "model.layers.1.mlp.down_proj.weight": 128**-0.5 * into_stream,
        "lm_head.weight": 64**-0.5,
    }
    for name, std in expected.items():
        assert state[name].std().item() == pytest.approx(std, rel=0.1), name
    assert torch.equal(state["model.norm.weight"], torch.ones(64))


def test_initial_experts_and_gates_have_the_documented_scale_within_10_percent() -> None:
    state = init_decoder(SPARSE, seed=0).state_dict()
    layer = "model.layers.1.block_sparse_moe."
    expected = {"gate.weight": 64**-0.5, "experts.gate_up": 64**-0.5, "experts.down": 128**-0.5 / math.sqrt(4)}
    for name, std in expected.items():
        assert state[layer + name].std().item() == pytest.approx(std, rel=0.1), name
    assert not state[f"{layer}e_score_correction_bias"].any()


@pytest.mark.parametrize("config", [CONFIG, TIED, SPARSE])
def test_a_saved_decoder_comes_back_bit_for_bit(config: DecoderConfig, tmp_path: Path) -> None:
    decoder = init_decoder(config, seed=0)
    save_decoder(decoder, tmp_path / "new" / "folder")
    loaded = load_decoder(tmp_path / "new" / "folder")
    assert loaded.config == config
    assert loaded.state_dict().keys() == decoder.state_dict().keys()
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in decoder.state_dict().items())
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_a_bf16_sparse_decoder_stores_and_restores_its_selection_bias_in_fp32(tmp_path: Path) -> None:
    decoder = init_decoder(SPARSE, seed=0, dtype=torch.bfloat16)
    for bias_E in decoder.buffers():
        bias_E.fill_(1 / 3)
    save_decoder(decoder, tmp_path)
    loaded = load_decoder(tmp_path, dtype=torch.bfloat16)
    assert all(torch.equal(bias_E, torch.full((4,), 1 / 3)) for bias_E in loaded.buffers())
    assert all(parameter.dtype == torch.bfloat16 for parameter in loaded.parameters())


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.pop(f"{EXPERTS}.3.w2.weight"), f"missing {EXPERTS}.3.w2.weight"),
        (lambda tensors: tensors.update({f"{EXPERTS}.4.w2.weight": torch.ones(64, 128)}), f"unexpected {EXPERTS}.4.w2.weight"),
        (lambda tensors: tensors.update({f"{EXPERTS}.0.w1.weight": torch.ones(64, 128)}), r"experts.0.w1.weight has shape \[64, 128\]"),
    ],
)
def test_an_expert_that_is_missing_surplus_or_misshapen_is_named(edit: Edit, message: str, tmp_path: Path) -> None:
    save_decoder(init_decoder(SPARSE, seed=0), tmp_path)
    _edit_tensors(tmp_path, edit)
    with pytest.raises(ConfigError, match=message):
        load_decoder(tmp_path)


def test_a_tied_head_is_not_stored_twice_and_a_stored_one_is_ignored(tmp_path: Path) -> None:
    save_decoder(init_decoder(TIED, seed=0), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in tensors
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, tmp_path / "model.safetensors")
    assert not hasattr(load_decoder(tmp_path), "lm_head")


def test_training_a_loaded_decoder_leaves_its_file_alone(tmp_path: Path) -> None:
    save_decoder(init_decoder(CONFIG, seed=0), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with torch.no_grad():
        for parameter in load_decoder(tmp_path).parameters():
            parameter.add_(1.0)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_saving_over_a_checkpoint_replaces_it_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    save_decoder(init_decoder(CONFIG, seed=0), tmp_path)
    old = load_decoder(tmp_path)
    expected = old.state_dict()["model.norm.weight"].clone()
    newer = init_decoder(CONFIG, seed=0)
    with torch.no_grad():
        newer.model.norm.weight.fill_(3.0)
    save_decoder(newer, tmp_path)
    assert torch.equal(old.state_dict()["model.norm.weight"], expected)
    assert load_decoder(tmp_path).state_dict()["model.norm.weight"].eq(3.0).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def _edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _edit_tensors(folder: Path, edit: Edit) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _index_outside(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}')


def _index_without_its_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"model.norm.weight": "model-1-of-2.safetensors"}}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "cannot read .*config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "must hold a JSON object, got list"),
        (lambda folder: _edit_config(folder, model_type="mamba"), "model_type 'mamba' is not supported"),
        (lambda folder: _edit_config(folder, num_hidden_layers=3), "missing model.layers.2.*and 4 more"),
        (lambda folder: _edit_config(folder, num_hidden_layers=1), "unexpected model.layers.1"),
        (lambda folder: _edit_config(folder, vocab_size=61), r"has shape \[60, 64\], the config says \[61, 64\]"),
        (lambda folder: _edit_tensors(folder, lambda tensors: tensors.pop("model.norm.weight")), "missing model.norm.weight"),
        (lambda folder: _edit_tensors(folder, lambda t: t.update({"extra.bias": torch.ones(1)})), "unexpected extra.bias"),
        (_truncate, "cannot read the weights .*is the file complete"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "cannot read the weights"),
        (lambda folder: (folder / "model.safetensors").unlink(), "neither model.safetensors nor model.safetensors.index.json"),
        (_only_pickle, "pytorch_model.bin is a pickle and is not read"),
        (_index_outside, "file names of this folder"),
        (_index_without_its_shard, "cannot read the weights .*model-1-of-2.safetensors"),
    ],
)
def test_a_damaged_folder_is_one_clear_config_error(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    save_decoder(init_decoder(CONFIG, seed=0), tmp_path)
    damage(tmp_path)
    with pytest.raises(ConfigError, match=message):
        load_decoder(tmp_path)


def test_a_folder_that_is_not_there_or_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_decoder(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the model"):
        save_decoder(init_decoder(CONFIG, seed=0), tmp_path / "file")
