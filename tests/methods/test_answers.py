"""Each method does what its paper says, on models whose right answers are known."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.gaussian import SPREAD, Gaussian, Halves, PerPixel

from counterscan import methods
from counterscan.backbones import load
from counterscan.diffusion import flow_schedule, into_range
from counterscan.errors import ModelError, WordsError
from counterscan.methods.areas import differing_area, given_area, grown
from counterscan.methods.factored import Factored
from counterscan.methods.implicit_guidance import ImplicitGuidance
from counterscan.methods.latent_drift import LatentDrift
from counterscan.methods.ledits import Ledits, concepts
from counterscan.methods.masked import Masked
from counterscan.methods.null_text import NullText
from counterscan.types import Change, Edit

LOW_HIGH = Edit("low", "high")


def run(method: Any, model: Any, x: torch.Tensor, edit: Edit) -> torch.Tensor:
    generators = [torch.Generator().manual_seed(i) for i in range(len(x))]
    return method(model, x, edit, generator=generators)


def around(mean: float, batch: int = 4) -> torch.Tensor:
    return mean + SPREAD / 2 * torch.randn(batch, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["direct", "diffedit", "edit-friendly", "factored", "ledits", "masked"])
def test_null_edits_return_every_pixel(name: str, tiny_folder: Path) -> None:
    backbone = load(tiny_folder)
    x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    words = "no pleural effusion, pacemaker"
    result = run(methods.get(name, steps=8, guidance=7.5), backbone, x, Edit(words, words, keep=("pacemaker",)))
    torch.testing.assert_close(result, backbone.decode(backbone.encode(x)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [2, 28])
def test_flow_edit_shifts_a_gaussian_exactly_at_any_number_of_steps(steps: int) -> None:
    # the difference of the two velocities is the constant high - low, which Euler's steps integrate without error
    model, x = Gaussian(), around(0.4)
    model.schedule = flow_schedule(shift=3.0)
    result = run(methods.get("flow-edit", steps=steps, depth=1.0, guidance=1.0), model, x, LOW_HIGH)
    torch.testing.assert_close(result, x + 0.2, atol=1e-4, rtol=0)
    torch.testing.assert_close(run(methods.get("flow-edit"), model, x, LOW_HIGH.null()), x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [2, 7, 28])
def test_flow_edit_shifts_a_gaussian_on_a_variance_preserving_model(steps: int) -> None:
    # from the chain's top, where the image is lost in noise, the change has nothing of its start left at the end
    model, x = Gaussian(), around(0.4)
    result = run(methods.get("flow-edit", steps=steps, depth=1.0, guidance=1.0), model, x, LOW_HIGH)
    torch.testing.assert_close(result, x + 0.2, atol=2e-3, rtol=0)
    torch.testing.assert_close(run(methods.get("flow-edit"), model, x, LOW_HIGH.null()), x, atol=1e-4, rtol=0)


def test_sdedit_forgets_the_image_with_depth_and_draws_the_target() -> None:
    model, x = Gaussian(), around(0.4, 16)
    kept = [run(methods.get("sdedit", steps=100, depth=d, guidance=1.0), model, x, LOW_HIGH) for d in (0.05, 0.3, 1.0)]
    gaps = [(k - x).abs().mean().item() for k in kept]
    assert gaps[0] < gaps[1] < gaps[2]
    assert kept[2].mean().item() == pytest.approx(0.6, abs=0.01)
    assert kept[2].std().item() == pytest.approx(SPREAD, abs=0.02)


def test_null_text_reconstructs_better_with_every_inner_step() -> None:
    # guidance of 3 from 0.5 to 0.4 overshoots; fitted pixel by pixel, the null prompt undoes all of it
    model, x = PerPixel(), around(0.4, 2)
    errors = [
        (run(NullText(20, 0.6, 3.0, inner=inner), model, x, LOW_HIGH.null()) - x).square().mean().item()
        for inner in (0, 1, 2, 4, 8, 16, 32)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.03
    assert errors[-1] < 1e-5


def test_null_text_leads_to_the_target_from_the_fitted_prompt() -> None:
    # fitted, the null prompt is the source's mean: guidance w shifts by w (high - low), as leading away from it does
    model, x = Gaussian(), around(0.4, 2)
    shift = [run(NullText(50, 0.6, w, inner=20), model, x, LOW_HIGH) - x for w in (1.0, 2.0)]
    same = [run(methods.get("ddim", steps=50, guidance=w), model, x, LOW_HIGH) - x for w in (1.0, 2.0)]
    for ours, plain in zip(shift, same, strict=True):
        torch.testing.assert_close(ours, plain, atol=0.01, rtol=0)


def test_null_text_refuses_a_model_without_gradients() -> None:
    class Frozen(Gaussian):
        predict = torch.no_grad()(Gaussian.predict)

    model = Frozen()
    with pytest.raises(ModelError, match="gaussian: null-text needs a model with gradients"):
        run(NullText(), model, around(0.4, 2), LOW_HIGH)
    assert model.evaluations == 2


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_implicit_guidance_moves_from_the_mean_of_all_to_the_target(guidance: float) -> None:
    model, x = Gaussian(), around(0.5)
    result = run(ImplicitGuidance(500, 1.0, guidance), model, x, LOW_HIGH)
    assert (result - x).mean().item() == pytest.approx(0.1 * guidance, abs=0.005)
    assert (result - x).std().item() < 0.005


def test_an_exact_classifier_guides_as_the_model_itself_does() -> None:
    # for Gaussians log p(high | x) is quadratic in x, and its gradient is what classifier-free guidance of 1 adds
    model, x = Gaussian(), around(0.5)

    def classifier(z: torch.Tensor, t: int) -> torch.Tensor:
        s, n = model.schedule.coefficients(t)
        log = lambda mean: -((z - s * mean) ** 2) / (2 * (s**2 * SPREAD**2 + n**2))  # noqa: E731
        return (log(0.6) - log(0.5)).sum((1, 2, 3))

    free = run(ImplicitGuidance(50, guidance=1.0), model, x, LOW_HIGH)
    led = run(ImplicitGuidance(50, guidance=0.0, classifier_scale=1.0, classifier=classifier), model, x, LOW_HIGH)
    torch.testing.assert_close(led, free, atol=1e-4, rtol=0)
    method = ImplicitGuidance(classifier_scale=1.0, classifier=classifier)
    assert replace(method, steps=7).classifier is classifier  # type: ignore[attr-defined]
    assert "classifier" not in asdict(method)
    with pytest.raises(WordsError, match="without a classifier"):
        ImplicitGuidance(classifier_scale=1.0)


def test_dynamic_normalisation_is_that_of_the_paper() -> None:
    wide = torch.linspace(-4, 4, 101).reshape(1, 1, 1, 101)
    limit = wide.abs().flatten().quantile(0.9)
    out = into_range(wide, 0.9, torch.ones(1, 1))
    torch.testing.assert_close(out, wide.clamp(-limit, limit) / limit)
    inside = wide / 8
    assert torch.equal(into_range(inside, 0.9, torch.ones(1, 1)), inside)


def test_drift_changes_the_edit_and_not_what_comes_back() -> None:
    model, x = Gaussian(), around(0.4)
    plain = run(methods.get("ddim", steps=50), model, x, LOW_HIGH)
    assert torch.equal(run(LatentDrift(50, drift=0.0), model, x, LOW_HIGH), plain)
    assert (run(LatentDrift(50, drift=0.01), model, x, LOW_HIGH) - plain).abs().mean() > 0.002
    gap = [(run(LatentDrift(n, drift=1 / n), model, x, LOW_HIGH.null()) - x).abs().mean().item() for n in (50, 500)]
    assert gap[1] < gap[0] / 5
    assert gap[1] < 0.01


def test_the_models_own_mask_is_where_the_prompts_differ() -> None:
    model, x = Halves(), torch.full((2, 1, 8, 8), 0.2)
    pair = model.embed(["no cardiomegaly, no pacemaker", "no cardiomegaly, pacemaker"])
    area = differing_area(model, x, pair, torch.Generator().manual_seed(0), maps=4, threshold=1.5)
    assert area[..., 4:].all()
    assert not area[..., :4].any()


def test_diffedit_leaves_everything_outside_its_mask_exactly() -> None:
    model, x = Halves(), around(0.2)
    edit = Edit("no cardiomegaly, no pacemaker", "no cardiomegaly, pacemaker")
    result = run(methods.get("diffedit", depth=1.0), model, x, edit)
    torch.testing.assert_close(result[..., :4], x[..., :4].clamp(0, 1), atol=1e-6, rtol=0)
    assert (result - x)[..., 4:].mean() > 0.3
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4] = True
    result = run(methods.get("diffedit", depth=1.0), model, x, replace(edit, mask=mask))
    torch.testing.assert_close(result[..., 4:, :], x[..., 4:, :].clamp(0, 1), atol=1e-6, rtol=0)
    assert (result - x)[..., :4, 4:].mean() > 0.3


def test_masked_keeps_what_lies_beyond_the_band() -> None:
    model, x = Gaussian(), around(0.4)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, :3] = True
    result = run(Masked(guidance=1.5, band=1 / 8), model, x, replace(LOW_HIGH, mask=mask))
    torch.testing.assert_close(result[..., 4:], x[..., 4:], atol=1e-6, rtol=0)
    assert (result - x)[..., :3].mean() > 0.1


def test_a_mask_lands_on_the_latents_where_the_image_does() -> None:
    mask = torch.zeros(4, 8, dtype=torch.bool)
    mask[0, 0] = True
    area = given_area(Edit("", "", mask=mask), torch.zeros(1, 1, 4, 4))
    assert area is not None
    assert area.nonzero().tolist() == [[0, 0, 1, 0]]
    assert grown(area, 0.25)[0, 0].int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert grown(area, 0) is area


def test_each_concept_of_ledits_changes_its_own_place() -> None:
    model = Halves()
    x = torch.cat([around(0.8)[..., :4], around(0.2)[..., :4]], -1)
    changes = (Change("cardiomegaly", "remove"), Change("pacemaker", "add"))
    edit = Edit("cardiomegaly, no pacemaker", "no cardiomegaly, pacemaker", changes)
    shift = run(Ledits(quantile=0.5, guidance=1.0), model, x, edit) - x
    assert shift[..., :4].mean() < -0.3
    assert shift[..., 4:].mean() > 0.3
    assert concepts(edit, "film") == [
        ("film: cardiomegaly.", "film: no cardiomegaly."),
        ("film: no pacemaker.", "film: pacemaker."),
    ]
    one = run(Ledits(quantile=0.5, guidance=1.0), model, x, replace(edit, changes=changes[:1])) - x
    assert one[..., :4].mean() < -0.3
    assert one[..., 4:].abs().mean() < 0.05


def test_factored_guidance_keeps_what_a_confounded_model_takes_away() -> None:
    model, x = Halves(tied=0.9), around(0.8)
    edit = Edit("cardiomegaly, pacemaker", "no cardiomegaly, pacemaker", keep=("pacemaker",))
    settings = {"steps": 20, "depth": 0.9, "guidance": 1.0}
    plain = run(Factored(**settings), model, x, replace(edit, keep=()))
    kept = run(Factored(**settings, keep_guidance=3.0), model, x, edit)
    torch.testing.assert_close(plain, run(methods.get("flow-edit", **settings), model, x, edit), atol=0, rtol=0)
    assert plain[..., :4].mean() < 0.3  # the heart goes
    assert plain[..., 4:].mean() < 0.5  # and the device with it
    assert kept[..., 4:].mean() > 0.7
    torch.testing.assert_close(kept[..., :4], plain[..., :4], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", methods.PRESETS)
def test_a_preset_is_its_method_with_its_settings(name: str) -> None:
    preset = methods.PRESETS[name]
    made = methods.get(name)
    assert made.name == preset.method
    assert asdict(made) == asdict(methods.get(preset.method, **preset.settings))  # type: ignore[call-overload]
    assert methods.get(name, steps=3).steps == 3  # type: ignore[attr-defined]


def test_the_recipe_of_diff_scm() -> None:
    assert asdict(methods.get("diff-scm")) == {  # type: ignore[call-overload]
        "steps": 100,
        "depth": 0.75,
        "guidance": 3.0,
        "quantile": 0.99,
        "classifier_scale": 0.0,
    }


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("diffedit", {"maps": 0}),
        ("diffedit", {"threshold": -1}),
        ("masked", {"band": 2}),
        ("implicit-guidance", {"quantile": 0}),
        ("latent-drift", {"drift": 2}),
        ("factored", {"keep_guidance": -1}),
        ("ledits", {"quantile": 1}),
        ("null-text", {"inner": -1}),
        ("null-text", {"rate": 0}),
        ("radedit", {"band": 2}),
    ],
)
def test_impossible_settings_are_refused(name: str, bad: dict[str, Any]) -> None:
    with pytest.raises(WordsError, match=next(iter(bad))):
        methods.get(name, **bad)
