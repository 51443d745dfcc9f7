"""The doctor's checks of what was sampled: attempts, their ends, their rewards, their tokens. Owns thresholds; reads no file.

Each check is a pure function of counts. Every threshold says why it is what it is; "a guess" marks those without a measurement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trunkline.episodes.rebuild import Rebuilt
from trunkline.evals.finding import Finding, Limits, Verdict, percent
from trunkline.evals.run_record import OUT_OF_TURNS

FAILED_EPISODES = Limits(0.01, 0.2)
"""Share of attempts without a verdict, after retries. A guess: some always fail; with a fifth missing, baselines are of other tasks
than those one wanted, for attempts that fail are rarely the easy ones."""

UNPAID_WITHOUT_MODEL = Limits(0.01, 0.1)
"""Share of attempts at reward 0 in which the model was never sampled to an end. Should be none: such a 0 is no fault of the policy."""

CUT_EPISODES = Limits(0.05, 0.3)
"""Share of attempts cut by deadline or budget that earned nothing. A guess: they are trained as failures, so at 30% the policy learns
more about being quick than about the task."""

LENGTH_CUTS = Limits(0.05, 0.3)
"""Share of completions that ended by their limit of tokens. A guess: a cut call is mostly unusable, hence an attempt of two calls fails
in half the cases at 30%."""

BRANCHED_CALLS = Limits(0.1, 0.8)
"""Share of later calls that do not extend what was sampled before. An agent that compacts or forks does so in some calls, a drifting
template or an agent that rewrites its history in almost all: hence the high fault."""

EQUAL_GROUPS = Limits(0.5, 0.9)
"""Share of groups without a gradient. They cost sampling alone, since steps are filled with other groups: at 90% ten groups are paid for
one. A policy that solves 1 task in 14 has 62% with 8 attempts a group, and still has steps."""

DROPPED_TOKENS = Limits(0.1, 0.5)
"""Share of sampled tokens that were sampled in a way that forbids to train them (greedy, restricted, aborted). A guess: it is waste
first; at half, the trained calls are no fair sample of an attempt."""

RANDOM_ENTROPY = 2.5
"""Mean nats of a sampled token above which a policy writes almost at random. The quickstart's policy has 0.3 to 1.2 after a cold start;
uniform over its 103 tokens would be 4.6. The exact place is a guess."""

LEAST_EPISODES_FOR_TOOLS = 32
"""Attempts below which nothing is said of tools; a guess."""
TOOL_USERS = 0.05
"""Share of attempts that call a tool, below which an unsuccessful policy is said not to use them; a guess."""
POOR_REWARD = 0.5
"""Share of attempts that earn something, below which missing tools may be the reason; a guess."""


def failed_episodes(*, num_episodes: int, failures: Mapping[str, int]) -> Finding:
    """Attempts without a verdict, by 'boundary/kind' of their cause."""
    name = "failed attempts"
    if not num_episodes:
        return _nothing_sampled(name, FAILED_EPISODES.as_text())
    share = sum(failures.values()) / num_episodes
    cause = max(failures, key=lambda kind: failures[kind], default="")
    return Finding(
        check=name,
        verdict=FAILED_EPISODES.grade(share),
        measured=f"{percent(share)} of {num_episodes} attempts" + (f"; most often {cause} ({failures[cause]}×)" if cause else ""),
        threshold=FAILED_EPISODES.as_text(),
        cause=f"{percent(share)} of the attempts end without a verdict, most often by {cause or 'nothing'}, and are masked, not trained",
        remedy=f"remove what fails: {_WHERE_TO_LOOK.get(cause.partition('/')[0], 'see episodes/*.jsonl, field failure')}; "
        "pool.infra_retries helps only where it fails now and then",
        value=share,
    )


_WHERE_TO_LOOK: Mapping[str, str] = {
    "agent": "the agent's program or a tool raises (trunkline show RUN_DIR EPISODE has the message)",
    "engine": "the engine refuses or is gone (logs/engine.log)",
    "gateway": "the gateway refuses (trunkline show RUN_DIR EPISODE has the message)",
    "sandbox": "sandboxes break (trunkline show RUN_DIR EPISODE has the message)",
    "verifier": "the verifier raises; run its certificate again",
    "infra": "disk, sockets or processes fail (trunkline show RUN_DIR EPISODE has the message)",
}


def unpaid_without_model(*, num_episodes: int, num_unpaid: int, num_unpaid_silent: int) -> Finding:
    """Attempts at reward 0 that the model had no part in."""
    name = "infrastructure zeros"
    if not num_episodes:
        return _nothing_sampled(name, UNPAID_WITHOUT_MODEL.as_text())
    share = num_unpaid_silent / num_unpaid if num_unpaid else 0.0
    return Finding(
        check=name,
        verdict=UNPAID_WITHOUT_MODEL.grade(share),
        measured=f"{percent(share)} of {num_unpaid} attempts at 0 hold no finished call of the model",
        threshold=UNPAID_WITHOUT_MODEL.as_text(),
        cause=f"{percent(share)} of the attempts that earn 0 never got an answer of the model: the agent swallows errors of its connection",
        remedy="let the agent raise when a call fails, so that the attempt is retried and masked; check that a first prompt fits "
        "agent.max_context",
        value=share,
    )


def cut_episodes(*, num_episodes: int, num_cut_unpaid: int, cuts: Mapping[str, int]) -> Finding:
    """Attempts that ran out of time or budget."""
    name = "deadlines"
    if not num_episodes:
        return _nothing_sampled(name, CUT_EPISODES.as_text())
    share = num_cut_unpaid / num_episodes
    kind = max(cuts, key=lambda cut: cuts[cut], default="")
    remedy = {
        "DeadlineExceeded": "raise agent.deadline_s; if attempts hang, look at where (trunkline show RUN_DIR EPISODE)",
        "BudgetExceeded": "raise agent.max_turns, agent.max_tokens or agent.max_context, whichever the message names",
        OUT_OF_TURNS: "raise agent.max_turns and agent.max_context; if attempts call tools in circles, lengthen cold_start.steps",
    }.get(kind, "raise agent.deadline_s")
    return Finding(
        check=name,
        verdict=CUT_EPISODES.grade(share),
        measured=f"{percent(sum(cuts.values()) / num_episodes)} of {num_episodes} attempts cut{f', most by {kind}' if kind else ''}; "
        f"{percent(share)} cut and without reward",
        threshold=f"cut and without reward: {CUT_EPISODES.as_text()}",
        cause=f"{percent(share)} of the attempts are cut by {kind or 'a limit'} before they earn anything, and count as failures",
        remedy=remedy,
        value=share,
    )


def length_cuts(*, num_calls: int, num_length_cuts: int, entropy: float | None) -> Finding:
    """Completions that ended by their limit of tokens."""
    name = "length cuts"
    if not num_calls:
        return _nothing_sampled(name, LENGTH_CUTS.as_text())
    share = num_length_cuts / num_calls
    excused = _excused(LENGTH_CUTS.grade(share), entropy)
    return Finding(
        check=name,
        verdict=excused.verdict,
        measured=f"{percent(share)} of {num_calls} completions{excused.why}",
        threshold=LENGTH_CUTS.as_text(),
        cause=f"{percent(share)} of the completions are cut by their token limit before the model ends its turn",
        remedy="raise agent.max_tokens (and agent.max_context); if turns never end, the stop token or the template is wrong",
        value=share,
    )


def unused_tools(*, num_episodes: int, num_tool_users: int, num_unpaid: int, entropy: float | None) -> Finding:
    """Attempts without a tool call. Never a fault: the record does not say whether the task has tools."""
    name = "tools"
    threshold = f"warning < {percent(TOOL_USERS)} use a tool while < {percent(POOR_REWARD)} earn anything"
    if num_episodes < LEAST_EPISODES_FOR_TOOLS:
        return _not_measured(name, f"{num_episodes} attempts, {LEAST_EPISODES_FOR_TOOLS} are needed", threshold)
    share = num_tool_users / num_episodes
    is_poor = 1 - num_unpaid / num_episodes < POOR_REWARD
    excused = _excused("warning" if share < TOOL_USERS and is_poor else "ok", entropy)
    return Finding(
        check=name,
        verdict=excused.verdict,
        measured=f"{percent(share)} of {num_episodes} attempts call a tool{excused.why}",
        threshold=threshold,
        cause="the policy answers without its tools, so nothing shows it what they are worth",
        remedy="if the task has tools: check that the template renders them (model.renderer); lengthen cold_start.steps",
        value=share,
    )


def rewritten_history(*, num_followers: int, num_branches: int, merged_token_ratio: float | None, method: str = "keep_all") -> Finding:
    """Calls that do not extend what was sampled before: the agent rewrites its history, or the template drifts.

    Where the recipe names a context management (`method`), they are wanted; rebuilt_contexts says whether they are as they should be.
    """
    name = "rewritten history"
    if not num_followers:
        return _not_measured(name, "no attempt has a second call", BRANCHED_CALLS.as_text())
    share = num_branches / num_followers
    merged = "" if merged_token_ratio is None else f"; the forest computes 1 token for {merged_token_ratio:.1f} of the samples"
    return Finding(
        check=name,
        verdict=BRANCHED_CALLS.grade(share) if method == "keep_all" else "ok",
        measured=f"{percent(share)} of {num_followers} later calls begin a new branch{merged}"
        + ("" if method == "keep_all" else f"; on purpose: agent.context.method is {method}"),
        threshold=BRANCHED_CALLS.as_text(),
        cause=f"{percent(share)} of the later calls do not extend what was sampled: the agent rewrites its history or the template drifts",
        remedy="send back assistant turns as they came, append only; check model.renderer; harmless if the agent compacts on purpose",
        value=share,
    )


def rebuilt_contexts(rebuilt: Sequence[Rebuilt], *, why_not: str = "") -> Finding:
    """Contexts of our own loop, made again from the record by its context management: not one may differ."""
    name = "rebuilt contexts"
    threshold = "fault: any token differs"
    num_calls, num_same = sum(one.num_calls for one in rebuilt), sum(one.num_same for one in rebuilt)
    if not num_calls:
        return _not_measured(name, why_not or "no call on record", threshold)
    first = next((one.difference for one in rebuilt if one.difference is not None), None)
    return Finding(
        check=name,
        verdict="ok" if first is None else "fault",
        measured=f"{num_same} of {num_calls} contexts of a group are the same to the token" + (f"; {first}" if first else ""),
        threshold=threshold,
        cause="what the model saw is not what the agent's context management makes of the record",
        remedy="check that agent.context, tools and model.renderer are those of the run; a method may depend on its arguments alone",
        value=num_same / num_calls,
    )


def equal_groups(
    *, num_groups: int, num_all_zero: int, num_all_one: int, num_all_other: int, num_too_few: int, entropy: float | None
) -> Finding:
    """Groups whose attempts all earned the same carry no gradient."""
    name = "all-equal groups"
    if not num_groups:
        return _not_measured(name, "no group ended yet", EQUAL_GROUPS.as_text())
    parts = {"all 0": num_all_zero, "all 1": num_all_one, "all another value": num_all_other, "fewer than 2 verdicts": num_too_few}
    num_equal = sum(parts.values())
    share = num_equal / num_groups
    most = max(parts, key=lambda part: parts[part])
    at_random = most == "all 0" and entropy is not None and entropy > RANDOM_ENTROPY
    cause, remedy = _EQUAL["all 0 at random" if at_random else most]
    split = ", ".join(f"{part} {percent(number / num_groups)}" for part, number in parts.items() if number)
    return Finding(
        check=name,
        verdict=EQUAL_GROUPS.grade(share),
        measured=f"{percent(share)} of the newest {num_groups} groups" + (f" ({split})" if split else ""),
        threshold=EQUAL_GROUPS.as_text(),
        cause=f"{percent(share)} of the groups carry no gradient, most of them {most}: {cause}",
        remedy=remedy,
        value=share,
    )


_EQUAL: Mapping[str, tuple[str, str]] = {
    "all 0 at random": (
        "the policy writes almost at random and never succeeds, the cold start is missing or too short",
        "lengthen cold_start.steps, or start from a policy that solves some tasks (model.path)",
    ),
    "all 0": (
        "the tasks are too hard for this policy, or the cold start was too short",
        "look at why (trunkline show RUN_DIR EPISODE); easier tasks (taskset.options), a longer cold_start.steps, a larger pool.group_size",
    ),
    "all 1": ("the tasks are too easy, there is nothing left to learn from them", "choose harder tasks (taskset.options), or stop here"),
    "all another value": (
        "the verifier gives the same reward whatever the agent does",
        "look at the evidence of the rewards (trunkline show RUN_DIR EPISODE); the verifier should tell attempts apart",
    ),
    "fewer than 2 verdicts": (
        "too many attempts fail without a verdict",
        "remove what fails, see the check of failed attempts; raise pool.group_size",
    ),
}


def dropped_tokens(*, num_tokens: int, drops: Mapping[str, int]) -> Finding:
    """Tokens that were sampled in a way that forbids to train them. Groups without gradient and failed attempts have their own checks."""
    name = "dropped tokens"
    if not num_tokens:
        return _nothing_sampled(name, DROPPED_TOKENS.as_text())
    share = sum(drops.values()) / num_tokens
    reason = max(drops, key=lambda drop: drops[drop], default="")
    return Finding(
        check=name,
        verdict=DROPPED_TOKENS.grade(share),
        measured=f"{percent(share)} of {num_tokens} sampled tokens" + (f"; most: {reason}" if reason else ""),
        threshold=DROPPED_TOKENS.as_text(),
        cause=f"{percent(share)} of the sampled tokens may not be trained, most because {reason or 'of nothing'}",
        remedy="train on what the policy samples itself: agent.temperature above 0, no top_p; fewer aborts (agent.deadline_s)",
        value=share,
    )


def random_policy(*, entropy: float | None) -> Finding:
    """Whether the newest attempts were written almost at random."""
    name = "random policy"
    threshold = f"warning > {RANDOM_ENTROPY:g} nats a token"
    if entropy is None:
        return _nothing_sampled(name, threshold)
    return Finding(
        check=name,
        verdict="ok" if entropy <= RANDOM_ENTROPY and math.isfinite(entropy) else "warning",
        measured=f"{entropy:.2f} nats a token (mean -log p of what was sampled)",
        threshold=threshold,
        cause=f"the policy writes almost at random ({entropy:.1f} nats a token), so that successes are luck",
        remedy="lengthen cold_start.steps or start from a trained policy (model.path); if it was better before, lower stage.optimizer.lr",
        value=entropy,
    )


@dataclass(frozen=True)
class _Excused:
    """A verdict after a look at the entropy."""

    verdict: Verdict
    """Ok where the policy writes at random."""
    why: str
    """Said behind the number; empty if nothing was excused."""


def _excused(verdict: Verdict, entropy: float | None) -> _Excused:
    """A policy that writes at random neither ends its turns nor calls tools: that is its own check, not a wrong limit or template."""
    if verdict == "ok" or entropy is None or entropy <= RANDOM_ENTROPY:
        return _Excused(verdict, "")
    return _Excused("ok", f" (to be expected of a policy that writes at random: {entropy:.1f} nats a token)")


def _nothing_sampled(name: str, threshold: str) -> Finding:
    return _not_measured(name, "no attempt ended yet, or no journal", threshold)


def _not_measured(name: str, why: str, threshold: str) -> Finding:
    return Finding(name, "not measured", why, threshold, "", "")
