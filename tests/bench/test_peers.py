"""diffusers' own pipelines run on the same parts, count what they ask, leave no trace, and say where they cannot run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.backbones import tiny as families
from tests.models import seeing, tiny
from typer.testing import CliRunner

from counterscan.backbones import load
from counterscan.bench import peers
from counterscan.bench.run import bench
from counterscan.cli import app
from counterscan.errors import WordsError
from counterscan.methods import get
from counterscan.types import Edit

EDIT = Edit("world chest radiograph: pacemaker.", "world chest radiograph: no pacemaker.")
QUICK: dict[str, peers.Peer] = {
    "diffusers:img2img": peers.ImageToImage(steps=4, strength=0.5),
    "diffusers:leditspp": peers.LeditsPp(steps=4),
    "diffusers:diffedit": peers.DiffEdit(steps=4, strength=0.5, maps=2),
    "diffusers:instruct": peers.InstructPix2Pix(steps=3),
}
COST = {
    "diffusers:img2img": 2 * 2,
    "diffusers:leditspp": 4 + 3 * 4,
    "diffusers:diffedit": 4 * 2 + 2 * 2 + 2 * 2,
    "diffusers:instruct": 3 * 3,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like the built-in models: one grey channel, BERT, v-prediction; three levels, so that LEDITS++ finds its maps."""
    return tiny(tmp_path_factory.mktemp("models") / "deep", unet_blocks=(16, 32, 32))


@pytest.fixture(scope="module")
def sees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, whose U-Net sees the image beside the latent."""
    return seeing(tmp_path_factory.mktemp("models") / "deep", unet_blocks=(16, 32, 32))


def images() -> torch.Tensor:
    return torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(3))


def run(peer: peers.Peer, model: Any, x: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    return peer(model, x, EDIT, generator=[torch.Generator().manual_seed(seed) for seed in seeds])


@pytest.mark.parametrize(
    ("name", "look"), [*((name, True) for name in QUICK), *((name, False) for name in [*QUICK][:3])]
)
def test_a_peer_edits_with_the_parts_of_the_model_and_leaves_them_as_they_were(
    name: str, look: bool, folder: Path, sees: Path
) -> None:
    model, x, peer = load(sees if look else folder), images(), QUICK[name]
    processors = model.unet.attn_processors
    before = model.evaluations
    state = torch.get_rng_state()
    result = run(peer, model, x, [0, 1])
    assert model.evaluations - before == 2 * COST[name]
    assert result.shape == x.shape
    assert result.isfinite().all()
    assert (result - model.decode(model.encode(x))).abs().mean() > 1e-3
    torch.testing.assert_close(run(peer, model, x, [0, 1]), result, atol=0, rtol=0)
    torch.testing.assert_close(run(peer, model, x[1:], [1]), result[1:], atol=1e-4, rtol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.unet.attn_processors == processors
    assert not model.unet._forward_pre_hooks


def test_image_to_image_is_our_sdedit_where_both_lead_from_no_prompt(folder: Path) -> None:
    model, x = load(folder), images()
    edit = Edit("", EDIT.target)
    generators = lambda: [torch.Generator().manual_seed(seed) for seed in (0, 1)]  # noqa: E731
    theirs = peers.ImageToImage(steps=10, strength=0.5, guidance=3.0)(model, x, edit, generator=generators())
    ours = get("sdedit", steps=10, depth=0.5, guidance=3.0)(model, x, edit, generator=generators())  # type: ignore[operator]
    assert (theirs - ours).abs().mean() < 0.02 < (ours - x).abs().mean()


@pytest.mark.parametrize("name", [*QUICK][:3])
def test_pipelines_that_know_of_no_image_show_the_network_none(name: str, folder: Path, sees: Path) -> None:
    """The two networks differ only in what they see beside the latent."""
    one, other = (run(QUICK[name], load(model), images(), [0, 1]) for model in (folder, sees))
    torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


def test_instruct_is_the_pipeline_of_diffusers_on_the_image_itself(sees: Path) -> None:
    import diffusers

    model, x = load(sees), images()
    pipe = diffusers.DiffusionPipeline.from_pretrained(sees)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    wanted = pipe([EDIT.target] * 2, image=x, num_inference_steps=3, generator=generators, output_type="pt").images
    torch.testing.assert_close(run(QUICK["diffusers:instruct"], model, x, [0, 1]), wanted, atol=1e-3, rtol=0)


def test_instruct_has_the_defaults_of_the_pipeline() -> None:
    from inspect import signature

    from diffusers import StableDiffusionInstructPix2PixPipeline

    theirs, ours = signature(StableDiffusionInstructPix2PixPipeline.__call__).parameters, peers.InstructPix2Pix()
    names = {"num_inference_steps": "steps", "guidance_scale": "guidance", "image_guidance_scale": "image_guidance"}
    assert {name: getattr(ours, own) for name, own in names.items()} == {name: theirs[name].default for name in names}


@pytest.fixture(scope="module", params=["sdxl", "sd3", "flux", "kandinsky"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of another family."""
    folder: Path = getattr(families, request.param)(tmp_path_factory.mktemp("families") / request.param)
    return load(families.card(folder, request.param))


