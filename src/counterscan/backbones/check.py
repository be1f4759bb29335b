"""The public checker of models: what every backbone promises, tried on noise. Run it on your own family as well."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from counterscan.backbones.base import Backbone, sees_image
from counterscan.types import Condition, Prediction


def check_backbone(backbone: Backbone, *, prompts: Sequence[str] | None = None, tolerance: float = 1e-4) -> None:
    """Raises ``AssertionError`` naming the first promise of the waist that ``backbone`` breaks.

    The promises: every verb and fact of ``Backbone``; a fingerprint of 16 hex digits; ``encode`` and ``decode`` give float32
    of their shapes, images in [0, 1], the same every time; ``embed`` gives a row a prompt; a prediction recomposes the latent,
    also at another ``level``, and other words give another one; one condition row serves all latents; a batch equals its
    rows one by one (all to ``tolerance``); an image beside the latent is heeded where ``sees_image``, by its own row alone; a
    prediction counts one evaluation a row, and nothing else counts; no global random state is touched and inputs are left
    alone.
    ``prompts`` are two that the model tells apart; default: its first two classes, or nothing and its first finding. For an
    unconditional model give ``("", "")``.
    """
    assert isinstance(backbone, Backbone), f"{type(backbone).__name__} lacks a verb or a fact of Backbone"
    assert re.fullmatch("[0-9a-f]{16}", backbone.fingerprint), (
        f"fingerprint {backbone.fingerprint!r}: not 16 hex digits"
    )
    card, before = backbone.card, random_state()
    prompts = prompts or card.classes[:2] or ("", (card.findings or (card.template,))[0])
    assert len(prompts) == 2, "give check_backbone two prompts"
    spent = backbone.evaluations
    _check_images(backbone, tolerance)
    condition = backbone.embed(prompts)
    assert len(condition) == 2, f"embed gives {len(condition)} rows for 2 prompts"
    assert backbone.evaluations == spent, "encode, decode or embed counted evaluations"
    _check_predictions(backbone, condition, prompts[0] != prompts[1], tolerance)
    if sees_image(backbone):
        _check_seeing(backbone, condition, tolerance)
    assert before == random_state(), "a global random state was used"


def _check_images(backbone: Backbone, tolerance: float) -> None:
    shape = (2, backbone.channels, backbone.resolution, backbone.resolution)
    image = torch.rand(shape, generator=torch.Generator().manual_seed(3)).to(backbone.device)
    given = image.clone()
    z = backbone.encode(image)
    _check_tensor("encode", z, (2, *backbone.latent_shape))
    held = z.clone()
    decoded = backbone.decode(z)
    _check_tensor("decode", decoded, shape)
    assert decoded.equal(decoded.clamp(0, 1)), "decode leaves [0, 1]"
    assert image.equal(given) and z.equal(held), "encode or decode changed its input in place"
    assert z.equal(backbone.encode(image)), "the same image was encoded otherwise"
    assert decoded.equal(backbone.decode(z)), "the same latent was decoded otherwise"
    for i in range(2):
        row = slice(i, i + 1)
        assert _close(backbone.encode(image[row]), z[row], tolerance), f"image {i} is encoded otherwise alone"
        assert _close(backbone.decode(z[row]), decoded[row], tolerance), f"latent {i} is decoded otherwise alone"


def _check_predictions(backbone: Backbone, condition: Condition, worded: bool, tolerance: float) -> None:
    z = torch.randn(2, *backbone.latent_shape, generator=torch.Generator().manual_seed(0)).to(backbone.device)
    given, (low, high) = z.clone(), (len(backbone.schedule) // 5, len(backbone.schedule) * 7 // 10)
    times = torch.tensor([low, high], device=z.device)

    def predict(z: Tensor, t: Tensor | int, condition: Condition, level: int | None = None) -> Prediction:
        spent = backbone.evaluations
        found = backbone.predict(z, t, condition, level=level)
        spent = backbone.evaluations - spent
        assert spent == len(z), f"predict counted {spent} evaluations for {len(z)} rows"
        _check_tensor("predict (clean)", found.clean, z.shape)
        _check_tensor("predict (noise)", found.noise, z.shape)
        signal, noise = (c.reshape(-1, 1, 1, 1) for c in backbone.schedule.coefficients(t if level is None else level))
        whole = signal.to(z.device) * found.clean + noise.to(z.device) * found.noise
        assert _close(whole, z, tolerance), f"a prediction at level {level} does not recompose its latent"
        return found

    both = predict(z, times, condition).noise
    assert both.equal(predict(z, times, condition).noise), "the same latents were predicted otherwise"
    for i, t in enumerate((low, high)):
        alone = predict(z[i : i + 1], t, condition[i]).noise
        assert _close(alone, both[i : i + 1], tolerance), f"latent {i} is predicted otherwise alone"
    shared = predict(z, times, condition[0]).noise
    assert _close(shared[0], both[0], tolerance), "one condition row does not serve all latents"
    assert not worded or not _close(shared[1], both[1], tolerance), "other words give the same prediction"
    predict(z[:1], high, condition[0], level=low)
    assert z.equal(given), "predict changed the latent in place"


def _check_seeing(backbone: Backbone, condition: Condition, tolerance: float) -> None:
    generator, shape = torch.Generator().manual_seed(1), (2, *backbone.latent_shape)
    z, image = (torch.randn(shape, generator=generator).to(backbone.device) for _ in range(2))
    given, t, both = image.clone(), len(backbone.schedule) // 2, condition.beside(image)
    seen = backbone.predict(z, t, both).noise
    unseen = backbone.predict(z, t, condition).noise
    assert not _close(seen, unseen, tolerance), "sees_image, but an image beside the latent changes nothing"
    for i in range(2):
        alone = backbone.predict(z[i : i + 1], t, both[i]).noise
        assert _close(alone, seen[i : i + 1], tolerance), f"latent {i} is predicted otherwise alone, with its image"
    assert image.equal(given), "predict changed the image in place"


def _check_tensor(verb: str, found: Tensor, shape: Sequence[int]) -> None:
    assert found.shape == tuple(shape), f"{verb} gives shape {tuple(found.shape)}, wanted {tuple(shape)}"
    assert found.dtype == torch.float32, f"{verb} gives {found.dtype}, wanted float32"
    assert found.isfinite().all(), f"{verb} gives numbers that are not finite"


def _close(found: Tensor, wanted: Tensor, tolerance: float) -> bool:
    return torch.allclose(found, wanted, rtol=tolerance, atol=tolerance)


def random_state() -> str:
    """The states of torch's and numpy's global generators, as text that compares."""
    return repr((torch.get_rng_state().tolist(), np.random.get_state()))
