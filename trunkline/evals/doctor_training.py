"""The doctor's checks of what training did, step by step: gaps, credit, gradients, entropy, reward. Owns thresholds; reads no file.

Each check is a pure function of numbers. Every threshold says why it is what it is; "a guess" marks those without a measurement.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.stats import theilslopes

from trunkline.evals.finding import Finding, Limits, Verdict, percent, worse

NEWEST_STEPS = 50
"""Steps whose level is judged: the state of now, not of a time before a resume; a guess. Trends look at all steps."""

SAMPLER_TRAINER_GAP = Limits(1e-3, 1e-2, "number")
"""Nats between engine and trainer for the same tokens under the same weights. Both in fp32 agree to 5e-5 (tests/parity); half precision
on one side gave up to 0.76 in a prototype. Beyond 1e-2 they do not compute the same policy."""

LEAST_TRAINED_SHARE = 0.05
"""Share of sampled tokens that are trained, below which most sampling is wasted; a guess."""

CLIP_FRACTION = Limits(0.01, 0.1)
"""Share of trained tokens whose importance ratio the loss bounds. CISPO's cap of 5 is far out: 30 steps of the quickstart have
none above it. The places are guesses, for it and for PPO; GSPO bounds whole completions and may have more in a run that is well."""

LOWEST_LEARNING_RATE = 1e-9
"""AdamW moves a weight by about the learning rate; a typical weight of 0.02 does not change in fp32 (relative precision 6e-8) by less."""
IDLE_STEPS = Limits(0.2, 0.5)
"""Share of steps at such a learning rate, or with a gradient of zero. A decay to zero has a few; a guess."""

SMALLEST_GRADIENT = 1e-12
"""A global norm below it is a gradient of zero with rounding."""
CLIPPED_STEPS = Limits(0.9, math.inf)
"""Share of steps whose gradient is scaled down. Always clipped means that clip_norm, not lr, sets the step; many such runs learn."""
LARGEST_GRADIENT = 100.0
"""Median norm, in clip norms, beyond which the direction of a step is that of its few largest tokens; a guess."""

LEAST_STEPS_FOR_A_TREND = 8
"""Fewer steps give no trend: the 95% interval of a slope over 7 points spans most of what a reward can do."""
LEAST_STEPS_FOR_FLAT = 20
"""A reward may well stand still for fewer; a guess."""
SOLVED_REWARD = 0.9
"""A mean reward from which little is left to learn."""
SMALLEST_FALL = 0.05
"""A fall of the mean reward over a run that is worth a word; a guess."""

COLLAPSE_SHARE = Limits(0.7, 0.9)
"""Share of its first entropy that the policy lost while its reward is poor. Falling entropy is what learning looks like; at a tenth of it
attempts are copies of each other and groups carry no gradient. A guess."""
FLOOR_ENTROPY = 0.02
"""Nats a token below which attempts at one task hardly differ (one token in 50 is a real choice of 1 nat); a guess."""
EXPLOSION_FACTOR = Limits(2.0, 4.0, "number")
"""Last entropy over first. RL on verified rewards lowers it; a doubling means that steps destroy what was learned. A guess."""
SMALLEST_EXPLOSION = 0.3
"""Nats that entropy must have gained before it is called an explosion: a tiny entropy may double without harm; a guess."""

LOST_SUCCESS = Limits(0.3, 0.5)
"""Share of its best reward (median of a fifth of the run) that the newest attempts no longer earn. A guess; by chance the mean over 64
groups of 8 attempts or more moves by less than a tenth."""
LEAST_BEST_REWARD = 0.1
"""Best reward below which nothing can be called lost; a guess."""

OVERFIT_GAP = Limits(0.15, math.inf)
"""Rise of the training reward minus rise of held-out success. With intervals of some ±0.05 on each, less is noise; a guess."""

WAITING = 0.5
"""Share of a step's time in which the trainer waits for groups, above which sampling sets the pace."""
BUSY_ENGINE = 0.5
"""Utilisation of the engine below which it is not the engine that sampling waits for; a guess."""

