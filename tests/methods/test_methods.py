"""Every method keeps the public promises, and gives the right answer where the right answer is known."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.gaussian import Gaussian
from tests.models import seeing

from counterscan import methods
from counterscan.backbones import load
from counterscan.backbones.base import Backbone
from counterscan.backbones.card import Card
from counterscan.diffusion import flow_schedule
from counterscan.errors import WordsError
from counterscan.methods.check import check_method
from counterscan.methods.ddim import Ddim
from counterscan.methods.diffedit import DiffEdit
from counterscan.methods.direct import Direct
from counterscan.methods.edit_friendly import EditFriendly
from counterscan.methods.factored import Factored
from counterscan.methods.implicit_guidance import ImplicitGuidance
from counterscan.methods.latent_drift import LatentDrift
from counterscan.methods.ledits import Ledits
from counterscan.methods.masked import Masked
from counterscan.methods.noise_free import places
from counterscan.methods.null_text import NullText
from counterscan.methods.sdedit import SdEdit
from counterscan.types import Change, Edit

EDIT = Edit("no pleural effusion", "small left pleural effusion")


TWO = Edit(
    "no pleural effusion, pacemaker",
    "left pleural effusion, no pacemaker",
    (Change("pleural effusion", "add", "left"), Change("pacemaker", "remove")),
)
QUICK: dict[str, Any] = {
    "null-text": {"inner": 1},
    "diffedit": {"maps": 2},
    "prism": {"inner": 1, "self_replace": (0.4, 0.8)},
}
EXACT = {  # the null edits of
    "direct", "diffedit", "edit-friendly", "factored", "flow-edit", "instruct", "ledits", "masked", "noise-free",
    "prompt-to-prompt", "radedit",
}  # fmt: skip


@pytest.fixture(scope="module")
def backbone(tiny_folder: Path) -> Backbone:
    # float64 so that what differs between a batch and its images is the code, not the rounding
    return load(tiny_folder, dtype=torch.float64)


@pytest.fixture(scope="module")
def sees(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A model that sees the image beside the latent."""
    return load(seeing(tmp_path_factory.mktemp("sees") / "tiny"), dtype=torch.float64)


@pytest.fixture(scope="module")
def flow(backbone: Backbone) -> Backbone:
    """The same network, read as a flow-matching model."""
    model: Any = copy(backbone)
    model.schedule, model.prediction_type = flow_schedule(shift=3.0), "velocity"
    return model


def image(batch: int = 1, side: int = 32) -> torch.Tensor:
    return torch.rand(batch, 1, side, side, generator=torch.Generator().manual_seed(3))


MASS = (Change("mass", "add"),)
PLAIN = [name for name in methods.names() if name != "instruct"]  # that needs a model that sees the image


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("depth", [0.3, 1.0])
def test_promises(name: str, depth: float, backbone: Backbone) -> None:
    # an untrained network is no smooth field, so an ODE solver's null edit says little here: see the Gaussian below
    loose = 1e-4 if name in EXACT else 1.0
    check_method(
        methods.get(name, steps=6, depth=depth, **QUICK.get(name, {})), backbone, edit=EDIT, null_tolerance=loose
    )


@pytest.mark.parametrize("name", ["instruct", "noise-free", "flow-edit", "sdedit"])
@pytest.mark.parametrize("edit", [EDIT, TWO, Edit("", "pacemaker"), Edit("a", "b", (Change("pacemaker", "remove"),))])
def test_promises_of_a_model_that_sees_the_image(name: str, edit: Edit, sees: Backbone) -> None:
    loose = 1e-4 if name in EXACT else 1.0
    check_method(methods.get(name, steps=4, depth=0.75), sees, edit=edit, null_tolerance=loose)


def test_instruct_refuses_a_model_that_sees_no_image(backbone: Backbone) -> None:
    before = backbone.evaluations
    with pytest.raises(WordsError, match="sees the image"):
        methods.get("instruct")(backbone, image(), EDIT, generator=torch.Generator())
    assert backbone.evaluations == before


@pytest.mark.parametrize("name", PLAIN)
def test_promises_where_nothing_is_known_about_the_image(name: str, backbone: Backbone) -> None:
    check_method(
        methods.get(name, steps=4, **QUICK.get(name, {})), backbone, edit=Edit("", "pacemaker"), null_tolerance=1.0
    )


def test_promises_with_something_to_keep(backbone: Backbone, flow: Backbone) -> None:
    for model in (backbone, flow):
        edit = replace(EDIT, keep=("pacemaker",))
        check_method(Factored(steps=4, depth=0.75), model, edit=edit, null_tolerance=1e-4)


