"""The public checker of worlds: what every world promises, tried on a few cases. Run it on your own world as well."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from counterscan.errors import WordsError
from counterscan.worlds.dataset import WORLDS


def check_world(world: ModuleType | str, *, seed: int = 0, sizes: Sequence[int] = (64, 48), cases: int = 3) -> None:
    """Raises ``AssertionError`` naming the first promise that a world (a module such as ``worlds.chest``, or its name) breaks.

    The promises: equal seeds give equal cases, at every size with the same findings; image and noise-free image are float32
    in [0, 1] of the asked size; no global random state is touched; an intervention on nothing returns the image bit for bit,
    and so does setting a finding otherwise and back, which moves no other finding; ``change_mask`` is bool (H, W), and
    outside of it a finding changes no noise-free intensity by more than ``VISIBLE``; the caption has every finding's words.
    """
    if isinstance(world, str):
        if world not in WORLDS:
            raise WordsError(f"no world {world!r}: known are {', '.join(WORLDS)}")
        world = import_module(f"counterscan.worlds.{world}")
    before = repr(np.random.get_state())
    for number in range(seed, seed + cases):
        drawn = [world.sample(number, size=size) for size in sizes]
        for case, size in zip(drawn, sizes, strict=True):
            _check_case(world, case, size)
            assert _equal(case, world.sample(number, size=size)), "equal seeds gave other cases"
            assert (case.findings, case.caption) == (drawn[0].findings, drawn[0].caption), (
                "its findings follow the size"
            )
        case = drawn[0]
        assert _equal(case, world.intervene(case)), "an intervention on nothing changed the case"
        assert not world.change_mask(case, case).any(), "change_mask tells a case from itself"
        for name in world.FINDINGS:
            there = name in case.findings
            other = world.intervene(case, {name: not there})
            _check_case(world, other, sizes[0])
            assert (name in other.findings) is not there, f"{name}: the intervention did not set it"
            assert _equal(case, world.intervene(other, {name: there})), f"{name}: setting it back leaves a trace"
            kept = [{n: p for n, p in c.findings.items() if n != name} for c in (case, other)]
            assert kept[0] == kept[1], f"{name}: moved another finding"
            _check_mask(world, case, other, name)
    assert before == repr(np.random.get_state()), "numpy's global random state was used"


def _check_case(world: ModuleType, case: Any, size: int) -> None:
    for image in (case.image, case.clean):
        assert image.dtype == np.float32, f"an image is {image.dtype}, wanted float32"
        assert image.shape[:2] == (size, size), f"an image has shape {image.shape}, asked were {size} pixels"
        assert image.min() >= 0 and image.max() <= 1, "an image leaves [0, 1]"
    assert case.caption, "a caption is empty"
    for name, present in case.findings.items():
        said = world.words(name, present)
        assert said and said in case.caption, f"{name}: {said!r} is not in the caption {case.caption!r}"


def _check_mask(world: ModuleType, case: Any, other: Any, name: str) -> None:
    mask, change = world.change_mask(case, other), np.abs(case.clean - other.clean)
    size = change.shape[:2]
    assert mask.dtype == bool and mask.shape == size, f"change_mask is {mask.dtype} {mask.shape}, wanted bool {size}"
    assert change[~mask].max(initial=0) <= world.VISIBLE, f"{name}: changes the image outside its mask"


def _equal(case: Any, other: Any) -> bool:
    pixels = np.array_equal(case.image, other.image) and np.array_equal(case.clean, other.clean)
    return pixels and (case.findings, case.caption) == (other.findings, other.caption)
