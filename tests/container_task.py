"""A tiny task whose workspace is in an image: a program with a bug, and a judge that code under test cannot forge. Owns no test."""

from __future__ import annotations

from pathlib import Path

BASE = "trunkline-test:python"
"""What its Dockerfile builds on; slow tests make it."""
_PROGRAM = """\
import sys


def total(prices, percent):
    return sum(prices) - percent


if __name__ == "__main__":
    *prices, percent = map(int, sys.stdin.read().split())
    print(total(prices, percent))
"""
_JUDGE = '''\
"""The first process of its sandbox: nobody inside can end it, and once all others are dead nobody else writes the reward."""

import contextlib
import ctypes
import os
import random
import signal
import subprocess

LOGS = "/logs/verifier"


def answer(numbers):
    given = " ".join(map(str, numbers)).encode()
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(["python3", "total.py"], cwd="/app", input=given, stdout=subprocess.PIPE, timeout=10).stdout
    return b""


def end_all_others():
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


assert os.getpid() == 1
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: no other process of this user looks into this one
is_right = True
for _ in range(3):
    prices, percent = [random.randrange(100, 10_000) for _ in range(random.randrange(1, 6))], random.randrange(5, 95)
    is_right &= answer([*prices, percent]).split() == [b"%d" % (sum(prices) * (100 - percent) // 100)]
    end_all_others()
os.chmod(LOGS, 0o755)
for name in os.listdir(LOGS):
    os.unlink(f"{LOGS}/{name}")
with open(f"{LOGS}/reward.txt", "x") as file:
    file.write(str(int(is_right)))
'''
FILES = {
    "task.toml": '[task]\nname = "org/discount"\n[verifier]\ntimeout_sec = 60\n',
    "instruction.md": "total.py takes the discount as cents, it is a percentage. Mend it.\n",
    "environment/Dockerfile": f"FROM {BASE}\nCOPY app /app\nWORKDIR /app\n",
    "environment/app/total.py": _PROGRAM,
    "solution/solve.sh": "#!/bin/sh\ncp /solution/total.py /app/total.py\n",
    "solution/total.py": _PROGRAM.replace("sum(prices) - percent", "sum(prices) * (100 - percent) // 100"),
    "tests/test.sh": "#!/bin/sh\nexec python3 -I /tests/judge.py\n",
    "tests/judge.py": _JUDGE,
}


def write_container_task(folder: Path, **files: str) -> Path:
    """The task, with some of its files replaced or added."""
    for name, text in {**FILES, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
