"""What a certificate is bound to: all code that verdicts use, and nothing that they do not."""

from __future__ import annotations

from pathlib import Path

import grimp

import trunkline
from trunkline.tasks.swe.certify import judging_sources

PACKAGE = Path(trunkline.__file__).parent
VERDICT = ("trunkline.tasks.swe.verifier", "trunkline.tasks.swe.calibration", "trunkline.tasks.swe.certify", "trunkline.tasks.swe.judging",
           "trunkline.tasks.swe.script_verifier", "trunkline.tasks.swe.inversion.verifier")  # fmt: skip


def test_every_module_of_the_room_that_verdicts_import_is_part_of_the_key() -> None:
    graph = grimp.build_graph("trunkline", cache_dir=None)
    used = {*VERDICT}.union(*(graph.find_upstream_modules(module) for module in VERDICT))
    files = {"/".join(module.split(".")[1:]) + ".py" for module in used if module.startswith("trunkline.tasks.swe.")}
    bound = {path.relative_to(PACKAGE).as_posix() for path in judging_sources()}
    packages = {f"{path.removesuffix('.py')}/__init__.py" for path in files}
    assert files - bound <= {path.removesuffix("/__init__.py") + ".py" for path in packages & bound}


def test_what_agents_are_shown_is_no_part_of_it() -> None:
    assert not {"demonstrations.py", "own_tests.py", "taskset.py"} & {path.name for path in judging_sources()}
    assert {"blind_tests.py", "observer.py", "verifier.py", "judging.py"} <= {path.name for path in judging_sources()}