@pytest.mark.parametrize("name", [name for name in PLAIN if name not in methods.PRESETS])
def test_promises_on_flow_matching(name: str, flow: Backbone) -> None:
    loose = 1e-4 if name in EXACT else 1.0
    check_method(methods.get(name, steps=4, depth=0.75, **QUICK.get(name, {})), flow, edit=EDIT, null_tolerance=loose)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_edit_friendly_returns_the_image_for_the_null_edit(guidance: float, eta: float, backbone: Backbone) -> None:
    x = image()
    method = EditFriendly(steps=10, depth=1.0, guidance=guidance, eta=eta)
    result = method(backbone, x, EDIT.null(), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(result, backbone.decode(backbone.encode(x)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "steps"),
    [("ddim", 1000), ("direct", 1000), ("edit-friendly", 200)],
)
def test_shifts_a_gaussian_by_the_difference_of_its_means(name: str, steps: int) -> None:
    # for Gaussians of one spread the ODE maps z to z + (high - low) exactly; the stochastic method agrees on average
    model, x = Gaussian(), 0.4 + 0.05 * torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    generators = [torch.Generator().manual_seed(i) for i in range(8)]
    method = methods.get(name, steps=steps, depth=1.0, guidance=1.0)
    shift = method(model, x, Edit("low", "high"), generator=generators) - x
    assert shift.mean().item() == pytest.approx(0.2, abs=0.01)
    assert shift.std().item() < 0.02


def test_ddim_null_edit_converges_with_the_steps() -> None:
    model, x = Gaussian(), 0.5 + 0.1 * image(1, 8)
    gap = [
        (Ddim(steps, 1.0)(model, x, Edit("low", "low"), generator=torch.Generator()) - x).abs().max().item()
        for steps in (20, 100, 500)
    ]
    assert gap[0] > 2 * gap[1] > 4 * gap[2]
    assert gap[2] < 0.015


def test_guidance_strengthens_the_edit() -> None:
    model, x = Gaussian(), torch.full((1, 1, 8, 8), 0.45)
    shift = [
        (EditFriendly(guidance=w)(model, x, Edit("low", "high"), generator=torch.Generator().manual_seed(0)) - x).mean()
        for w in (0.5, 1.0, 2.0)
    ]
    assert 0 < shift[0] < shift[1] < shift[2]


@pytest.mark.parametrize(
    ("method", "edit", "wanted"),
    [
        (Ddim(10, 0.5), EDIT, 5 + 10),
        (Ddim(10, 0.5), EDIT.null(), 5 + 5),
        (EditFriendly(10, 0.5), EDIT, 5 + 10),
        (EditFriendly(10, 0.5, guidance=1.0), EDIT, 5 + 5),
        (SdEdit(10, 0.5), EDIT, 10),
        (Direct(10, 0.5), EDIT, 5 + 5 + 10),
        (DiffEdit(10, 0.5, maps=3), EDIT, 6 + 5 + 10),
        (DiffEdit(10, 0.5, maps=3), EDIT.null(), 5 + 5),
        (Masked(10, 0.5), EDIT, 16 + 5 + 10),
        (Masked(10, 0.5), replace(EDIT, mask=torch.ones(32, 32, dtype=torch.bool)), 5 + 10),
        (Masked(10, 0.5), EDIT.null(), 5 + 5),
        (ImplicitGuidance(10, 0.5), EDIT, 5 + 10),
        (ImplicitGuidance(10, 0.5), EDIT.null(), 5 + 5),
        (LatentDrift(10, 0.5), EDIT, 5 + 10),
        (Factored(10, 0.5), EDIT, 5 + 10),
        (Factored(10, 0.5), replace(EDIT, keep=("pacemaker",)), 15 + 10),
        (Factored(10, 0.5, guidance=1.0), replace(EDIT, keep=("pacemaker",)), 15 + 5),
        (Factored(10, 0.5), replace(EDIT, keep=("pacemaker",)).null(), 5 + 5),
        (Ledits(10, 0.5), EDIT, 5 + 10),
        (Ledits(10, 0.5), TWO, 5 + 25),
        (NullText(10, 0.5, inner=3), EDIT, 1 + 5 + 25 + 10),
        (NullText(10, 0.5, inner=3), EDIT.null(), 1 + 5 + 25),
    ],
)
def test_evaluations_are_what_the_docstring_says(method: Any, edit: Edit, wanted: int, backbone: Backbone) -> None:
    before = backbone.evaluations
    method(backbone, image(3), edit, generator=torch.Generator().manual_seed(0))
    assert backbone.evaluations - before == 3 * wanted


def test_one_generator_draws_for_one_image_after_the_other(backbone: Backbone) -> None:
    method, x = EditFriendly(steps=4), image(2)
    batch = method(backbone, x, EDIT, generator=torch.Generator().manual_seed(9))
    one = torch.Generator().manual_seed(9)
    loop = torch.cat([method(backbone, x[i : i + 1], EDIT, generator=one) for i in range(2)])
    torch.testing.assert_close(batch, loop, atol=1e-5, rtol=0)


def test_factored_takes_what_a_card_says_of_flow_edit_for_its_own() -> None:
    card = Card("model", method_settings={"flow-edit": {"steps": 7}})
    assert methods.suited(card, "factored") == Factored(steps=7)
    card = replace(card, method_settings={"flow-edit": {"steps": 7}, "factored": {"keep_guidance": 3.0}})
    assert methods.suited(card, "factored") == Factored(keep_guidance=3.0)
    assert methods.suited(card, "ddim") == Ddim()


def test_a_finding_that_also_changes_is_left_to_the_prompts(backbone: Backbone) -> None:
    """The right effusion goes and the left one stays: no prompt of the finding alone can tell them apart."""
    edit = replace(EDIT, changes=(Change("pleural effusion", "add"),), keep=("pleural effusion",))
    x, before = image(), backbone.evaluations
    Factored(10, 0.5)(backbone, x, edit, generator=torch.Generator().manual_seed(0))
    assert backbone.evaluations - before == 15


def test_unknown_names_and_settings_say_what_is_known() -> None:
    with pytest.raises(WordsError, match="did you mean 'edit-friendly'"):
        methods.get("edit-freindly")
    with pytest.raises(WordsError, match="known are steps, depth, guidance"):
        methods.get("ddim", strength=1)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"steps": 2.5}, {"depth": 0}, {"depth": 1.1}, {"guidance": -1}])
