"""Our decoder against transformers on tiny random weights. Owns the numeric contract: fp32 logits agree to 1e-4."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from trunkline.attention.base import CausalAttend
from trunkline.models.checkpoint import init_decoder, load_decoder, save_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder

FP32_TOLERANCE = 1e-4
# In fp64 transformers still computes norms and rotary angles in fp32, so the difference is theirs.
FP64_TOLERANCE = 1e-4
SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
FAMILIES: dict[str, tuple[Any, Any]] = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM)}
every_shape = pytest.mark.parametrize(
    ("family", "tied", "head_dim"),
    [("llama", False, 8), ("llama", True, 16), ("qwen3", False, 16), ("qwen3", True, 8)],
)


def their_model(family: str, tied: bool, head_dim: int, **changes: Any) -> PreTrainedModel:
    config_class, model_class = FAMILIES[family]
    torch.manual_seed(0)
    model = model_class(config_class(**{**SIZES, "tie_word_embeddings": tied, "head_dim": head_dim, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far from the initial values, norms included
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def token_ids_of(length: int) -> Tensor:
    return torch.randint(0, SIZES["vocab_size"], (length,), generator=torch.Generator().manual_seed(1))


def our_logits(decoder: Decoder, token_ids_T: Tensor) -> Tensor:
    with torch.no_grad():
        return decoder.logits(decoder(token_ids_T, torch.arange(len(token_ids_T)), CausalAttend()))


def their_logits(model: PreTrainedModel, token_ids_T: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(token_ids_T.unsqueeze(0)).logits[0]
        return logits


@every_shape
def test_a_checkpoint_of_transformers_gives_their_fp32_logits_within_1e_4(family: str, tied: bool, head_dim: int, tmp_path: Path) -> None:
    theirs = their_model(family, tied, head_dim, rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
    theirs.save_pretrained(tmp_path)
    ours = load_decoder(tmp_path)
    assert ours.config.rope_theta == 5000.0
    token_ids_T = token_ids_of(200)
    expected_TV = their_logits(theirs, token_ids_T)
    assert expected_TV.std() > 0.5  # else the comparison proves little
    assert (our_logits(ours, token_ids_T) - expected_TV).abs().max() <= FP32_TOLERANCE


@every_shape
def test_transformers_loads_our_checkpoint_and_gives_our_fp32_logits_within_1e_4(
    family: str, tied: bool, head_dim: int, tmp_path: Path
) -> None:
    config = DecoderConfig(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=80,
        num_layers=3,
        num_heads=6,
        num_kv_heads=2,
        head_dim=head_dim,
        rope_theta=5000.0,
        rms_norm_eps=1e-5,
        qk_norm="head" if family == "qwen3" else "none",
        tie_embeddings=tied,
        max_positions=256,
        bos_token_id=1,
        eos_token_id=(2, 3),
    )
    ours = init_decoder(config, seed=3)
    save_decoder(ours, tmp_path)
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    theirs, report = loaded
    assert type(theirs) is FAMILIES[family][1]
    assert not any(report.values()), report
    assert theirs.config.rope_parameters["rope_theta"] == 5000.0
    assert theirs.config.eos_token_id == [2, 3]
    token_ids_T = token_ids_of(200)
    assert (our_logits(ours, token_ids_T) - their_logits(theirs.eval(), token_ids_T)).abs().max() <= FP32_TOLERANCE


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_sharded_checkpoints_give_the_same_logits_exactly(family: str, tmp_path: Path) -> None:
    theirs = their_model(family, False, 16)
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert not (tmp_path / "shards" / "model.safetensors").exists()
    token_ids_T = token_ids_of(20)
    assert torch.equal(
        our_logits(load_decoder(tmp_path / "shards"), token_ids_T),
        our_logits(load_decoder(tmp_path / "whole"), token_ids_T),
    )


def test_a_config_as_transformers_4_wrote_it_gives_the_same_logits_exactly(tmp_path: Path) -> None:
    their_model("llama", False, 8, rope_parameters={"rope_type": "default", "rope_theta": 5000.0}).save_pretrained(tmp_path)
    token_ids_T = token_ids_of(50)
    expected_TV = our_logits(load_decoder(tmp_path), token_ids_T)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"]
    path.write_text(json.dumps({**config, "rope_theta": 5000.0, "rope_scaling": None}))
    assert torch.equal(our_logits(load_decoder(tmp_path), token_ids_T), expected_TV)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_gradients_match_transformers_in_fp32_within_1e_4_of_the_largest(family: str, tmp_path: Path) -> None:
    theirs = their_model(family, True, 8)
    theirs.save_pretrained(tmp_path)
    ours = load_decoder(tmp_path)
    token_ids_T = token_ids_of(60)
    targets_T = token_ids_of(61)[1:]
    hidden_TC = ours(token_ids_T, torch.arange(60), CausalAttend())
    torch.nn.functional.cross_entropy(ours.logits(hidden_TC), targets_T).backward()
    torch.nn.functional.cross_entropy(theirs(token_ids_T.unsqueeze(0)).logits[0], targets_T).backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        gradient, reference = parameter.grad, expected[name]
        assert gradient is not None and reference is not None
        assert (gradient - reference).abs().max() <= FP32_TOLERANCE * reference.abs().max(), name


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_fp64_logits_are_near_transformers_whose_norms_and_angles_stay_fp32(family: str, tmp_path: Path) -> None:
    theirs = their_model(family, False, 16)
    theirs.save_pretrained(tmp_path)
    ours = load_decoder(tmp_path, dtype=torch.float64)
    token_ids_T = token_ids_of(200)
    logits_TV = our_logits(ours, token_ids_T)
    assert logits_TV.dtype == torch.float64
    assert (logits_TV - their_logits(theirs.double(), token_ids_T)).abs().max() <= FP64_TOLERANCE
