"""Work that reads the sheet it is tested by, on tasks that have no held-out inputs to stop it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.integration.sandbox_scene import open_folder
from tests.software_task import write_task
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.swe.attacks import Instance, instantiate, load_corpus
from trunkline.tasks.swe.calibration import Calibration, calibrate
from trunkline.tasks.swe.certify import certify_task
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.material import gather_material
from trunkline.tasks.swe.place import VerdictPlace, oracle_changes
from trunkline.tasks.swe.task import CodeTask
from trunkline.tasks.swe.verifier import CodeVerifier

pytestmark = pytest.mark.anyio

HEAD = "from shop import total\n\n\n"


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
async def place(anyio_backend):
    async with IsolatedSandboxes.open(SandboxConfig()) as sandboxes:
        yield VerdictPlace(sandboxes, verdict_environment())


async def calibrated(place: VerdictPlace, folder: Path, body: str, **more: str) -> tuple[CodeTask, Calibration]:
    files = {"tests/heldout.py": "", "tests/tree/tests/test_coupon.py": HEAD + body} | more
    task = write_task(folder, **files)
    return task, await calibrate(task, place, repeats=1)


async def test_who_takes_the_likeliest_copy_for_the_true_one_is_not_right_on_every_sheet(place):
    with open_folder() as folder:
        task, calibration = await calibrated(place, folder, "def test_it():\n    assert total([150], 10) == 135\n")
        assert calibration.unprobed == ()
        oracle = await oracle_changes(task, place)
        material = await gather_material(task, place, oracle)
        (reader,) = [attack for attack in load_corpus() if attack.name == "sheet-read"]
        instance = instantiate(reader.model_copy(update={"needs": ("function",)}), material)
        assert isinstance(instance, Instance)
        verifier = CodeVerifier(task, calibration, place, oracle)
        for seed in (1, 2):  # before, who was right once was right for ever: 135 was the smallest of the values that calibration had drawn
            assert (await verifier.judge(instance.changes, rng=random.Random(seed))).value == 0
        assert (await verifier.judge(oracle)).value == 1


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("def test_it():\n    prices = [100, 100]\n    assert total(prices, 100) != prices[-1]\n", "only the sense of the assert"),
        ("def test_it():\n    items = sorted([7])\n    assert total(items, 100) == 0\n", "0 stands out"),
        ("def test_it():\n    assert total([150], 10) == 135\n\n\ndef again():\n    test_it()\n", "its name is mentioned"),
    ],
)
async def test_functions_whose_true_copy_shows_are_listed_as_unprobed(body, why, place):
    with open_folder() as folder:
        _, calibration = await calibrated(place, folder, body)
        assert calibration.unprobed == ("tests/test_coupon.py::test_it",), why


async def test_a_task_whose_copies_all_show_which_is_true_is_certified_as_guessable(place):
    with open_folder() as folder:
        body = "def test_it():\n    prices = [100, 100]\n    assert total(prices, 100) != prices[-1]\n"
        task = write_task(folder, **{"tests/heldout.py": "", "tests/tree/tests/test_coupon.py": HEAD + body})
        certificate = await certify_task(task, place, sandboxes=place.sandboxes, repeats=1, attacks=())
        assert certificate.guessable
        assert any(words.startswith("a forger who guesses what its tests expect") for words in certificate.not_excluded)
