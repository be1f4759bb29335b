"""``attribute``: a finding that is removed is found where it was, and one that is not there is not found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from tests.models import tiny

import counterscan
from counterscan.attribution import attribute, calibrate, promise
from counterscan.attribution.difference import signed
from counterscan.backbones.base import Backbone
from counterscan.errors import WordsError
from counterscan.methods.noise_free import NoiseFree
from counterscan.types import Edit


@dataclass(frozen=True)
class Eraser:
    """A stand-in for a method: unless the edit is null it darkens one square, by a little more each seed."""

    amount: float = 0.4
    restless: float = 0.0
    name: ClassVar[str] = "eraser"

    def __call__(self, backbone: Any, image: Any, edit: Edit, *, generator: Any, progress: Any = None) -> torch.Tensor:
        result = backbone.decode(backbone.encode(image))
        result += self.restless
        if not edit.is_null:
            result[..., 8:16, 4:12] -= self.amount + 0.05 * generator[0].initial_seed()
        if progress is not None:
            progress(1, 1)
        return result.clamp(-2, 2)


class Wiper(Eraser):
    """Another name."""

    name: ClassVar[str] = "wiper"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return counterscan.load(tiny(tmp_path_factory.mktemp("models") / "tiny"))


def image(value: int = 160) -> np.ndarray:
    return np.random.default_rng(0).integers(value, value + 20, (64, 64)).astype(np.uint8)


def test_what_is_removed_is_found_there(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(backbone), "decode", lambda self, z: z.clone())
    monkeypatch.setattr(type(backbone), "encode", lambda self, x: x)
    told: list[tuple[int, int]] = []
    found = attribute(
        image(), finding="pacemaker", repeats=3, method=Eraser(), model=backbone, progress=lambda *at: told.append(at)
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert found.present
    (region,) = found.regions
    left, top, right, bottom = region.box
    assert abs(left - 8) <= 4 and abs(top - 16) <= 4 and abs(right - 24) <= 4 and abs(bottom - 32) <= 4
    assert found.map[20:28, 12:20].mean() == pytest.approx(-0.45, abs=0.06)  # seeds 0, 1, 2: 0.40, 0.45, 0.50
    assert found.spread[20:28, 12:20].mean() == pytest.approx(0.05 * np.std([0, 1, 2]), abs=0.01)
    assert not found.mask[40:].any()


def test_pixels_are_ranked_by_changes_too_weak_for_the_image(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(type(backbone), "decode", lambda self, z: z.clone())
    monkeypatch.setattr(type(backbone), "encode", lambda self, x: x)
    asked: dict[str, Any] = {"method": Eraser(0.008), "model": backbone}
    result = counterscan.edit(image(), remove="pacemaker", **asked)
    assert not result.difference.any() and result.unblended is not None
    truth = np.zeros((64, 64), bool)
    truth[16:32, 8:24] = True
    assert result.unblended[truth].mean() == pytest.approx(-0.008, abs=0.001)
    found = attribute(image(), finding="pacemaker", **asked)
    assert average_precision_score(truth.ravel(), -found.map.ravel()) > 0.95 > 0.1 > truth.mean()
    assert not found.present and found.threshold >= 0.04, "what no reader would see is no finding"
    result.save(tmp_path, "a")
    again = counterscan.Counterfactual.load(tmp_path / "a.json")
    assert again.unblended is None and signed(again) is again.difference


def test_what_changes_nothing_is_not_present(backbone: Backbone) -> None:
    found = attribute(image(), finding="pacemaker", method=Eraser(amount=0.0), model=backbone)
    assert not found.present
    assert found.regions == []
    assert not found.mask.any()


def test_a_method_that_changes_everything_anyway_is_not_evidence(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(backbone), "decode", lambda self, z: z.clone())
    monkeypatch.setattr(type(backbone), "encode", lambda self, x: x)
    found = attribute(image(), finding="pacemaker", method=Eraser(amount=0.0, restless=0.2), model=backbone)
    assert found.threshold > 0.1
    assert not found.present


def test_it_saves_itself(backbone: Backbone, tmp_path: Path) -> None:
    found = attribute(image(), finding="pacemaker", method=Eraser(), model=backbone, seed=2)
    files = found.save(tmp_path / "new", "a")
    assert set(files) == {"map", "mask", "overlay"}
    with Image.open(tmp_path / "new" / files["mask"]) as mask:
        assert np.array_equal(np.asarray(mask) > 0, found.mask)


def test_words_are_checked(backbone: Backbone) -> None:
    with pytest.raises(WordsError, match="repeats"):
        attribute(image(), finding="pacemaker", repeats=0, model=backbone)
    with pytest.raises(WordsError, match="pacemaker"):
        attribute(image(), finding="pacemakr", model=backbone)


def test_methods_spread_and_a_calibration_states_the_rate(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(backbone), "decode", lambda self, z: z.clone())
    monkeypatch.setattr(type(backbone), "encode", lambda self, x: x)
    asked: dict[str, Any] = {"finding": "pacemaker", "method": [Eraser(0.4), Eraser(0.2)], "model": backbone}
    found = attribute(image(), **asked)
    assert found.map[20:28, 12:20].mean() == pytest.approx(-0.3, abs=0.03)
    assert found.spread[20:28, 12:20].mean() == pytest.approx(0.1, abs=0.02)
    assert found.rate is None
    strong = calibrate([image(150 + i) for i in range(19)], **asked)
    assert strong.finding == "pacemaker" and len(strong.peaks) == 19 and strong.methods == ("eraser",)
    again = attribute(image(), **asked, calibration=strong, rate=0.05)
    assert again.rate == 0.05 and again.threshold == pytest.approx(max(strong.peaks))
    with pytest.raises(WordsError, match="calibrate on 99 or more"):
        attribute(image(), **asked, calibration=strong, rate=0.01)
    for other in ({"finding": "pleural effusion"}, {"repeats": 2}, {"method": Wiper()}):
        with pytest.raises(WordsError, match=f"another {next(iter(other))}"):
            attribute(image(), **asked | other, calibration=strong)


def test_the_card_promises_a_rate_for_what_it_was_calibrated_with_only(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"noise-free": {"removal_steps": 2}}
    known = replace(
        backbone.card, default_method="noise-free", method_settings=settings, null_change={"pacemaker": 0.3}
    )
    monkeypatch.setattr(backbone, "card", known)
    asked: dict[str, Any] = {"finding": "pacemaker", "model": backbone}
    for method in (None, "noise-free", NoiseFree(removal_steps=2)):
        found = attribute(image(), **asked, method=method)
        assert found.rate == 0.05 and found.threshold >= 0.3
        assert "false-positive rate: 5 %" in found._repr_html_()
    others = ({"repeats": 2}, {"method": NoiseFree()}, {"method": "ddim"}, {"method": ["noise-free", "ddim"]})
    for other in (*others, {"finding": "pleural effusion"}):
        limit, rate = promise(**{"repeats": 1, "method": None, "calibration": None, "rate": 0.05} | asked | other)
        assert (limit, rate) == (0, None), other
    found = attribute(image(), **asked, repeats=2)
    assert found.rate is None and "false-positive rate: none promised" in found._repr_html_()
    with pytest.raises(WordsError, match="promised by a calibration"):
        attribute(image(), **asked, rate=0.1)


def test_a_second_opinion_and_the_uncertainty_are_saved(backbone: Backbone, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"finding": "pacemaker", "model": backbone}
    single = attribute(image(), **asked, method=Eraser())
    assert single.attention is None and single.agreement is None and single.uncertainty is None
    found = attribute(image(), **asked, method=[Eraser(), Eraser(0.5)], attention=True)
    assert found.attention is not None and found.attention.shape == (64, 64) and found.attention.max() == 1
    assert found.agreement is not None and found.agreement > 0 and found.uncertainty is not None
    assert 0 < found.uncertainty < 0.5
    files = found.save(tmp_path, "a", ["png", "nifti"])
    kinds = {"map", "mask", "spread", "attention"}
    assert set(files) == kinds | {"overlay"} | {f"{kind}_nifti" for kind in kinds}
