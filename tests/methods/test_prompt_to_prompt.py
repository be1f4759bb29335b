"""Prompt-to-prompt: alignment and maps by hand, identity for equal prompts, and what each setting leaves alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.gaussian import Gaussian

from counterscan import methods
from counterscan.backbones import load
from counterscan.backbones.attention import Attention
from counterscan.diffusion import flow_schedule
from counterscan.errors import ModelError, WordsError
from counterscan.methods.attention_control import Alignment, Steering
from counterscan.methods.check import check_method
from counterscan.methods.prompt_to_prompt import PromptToPrompt
from counterscan.types import Edit

EDIT = Edit("no pleural effusion", "small left pleural effusion")
INVERSIONS = ["ddim", "direct", "edit-friendly", "null-text"]


@pytest.fixture(scope="module")
def backbone(tiny_folder: Path) -> Any:
    return load(tiny_folder, dtype=torch.float64)


def run(method: Any, model: Any, x: torch.Tensor, edit: Edit) -> torch.Tensor:
    return method(model, x, edit, generator=[torch.Generator().manual_seed(i) for i in range(len(x))])


def image(batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 1, 32, 32, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("inversion", INVERSIONS)
def test_promises(inversion: Any, backbone: Any) -> None:
    method = PromptToPrompt(4, 0.75, inversion=inversion, reweight=2.0, blend=0.3, inner=1, self_replace=(0.2, 0.6))
    loose = 1e-4 if inversion in ("direct", "edit-friendly") else 1.0
    check_method(method, backbone, edit=EDIT, null_tolerance=loose)


@pytest.mark.parametrize("blend", [0.0, 0.3])
@pytest.mark.parametrize("inversion", INVERSIONS)
def test_equal_prompts_are_the_identity(inversion: Any, blend: float, backbone: Any) -> None:
    x = image(2)
    method = PromptToPrompt(6, guidance=7.5, inversion=inversion, reweight=3.0, blend=blend, inner=1)
    plain = {"ddim": methods.get("ddim", steps=6, depth=1.0), "null-text": methods.get("null-text", steps=6, inner=1)}
    if inversion in plain:  # these inversions come back to their own reconstruction
        wanted = run(plain[inversion], backbone, x, EDIT.null())
    else:
        wanted = backbone.decode(backbone.encode(x))
    torch.testing.assert_close(run(method, backbone, x, EDIT.null()), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("inversion", INVERSIONS)
def test_without_control_only_the_inversion_is_left(inversion: Any, backbone: Any) -> None:
    x, settings = image(2), {"steps": 5, "depth": 0.8, "guidance": 3.0}
    free = PromptToPrompt(**settings, inversion=inversion, cross_replace=0.0, self_replace=0.0, inner=1)  # type: ignore[arg-type]
    plain = methods.get(inversion, **settings, **({"inner": 1} if inversion == "null-text" else {}))
    torch.testing.assert_close(run(free, backbone, x, EDIT), run(plain, backbone, x, EDIT), atol=1e-4, rtol=0)


@pytest.mark.parametrize("setting", [{"cross_replace": 0.9}, {"self_replace": 0.9}, {"blend": 0.9}])
def test_every_control_has_its_effect(setting: dict[str, Any], backbone: Any) -> None:
    off = {"cross_replace": 0.0, "self_replace": 0.0, "blend": 0.0}
    x, edit = image(), Edit("no pacemaker", "small pacemaker")
    without = run(PromptToPrompt(5, **off), backbone, x, edit)
    assert (run(PromptToPrompt(5, **(off | setting)), backbone, x, edit) - without).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        (PromptToPrompt(10, 0.5), 5 + 15),
        (PromptToPrompt(10, 0.5, inversion="ddim"), 5 + 15),
        (PromptToPrompt(10, 0.5, inversion="edit-friendly"), 15),
        (PromptToPrompt(10, 0.5, inversion="null-text", inner=3), 1 + 5 + 5 * 5 + 15),
        (PromptToPrompt(10, 0.5, self_replace=(0.4, 0.8)), 5 + 30 + 16),
    ],
)
def test_evaluations_are_what_the_docstring_says(method: Any, wanted: int, backbone: Any) -> None:
    before = backbone.evaluations
    run(method, backbone, image(2), EDIT)
    assert backbone.evaluations - before == 2 * wanted


def test_refine_follows_shared_words_and_replace_exchanged_ones_too() -> None:
    source, target = ["", "no", "pleural", "effusion", "", ""], ["", "small", "left", "pleural", "effusion", ""]
    refine, replace = (Alignment.of(source, target, replace=r) for r in (False, True))
    assert refine.own.tolist() == [False, True, True, False, False, False]
    assert refine.mapping.argmax(0)[[0, 3, 4]].tolist() == [0, 2, 3]
    assert replace.own.tolist() == [False] * 6
    assert replace.mapping[1].tolist() == [0, 0.5, 0.5, 0, 0, 0]  # "small left" share the map of "no"
    for alignment in (refine, replace):
        assert [source[i] for i in alignment.left.nonzero()[:, 0]] == ["no"]
        assert [target[i] for i in alignment.came.nonzero()[:, 0]] == ["small", "left"]
    longer = Alignment.of(["", "a", "b", "", ""], ["", "a", "b", "c", ""], replace=True)
    assert [longer.came.nonzero().tolist(), longer.left.any().item()] == [[[3]], False]
    same = Alignment.of(source, source, replace=False)
    assert torch.equal(same.mapping, torch.eye(6))
    assert not (same.own.any() or same.left.any() or same.came.any())


def cross(rows: int = 3, words: int = 3) -> Attention:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(rows, 2, n, 4, generator=g) for n in (16, words, words))
    return Attention(q, k, v, slice(0, words))


def test_cross_attention_is_the_sources_where_words_are_shared() -> None:
    layer = cross()
    alignment = Alignment.of(["no", "large", "heart"], ["a", "large", "heart"], replace=False)
    steering = Steering(alignment, 1, cross=0.5, self_=0.0, weight=2.0)
    maps = layer.weights()
    wanted = maps.clone()
    wanted[2, :, :, 1:] = maps[0, :, :, 1:]
    wanted[2, :, :, 0] = 2 * maps[2, :, :, 0]
    torch.testing.assert_close(steering(layer), wanted @ layer.value)
    steering.at(0.5)  # the window is over
    torch.testing.assert_close(steering(layer), layer.output())


def test_self_attention_is_the_sources_below_the_finest_layers() -> None:
    g = torch.Generator().manual_seed(0)
    steering = Steering(Alignment.of(["a"], ["b"], replace=False), 1, cross=0.0, self_=0.5, weight=1.0)
    for pixels, swapped in [(1024, True), (2048, False)]:
        q, k, v = torch.randn(3, 3, 1, pixels, 4, generator=g)
        layer = Attention(q, k, v, slice(0, 0))
        out, plain = steering(layer), layer.output()
        torch.testing.assert_close(out[2], (layer.weights()[0] @ v[2]) if swapped else plain[2])
        torch.testing.assert_close(out[:2], plain[:2])


def test_joint_attention_keeps_the_words_of_the_target() -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 3, 1, 6, 4, generator=g)
    layer = Attention(q, k, v, slice(4, 6))  # four pixels, two words
    assert layer.pixels.tolist() == [0, 1, 2, 3]
    led = layer.with_image_of(slice(0, 1), slice(2, 3))
    assert torch.equal(led.query[2, :, :4], q[0, :, :4])
    assert torch.equal(led.query[2, :, 4:], q[2, :, 4:])
    assert torch.equal(led.key[2, :, 4:], k[2, :, 4:])
    assert torch.equal(q, layer.query)


def test_local_blend_is_where_the_words_that_differ_look() -> None:
    steering = Steering(Alignment.of(["no", "heart"], ["big", "heart"], replace=False), 1, cross=1, self_=0, weight=1)
    maps = torch.zeros(1, 1, 16, 2)
    maps[..., 1] = 1  # all look at "heart" ...
    left, came = maps.clone(), maps.clone()
    left[0, 0, 0], came[0, 0, 15] = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])  # ... but two corners
    steering._note(left, came)
    area = steering.mask(torch.zeros(1, 4, 16, 16), 0.3)[0, 0]
    assert area.shape == (16, 16)
    assert area[:8, :8].all()
    assert area[8:, 8:].all()
    assert not area[8:, :8].any()


def test_a_control_that_changes_nothing_changes_nothing(backbone: Any) -> None:
    z, c = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), backbone.embed(["pacemaker"])
    plain = backbone.predict(z, 500, c)
    for control in (Attention.output, lambda layer: layer.follow(layer.weights())):
        with backbone.controlled(control):
            under = backbone.predict(z, 500, c)
        torch.testing.assert_close(under.noise, plain.noise, atol=1e-6, rtol=1e-6)
    assert torch.equal(backbone.predict(z, 500, c).noise, plain.noise)


def by_hand(layer: torch.nn.Module, x: torch.Tensor, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The map (rows, heads, pixels, words) and the values (rows, heads, words, width) of a diffusers layer."""
    heads = lambda part: part.unflatten(-1, (layer.heads, -1)).transpose(1, 2)  # noqa: E731
    query, key, value = heads(layer.to_q(x)), heads(layer.to_k(words)), heads(layer.to_v(words))
    return torch.softmax(query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5, -1), value


