"""Our sparse decoder against transformers' MiniMaxM2 on tiny random weights: fp32 logits to 1e-4, gradients to 1e-5 of their norm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, MiniMaxM2Config, MiniMaxM2ForCausalLM, PreTrainedModel

from trunkline.attention.base import CausalAttend
from trunkline.models.checkpoint import init_decoder, load_decoder, save_decoder, stored_views
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder

LOGIT_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-5
VOCAB = 97
OURS = DecoderConfig(
    vocab_size=VOCAB,
    hidden_size=48,
    intermediate_size=24,
    num_layers=3,
    num_heads=6,
    num_kv_heads=2,
    head_dim=16,  # not hidden_size / num_heads
    rope_theta=5000.0,
    qk_norm="full",
    max_positions=256,
    bos_token_id=1,
    eos_token_id=2,
    rotary_dim=8,
    num_experts=10,
    experts_per_token=3,
)
TOKEN_IDS_T = torch.randint(0, VOCAB, (200,), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def theirs() -> PreTrainedModel:
    torch.manual_seed(0)
    config = MiniMaxM2Config(
        vocab_size=VOCAB,
        hidden_size=48,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        num_local_experts=10,
        num_experts_per_tok=3,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.5},
        bos_token_id=1,
        eos_token_id=2,
    )
    model = MiniMaxM2ForCausalLM(config).eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *(layer.mlp.e_score_correction_bias for layer in model.model.layers)):
            tensor.add_(torch.randn_like(tensor) * 0.2)  # far from the initial values, norms and biases included
    return model


def our_logits(decoder: Decoder) -> Tensor:
    return decoder.logits(decoder(TOKEN_IDS_T, torch.arange(len(TOKEN_IDS_T)), CausalAttend()))


def their_logits(model: PreTrainedModel) -> Tensor:
    logits: Tensor = model(TOKEN_IDS_T.unsqueeze(0)).logits[0]
    return logits


def test_a_checkpoint_of_transformers_gives_their_fp32_logits_within_1e_4(theirs: PreTrainedModel, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    ours = load_decoder(tmp_path)
    assert ours.config == OURS
    expected_TV = their_logits(theirs)
    assert expected_TV.std() > 0.5  # else the comparison proves little
    assert (our_logits(ours) - expected_TV).abs().max() <= LOGIT_TOLERANCE


def test_every_gradient_is_theirs_within_1e_5_of_its_norm(theirs: PreTrainedModel, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    ours = load_decoder(tmp_path)
    for logits_TV in (our_logits(ours), their_logits(theirs)):
        F.cross_entropy(logits_TV[:-1], TOKEN_IDS_T[1:]).backward()
    theirs_by_name = {
        name.replace(".mlp.", ".block_sparse_moe.").replace("gate_up_proj", "gate_up").replace("down_proj", "down"): parameter.grad
        for name, parameter in theirs.named_parameters()
    }
    for name, parameter in ours.named_parameters():
        gradient, reference = parameter.grad, theirs_by_name.pop(name)
        assert gradient is not None and reference is not None
        assert (gradient - reference).norm() <= GRADIENT_TOLERANCE * reference.norm(), name
    assert not theirs_by_name


def test_transformers_loads_our_checkpoint_with_nothing_missing_and_gives_our_logits(tmp_path: Path) -> None:
    ours = init_decoder(OURS, seed=3)
    for bias_E in ours.buffers():
        bias_E.copy_(torch.randn(10, generator=torch.Generator().manual_seed(4)) * 0.2)
    save_decoder(ours, tmp_path)
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    theirs, report = loaded
    assert type(theirs) is MiniMaxM2ForCausalLM
    assert not any(report.values()), report
    for our_layer, their_layer in zip(ours.model.layers, theirs.model.layers, strict=True):
        assert torch.equal(our_layer.block_sparse_moe.e_score_correction_bias, their_layer.mlp.e_score_correction_bias)
    with torch.no_grad():
        assert (our_logits(ours) - their_logits(theirs.eval())).abs().max() <= LOGIT_TOLERANCE


def test_our_file_has_the_names_shapes_and_values_of_theirs(theirs: PreTrainedModel, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path / "theirs")
    save_decoder(load_decoder(tmp_path / "theirs"), tmp_path / "ours")
    expected, written = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert "model.layers.2.block_sparse_moe.experts.9.w2.weight" in written
    assert {name: tuple(tensor.shape) for name, tensor in written.items()} == OURS.parameter_shapes()
    assert written.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in written.items())


def test_shards_of_theirs_load_as_the_whole_file_does(theirs: PreTrainedModel, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    whole, shards = (load_decoder(tmp_path / name).state_dict() for name in ("whole", "shards"))
    assert not (tmp_path / "shards" / "model.safetensors").exists()
    assert all(torch.equal(tensor, shards[name]) for name, tensor in whole.items())


def test_the_released_way_to_say_the_rotary_width_gives_the_same_logits_exactly(theirs: PreTrainedModel, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    expected_TV = our_logits(load_decoder(tmp_path))
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert "rotary_dim" not in config
    del config["rope_parameters"]
    path.write_text(json.dumps({**config, "rope_theta": 5000.0, "rotary_dim": 8}))
    assert torch.equal(our_logits(load_decoder(tmp_path)), expected_TV)


def test_fp64_logits_are_near_transformers_whose_norms_angles_and_routers_stay_fp32(theirs: PreTrainedModel, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    ours = load_decoder(tmp_path, dtype=torch.float64)
    assert {tensor.dtype for tensor in stored_views(ours.state_dict()).values()} == {torch.float64}
    theirs.set_experts_implementation("eager")  # their grouped product has no fp64
    assert (our_logits(ours) - their_logits(theirs.double())).abs().max() <= LOGIT_TOLERANCE
