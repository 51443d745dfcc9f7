"""Makes the tasks of recipes/swe-tiny.toml out of real packages' functions, fetched from the registry. Owns the choice of functions.

python -m tools.swe_tiny --out runs/swe-tiny-tasks
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.family import Sizes, Subject, find_faults, write_tasks
from trunkline.tasks.factory.single_function import cut_function

PACKAGES = ("toolz==0.12.1", "more-itertools==10.5.0", "boltons==24.0.0", "inflection==0.5.1")
_LETTERS = "''.join(rng.choice('abcde') for _ in range(rng.randrange({}, {})))"
_NUMBERS = "[rng.randrange(9) for _ in range(rng.randrange({}, {}))]"


@dataclass(frozen=True)
class Choice:
    """One function of a module."""

    module: str
    """Its file, in the package."""
    name: str
    """Its name there."""
    draw: str
    """See Subject."""
    wrap: str = "{}"
    """See Subject."""


CHOICES = (
    Choice("toolz/itertoolz.py", "isdistinct", f"(rng.choice(['', 'a', 'abc', 'edcb', {_LETTERS.format(1, 5)}]),)"),
    Choice("toolz/dicttoolz.py", "assoc", "({'a': rng.randrange(9), 'b': rng.randrange(9)}, rng.choice('abc'), rng.randrange(9))"),
    Choice("more_itertools/recipes.py", "all_equal", "(rng.choice(['aaa', 'aab', 'bb', '', 'baa', 'ab', 'a']),)"),
    Choice("more_itertools/recipes.py", "subslices", f"({_LETTERS.format(1, 5)},)", "list({})"),
    Choice("more_itertools/more.py", "unique_to_each", f"({_LETTERS.format(1, 6)}, {_LETTERS.format(1, 6)}, {_LETTERS.format(0, 4)})"),
    Choice("more_itertools/more.py", "distribute", f"(rng.randint(-1, 4), {_LETTERS.format(1, 9)})", "[list(part) for part in {}]"),
    Choice("more_itertools/more.py", "permutation_index", "(rng.sample('abcd', rng.randint(2, 4)), 'abcd')"),
    Choice("more_itertools/more.py", "count_cycle", f"({_LETTERS.format(0, 4)}, rng.randrange(4))", "list({})"),
    Choice("boltons/iterutils.py", "lstrip_iter", f"({_LETTERS.format(2, 7)}, rng.choice('abc'))", "list({})"),
    Choice("boltons/mathutils.py", "clamp", "(rng.randint(-9, 19), rng.randint(-5, 2), rng.randint(1, 12))"),
    Choice("inflection.py", "ordinal", "(rng.choice([rng.randrange(30), rng.randrange(1000), -rng.randrange(130)]),)"),
    Choice("toolz/itertoolz.py", "partition", f"(rng.randrange(1, 4), {_NUMBERS.format(1, 9)})", "list({})"),
    Choice("more_itertools/recipes.py", "roundrobin", f"({_LETTERS.format(1, 6)}, {_LETTERS.format(1, 6)})", "list({})"),
    Choice(
        "more_itertools/more.py",
        "consecutive_groups",
        "(sorted(rng.sample(range(12), rng.randint(2, 6))),)",
        "[list(group) for group in {}]",
    ),
)
UNSEEN = frozenset({"partition", "roundrobin", "consecutive_groups"})
"""Functions of which no training task is."""


async def make(out: Path, sizes: Sizes) -> None:
    """Downloads, tries, writes; says what came of each function."""
    with tempfile.TemporaryDirectory(prefix="trunkline-tiny-") as folder:
        fetch = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target", folder]
        await asyncio.to_thread(subprocess.run, [*fetch, "--python", sys.executable, *PACKAGES], check=True)
        async with IsolatedSandboxes.open(SandboxConfig()) as sandboxes:
            for choice in CHOICES:
                try:
                    function = cut_function((Path(folder) / choice.module).read_text("utf-8"), choice.name)
                    subject = Subject(function, choice.draw, choice.wrap, _origin(choice.module))
                    faults = await find_faults(subject, sandboxes, sizes=sizes)
                except Rejection as rejection:
                    print(f"{choice.name}: {rejection}")
                    continue
                folders = {"train": out / "train", "heldout": out / "heldout"}
                if choice.name in UNSEEN:
                    folders = {"heldout": out / "unseen"}
                written = write_tasks(subject, faults, folders, sizes=sizes)
                print(f"{choice.name}: {len(faults.train)} faults to practise, {len(faults.heldout)} held out, {len(written)} tasks")


def _origin(module: str) -> str:
    package = module.partition("/")[0].removesuffix(".py").replace("_", "-")
    return next(named for named in PACKAGES if named.startswith(f"{package}=="))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--train", type=int, default=Sizes.train, help="training tasks of a function at most")
    parser.add_argument("--heldout", type=int, default=Sizes.heldout, help="held-out tasks of a function at most")
    arguments = parser.parse_args()
    asyncio.run(make(arguments.out, Sizes(arguments.train, arguments.heldout)))


if __name__ == "__main__":
    main()