def check_on(model: Any, peer: peers.Peer, cost: int) -> None:
    x, network = families.images(), peers._network(model)
    before, state, processors = model.evaluations, torch.get_rng_state(), network.attn_processors
    result = run(peer, model, x, [0, 1])
    assert model.evaluations - before == len(x) * cost
    assert result.shape == x.shape
    assert result.isfinite().all()
    assert (result - model.decode(model.encode(x))).abs().mean() > 1e-3
    torch.testing.assert_close(run(peer, model, x[1:], [1]), result[1:], atol=1e-4, rtol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.attn_processors == processors
    assert not network._forward_pre_hooks


def test_image_to_image_runs_on_every_family_that_has_it(other: Any) -> None:
    check_on(other, QUICK["diffusers:img2img"], cost=2 if other.family == "flux" else 4)


def test_image_to_image_of_another_family_is_our_sdedit_too(other: Any) -> None:
    x, edit = families.images(), Edit("", EDIT.target)
    told = other.family == "flux"  # its network is told 3.5, and both prompts are asked for ours alone
    generators = lambda: [torch.Generator().manual_seed(seed) for seed in (0, 1)]  # noqa: E731
    theirs = peers.ImageToImage(steps=10, strength=0.5, guidance=3.5 if told else 3.0)
    ours = get("sdedit", steps=10, depth=0.5, guidance=1.0 if told else 3.0)
    a, b = (method(other, x, edit, generator=generators()) for method in (theirs, ours))  # type: ignore[operator]
    assert (a - b).abs().mean() < 0.02 < (b - x).abs().mean()


def test_leditspp_runs_on_sdxl(other: Any) -> None:
    if other.family == "sdxl":
        check_on(other, QUICK["diffusers:leditspp"], cost=4 + 3 * 4)
    else:
        with pytest.raises(WordsError, match=f"needs the stable_diffusion or sdxl family, and .* is {other.family}"):
            run(QUICK["diffusers:leditspp"], other, families.images(), [0, 1])
    with pytest.raises(WordsError, match=f"needs the stable_diffusion family, and .* is {other.family}"):
        peers.DiffEdit().check(other)


def test_what_is_left_open_is_the_default_of_the_familys_pipeline(other: Any, folder: Path) -> None:
    settled = peers.ImageToImage(steps=7).settled(other)
    defaults = {"sdxl": (0.3, 5.0), "sd3": (0.6, 7.0), "flux": (0.6, 7.0), "kandinsky": (0.3, 4.0)}
    assert (settled.steps, settled.strength, settled.guidance) == (7, *defaults[other.family])
    # what cells of a bench on disk go by
    assert (
        repr(peers.get("diffusers:img2img").settled(load(folder)))
        == "ImageToImage(steps=50, strength=0.8, guidance=7.5)"
    )
    told = "LeditsPp(steps=30, skip=0.15, guidance=5.0, threshold=0.9)"
    assert repr(peers.get("diffusers:leditspp").settled(load(folder))) == told


def test_a_peer_says_in_one_line_why_it_cannot_run(tmp_path: Path) -> None:
    with pytest.raises(WordsError, match=r"leditspp cannot run here: the U-Net of shallow reads no words at a quarter"):
        bench(load(tiny(tmp_path / "shallow")), [peers.LeditsPp()], "chest", tmp_path / "out", n=1)
    assert not (tmp_path / "out").exists()
    with pytest.raises(WordsError, match="the U-Net of shallow sees no image"):
        peers.InstructPix2Pix().check(load(tmp_path / "shallow"))
    with pytest.raises(WordsError, match="latents of 4 channels, and narrow has 3"):
        peers.ImageToImage().check(load(tiny(tmp_path / "narrow", latent_channels=3)))

    class Pixels:
        family = "pixel"
        card = load(tmp_path / "shallow").card

    with pytest.raises(WordsError, match="needs the stable_diffusion family, and shallow is pixel"):
        peers.DiffEdit().check(Pixels())  # type: ignore[arg-type]
    Pixels.family = "stable_diffusion"
    with pytest.raises(WordsError, match="takes the parts of a model that runs in torch, and shallow runs in Pixels"):
        peers.DiffEdit().check(Pixels())  # type: ignore[arg-type]
    with pytest.raises(WordsError, match="no pipeline 'diffusers:pix2pix': known are diffusers:img2img"):
        peers.get("diffusers:pix2pix")


def test_the_command_runs_peers_beside_methods(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS", {"diffusers:img2img": lambda: QUICK["diffusers:img2img"]})
    names = "diffusers:img2img,sdedit"
    words = ["bench", "--model", str(folder), "--methods", names, "-n", "1", "--findings", "pacemaker", "--json"]
    result = CliRunner().invoke(app, [*words, "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert {row["method"] for row in rows} == set(names.split(","))
    assert (tmp_path / "cells" / "diffusers-img2img-pacemaker-add.png").is_file()
    assert "cells/diffusers-img2img-pacemaker-add.png" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "speed.png").stat().st_size > 0
    refused = CliRunner().invoke(app, ["bench", "--methods", "diffusers:none", "-o", str(tmp_path)])
    assert isinstance(refused.exception, WordsError)  # which the command turns into one line and exit code 2