_FLAT_REMEDY = (
    "look at attempts (trunkline show RUN_DIR): if rewards are right, raise stage.optimizer.lr or pool.window.groups_per_step, "
    "choose easier tasks, or train longer (stage.steps)"
)


def sampler_trainer_gap(gaps: Sequence[float]) -> Finding:
    """`gaps`: for each step the largest difference of log-probabilities over tokens of the version that the step starts from."""
    name = "sampler/trainer gap"
    if not gaps:
        return _not_measured(name, "no step had tokens of its own version", SAMPLER_TRAINER_GAP.as_text())
    largest = max(gaps)
    return Finding(
        check=name,
        verdict=SAMPLER_TRAINER_GAP.grade(largest),
        measured=f"{largest:.1e} nats at most in {_steps(gaps)}",
        threshold=SAMPLER_TRAINER_GAP.as_text(),
        cause=f"engine and trainer disagree by up to {largest:.2g} nats about the same tokens: other weights, precision or template",
        remedy="check that weights are published and loaded (logs/engine.log), that both compute in fp32, and that model.path is one model",
        value=largest,
    )


def shuffled_rewards(*, is_shuffled: bool) -> Finding:
    """Whether the recipe deals rewards out at random; a shuffle leaves no trace in the numbers themselves."""
    return Finding(
        check="shuffled rewards",
        verdict="fault" if is_shuffled else "ok",
        measured="stage.shuffle_rewards = true" if is_shuffled else "rewards go to the attempts that earned them",
        threshold="fault if the recipe says so",
        cause="the recipe deals the rewards of a group out at random: this is the control arm, it can learn nothing true",
        remedy="set stage.shuffle_rewards=false",
        value=float(is_shuffled),
    )


def learning_rate(rates: Sequence[float]) -> Finding:
    """Whether steps move the weights at all."""
    name = "learning rate"
    threshold = f"steps below {LOWEST_LEARNING_RATE:g}: {IDLE_STEPS.as_text()}"
    if not rates:
        return _no_steps(name, threshold)
    share = _share(rate < LOWEST_LEARNING_RATE for rate in rates)
    return Finding(
        check=name,
        verdict=IDLE_STEPS.grade(share),
        measured=f"{min(rates):.1e} to {max(rates):.1e} in {_steps(rates)}; {percent(share)} at practically zero",
        threshold=threshold,
        cause=f"the learning rate is practically zero in {percent(share)} of the steps: gradients flow and nothing changes",
        remedy="raise stage.optimizer.lr; if it decays too early, raise stage.optimizer.lr_end_fraction or total_steps",
        value=share,
    )


def trained_tokens(*, trained: Sequence[float], sampled: Sequence[float]) -> Finding:
    """Whether what is sampled is trained."""
    name = "trained tokens"
    threshold = f"warning < {percent(LEAST_TRAINED_SHARE)} of those sampled, fault 0"
    if not trained or not sum(sampled):
        return _no_steps(name, threshold)
    share = sum(trained) / sum(sampled)
    verdict: Verdict = "fault" if not sum(trained) else "warning" if share < LEAST_TRAINED_SHARE else "ok"
    return Finding(
        check=name,
        verdict=verdict,
        measured=f"{percent(share)} of {sum(sampled):.0f} sampled tokens in {_steps(trained)}",
        threshold=threshold,
        cause=f"{percent(share)} of the sampled tokens are trained",
        remedy="see the checks of all-equal groups, dropped tokens and failed attempts for where the others go",
        value=share,
    )


