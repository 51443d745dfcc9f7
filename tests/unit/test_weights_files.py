"""Publishing and fetching versioned weight files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trunkline.errors import InfraError
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.types import PolicyVersion, WeightRef
from trunkline.weights.files import fetch, publish


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_fetched_weights_are_the_published_ones_bit_for_bit(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4).t(), "b": torch.randn(2).bfloat16(), "c": torch.nn.Parameter(torch.zeros(0))}
    ref = publish(tensors, PolicyVersion(1, 12), tmp_path / "weights")
    assert ref == WeightRef(tmp_path / "weights" / "weights-1.12.safetensors", PolicyVersion(1, 12))
    fetched = fetch(ref)
    assert fetched.keys() == tensors.keys()
    assert all(torch.equal(fetched[name], tensors[name]) and fetched[name].dtype == tensors[name].dtype for name in tensors)


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_a_decoder_takes_over_published_weights_in_place(tie_embeddings: bool, tmp_path: Path) -> None:
    config = DecoderConfig(
        vocab_size=9,
        hidden_size=8,
        intermediate_size=8,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        tie_embeddings=tie_embeddings,
    )
    trained, serving = init_decoder(config, seed=1), init_decoder(config, seed=2)
    address = serving.model.norm.weight.data_ptr()
    serving.load_state_dict(fetch(publish(trained.state_dict(), PolicyVersion(1, 0), tmp_path)))
    assert all(torch.equal(tensor, serving.state_dict()[name]) for name, tensor in trained.state_dict().items())
    assert serving.model.norm.weight.data_ptr() == address


def test_the_newest_two_versions_stay_counted_as_numbers_across_incarnations(tmp_path: Path) -> None:
    (tmp_path / "weights-best.safetensors").write_text("not ours")
    for version in (PolicyVersion(1, 9), PolicyVersion(1, 10), PolicyVersion(2, 3)):
        publish({"a": torch.ones(1)}, version, tmp_path)
    assert names(tmp_path) == ["weights-1.10.safetensors", "weights-2.3.safetensors", "weights-best.safetensors"]


def test_what_was_just_published_stays_even_if_it_is_not_the_newest(tmp_path: Path) -> None:
    for step in (5, 6):
        publish({"a": torch.ones(1)}, PolicyVersion(2, step), tmp_path)
    assert fetch(publish({"a": torch.ones(1)}, PolicyVersion(1, 1), tmp_path))


def test_fetched_weights_outlive_their_file_and_do_not_write_to_it(tmp_path: Path) -> None:
    ref = publish({"a": torch.ones(4)}, PolicyVersion(1, 0), tmp_path)
    held = fetch(ref)["a"]
    held.add_(1.0)
    assert torch.equal(fetch(ref)["a"], torch.ones(4))
    ref.path.unlink()
    assert torch.equal(held, torch.full((4,), 2.0))


def test_a_version_is_never_published_twice(tmp_path: Path) -> None:
    publish({"a": torch.ones(1)}, PolicyVersion(1, 0), tmp_path)
    with pytest.raises(InfraError, match=r"1\.0 was published before"):
        publish({"a": torch.zeros(1)}, PolicyVersion(1, 0), tmp_path)


def test_a_failed_publish_leaves_nothing_behind(tmp_path: Path) -> None:
    shared = torch.ones(2)
    with pytest.raises(RuntimeError, match="share memory"):
        publish({"a": shared, "b": shared}, PolicyVersion(1, 0), tmp_path)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_an_infra_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfraError, match=r"cannot publish policy version 1\.0"):
        publish({"a": torch.ones(1)}, PolicyVersion(1, 0), tmp_path / "file")


def test_another_version_inside_the_file_is_an_infra_error(tmp_path: Path) -> None:
    ref = publish({"a": torch.ones(1)}, PolicyVersion(1, 0), tmp_path)
    with pytest.raises(InfraError, match=r"holds policy version 1\.0, expected 1\.1"):
        fetch(WeightRef(ref.path, PolicyVersion(1, 1)))


def test_a_file_without_a_version_is_an_infra_error(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(InfraError, match="holds policy version None"):
        fetch(WeightRef(tmp_path / "plain.safetensors", PolicyVersion(1, 0)))


def test_a_missing_file_is_an_infra_error(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match=r"cannot fetch policy version 1\.0"):
        fetch(WeightRef(tmp_path / "absent.safetensors", PolicyVersion(1, 0)))


@pytest.mark.parametrize("kept_bytes", [0, 4, 60, -1])
def test_a_truncated_file_is_an_infra_error(kept_bytes: int, tmp_path: Path) -> None:
    ref = publish({"a": torch.ones(8)}, PolicyVersion(1, 0), tmp_path)
    ref.path.write_bytes(ref.path.read_bytes()[:kept_bytes])
    with pytest.raises(InfraError, match="cannot fetch"):
        fetch(ref)
