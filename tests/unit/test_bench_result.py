"""The form of a benchmark's result: demands, table, JSON, plot."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from trunkline.bench.result import Demand, Result, Row

RESULT = Result(
    "Things",
    (
        Row("a thing", "median", 5.0, "ms", Demand("<=", 6.0)),
        Row("a thing", "minimum", 4.0, "ms"),
        Row("another", "calls", 5.0, "1/s", Demand(">=", 10)),
    ),
    {"a thing": [4.0, 5.0, 6.0]},
    "ms",
)


def test_a_demand_holds_up_to_its_bound_in_its_direction():
    assert Demand("<=", 6).holds(6) and not Demand("<=", 6).holds(6.1)
    assert Demand(">=", 6).holds(6) and not Demand(">=", 6).holds(5.9)


def test_rows_whose_demand_fails_are_named():
    assert [row.row for row in RESULT.failed] == ["another"]
    assert [row.holds for row in RESULT.rows] == [True, None, False]


def test_the_json_has_machine_versions_command_and_rows(tmp_path: Path):
    RESULT.write_json(tmp_path / "made" / "b.json")
    written = json.loads((tmp_path / "made" / "b.json").read_text())
    assert written.keys() == {"machine", "versions", "command", "rows"}
    assert written["command"].startswith("trunkline") and "cores" in written["machine"] and "python" in written["versions"]
    assert written["rows"][0] == {"row": "a thing", "metric": "median", "value": 5.0, "unit": "ms", "demand": "<= 6", "holds": True}
    assert written["rows"][1]["demand"] is None and written["rows"][1]["holds"] is None


def test_the_table_says_which_demands_fail_and_the_plot_is_a_picture(tmp_path: Path):
    console = Console(width=120, record=True)
    console.print(RESULT.table())
    assert "FAILS" in console.export_text()
    RESULT.draw(tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