def gradient(norms: Sequence[float], *, clip_norm: float) -> Finding:
    """Gradients that are zero, not finite, huge, or always clipped."""
    name = "gradient"
    threshold = (
        f"steps at zero: {IDLE_STEPS.as_text()}; clipped: {CLIPPED_STEPS.as_text()}; fault: median > {LARGEST_GRADIENT:g} clip norms"
    )
    if not norms:
        return _no_steps(name, threshold)
    zero, clipped = _share(norm < SMALLEST_GRADIENT for norm in norms), _share(norm > clip_norm for norm in norms)
    median = statistics.median(norms)
    verdict: Verdict
    if not all(math.isfinite(norm) for norm in norms):
        verdict, cause, remedy = "fault", "gradients are not finite", "lower stage.optimizer.lr"
    elif IDLE_STEPS.grade(zero) != "ok":
        verdict, cause = (
            IDLE_STEPS.grade(zero),
            f"the gradient is zero in {percent(zero)} of the steps: advantages are zero or nothing is trained",
        )
        remedy = "see the checks of all-equal groups and trained tokens; check stage.baseline"
    elif median > LARGEST_GRADIENT * clip_norm:
        verdict, cause = "fault", f"gradients are huge (median norm {median:.3g}), each step is clipped to a small part of them"
        remedy = "lower stage.optimizer.lr, raise pool.window.groups_per_step"
    else:
        is_told = len(norms) >= LEAST_STEPS_FOR_A_TREND
        verdict, cause = (
            CLIPPED_STEPS.grade(clipped) if is_told else "ok",
            f"{percent(clipped)} of the steps are clipped, so that clip_norm sets their size",
        )
        remedy = "raise stage.optimizer.clip_norm, or lower stage.optimizer.lr and ignore this"
    measured = f"median norm {median:.2e} in {_steps(norms)}; {percent(zero)} zero, {percent(clipped)} above clip_norm {clip_norm:g}"
    return Finding(name, verdict, measured, threshold, cause, remedy, median)


def staleness(*, ages: Sequence[float], max_age: int | None, clip_fractions: Sequence[float]) -> Finding:
    """Ages of trained groups against the window's bound, and how many importance ratios the loss bounds."""
    name = "stale samples"
    threshold = f"tokens beyond the loss's bound: {CLIP_FRACTION.as_text()}; age above {'the bound' if max_age is None else max_age}: fault"
    if not ages:
        return _no_steps(name, threshold)
    clipped = statistics.fmean(clip_fractions) if clip_fractions else 0.0
    is_too_old = max_age is not None and max(ages) > max_age
    verdict = worse("fault" if is_too_old else "ok", CLIP_FRACTION.grade(clipped))
    said = f"{percent(clipped)} of the trained tokens beyond the loss's bound" if clip_fractions else "share beyond it not measured"
    return Finding(
        check=name,
        verdict=verdict,
        measured=f"age {max(ages):.0f} at most; {said} in {_steps(ages)}",
        threshold=threshold,
        cause=f"samples are too far from the policy that trains on them: {said}, age up to {max(ages):.0f}",
        remedy="lower pool.window.max_off_policy_steps or window_fraction; lower stage.optimizer.lr (one step may move the policy too far)",
        value=clipped,
    )


@dataclass(frozen=True)
class Trend:
    """A robust straight line through all steps."""

    rise: float
    """What the line gains from the first step to the last."""
    low: float
    """Lower end of its 95% interval."""
    high: float
    """Upper end."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Trend | None:
        """Theil-Sen slope with the interval of Kendall's tau (Sen 1968); None with too few steps."""
        if len(values) < LEAST_STEPS_FOR_A_TREND:
            return None
        slope, _, low, high = theilslopes(values, alpha=0.95)
        gains = (float(bound) * (len(values) - 1) for bound in (slope, low, high))
        return cls(*gains)


