"""The public checker of worlds: what every world promises, tried on a few cases. Run it on your own world as well."""

from __future__ import annotations

from types import ModuleType

import numpy as np


def check_world(world: ModuleType, *, seed: int = 0, size: int = 64, cases: int = 3) -> None:
    """Raises ``AssertionError`` naming the first promise that a world (a module such as ``worlds.chest``) breaks.

    The promises: equal seeds give equal images; the image is float32 in [0, 1] of the asked size; no global random state is
    touched; an intervention on nothing returns the image bit for bit, and so does taking away what was added; a finding
    changes the image where ``change_mask`` says and, noise apart, nowhere else; the caption names every finding.
    """
    before = repr(np.random.get_state())
    for number in range(seed, seed + cases):
        case = world.sample(number, size=size)
        assert case.image.dtype == np.float32 and case.image.shape[:2] == (size, size), (
            f"{case.image.dtype} {case.image.shape}"
        )
        assert case.image.min() >= 0 and case.image.max() <= 1, "the image leaves [0, 1]"
        assert np.array_equal(case.image, world.sample(number, size=size).image), "equal seeds gave other images"
        assert np.array_equal(case.image, world.intervene(case).image), "an intervention on nothing changed the image"
        for name in world.FINDINGS:
            without = world.intervene(case, {name: False})
            having = world.intervene(without, {name: True})
            again = world.intervene(having, {name: False})
            assert np.array_equal(without.image, again.image), f"{name}: taking it away leaves a trace"
            assert name not in without.findings and name in having.findings, f"{name}: findings are not kept"
            assert world.words(name, having.findings[name]) in having.caption, f"{name}: not in the caption"
            mask = world.change_mask(without, having)
            outside = np.abs(without.clean - having.clean).reshape(size, size, -1).max(2)[~mask]
            assert outside.max(initial=0) <= world.VISIBLE, f"{name}: changes the image outside its mask"
            assert set(having.findings) - {name} == set(without.findings), f"{name}: moved another finding"
    assert before == repr(np.random.get_state()), "numpy's global random state was used"
