"""The RL objectives by short name. Owns the choice and the correction's place; each formula is a file of its own.

recorded log-probabilities ─┬─────────────────────────────► old of the ratio ──► formula ─► sum
                            └ correction_cap: weights of tokens, and old = the trainer's own
"""

# M trained tokens of all samples

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trunkline.trainer.cispo import cispo_loss
from trunkline.trainer.config import LossConfig
from trunkline.trainer.correction import truncated_correction
from trunkline.trainer.gspo import gspo_loss
from trunkline.trainer.importance_sampling import importance_sampling_loss
from trunkline.trainer.loss import LossSum
from trunkline.trainer.ppo import ppo_loss


@dataclass(frozen=True)
class Objective:
    """A loss with its knobs, on the trained tokens of a step laid end to end.

    >>> objective = Objective(LossConfig(name="ppo"))
    >>> loss = objective(logp_M, old_logp_M, advantage_M, sample_M).total / len(logp_M)  # doctest: +SKIP
    """

    config: LossConfig
    """Which, and its knobs."""

    @property
    def is_token_local(self) -> bool:
        """True if any part of the tokens may be given by itself, and the sums of parts add up to the sum of all."""
        return self.config.name != "gspo"

    def __call__(self, logp_M: Tensor, old_logp_M: Tensor, advantage_M: Tensor, sample_M: Tensor) -> LossSum:
        """The sum over tokens, to be divided by the step's trained tokens.

        Args:
            logp_M: under the weights that are trained, with gradient.
            old_logp_M: as recorded at sampling.
            advantage_M: credit of each token.
            sample_M: int64, which sample each token belongs to.
        """
        cap = self.config.correction_cap
        if cap is None:
            return self._formula(logp_M, old_logp_M, advantage_M, sample_M)
        # A step makes one update, so that its own log-probabilities are those of its start. Both clipped losses scale with the
        # advantage, weights being positive: that multiplies each token's loss.
        anchor_M = logp_M.detach()
        correction = truncated_correction(anchor_M, old_logp_M, cap=cap)
        found = self._formula(logp_M, anchor_M, advantage_M * correction.weight_T, sample_M)
        return LossSum(found.total, {**found.stats, **correction.stats})

    def _formula(self, logp_M: Tensor, old_logp_M: Tensor, advantage_M: Tensor, sample_M: Tensor) -> LossSum:
        knobs = self.config.formula_knobs
        match self.config.name:
            case "cispo":
                return cispo_loss(logp_M, old_logp_M, advantage_M, **knobs)
            case "ppo":
                return ppo_loss(logp_M, old_logp_M, advantage_M, **knobs)
            case "gspo":
                return gspo_loss(logp_M, old_logp_M, advantage_M, sample_M, **knobs)
            case "importance_sampling":
                return importance_sampling_loss(logp_M, old_logp_M, advantage_M)