def test_a_layer_of_the_network_answers_what_is_computed_by_hand(backbone: Any) -> None:
    layer = next(m for name, m in backbone.unet.named_modules() if name.endswith("attn2"))
    source, target = "no pleural effusion", "pacemaker pleural effusion"
    alignment = Alignment.of(backbone.pieces(source), backbone.pieces(target), replace=False)
    assert sorted(alignment.came.nonzero()[:, 0].tolist()) == [1]
    steering = Steering(alignment, 1, cross=1.0, self_=0.0, weight=2.0)
    seen: list[Any] = []
    hook = layer.register_forward_hook(
        lambda _, args, kwargs, output: seen.append((args[0], kwargs["encoder_hidden_states"], output)),
        with_kwargs=True,
    )
    z = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1, -1)
    with backbone.controlled(steering):
        backbone.predict(z, 500, backbone.embed([source, source, target]))
    hook.remove()
    x, words, output = seen[0]
    maps, values = by_hand(layer, x, words)
    maps[2, :, :, 0], maps[2, :, :, 2:] = maps[0, :, :, 0], maps[0, :, :, 2:]  # shared words are read as by the source
    maps[2, :, :, 1] *= 2  # the new word counts twice
    wanted = layer.to_out[0]((maps @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(output, wanted)


def test_self_attention_of_the_network_is_the_sources_computed_by_hand(backbone: Any) -> None:
    layer = next(m for name, m in backbone.unet.named_modules() if name.endswith("attn1"))
    steering = Steering(Alignment.of(["a"], ["b"], replace=False), 1, cross=0.0, self_=0.5, weight=1.0)
    seen: list[Any] = []
    hook = layer.register_forward_hook(lambda _, args, kwargs, output: seen.append((args[0], output)), with_kwargs=True)
    z = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    for share in (0.0, 0.5):  # the window, and after it
        steering.at(share)
        with backbone.controlled(lambda a: steering(a) if a.words == 0 else a.output()):
            backbone.predict(z, 500, backbone.embed(["pacemaker"]))
    hook.remove()
    per_call = len(seen) // 2
    for (x, output), followed in ((seen[0], True), (seen[per_call], False)):
        maps, values = by_hand(layer, x, x)
        if followed:
            maps[2] = maps[0]
        torch.testing.assert_close(output, layer.to_out[0]((maps @ values).transpose(1, 2).flatten(2)))


def test_control_ends_with_the_block_even_after_an_error(backbone: Any) -> None:
    z, c = torch.zeros(1, 4, 16, 16), backbone.embed(["pacemaker"])

    def refuse(layer: Attention) -> torch.Tensor:
        raise KeyError

    with pytest.raises(KeyError), backbone.controlled(refuse):
        backbone.predict(z, 500, c)
    assert backbone.predict(z, 500, c).noise.isfinite().all()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.unet.modules())


def test_attention_by_other_means_is_refused(tiny_folder: Path) -> None:
    from diffusers.models.attention_processor import AttnProcessor

    model: Any = load(tiny_folder)
    model.unet.set_attn_processor(AttnProcessor())
    with pytest.raises(ModelError, match="cannot be controlled"):
        run(PromptToPrompt(2), model, image(), EDIT)


def test_models_without_words_are_refused_before_any_work() -> None:
    model = Gaussian()
    with pytest.raises(WordsError, match="gaussian .*does not offer"):
        run(PromptToPrompt(), model, image(), Edit("low", "high"))
    assert model.evaluations == 0


def test_a_sweep_keeps_the_best_of_every_image(backbone: Any) -> None:
    x, shares = image(2), (0.0, 0.5, 1.0)
    every = torch.stack([run(PromptToPrompt(4, self_replace=s), backbone, x, EDIT) for s in shares])

    def selector(wanted: list[int]) -> Callable[..., torch.Tensor]:
        goals = torch.stack([every[c, i] for i, c in enumerate(wanted)])
        return lambda before, after, edit: -(after - goals).abs().sum((1, 2, 3))

    for wanted in ([0, 2], [1, 0]):
        best = run(PromptToPrompt(4, self_replace=shares, selector=selector(wanted)), backbone, x, EDIT)
        torch.testing.assert_close(best, torch.stack([every[c, i] for i, c in enumerate(wanted)]), atol=1e-5, rtol=0)
    chosen = run(PromptToPrompt(4, self_replace=shares), backbone, x, EDIT)  # by the model itself
    assert (every - chosen).abs().amax((2, 3, 4)).amin(0).max() < 1e-5


def test_works_on_flow_matching(backbone: Any) -> None:
    model = copy.copy(backbone)
    model.schedule, model.prediction_type = flow_schedule(shift=3.0), "velocity"
    check_method(PromptToPrompt(4), model, edit=EDIT, null_tolerance=1e-4)


def test_the_recipe_of_prism() -> None:
    settings = asdict(methods.get("prism"))  # type: ignore[call-overload]
    assert settings == {
        "steps": 50,
        "depth": 1.0,
        "guidance": 7.5,
        "inversion": "null-text",
        "replace": False,
        "cross_replace": 0.8,
        "self_replace": (0.4, 0.5, 0.6, 0.7, 0.8),
        "reweight": 2.0,
        "blend": 0.3,
        "inner": 10,
    }


@pytest.mark.parametrize(
    "bad",
    [{"inversion": "magic"}, {"cross_replace": 2}, {"self_replace": ()}, {"self_replace": (0.5, -1)}, {"reweight": -1}],
)
def test_impossible_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(WordsError, match=next(iter(bad))):
        methods.get("prompt-to-prompt", **bad)
