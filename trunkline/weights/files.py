"""Weights as versioned safetensors files in one folder. Owns publish and fetch; when to publish is the conductor's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trunkline.errors import InfraError
from trunkline.models.atomic import replacing
from trunkline.types import PolicyVersion, WeightRef

_PREFIX, _SUFFIX = "weights-", ".safetensors"
_VERSION_KEY = "policy_version"
_NUM_KEPT = 2  # the newest, and the one that a slow engine may still be reading


def publish(tensors: Mapping[str, Tensor], version: PolicyVersion, directory: Path) -> WeightRef:
    """Writes `tensors` as weights-VERSION.safetensors, whole or not at all, and removes all but the newest two.

    Tensors may live on any device and must not share memory: a tied head has no entry of its own.

    Raises:
        InfraError: the version was published before (a version is never reused), or the folder cannot be written.
    """
    path = directory / f"{_PREFIX}{version}{_SUFFIX}"
    if path.exists():
        raise InfraError(f"{path} exists: policy version {version} was published before and is never reused")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(content, temporary, metadata={_VERSION_KEY: str(version)})
        for outdated in _published(directory)[:-_NUM_KEPT]:
            if outdated != path:
                outdated.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise InfraError(f"cannot publish policy version {version} to {directory}: {error}") from error
    return WeightRef(path, version)


def fetch(ref: WeightRef) -> dict[str, Tensor]:
    """The tensors of `ref`, on the CPU, if the file says that it holds this version.

    Raises:
        InfraError: no such file (removed by later versions), a truncated one, or another version inside.
    """
    try:
        with safe_open(ref.path, framework="pt") as file:
            found = (file.metadata() or {}).get(_VERSION_KEY)
            if found != str(ref.version):
                raise InfraError(f"{ref.path} holds policy version {found}, expected {ref.version}; fetch the reference last published")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise InfraError(f"cannot fetch policy version {ref.version} from {ref.path}: {error}") from error


def _published(directory: Path) -> list[Path]:
    """Published files, oldest version first."""
    versions: dict[Path, PolicyVersion] = {}
    for path in directory.glob(f"{_PREFIX}*{_SUFFIX}"):
        try:
            versions[path] = PolicyVersion.parse(path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX))
        except ValueError:
            continue  # someone else's file; not ours to remove
    return sorted(versions, key=versions.__getitem__)
