"""What a run was trained on, as calls and as trajectories, and what they share. Owns the reading and the count; times nothing.

calls         each sample alone, its whole context in front          ─┐
trajectories  calls of an attempt joined wherever one extends another ─┴─ over the forest: each distinct context once
"""

# S samples, N forest tokens

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from trunkline.attention.forest import Forest, build_forest
from trunkline.bench.tree.workloads import Sequences
from trunkline.errors import ConfigError
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder
from trunkline.models.source import open_model
from trunkline.pool.journal_reader import JournalReader
from trunkline.trainer.flops import flop_ratio, parameters_a_token
from trunkline.trainer.samples import is_trainable
from trunkline.types import Episode, Group

FlopRatio = Callable[[Forest], float]
"""Modelled FLOPs of a forest's samples, each alone, over the forest's."""


@dataclass(frozen=True)
class Sharing:
    """What some samples share."""

    num_call_tokens: int
    """If each call were computed alone."""
    num_trajectory_tokens: int
    """If the calls of an attempt were joined and nothing across attempts was shared."""
    num_forest_tokens: int
    """Distinct contexts."""
    call_flop_ratio: float
    """Modelled FLOPs of the calls over the forest's."""
    trajectory_flop_ratio: float
    """Of the trajectories over the forest's."""


@dataclass(frozen=True)
class Recorded:
    """Samples that were trained, in both forms; the same tokens in the same contexts are trained in each."""

    calls: Sequences
    """One a completion."""
    trajectories: Sequences
    """One a chain of completions; a token on two chains is trained in the first."""

    @classmethod
    def of(cls, groups: Sequence[Group]) -> Recorded:
        """Of groups; those without gradient, failed attempts and dropped calls have no samples."""
        attempts = [_calls(episode) for group in groups if group.has_gradient for episode in group.episodes if episode.reward is not None]
        found = [calls for calls in attempts if calls.tokens]
        return cls(_joined(found), _joined([trajectories(calls) for calls in found]))

    def sharing(self, flops: FlopRatio) -> Sharing:
        """Counted, and by the FLOP model of the trainer."""
        calls, joined = build_forest(self.calls.tokens), build_forest(self.trajectories.tokens)
        assert calls.num_tokens == joined.num_tokens, "both forms hold the same contexts"
        return Sharing(calls.num_flat_tokens, joined.num_flat_tokens, calls.num_tokens, flops(calls), flops(joined))


def trajectories(calls: Sequences) -> Sequences:
    """Joins the calls of one attempt: what is left are those that no other one extends, with all that was trained on their way."""
    forest = build_forest(calls.tokens)
    last_S = forest.paths_F[forest.path_offsets_S1[1:] - 1]
    has_more_N = forest.subtree_end_N() > np.arange(forest.num_tokens) + 1
    untaken_N = np.zeros(forest.num_tokens, np.bool_)
    for sample, mask in enumerate(calls.trained):
        untaken_N[forest.path(sample)[mask]] = True
    tokens, trained = [], []
    for sample in sorted(np.unique(last_S, return_index=True)[1].tolist()):
        if not has_more_N[last_S[sample]]:
            path = forest.path(sample)
            tokens.append(calls.tokens[sample])
            trained.append(untaken_N[path])
            untaken_N[path] = False
    return Sequences(tuple(tokens), tuple(trained))


def trained_groups(journal: JournalReader) -> dict[int, list[str]]:
    """Group ids by optimiser step, in order; of a step that was done again after a resume the last time counts."""
    consumed = {group_id: (step, reason) for group_id, step, reason in journal.consumed()}
    steps: defaultdict[int, list[str]] = defaultdict(list)
    for group_id, (step, reason) in consumed.items():
        if reason == "trained":
            steps[step].append(group_id)
    return dict(sorted(steps.items()))


def model_of(run_dir: Path) -> DecoderConfig:
    """The shape of a run's model, from a checkpoint or the model it started with. Raises ConfigError if there is neither."""
    try:
        recipe = tomllib.loads((run_dir / "recipe.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the run in {run_dir} ({error}); give a run directory, such as runs/quickstart-seed1") from None
    folders = [config.parent for config in sorted((run_dir / "checkpoints").glob("*/config.json"))]
    start = recipe.get("model", {}).get("path")
    if not folders and start is None:
        raise ConfigError(f"{run_dir} has no checkpoint, whose config.json says what the model is; did its checkpoints get removed?")
    return open_model(folders[0] if folders else Path(start)).config()


def flop_ratio_of(config: DecoderConfig) -> FlopRatio:
    """For a model of this shape."""
    with torch.device("meta"):
        num_parameters = parameters_a_token(Decoder(config))
    width = config.num_heads * config.head_dim
    return partial(flop_ratio, num_parameters=num_parameters, attention_width=width, num_layers=config.num_layers)


def _calls(episode: Episode) -> Sequences:
    completions = [completion for completion in episode.completions if is_trainable(completion)]
    tokens = tuple(np.array(completion.prompt_ids + completion.generation.token_ids) for completion in completions)
    trained = tuple(np.arange(len(ids)) >= len(completion.prompt_ids) for ids, completion in zip(tokens, completions, strict=True))
    return Sequences(tokens, trained)


def _joined(parts: Sequence[Sequences]) -> Sequences:
    return Sequences(tuple(ids for part in parts for ids in part.tokens), tuple(mask for part in parts for mask in part.trained))
