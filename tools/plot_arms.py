"""Draws several finished runs in one picture. Owns the command line; the picture is run/curve.py's.

python -m tools.plot_arms OUT.png LABEL=RUN_DIR ...      the same label again is another seed of that arm
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trunkline.errors import TrunklineError
from trunkline.run.curve import ArmRun, draw_arms


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 drawn, 2 if an argument is wrong or a run cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m tools.plot_arms", description="Several finished runs in one picture.")
    parser.add_argument("picture", type=Path, metavar="OUT.png", help="the picture to write")
    parser.add_argument("runs", nargs="+", metavar="LABEL=RUN_DIR", help="a run of an arm; one label may come once a seed")
    chosen = parser.parse_args(arguments)
    arms: dict[str, list[ArmRun]] = {}
    try:
        for run in chosen.runs:
            label, equals, folder = run.partition("=")
            if not (label and equals and folder):
                parser.error(f"a run is written LABEL=RUN_DIR, got {run!r}")
            arms.setdefault(label, []).append(ArmRun.read(Path(folder)))
        draw_arms(chosen.picture, arms)
    except (TrunklineError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
