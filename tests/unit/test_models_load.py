"""Folders of models that we do not write ourselves: read, written, published, and every way they are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from trunkline.attention.base import CausalAttend
from trunkline.engine.local import LocalEngine
from trunkline.errors import ConfigError
from trunkline.models.base import Policy
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder
from trunkline.models.hf import HfDecoder
from trunkline.models.load import load_policy, save_policy
from trunkline.types import PolicyVersion
from trunkline.weights.files import publish

torch.set_num_threads(1)

SIZES: dict[str, Any] = {
    "vocab_size": 53,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def gemma(**changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return Gemma3ForCausalLM(Gemma3TextConfig(**{**SIZES, "layer_types": ["full_attention"] * 2, **changes})).eval()


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def logits(policy: Policy, length: int) -> torch.Tensor:
    ids_T = torch.arange(length) % 53
    with torch.no_grad():
        return policy.logits(policy(ids_T, torch.arange(length), CausalAttend()))


def their_logits(model: PreTrainedModel, length: int) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model((torch.arange(length) % 53).unsqueeze(0)).logits[0]
        return found


def test_our_families_are_computed_by_our_code(tmp_path: Path) -> None:
    config = DecoderConfig(
        vocab_size=53, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, max_positions=64
    )
    save_policy(init_decoder(config, seed=0), tmp_path)
    policy = load_policy(tmp_path, dtype=torch.float64)
    assert type(policy) is Decoder and policy.config == config
    assert next(policy.parameters()).dtype == torch.float64


def test_a_family_of_ours_with_scaled_rotation_is_computed_by_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=LLAMA3_ROPE)).eval()
    theirs.save_pretrained(tmp_path)
    policy = load_policy(tmp_path)
    assert type(policy) is HfDecoder
    assert (logits(policy, 200) - their_logits(theirs, 200)).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", ["gemma3, tied", "qwen3_moe, experts one by one in the file"])
def test_a_saved_policy_comes_back_bit_for_bit_and_transformers_loads_it(kind: str, tmp_path: Path) -> None:
    sparse = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    theirs = gemma(eos_token_id=[1, 2]) if kind.startswith("gemma") else Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **sparse)).eval()
    policy = HfDecoder.around(theirs)
    save_policy(policy, tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"config.json", "generation_config.json", "model.safetensors"}
    loaded = load_policy(tmp_path / "new")
    assert loaded.config == policy.config
    assert loaded.state_dict().keys() == policy.state_dict().keys()
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in policy.state_dict().items())
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    assert (logits(policy, 30) - their_logits(again, 30)).abs().max() <= 1e-5


def test_published_weights_reach_an_engine_under_the_names_of_transformers(tmp_path: Path) -> None:
    policy = HfDecoder.around(gemma())
    engine = LocalEngine.build(policy, version=PolicyVersion(1, 0), num_slots=64, max_batch=2)
    ref = publish({name: tensor * 2 for name, tensor in policy.state_dict().items()}, PolicyVersion(1, 1), tmp_path)
    expected = policy.state_dict()["model.embed_tokens.weight"] * 2
    engine.update_weights(ref)
    assert torch.equal(engine.decoder.state_dict()["model.embed_tokens.weight"], expected)
    assert engine.decoder.state_dict().keys() == gemma().state_dict().keys() - {"lm_head.weight"}


def test_the_context_ends_where_the_rotary_scaling_would_change_with_the_batch(tmp_path: Path) -> None:
    factors = {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "original_max_position_embeddings": 128}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, **factors}
    LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=rope)).save_pretrained(tmp_path)
    policy = load_policy(tmp_path)
    assert policy.config.max_positions == 128
    with pytest.raises(ConfigError, match=r"exactly up to 128, where its rotary scaling changes with the longest context of a batch"):
        logits(policy, 129)


def test_code_of_a_folder_is_never_run(tmp_path: Path) -> None:
    gemma().save_pretrained(tmp_path)
    edit_config(tmp_path, auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
    (tmp_path / "modeling_mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ConfigError, match=r"code of a folder \(auto_map\) is never run"):
        load_policy(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_type_that_nobody_knows_is_refused_with_what_is_supported(tmp_path: Path) -> None:
    gemma().save_pretrained(tmp_path)
    edit_config(tmp_path, model_type="gemma99")
    with pytest.raises(ConfigError, match=r"'gemma99' is not supported; supported: llama, qwen3, .*nor has the installed transformers"):
        load_policy(tmp_path)


def test_a_config_that_transformers_cannot_read_is_a_clear_error(tmp_path: Path) -> None:
    gemma().save_pretrained(tmp_path)
    edit_config(tmp_path, num_hidden_layers="two")
    with pytest.raises(ConfigError, match=r"(?s)transformers cannot load the gemma3_text model .*expected int, got str"):
        load_policy(tmp_path)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    gemma().save_pretrained(tmp_path)
    edit_config(tmp_path, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    with pytest.raises(ConfigError, match=r"save the weights unquantised"):
        load_policy(tmp_path)


def test_weights_that_do_not_fit_the_config_are_named_rather_than_drawn_at_random(tmp_path: Path) -> None:
    gemma().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    norm = tensors.pop("model.norm.weight")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"do not fit its config: missing model\.norm\.weight"):
        load_policy(tmp_path)
    save_file({**tensors, "model.norm.weight": norm[:5].clone()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"do not fit its config: mismatched .*model\.norm\.weight"):
        load_policy(tmp_path)


def test_an_unwritable_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write the model to .*check space and permissions"):
        save_policy(HfDecoder.around(gemma()), tmp_path / "file")
