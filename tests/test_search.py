"""Search among edits, on a model whose right answers are known: two findings, one in each half of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from tests.methods.gaussian import Halves

import counterscan
from counterscan.errors import WordsError
from counterscan.methods.edit_friendly import EditFriendly
from counterscan.methods.instruct import Instruct
from counterscan.methods.sdedit import SdEdit
from counterscan.robustness.opening import Outputs
from counterscan.search import STRENGTHS, judged, search, stronger

METHOD = EditFriendly(steps=10, guidance=1.0)
DRAWING = SdEdit(steps=10, guidance=1.0)  # another picture for every seed


def brightness(images: torch.Tensor) -> torch.Tensor:
    """Is the left half bright? Is the right?"""
    left, right = images.chunk(2, -1)
    halves = torch.stack([left.mean((1, 2, 3)), right.mean((1, 2, 3))], 1)
    return ((halves - 0.5) * 12).sigmoid()


def outputs(name: str = "selector", labels: tuple[str, ...] = ("cardiomegaly", "Pacemaker")) -> Outputs:
    return Outputs(name, labels, 32, 1, brightness)


@pytest.fixture
def picture() -> np.ndarray:
    """Both findings."""
    rng = np.random.default_rng(0)
    return np.clip(200 + 20 * rng.standard_normal((8, 8)), 0, 255).astype(np.uint8).repeat(4, 0).repeat(4, 1)


def test_until_takes_the_weakest_that_convinces(picture: np.ndarray) -> None:
    model: Any = Halves()
    asked: dict[str, Any] = {"model": model, "method": METHOD, "remove": "cardiomegaly", "selector": outputs()}
    some, more = (search(picture, **asked, until=p) for p in (0.3, 0.9))
    for found, goal in ((some, 0.3), (more, 0.9)):
        assert found.reached
        weights = [trial.strength for trial in found.trials if trial.score >= goal]
        assert found.result.settings["guidance"] == found.strength == min(weights)
        chosen = next(trial for trial in found.trials if trial.strength == min(weights))
        left = brightness(torch.from_numpy(found.result.counterfactual.unit())[None, None])[0, 0]
        assert chosen.score == pytest.approx(1 - left.item(), abs=1e-5)
        assert found.evaluations == sum(18 if trial.strength == 1 else 27 for trial in found.trials)
    assert some.result.settings["guidance"] < more.result.settings["guidance"]
    assert np.abs(some.result.difference).mean() < np.abs(more.result.difference).mean()


def test_what_cannot_be_reached_keeps_the_most_convincing(picture: np.ndarray) -> None:
    model: Any = Halves()
    never = Outputs("never", ("cardiomegaly",), 32, 1, lambda x: 0.9 + 0.1 * x.mean((1, 2, 3))[:, None])
    found = search(picture, model=model, method=METHOD, remove="cardiomegaly", selector=never, until=0.5)
    assert found.reached is False
    assert len(found.trials) == len(STRENGTHS)
    best = max(found.trials, key=lambda trial: trial.score)
    assert found.result.settings["guidance"] == best.strength


def test_best_of_keeps_the_seed_the_selector_likes(picture: np.ndarray) -> None:
    model: Any = Halves()
    asked: dict[str, Any] = {"model": model, "method": DRAWING, "remove": ["cardiomegaly", "pacemaker"], "seed": 5}
    found = search(picture, **asked, best_of=4, selector=outputs())
    assert [trial.seed for trial in found.trials] == [5, 6, 7, 8]
    assert found.reached is None
    scores = [trial.score for trial in found.trials]
    assert len(set(scores)) > 1
    assert found.result.seed == 5 + int(np.argmax(scores))
    alone = counterscan.edit(picture, **(asked | {"seed": found.result.seed}))
    assert np.array_equal(alone.counterfactual.pixels, found.result.counterfactual.pixels)
    said = brightness(torch.from_numpy(alone.counterfactual.unit())[None, None])[0]
    assert max(scores) == pytest.approx(1 - said.max().item(), abs=1e-5)  # of the less convincing of two changes


def test_additions_are_sought_the_other_way(picture: np.ndarray) -> None:
    model: Any = Halves()
    found = search(picture // 4, model=model, method=METHOD, add="pacemaker", selector=outputs(), until=0.6)
    assert found.reached
    assert found.result.difference[:, 16:].mean() > 0.1


def test_a_method_with_a_strength_is_searched_by_it() -> None:
    drawing = Instruct(guidance={"pacemaker": 3.0}, strength=0.8)
    assert stronger(drawing, 0.5) == Instruct(guidance={"pacemaker": 3.0}, strength=0.4)
    assert stronger(METHOD, 2.0) == EditFriendly(steps=10, guidance=2.0)


def test_without_a_selector_the_model_itself_chooses(picture: np.ndarray) -> None:
    model: Any = Halves()
    found = search(picture, model=model, method=DRAWING, source="cardiomegaly", target="no cardiomegaly", best_of=3)
    assert len(found.trials) == 3
    gone = search(picture // 4, model=model, method=METHOD, source="cardiomegaly", target="no cardiomegaly")
    there = search(picture, model=model, method=METHOD, source="no cardiomegaly", target="cardiomegaly")
    assert gone.trials[0].score > 0
    assert there.trials[0].score > 0


def test_a_method_without_random_numbers_is_tried_once_and_checked_once(picture: np.ndarray) -> None:
    model: Any = Halves()
    found = search(picture, model=model, method="ddim", remove="cardiomegaly", best_of=8, selector=outputs())
    assert len(found.trials) == 2


def test_the_judge_tells_before_and_after(picture: np.ndarray) -> None:
    model: Any = Halves()
    found = search(picture, model=model, method=METHOD, remove="cardiomegaly", best_of=2, selector=outputs())
    ((name, (before, after)),) = judged(found.result, outputs("judge")).items()
    assert name == "cardiomegaly"
    assert before > 0.9 > after
    assert judged(found.result, outputs("deaf", ("fracture", "nodule"))) == {}


@dataclass(frozen=True)
class Unguided:
    """A method without a strength."""

    name = "unguided"

    def __call__(self, *_: Any, **__: Any) -> torch.Tensor:
        raise AssertionError("not to be called")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"until": 0.9, "selector": None}, "until needs a selector"),
        ({"until": 1.5}, "probability between 0 and 1, got 1.5"),
        ({"best_of": 0}, "at least 1"),
        ({"judge": outputs()}, "cannot both choose and judge"),
        ({"selector": outputs(labels=("fracture", "nodule"))}, "no output for 'cardiomegaly'; it has fracture, nodule"),
        ({"remove": (), "source": "cardiomegaly", "target": ""}, "looks at findings"),
        ({"method": Unguided(), "until": 0.9}, "no guidance"),
    ],
)
def test_wrong_words_are_refused_before_any_work(changes: dict[str, Any], message: str, picture: np.ndarray) -> None:
    model: Any = Halves()
    asked: dict[str, Any] = {"model": model, "method": METHOD, "remove": "cardiomegaly", "selector": outputs()}
    with pytest.raises(WordsError, match=message):
        search(picture, **(asked | changes))
    assert model.evaluations == 0