def test_impossible_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(WordsError, match=next(iter(bad))):
        methods.get("edit-friendly", **bad)


@pytest.mark.parametrize("strength", [float("nan"), -3, 1e6])
def test_an_impossible_strength_is_refused(strength: float) -> None:
    with pytest.raises(WordsError, match="strength is a factor"):
        methods.get("instruct", strength=strength)


@dataclass(frozen=True)
class Careless:
    """Draws from the global generator."""

    name = "careless"

    def __call__(self, backbone: Any, image: torch.Tensor, edit: Edit, *, generator: Any, progress: Any = None) -> Any:
        backbone.predict(backbone.encode(image), 1, backbone.embed([edit.target]))
        progress(1, 1)
        return (image + 0.01 * torch.rand_like(image)).clamp(0, 1)


@pytest.mark.parametrize(("side", "sides", "columns"), [
    ("left", "patient", slice(4, 8)), ("left", "image", slice(0, 4)), ("right", "patient", slice(0, 4)),
    ("right", "image", slice(4, 8)), (None, "image", slice(0, 8)),
])  # fmt: skip
def test_a_side_is_the_patients_unless_the_card_says_the_images(side: Any, sides: Any, columns: slice) -> None:
    wanted = torch.zeros(1, 1, 8, 8)
    wanted[..., columns] = 1
    edit = Edit("", "", (Change("pleural effusion", "add", side),))
    for where in places(edit, torch.zeros(1, 4, 8, 8), sides):
        assert torch.equal(where, wanted)


def test_the_checker_catches_a_careless_method(backbone: Backbone) -> None:
    with torch.random.fork_rng(), pytest.raises(AssertionError, match="same seeds gave another image"):
        check_method(Careless(), backbone, edit=EDIT)  # type: ignore[arg-type]


def test_noise_free_leaves_findings_to_keep_out_of_its_prompts(backbone: Backbone):
    template, image = backbone.card.template, torch.rand(1, backbone.channels, *[backbone.resolution] * 2)
    plain = Edit(f"{template}: port.", f"{template}: no port.", (Change("port", "remove"),))
    named, words = f"{template}: heart, port.", (plain.source, plain.target)
    asked = replace(plain, source=named, target=f"{template}: heart, no port.", keep=("heart",), unkept=words)
    method = methods.get("noise-free")
    answers = [method(backbone, image, edit, generator=torch.Generator().manual_seed(0)) for edit in (asked, plain)]
    assert torch.equal(*answers)


@pytest.mark.parametrize(("finding", "crosses"), [("pleural effusion", False), ("pacemaker", True)])
def test_noise_free_keeps_to_the_side_that_is_named(backbone: Backbone, monkeypatch, finding: str, crosses: bool):
    monkeypatch.setattr(backbone, "decode", lambda z: z, raising=False)
    image = torch.rand(1, backbone.channels, *[backbone.resolution] * 2)
    edit = Edit("a", "b", (Change(finding, "add", "left"),))
    change = methods.get("noise-free")(backbone, image, edit, generator=torch.Generator().manual_seed(0))
    change = (change - backbone.encode(image)).abs()
    right, left = change.tensor_split(2, dim=-1)  # the patient's right is on the left
    assert left.max() > 0
    assert bool(right.max() > 0) == crosses


