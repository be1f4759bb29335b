"""Settings that follow a method's name: of the field's type, before the card's, and refused by what is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import counterscan
from counterscan import methods
from counterscan.backbones.card import Card
from counterscan.errors import WordsError


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ddim:steps=5,depth=0.5", {"steps": 5, "depth": 0.5}),
        ("prompt-to-prompt:inversion=null-text, blend=0.3", {"inversion": "null-text", "blend": 0.3}),
        ("prompt-to-prompt:replace=true,self_replace=0.4+0.6", {"replace": True, "self_replace": (0.4, 0.6)}),
        ("prompt-to-prompt:self_replace=1", {"self_replace": 1.0}),
        ("instruct:steps=4,guidance=1.5", {"steps": 4, "guidance": 1.5}),
        ("noise-free:", {}),
    ],
)
def test_settings_have_their_fields_types(name: str, settings: dict[str, Any]) -> None:
    made = methods.get(name)
    assert made == methods.get(name.partition(":")[0], **settings)
    assert all(type(getattr(made, key)) is type(value) for key, value in settings.items())


def test_every_method_and_preset_takes_settings() -> None:
    assert all(methods.get(f"{name}:guidance=1.25").guidance == 1.25 for name in methods.names())  # type: ignore[attr-defined]


def test_they_go_before_what_a_card_or_a_preset_says() -> None:
    card = Card("model", method_settings={"flow-edit": {"steps": 7, "depth": 0.5}, "instruct": {"steps": {"port": 0}}})
    assert methods.suited(card, "flow-edit:steps=3") == methods.get("flow-edit", steps=3, depth=0.5)
    assert methods.suited(card, "factored:keep_guidance=2") == methods.get(
        "factored", steps=7, depth=0.5, keep_guidance=2.0
    )
    assert methods.suited(card, "instruct:steps=2") == methods.get("instruct", steps=2)
    assert methods.suited(card, "prism:blend=0") == methods.get("prism", blend=0.0)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ddim:strength=1", "'ddim' has no setting 'strength=1': known are steps, depth, guidance"),
        ("ddim:steps", "'ddim' has no setting 'steps': known are steps, depth, guidance, as key=value"),
        ("ddim:steps=many", "'ddim': steps should be a valid integer.* got 'many'; known are steps, depth, guidance"),
        ("ddim:steps=2.5", "steps should be a valid integer"),
        ("ddim:depth=", "depth should be a valid number"),
        ("ddim:depth=nan", "depth must be above 0"),
        ("prompt-to-prompt:inversion=foo", "inversion should be 'ddim', 'direct', 'edit-friendly' or 'null-text'"),
        ("prompt-to-prompt:selector=x", "no setting 'selector=x'"),
        ("ddimm:steps=3", "no method 'ddimm'.* did you mean 'ddim'"),
    ],
)
def test_what_is_wrong_names_what_is_known(name: str, says: str) -> None:
    with pytest.raises(WordsError, match=says):
        methods.get(name)


def test_a_list_of_methods_with_settings() -> None:
    listed = methods.listed("ddim, prism:steps=5,blend=0.3, inner=1,diffusers:img2img,")
    assert listed == ["ddim", "prism:steps=5,blend=0.3, inner=1", "diffusers:img2img"]


def test_edit_takes_the_same_string(tiny_folder: Path) -> None:
    image = np.add.outer(range(40), range(40)) / 80
    result = counterscan.edit(image, remove="pacemaker", method="ddim:steps=2,depth=1", model=tiny_folder)
    assert (result.method, result.settings) == ("ddim", {"steps": 2, "depth": 1.0, "guidance": 2.0})
