"""docs/benchmarks/conformance.md's table and list of failures, from the JSON that `trunkline conformance --json` wrote.

python -m tools.conformance_table [--write]        prints them, or puts them between the page's marks
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path("docs/benchmarks/conformance")
PAGE = Path("docs/benchmarks/conformance.md")
BEGIN, END = "<!-- from the JSON files: tools/conformance_table.py -->", "<!-- end -->"
ORDER = ("trunkline", "verifiers", "openenv", "agentlightning", "rllm")
_CELLS = {"pass": "pass", "fail": "**fail**", "unsupported": "–"}
_MAX_REASON = 260


def render(results: Sequence[dict[str, Any]]) -> str:
    """The table, then per project its failures and what it does not do."""
    lines = ["| case | " + " | ".join(f"{one['target']} {one['version']}" for one in results) + " |", "|---" * (len(results) + 1) + "|"]
    outcomes = [{case["case"]: case["outcome"] for case in one["cases"]} for one in results]
    for case in results[0]["cases"]:
        cells = " | ".join(_CELLS[one[case["case"]]] if case["case"] in one else "not run" for one in outcomes)
        lines.append(f"| {case['case']} | {cells} |")
    counts = [" / ".join(str(sum(value == outcome for value in one.values())) for outcome in _CELLS) for one in outcomes]
    lines.append("| **pass / fail / –** | " + " | ".join(counts) + " |")
    for one in results:
        lines += _reasons(one)
    return "\n".join(lines) + "\n"


def _reasons(result: dict[str, Any]) -> list[str]:
    failed = [case for case in result["cases"] if case["outcome"] == "fail"]
    unsupported: dict[str, list[str]] = {}
    for case in result["cases"]:
        if case["outcome"] == "unsupported":
            unsupported.setdefault(_short(case["reason"]), []).append(case["case"])
    if not failed and not unsupported:
        return []
    lines = ["", f"### {result['target']} {result['version']}", "", f"`{result['command']}`", ""]
    lines += [f"* **{case['case']}**: {_short(case['reason'])}" for case in failed]
    lines += [f"* not supported, {reason}: {', '.join(cases)}" for reason, cases in unsupported.items()]
    return lines


def _short(reason: str) -> str:
    """One line, safe in Markdown."""
    text = " ".join(reason.split())
    text = text if len(text) <= _MAX_REASON else text[:_MAX_REASON] + " ..."
    return text.replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*")


def stored() -> list[dict[str, Any]]:
    """The JSON files, ours first."""
    return [json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in ORDER]


def page(text: str, table: str) -> str:
    """The page with a new table."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n\n" + table + "\n" + END + rest.partition(END)[2]


def main(arguments: Sequence[str]) -> None:
    """Prints, or writes with --write."""
    table = render(stored())
    if "--write" in arguments:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), table), encoding="utf-8")
    else:
        print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
