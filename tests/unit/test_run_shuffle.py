from __future__ import annotations

from trunkline.run.shuffle import shuffle_rewards
from trunkline.types import Episode, Failure, Group, Message, Reward, Task

TASK = Task("t/0", "t", "only", (Message("user", "?"),), {})


def _group(index: int, rewards: list[float | None]) -> Group:
    episodes = tuple(
        Episode(
            episode_id=f"g{index}-a{attempt}",
            group_id=f"g{index}",
            task_id=TASK.task_id,
            attempt=attempt,
            status="failed" if reward is None else "finished",
            completions=(),
            messages=(),
            rewards=() if reward is None else (Reward("outcome", reward, ""),),
            failure=Failure("infra", "Example", "") if reward is None else None,
            duration_s=0.0,
        )
        for attempt, reward in enumerate(rewards)
    )
    return Group(f"g{index}", index, TASK, episodes)


def test_a_group_keeps_its_rewards_but_not_their_places_and_failures_stay_failures() -> None:
    groups = [_group(index, [1.0, 0.0, None, 1.0, 0.0, 0.0]) for index in range(20)]
    shuffled = shuffle_rewards(groups, seed=1)
    assert all(sorted(new.valid_rewards) == [0.0, 0.0, 0.0, 1.0, 1.0] and new.has_gradient for new in shuffled)
    assert all(new.episodes[2] == old.episodes[2] for new, old in zip(shuffled, groups, strict=True))
    assert len({new.valid_rewards for new in shuffled}) > 3
    assert shuffle_rewards(groups, seed=1) == shuffled != shuffle_rewards(groups, seed=2)
