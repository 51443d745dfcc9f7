"""What a checkpoint stores under each name, and whether that fits a config. Owns the comparison; reads no values; no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import ConfigError
from trunkline.models.config import DecoderConfig

HEAD_NAME = "lm_head.weight"
EMBEDDING_NAME = "model.embed_tokens.weight"
SELECTION_BIAS_SUFFIX = ".e_score_correction_bias"
# Old Llama checkpoints hold the rotary frequencies, which follow from the config.
_DERIVED_SUFFIX = ".rotary_emb.inv_freq"
_SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as a file describes it, e.g. StoredTensor((49152, 576), "BF16")."""

    shape: tuple[int, ...]
    """Sizes, as torch has them."""
    dtype: str
    """The file's name for its type: 'F32', 'BF16', 'Q4_1', ..."""

    @property
    def num_values(self) -> int:
        """Product of the sizes."""
        return math.prod(self.shape)


def check_fit(where: Path, config: DecoderConfig, stored: Mapping[str, StoredTensor]) -> None:
    """Raises ConfigError naming what is missing, unexpected or of another shape. Derived buffers and a tied head may be stored too."""
    expected = config.parameter_shapes()
    optional = {name for name in stored if name.endswith(_DERIVED_SUFFIX)} | ({HEAD_NAME} if config.tie_embeddings else set())
    problems = [f"missing {name}" for name in expected.keys() - stored.keys()]
    problems += [f"unexpected {name}" for name in stored.keys() - expected.keys() - optional]
    problems += [
        f"{name} has shape {list(stored[name].shape)}, the config says {list(shape)}"
        for name, shape in expected.items()
        if name in stored and stored[name].shape != shape
    ]
    if problems:
        more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise ConfigError(f"the weights in {where} do not fit its config: {'; '.join(sorted(problems)[:_SHOWN_PROBLEMS])}{more}")
