"""A tiny software task for tests: a package with a bug, hidden tests that show it, the patch that mends it, held-out inputs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

from trunkline.tasks.swe.task import CodeTask, load_code_task
from trunkline.types import FileChange

SHOP = '''\
"""Prices, in cents."""


def total(prices, coupon=0):
    """The sum, less a coupon in percent, rounded down; never below 0."""
    if coupon < 0:
        raise ValueError("a coupon is not negative")
    return sum(prices) - coupon


def names(basket):
    """The names in a basket, sorted, each once."""
    return sorted(set(basket))
'''
BUG, CURE = "return sum(prices) - coupon", "return max(0, sum(prices) * (100 - coupon) // 100)"

FILES: Mapping[str, str] = {
    "instruction.md": "The coupon of `shop.total` is taken as cents, it is a percentage. Mend it.\n",
    "task.toml": """\
        schema_version = "1.4"
        [task]
        name = "test/coupon"
        [metadata.trunkline]
        workspace = "workspace"
        timeout_s = 20
        """,
    "environment/Dockerfile": "FROM python:3.11\nCOPY workspace /workspace\n",
    "environment/workspace/shop/__init__.py": SHOP,
    "environment/workspace/tests/test_shop.py": """\
        from shop import names, total


        def test_plain():
            assert total([100, 250]) == 350


        def test_names():
            assert names(["b", "a", "b"]) == ["a", "b"]
        """,
    "solution/solve.sh": "cd /workspace && patch -p1 < /solution/oracle.patch\n",
    "solution/oracle.patch": f"""\
        --- a/shop/__init__.py
        +++ b/shop/__init__.py
        @@ -5,7 +5,7 @@
             \"\"\"The sum, less a coupon in percent, rounded down; never below 0.\"\"\"
             if coupon < 0:
                 raise ValueError("a coupon is not negative")
        -    {BUG}
        +    {CURE}
        {" "}
        {" "}
         def names(basket):
        """,
    "tests/test.sh": "cp -r /tests/tree/. /workspace && python -m pytest && echo 1 > /logs/verifier/reward.txt\n",
    "tests/tree/tests/test_coupon.py": """\
        import pytest
        from shop import total


        @pytest.mark.parametrize("coupon, paid", [(10, 900), (25, 750)])
        def test_percent(coupon, paid):
            assert total([400, 600], coupon) == paid


        def test_rounds_down():
            assert total([99], 50) == 49


        def test_negative():
            with pytest.raises(ValueError):
                total([100], -1)
        """,
    "tests/heldout.py": """\
        def calls(rng):
            for _ in range(40):
                yield [rng.randrange(1000) for _ in range(rng.randrange(5))], rng.randrange(-5, 100)


        def observe(call):
            from shop import names, total

            prices, coupon = call
            return total(prices, coupon), names(map(str, prices))
        """,
}


def write_task(folder: Path, **changed: str) -> CodeTask:
    """The task, with other texts for some files: `write_task(folder, **{"tests/heldout.py": ...})`; '' leaves a file out."""
    for name, text in {**FILES, **changed}.items():
        if text:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
    return load_code_task(folder)


def rewrite(old: str, new: str, *, path: str = "shop/__init__.py") -> FileChange:
    """What an agent leaves that replaces a piece of the package's source."""
    assert old in SHOP
    return FileChange(path, "file", 0o644, SHOP.replace(old, new).encode())
