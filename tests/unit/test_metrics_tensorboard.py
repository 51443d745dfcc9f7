"""TensorBoard's event files: every row on disk at once, the recipe, and the axis across a resume."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.tensorboard_files import read_events, scalars_of
from trunkline.metrics.base import RunInfo
from trunkline.metrics.tensorboard import TensorBoardSink

pytest.importorskip("tensorboardX")


def event_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))


def test_rows_are_on_disk_as_soon_as_they_are_written(tmp_path: Path) -> None:
    sink = TensorBoardSink(RunInfo(tmp_path, "project", {"seed": 1}))
    for step in (1, 2):
        sink.write({"time": 10.0 + step, "kind": "rl", "step": step, "reward": 0.25 * step, "dropped_tokens": {"episode failed": 7}})
        events = read_events(event_files(tmp_path)[0])
        assert scalars_of(events)["rl/reward"] == {number: 0.25 * number for number in range(1, step + 1)}
        assert events[-1].wall_time == 10.0 + step
    assert scalars_of(events)["rl/dropped_tokens/episode_failed"] == {1: 7.0, 2: 7.0}
    sink.close()


def test_the_recipe_is_kept_as_text(tmp_path: Path) -> None:
    sink = TensorBoardSink(RunInfo(tmp_path, "project", {"stage": {"steps": 12}}))
    sink.write({"time": 1.0, "kind": "rl", "step": 1, "reward": 0.5})
    texts = [value.tensor.string_val[0].decode() for event in read_events(event_files(tmp_path)[0]) for value in event.summary.value
             if value.tensor.string_val]  # fmt: skip
    assert len(texts) == 1 and '"steps": 12' in texts[0]
    sink.close()


def test_a_resumed_run_continues_the_axis_and_has_later_steps_forgotten(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import SessionLog

    first = TensorBoardSink(RunInfo(tmp_path, "project", {}))
    for step in (1, 2, 3):
        first.write({"time": 1.0, "kind": "rl", "step": step, "reward": 0.5})
    first.close()
    (before,) = event_files(tmp_path)
    before.rename(before.with_suffix(".1"))  # a process of its own would have its own name
    second = TensorBoardSink(RunInfo(tmp_path, "project", {}, resumed_at=2))
    second.write({"time": 2.0, "kind": "evaluation", "name": "start", "value": 0.75})
    second.write({"time": 3.0, "kind": "rl", "step": 3, "reward": 0.25})
    second.close()
    (after,) = [path for path in event_files(tmp_path) if path.suffix != ".1"]
    events = read_events(after)
    starts = [event.step for event in events if event.HasField("session_log") and event.session_log.status == SessionLog.START]
    assert starts == [3], "TensorBoard drops what it has of step 3 and later"
    assert scalars_of(events)["evaluation/value"] == {2: 0.75}
    assert scalars_of(events)["rl/reward"] == {3: 0.25}


def test_a_sink_that_was_never_written_to_leaves_no_file(tmp_path: Path) -> None:
    TensorBoardSink(RunInfo(tmp_path, "project", {})).close()
    assert not event_files(tmp_path)
