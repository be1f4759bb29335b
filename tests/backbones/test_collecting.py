"""The garbage collector during imports: out of the way, and afterwards as it was."""

from __future__ import annotations

import gc

import pytest

from counterscan.backbones.collecting import uncollected


@pytest.fixture(autouse=True)
def as_before():
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_inside_and_what_was_made_is_old_afterwards():
    with uncollected():
        assert not gc.isenabled()
        made = [[]]
    assert gc.isenabled() and gc.get_freeze_count() == 0
    gc.collect(1)  # visits the young alone
    assert any(kept is made for kept in gc.get_objects(generation=2))
    assert not any(kept is made for young in (0, 1) for kept in gc.get_objects(generation=young))


def test_the_collector_comes_back_after_an_error():
    with pytest.raises(OSError, match="damaged"), uncollected():
        raise OSError("damaged")
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off():
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()


def test_what_others_have_frozen_stays_frozen():
    gc.freeze()
    frozen = gc.get_freeze_count()
    with uncollected():
        pass
    assert gc.isenabled() and gc.get_freeze_count() > frozen * 0.9  # what has died since is gone
