"""Judges a review: which proposals are right, and where the others are wrong. A program of its own: it lies in tests/ of a task.

It reads REVIEW.json as data and runs nothing. All proposals have to be judged rightly for the reward, 1; anything else is 0.
"""

import json
import os
from pathlib import Path
from typing import Any

ANSWERS = Path(__file__).resolve().parent / "answers.json"
REVIEW = Path(os.environ.get("WORKSPACE", "/workspace")) / "REVIEW.json"
LOGS = Path(os.environ.get("VERIFIER_LOGS", "/logs/verifier"))
_MAX_BYTES = 2**16


def main() -> None:
    """Writes the reward."""
    answers = json.loads(ANSWERS.read_text("utf-8"))
    review = read()
    right = [name for name, answer in answers.items() if is_right(review.get(name), answer)]
    reward = int(len(right) == len(answers) and review.keys() == answers.keys())
    LOGS.mkdir(parents=True, exist_ok=True)
    (LOGS / "reward.txt").write_text(f"{reward}\n")


def read() -> dict[str, Any]:
    """The review; {} if there is none that can be read."""
    try:
        if REVIEW.is_symlink() or REVIEW.stat().st_size > _MAX_BYTES:
            return {}
        found = json.loads(REVIEW.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def is_right(said: Any, answer: Any) -> bool:
    """Whether a verdict is the right one: `answer` is null, or the path and lines of the fault."""
    if not isinstance(said, dict):
        return False
    if answer is None:
        return bool(said.get("verdict") == "approve")
    line = said.get("line")
    is_place = said.get("path") == answer["path"] and type(line) is int and answer["first"] <= line <= answer["last"]
    return said.get("verdict") == "defect" and is_place


if __name__ == "__main__":
    main()