def reward_trend(rewards: Sequence[float]) -> Finding:
    """Whether the mean reward of training attempts rises."""
    name = "reward"
    threshold = (
        f"warning: flat over {LEAST_STEPS_FOR_FLAT} steps below {SOLVED_REWARD:g}, or falls by {SMALLEST_FALL:g}; fault: surely falls by it"
    )
    trend = Trend.of(rewards)
    if trend is None:
        return _not_measured(name, f"{_steps(rewards)}, {LEAST_STEPS_FOR_A_TREND} are needed for a trend", threshold)
    is_solved = _end(rewards) >= SOLVED_REWARD
    verdict: Verdict
    if trend.high < -SMALLEST_FALL:
        verdict, cause, remedy = "fault", "the reward falls", "lower stage.optimizer.lr; see the checks of entropy and of stale samples"
    elif trend.high < 0 and trend.rise < -SMALLEST_FALL:
        verdict, cause, remedy = "warning", "the reward falls", "lower stage.optimizer.lr"
    elif trend.low <= 0 and not is_solved and len(rewards) >= LEAST_STEPS_FOR_FLAT:
        verdict, cause, remedy = "warning", f"the reward is flat over {_steps(rewards)} while nothing else explains it", _FLAT_REMEDY
    else:
        verdict, cause, remedy = "ok", "", ""
    line = f"trend {trend.rise:+.3f} [{trend.low:+.3f}, {trend.high:+.3f}]"
    measured = f"{_start(rewards):.2f} to {_end(rewards):.2f}; {line} over {_steps(rewards)}"
    return Finding(name, verdict, measured, threshold, cause, remedy, trend.rise)


def entropy_collapse(entropies: Sequence[float], rewards: Sequence[float]) -> Finding:
    """Whether the policy became deterministic before it became good."""
    name = "entropy collapse"
    threshold = f"lost: {COLLAPSE_SHARE.as_text()}, or fault < {FLOOR_ENTROPY:g} nats; only while the reward is below {SOLVED_REWARD:g}"
    if not entropies or not rewards:
        return _no_steps(name, threshold)
    first, last = _start(entropies), _end(entropies)
    lost = 1 - last / first if first > 0 else 0.0
    is_good = _end(rewards) >= SOLVED_REWARD or _rises(rewards)
    verdict = worse(COLLAPSE_SHARE.grade(lost), "fault" if last < FLOOR_ENTROPY else "ok")
    if is_good and verdict != "ok":
        verdict = "ok" if _end(rewards) >= SOLVED_REWARD else "warning"
    return Finding(
        check=name,
        verdict=verdict,
        measured=f"{first:.3f} to {last:.3f} nats a token over {_steps(entropies)}, reward {_end(rewards):.2f}",
        threshold=threshold,
        cause=f"entropy fell from {first:.2g} to {last:.2g} nats a token: attempts became copies of each other before they became good",
        remedy="lower stage.optimizer.lr, start again from the checkpoint before the fall; raise pool.window.groups_per_step",
        value=lost,
    )


def entropy_explosion(entropies: Sequence[float]) -> Finding:
    """Whether training destroys what the policy could."""
    name = "entropy explosion"
    threshold = f"last over first: {EXPLOSION_FACTOR.as_text()}, if it gained {SMALLEST_EXPLOSION:g} nats"
    if not entropies:
        return _no_steps(name, threshold)
    first, last = _start(entropies), _end(entropies)
    factor = last / max(first, 1e-9)
    return Finding(
        check=name,
        verdict=EXPLOSION_FACTOR.grade(factor) if last - first > SMALLEST_EXPLOSION else "ok",
        measured=f"{first:.3f} to {last:.3f} nats a token ({factor:.1f}×) over {_steps(entropies)}",
        threshold=threshold,
        cause=f"entropy rose from {first:.2g} to {last:.2g} nats a token: steps destroy what the policy could do",
        remedy="lower stage.optimizer.lr, lengthen stage.optimizer.warmup_steps; tighten the bound in stage.loss",
        value=factor,
    )