def test_noise_free_gives_each_added_finding_its_passes(backbone: Backbone):
    method = methods.get("noise-free", steps={"pleural effusion": 2, "pacemaker": 5}, removal_steps={"pacemaker": 2})
    add = {name: Change(name, "add") for name in ("pleural effusion", "pacemaker", "mass")}
    asked = [(add["pleural effusion"],), (add["pleural effusion"], add["pacemaker"]), (add["mass"],), ()]
    cost = []
    for changes in [*asked, (Change("pacemaker", "remove"),), (Change("mass", "remove"),)]:
        before = backbone.evaluations
        image = torch.rand(1, backbone.channels, *[backbone.resolution] * 2)
        method(backbone, image, Edit("a", "b", changes), generator=torch.Generator().manual_seed(0))
        cost.append(backbone.evaluations - before)
    assert cost == [3, 6, 4, 4, 3, 2]
    with pytest.raises(WordsError, match="steps must be a whole number"):
        methods.get("noise-free", steps={"mass": 0})


def test_instruct_draws_what_is_added_and_takes_away_in_passes(sees: Backbone):
    settings = {"steps": {"mass": 4, "pulmonary edema": 0}, "passes": {"pulmonary edema": 2}, "guidance": {"mass": 3.0}}
    method = methods.get("instruct", **settings, removal_at={"pacemaker": [0.15, 0.15], "port": [0.2, 0.1]})
    cost = []
    for changes in [
        (Change("mass", "add"),),
        (Change("pulmonary edema", "add"),),
        (),
        (Change("pacemaker", "remove"),),
        (Change("port", "remove"), Change("mass", "remove")),
        (Change("mass", "remove"),),
    ]:
        before = sees.evaluations
        method(sees, image(), Edit("a", "b", changes), generator=torch.Generator().manual_seed(0))
        cost.append(sees.evaluations - before)
    assert cost == [14, 3, 20, 3, 4, 2]
    with pytest.raises(WordsError, match="guidance"):
        methods.get("instruct", guidance={"mass": -1.0})
    for shares in ("0.2", {"mass": {}}, [], [0.1, 0], {"mass": [1.5]}):
        with pytest.raises(WordsError, match="removal_at"):
            methods.get("instruct", removal_at=shares)


def test_instruct_takes_away_in_passes_down_the_chain(sees: Backbone, monkeypatch):
    """Each pass starts from what the one before left, at its own share of the chain."""
    asked: list[float] = []
    predict = sees.predict

    def spy(z, t, condition):
        asked.append(float(torch.as_tensor(t).float().mean()))
        return predict(z, t, condition)

    monkeypatch.setattr(sees, "predict", spy, raising=False)
    edit = Edit("a", "b", (Change("mass", "remove"),))
    methods.get("instruct", removal_at=[0.2, 0.1, 0.1])(sees, image(), edit, generator=torch.Generator().manual_seed(0))
    last = len(sees.schedule) - 1
    assert asked == [float(int(share * last)) for share in (0.2, 0.2, 0.1, 0.1, 0.1)]


def test_instruct_guides_early_and_goes_on_from_a_share_of_what_is_drawn(sees: Backbone):
    def change(**settings: Any) -> tuple[torch.Tensor, int]:
        before = sees.evaluations
        method = methods.get("instruct", steps=4, guidance=3.0, **settings)
        answer = method(sees, image(), Edit("a", "b", MASS), generator=torch.Generator().manual_seed(0))
        return answer, sees.evaluations - before

    whole, plain = change(guided={"mass": 0.0}), change(guided=1.0)
    early, alone = change(guided={"mass": 0.5}), change(gain=0.0)
    assert [cost for _, cost in (whole, plain, early, alone)] == [14, 10, 12, 14]
    assert len({float(answer.sum()) for answer, _ in (whole, plain, early, alone)}) == 4
    only_passes = methods.get("instruct", steps=0)(sees, image(), Edit("a", "b", MASS), generator=torch.Generator())
    torch.testing.assert_close(alone[0], only_passes)
    for wrong in ({"guided": 1.5}, {"gain": -0.1}):
        with pytest.raises(WordsError, match=next(iter(wrong))):
            methods.get("instruct", **wrong)


@pytest.mark.parametrize(("finding", "crosses"), [("pleural effusion", False), ("pacemaker", True)])
def test_instruct_keeps_to_the_side_that_is_named(sees: Backbone, monkeypatch, finding: str, crosses: bool):
    monkeypatch.setattr(sees, "decode", lambda z: z, raising=False)
    edit = Edit("a", "b", (Change(finding, "add", "right"),))
    change = methods.get("instruct")(sees, image(), edit, generator=torch.Generator().manual_seed(0)) - sees.encode(
        image()
    )
    right, left = change.abs().tensor_split(2, dim=-1)  # the patient's right is on the left
    assert right.max() > 0
    assert bool(left.max() > 0) == crosses
