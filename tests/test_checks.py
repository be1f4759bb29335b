"""The public checkers: found in one place, and each names the promise that is broken."""

from __future__ import annotations

import os
import subprocess
import sys
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.layouts import picture
from tests.models import tiny

from counterscan import checks, methods
from counterscan.backbones import load
from counterscan.checks import check_backbone, check_method, check_reader, check_world
from counterscan.data.readers import kvasir_seg
from counterscan.errors import WordsError
from counterscan.types import Prediction
from counterscan.worlds import brain

HEAVY = ("torch", "numpy", "diffusers", "transformers", "PIL")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(tiny(tmp_path_factory.mktemp("checks") / "tiny"))


def but(module: Any, **changes: Any) -> ModuleType:
    """The module with some of its names meaning something else."""
    other = ModuleType("other")
    vars(other).update(vars(module) | changes)
    return other


def test_they_are_in_one_place_and_cost_nothing_until_used():
    assert dir(checks) == ["check_backbone", "check_method", "check_reader", "check_world"]
    assert methods.check_method is check_method
    with pytest.raises(AttributeError, match="no attribute 'check_nothing'"):
        _ = checks.check_nothing
    with pytest.raises(AttributeError, match="no attribute 'check_nothing'"):
        _ = methods.check_nothing
    code = f"import sys, counterscan.checks, counterscan.methods; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_method_alone_is_tried_on_the_chest_world(model, monkeypatch):
    asked = []
    monkeypatch.setattr("counterscan.methods.check.load", lambda *words, **named: asked.append((words, named)) or model)
    check_method(methods.get("direct", steps=2), tolerance=1e-4)
    assert asked == [(("chest-world",), {"dtype": torch.float64})]


@pytest.mark.parametrize(
    ("verb", "wrong", "promise"),
    [
        ("encode", lambda z: z + torch.rand_like(z), "same image was encoded otherwise"),
        ("encode", lambda z: z.double(), "encode gives torch.float64"),
        ("decode", lambda x: x + 1, r"decode leaves \[0, 1\]"),
        ("decode", lambda x: x - x.mean(0), "latent 0 is decoded otherwise alone|decode leaves"),
        ("predict", lambda p: Prediction(p.clean, 2 * p.noise), "does not recompose its latent"),
        ("predict", lambda p: Prediction(p.clean[:1], p.noise[:1]), "wanted"),
    ],
)
def test_a_broken_backbone_is_told_what_it_breaks(model, verb, wrong, promise):
    broken, right = copy(model), getattr(model, verb)
    counts = {"evaluations": property(lambda self: model.evaluations)}
    broken.__class__ = type("Broken", (type(model),), counts | {"__init__": None})
    setattr(broken, verb, lambda *args, **named: wrong(right(*args, **named)))
    with torch.random.fork_rng(), pytest.raises(AssertionError, match=promise):
        check_backbone(broken)


def test_a_backbone_counts_and_hears_words(model):
    silent, free = copy(model), copy(model)
    silent.embed = lambda prompts: model.embed([""] * len(prompts))
    with pytest.raises(AssertionError, match="other words give the same"):
        check_backbone(silent)
    free.predict = model.predict  # which counts elsewhere
    with pytest.raises(AssertionError, match="counted 0 evaluations for 2 rows"):
        check_backbone(free)
    with pytest.raises(AssertionError, match="lacks a verb"):
        check_backbone(SimpleNamespace())


def test_a_broken_world_is_told_what_it_breaks():
    noise = np.random.default_rng(0)

    def restless(*args: Any, **named: Any) -> Any:
        case = brain.sample(*args, **named)
        return replace(case, image=noise.random(case.image.shape, np.float32))

    small = lambda *args, size: brain.sample(*args, size=32)  # noqa: E731
    deaf = lambda case, changes=None: case  # noqa: E731
    nowhere = lambda case, other: np.zeros(case.image.shape[:2], bool)  # noqa: E731
    for changes, promise in [
        ({"sample": restless}, "equal seeds gave other cases"),
        ({"sample": small}, "asked were 64 pixels"),
        ({"intervene": deaf}, "glioma: the intervention did not set it"),
        ({"change_mask": nowhere}, "changes the image outside its mask"),
        ({"words": lambda name, present: ""}, "is not in the caption"),
    ]:
        with pytest.raises(AssertionError, match=promise):
            check_world(but(brain, **changes))
    with pytest.raises(WordsError, match="known are brain, chest, colon"):
        check_world("moon")


def test_a_broken_reader_is_told_what_it_breaks(tmp_path: Path):
    picture(tmp_path / "images/a.jpg", mode="RGB"), picture(tmp_path / "masks/a.jpg")
    check_reader(kvasir_seg, tmp_path)

    def saying(**said: Any) -> ModuleType:
        def open_source(source: Path, work: Path) -> Any:
            found = kvasir_seg.open_source(source, work)
            return replace(found, records=[replace(record, **said) for record in found.records])

        return but(kvasir_seg, open_source=open_source)

    def writing(source: Path, work: Path) -> Any:
        (source / "index").write_text("x")
        return kvasir_seg.open_source(source, work)

    for reader, promise in [
        (saying(path="images/a.jpg"), "'images/a.jpg' is not the absolute path of a file"),
        (saying(mask=str(tmp_path / "none.png")), "none.png' is not the absolute path"),
        (saying(findings={"gout": 1}), "gout is no column"),
        (saying(split="fold 3"), "split 'fold 3'; write train, val or test"),
        (saying(caption=" two "), "a manifest says"),
        (but(kvasir_seg, open_source=writing), "the folder was written into"),
    ]:
        with pytest.raises(AssertionError, match=promise):
            check_reader(reader, tmp_path)
    os.remove(tmp_path / "index")


def test_answers_are_types_too():
    from counterscan import attribution, result, types

    assert (types.Counterfactual, types.Attribution) == (result.Counterfactual, attribution.Attribution)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = types.Nothing
    code = "from counterscan.types import Attribution, Counterfactual; print(Counterfactual.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "counterscan.result"  # no cycle, whatever is imported first
