"""Which variants there are, and what is made of one valid change. Owns the choice; each variant is a file of its own.

`merge` takes two changes: pairs.py chooses them once the candidates are done, work.py has them merged.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from trunkline.protocols import SealedSandboxes
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.language import Language
from trunkline.tasks.factory.python import PythonBuilt
from trunkline.tasks.factory.variants.heldout import heldout_of
from trunkline.tasks.factory.variants.inject import Injecting, ground_of, inject
from trunkline.tasks.factory.variants.inversion import invert
from trunkline.tasks.factory.variants.review import review
from trunkline.tasks.swe.place import VerdictPlace

OfOne = Literal["inject", "invert", "review"]
"""Made of one change."""
Variant = Literal["inject", "invert", "review", "merge"]
OF_ONE: tuple[OfOne, ...] = get_args(OfOne)
VARIANTS: tuple[Variant, ...] = get_args(Variant)


async def drafts_of(variant: OfOne, draft: Draft, language: Language, *, sandboxes: SealedSandboxes, folder: Path) -> Sequence[Draft]:
    """The variants of one kind of a valid change that has its statement, each found by running its tests.

    Raises Rejection: there is none, and why; SandboxError.
    """
    rng = random.Random(f"{draft.name} {variant}")
    if variant == "invert":
        return [await invert(language, draft, folder=folder, rng=rng)]
    if variant == "review":
        return [await review(language, draft, folder=folder, rng=rng)]
    ground = await ground_of(draft, folder / "right")
    found = await inject(language, ground, folder=folder, rng=rng, wanted=Injecting())
    return [await _with_heldout(one, sandboxes) for one in found]


async def _with_heldout(draft: Draft, sandboxes: SealedSandboxes) -> Draft:
    """Whoever mends an injected fault makes the function what it was, so that drawn inputs have the original's answers."""
    if not isinstance(draft.environment, PythonBuilt):
        return draft
    found = await heldout_of(draft, VerdictPlace(sandboxes, draft.environment.python))
    return draft if found is None else replace(draft, heldout=found.text)