def lost_success(rewards: Sequence[float], *, newest: float | None) -> Finding:
    """Whether the newest attempts, those of groups without gradient included, still earn what training once did."""
    name = "lost success"
    threshold = f"of the best reward, if that was {LEAST_BEST_REWARD:g}: {LOST_SUCCESS.as_text()}"
    if not rewards or newest is None:
        return _no_steps(name, threshold)
    size = max(1, len(rewards) // 5)
    best = max(statistics.median(rewards[first : first + size]) for first in range(0, len(rewards) - size + 1))
    lost = 1 - newest / best if best > 0 else 0.0
    return Finding(
        check=name,
        verdict=LOST_SUCCESS.grade(lost) if best >= LEAST_BEST_REWARD else "ok",
        measured=f"reward {best:.2f} at its best in {_steps(rewards)}, {newest:.2f} in the newest attempts",
        threshold=threshold,
        cause=f"the policy lost what it could do: reward {best:.2f} at its best, {newest:.2f} now; its steps are too large",
        remedy="lower stage.optimizer.lr, lengthen stage.optimizer.warmup_steps; start again from the last good checkpoint",
        value=lost,
    )


def overfitting(*, rewards: Sequence[float], heldout_start: float | None, heldout_end: float | None) -> Finding:
    """Rise of the training reward against rise of held-out success; levels differ, for the tasks do."""
    name = "held-out success"
    threshold = f"training rises more by: {OVERFIT_GAP.as_text()}"
    if not rewards or heldout_start is None or heldout_end is None:
        return _not_measured(name, "needs RL steps and both evaluations", threshold)
    on_training, on_heldout = _end(rewards) - _start(rewards), heldout_end - heldout_start
    return Finding(
        check=name,
        verdict=OVERFIT_GAP.grade(on_training - on_heldout),
        measured=f"training {on_training:+.3f}, held-out {on_heldout:+.3f} ({heldout_start:.3f} to {heldout_end:.3f})",
        threshold=threshold,
        cause="the reward rises on training tasks more than on held-out ones: they are learned by heart, or the reward has loopholes",
        remedy="widen the taskset (taskset.options), lower stage.steps or stage.optimizer.lr; look at successes (trunkline show RUN_DIR)",
        value=on_training - on_heldout,
    )


def starvation(*, waits: Sequence[float], seconds: Sequence[float], engine: Sequence[float], stalls: Sequence[float]) -> Finding:
    """Whether the trainer waits for groups that the engine is not busy with. Slow, never wrong: a warning at most."""
    name = "starvation"
    threshold = f"warning: waits > {percent(WAITING)} while the engine is < {percent(BUSY_ENGINE)} busy"
    if not waits or not sum(seconds):
        return _no_steps(name, threshold)
    waiting = sum(waits) / sum(seconds)
    busy = statistics.fmean(engine) if engine else None
    said = f"the trainer waits {percent(waiting)} of the time" + (f", {sum(stalls):.0f} stalls of the window" if stalls else "")
    if busy is None:
        return _not_measured(name, f"{said}; no engine_utilisation on record", threshold)
    return Finding(
        check=name,
        verdict="warning" if waiting > WAITING and busy < BUSY_ENGINE else "ok",
        measured=f"{said}; the engine is {percent(busy)} busy",
        threshold=threshold,
        cause=f"{said} while the engine idles: attempts wait for tools, sandboxes or each other",
        remedy="raise pool.window.max_off_policy_steps or window_fraction (more in flight); find slow attempts (episodes/, duration_s)",
        value=waiting,
    )


def _rises(values: Sequence[float]) -> bool:
    trend = Trend.of(values)
    return trend is not None and trend.low > 0


def _start(values: Sequence[float]) -> float:
    """Median of the first fifth."""
    return statistics.median(values[: max(1, len(values) // 5)])


def _end(values: Sequence[float]) -> float:
    """Median of the last fifth."""
    return statistics.median(values[-max(1, len(values) // 5) :])


def _share(truths: Iterable[bool]) -> float:
    values = list(truths)
    return sum(values) / len(values)


def _steps(values: Sequence[float]) -> str:
    return f"{len(values)} step{'' if len(values) == 1 else 's'}"


def _no_steps(name: str, threshold: str) -> Finding:
    return _not_measured(name, "no RL step on record has it", threshold)


def _not_measured(name: str, why: str, threshold: str) -> Finding:
    return Finding(name, "not measured", why, threshold, "", "")
