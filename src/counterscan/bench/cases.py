"""The questions of a bench: unseen cases of a world, each with its exact counterfactual and the words that ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import WordsError
from counterscan.worlds.dataset import broader, find

if TYPE_CHECKING:
    from counterscan.types import Edit

FIRST_SEED = 900_000_000  # no training run uses seeds from here on
SMALLEST = 5e-4  # of the image: a change smaller than this is hidden behind something else, and nothing can be asked


@dataclass(frozen=True)
class Pair:
    """A factual image, its exact counterfactual, both float32 (H, W[, C]) in [0, 1], the true change mask bool (H, W), and
    the edit that leads from one to the other.
    """

    factual: NDArray[np.float32]
    truth: NDArray[np.float32]
    mask: NDArray[np.bool_]
    edit: Edit
    seed: int


def pairs(
    world: str, finding: str, direction: Literal["remove", "add"], n: int, *, template: str, size: int, seed: int = 0
) -> list[Pair]:
    """``n`` cases whose counterfactual visibly changes the picture. ``finding`` may be a word for several, which take turns.

    A removal is asked for by the finding's name alone, as a user would; an addition names side, place and severity too,
    or there would be many true answers.
    """
    from counterscan.language.phrase import phrase, prompt
    from counterscan.types import Change, Edit

    module = find(world)
    known = [*module.FINDINGS, *broader(world)]
    if finding not in known:
        raise WordsError(f"the {world} world has no finding {finding!r}: known are {', '.join(known)}")
    kinds = broader(world).get(finding, [finding])
    out: list[Pair] = []
    number = FIRST_SEED + 1_000_000 * seed + 100_000 * known.index(finding)
    while len(out) < n:
        number += 1
        kind = kinds[number % len(kinds)]
        without = module.intervene(module.sample(number, size=size), dict.fromkeys(kinds, False))
        having = module.intervene(without, {kind: True})
        mask = module.change_mask(without, having)
        if mask.mean() < SMALLEST:
            continue
        what = having.findings[kind]
        said = module.words(kind, what) if direction == "add" and kind == finding else phrase(finding)
        present, absent = (prompt([words], template=template) for words in (said, phrase(finding, absent=True)))
        if direction == "remove":
            change = Change(finding, direction)
            out.append(Pair(having.image, without.image, mask, Edit(present, absent, (change,)), number))
        else:
            change = Change(finding, direction, getattr(what, "side", None), getattr(what, "place", None))
            out.append(Pair(without.image, having.image, mask, Edit(absent, present, (change,)), number))
    return out
