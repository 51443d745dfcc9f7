"""A learner's whole state in one folder. Owns the layout; safetensors and JSON, never pickle; tokenizer files are the caller's.

FOLDER/config.json, model.safetensors   the policy, as save_policy writes it: the folder loads as a model
FOLDER/optimizer.safetensors            AdamW's state as PARAMETER/exp_avg, PARAMETER/exp_avg_sq, PARAMETER/step
FOLDER/trainer.json                     the phase and its steps
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trunkline.errors import ConfigError, TrainerError
from trunkline.models.atomic import replacing
from trunkline.models.base import Policy
from trunkline.models.load import load_policy, save_policy
from trunkline.trainer.config import PhaseConfig
from trunkline.trainer.step import Learner, Progress, make_optimizer

OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "trainer.json"
_SLOTS = ("exp_avg", "exp_avg_sq", "step")


class _State(BaseModel):
    model_config = ConfigDict(extra="forbid")

    phase: PhaseConfig = Field(description="The phase under way.")
    num_steps: int = Field(ge=0, description="Optimiser steps done in it.")


def save_checkpoint(learner: Learner, folder: Path) -> None:
    """Writes model, optimiser, phase and step; the folder appears whole or not at all, and replaces one of that name.

    Raises TrainerError before the first phase, and if the folder cannot be written.
    """
    progress = learner.progress
    if progress is None:
        raise TrainerError("there is no phase to checkpoint yet; save the model instead")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    outdated = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        save_policy(learner.policy, temporary)
        with replacing(temporary / OPTIMIZER_FILE) as path:
            save_file(_optimizer_tensors(learner.policy, progress), path)
        with replacing(temporary / STATE_FILE) as path:
            path.write_text(_State(phase=progress.config, num_steps=progress.num_steps).model_dump_json(indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            os.replace(folder, outdated)
        os.replace(temporary, folder)
        _sync(folder.parent)
    except (OSError, SafetensorError, ConfigError) as error:
        raise TrainerError(f"cannot write the checkpoint {folder}: {error}; check space and permissions") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(outdated, ignore_errors=True)


def restore_checkpoint(learner: Learner, folder: Path) -> None:
    """Puts the learner back to where save_checkpoint left it, so that training goes on as if it had not stopped.

    Raises TrainerError on a folder that is no checkpoint or does not fit the learner's model; the learner is then unchanged.
    """
    try:
        state = _State.model_validate(json.loads((folder / STATE_FILE).read_text(encoding="utf-8")))
        saved = load_policy(folder, dtype=next(learner.policy.parameters()).dtype)
        tensors = load_file(folder / OPTIMIZER_FILE)
    except (OSError, ValueError, ValidationError, SafetensorError, ConfigError) as error:
        raise TrainerError(f"{folder} is not a checkpoint of a trainer: {error}") from error
    if saved.config != learner.policy.config:
        raise TrainerError(f"the checkpoint {folder} is of another model: {saved.config}, the trainer holds {learner.policy.config}")
    progress = Progress(state.phase, make_optimizer(learner.policy, state.phase.optimizer), state.num_steps)
    _load_optimizer(learner.policy, progress, tensors, folder)
    learner.policy.load_state_dict(saved.state_dict())
    learner.progress = progress


def _sync(folder: Path) -> None:
    """Makes the names in `folder` survive a loss of power, before a record tells of them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _optimizer_tensors(policy: Policy, progress: Progress) -> dict[str, Tensor]:
    state = progress.optimizer.state
    return {
        f"{name}/{slot}": state[parameter][slot] for name, parameter in policy.named_parameters() if parameter in state for slot in _SLOTS
    }


def _load_optimizer(policy: Policy, progress: Progress, tensors: dict[str, Tensor], folder: Path) -> None:
    parameters = dict(policy.named_parameters())
    names = {key.rpartition("/")[0] for key in tensors}
    missing = [f"{name}/{slot}" for name in names for slot in _SLOTS if f"{name}/{slot}" not in tensors]
    if missing or not names <= parameters.keys():
        raise TrainerError(
            f"{folder / OPTIMIZER_FILE} does not fit the model: missing {missing}, unknown {sorted(names - parameters.keys())}"
        )
    for name in names:
        device = parameters[name].device  # the fused kernel wants the step count there, too
        progress.optimizer.state[parameters[name]] = {slot: tensors[f"{name}/{slot}"].to(device) for slot in _SLOTS}
