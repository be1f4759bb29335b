"""From an image and words to a counterfactual: what must stay stays, and what is saved comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from tests.methods.gaussian import Gaussian
from tests.models import tiny

from counterscan import methods
from counterscan.backbones import load
from counterscan.backbones.base import Backbone
from counterscan.blending import blend, changed_area, feather
from counterscan.drawing import signed_map
from counterscan.editing import allowed_area, as_picture, edit, read_mask
from counterscan.errors import CounterscanError, DataError, ImageError, ModelError, WordsError
from counterscan.generation import generate
from counterscan.imaging.picture import stem
from counterscan.result import Counterfactual
from counterscan.types import Change, Edit

WORDS = {"source": "chest radiograph: no pacemaker.", "target": "chest radiograph: small left pleural effusion."}


@dataclass(frozen=True)
class Painter:
    """A stand-in for a method: the model's own reconstruction with a bright square painted on its left half."""

    name: ClassVar[str] = "painter"

    def __call__(self, backbone: Any, image: Any, edit: Edit, *, generator: Any, progress: Any = None) -> torch.Tensor:
        backbone.predict(backbone.encode(image), 1, backbone.embed([edit.target]))
        result = backbone.decode(backbone.encode(image))
        result[..., 8:24, 4:14] = 1 - result[..., 8:24, 4:14].round()
        if progress is not None:
            progress(1, 1)
        return result


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load(tiny(tmp_path_factory.mktemp("models") / "tiny"))


def picture(height: int = 60, width: int = 50, dtype: type = np.uint8, colours: int = 0) -> np.ndarray:
    top = np.iinfo(dtype).max
    shape = (height, width, colours) if colours else (height, width)
    return (np.random.default_rng(0).random(shape) * top).astype(dtype)


@pytest.mark.parametrize("make", [picture, lambda: picture(dtype=np.uint16), lambda: picture(colours=3)])
def test_outside_the_mask_not_a_bit_changes(make: Callable[[], np.ndarray], backbone: Backbone) -> None:
    original = make()
    result = edit(original, **WORDS, method=Painter(), model=backbone)
    edited = result.counterfactual.pixels
    assert edited.shape == original.shape
    assert edited.dtype == original.dtype
    assert result.mask.any()
    assert not result.mask.all()
    assert np.array_equal(edited[~result.mask], original[~result.mask])
    assert not np.array_equal(edited, original)
    assert result.difference.dtype == np.float32
    assert result.difference.shape == original.shape[:2]
    assert (result.difference[~result.mask] == 0).all()


def test_the_null_edit_gives_the_image_back_bit_for_bit(backbone: Backbone) -> None:
    result = edit(picture(), source="no pacemaker", target="no pacemaker", method="edit-friendly", model=backbone)
    assert np.array_equal(result.counterfactual.pixels, result.factual.pixels)
    assert not result.mask.any()


def test_a_list_equals_its_images_one_by_one(backbone: Backbone) -> None:
    images = [picture(), picture(40, 70), picture(dtype=np.uint16), picture(32, 32), picture(33, 31)]
    told: list[tuple[int, int]] = []
    together = edit(images, **WORDS, model=backbone, seed=4, progress=lambda *at: told.append(at))
    assert told[-1][0] == told[-1][1]
    assert told == sorted(told)
    for image, result in zip(images, together, strict=True):
        alone = edit(image, **WORDS, model=backbone, seed=4)
        assert result.evaluations == alone.evaluations > 0
        # an untrained network is rough: rounding may move the mask's border, and little more
        assert np.mean(np.abs(result.difference - alone.difference)) < 0.01


def test_a_mask_and_a_region_are_hard_limits(backbone: Backbone, tmp_path: Path) -> None:
    mask = np.zeros((60, 50), bool)
    mask[20:40, 5:20] = True
    result = edit(picture(), **WORDS, mask=mask, method=Painter(), model=backbone)
    assert result.mask.any()
    assert not result.mask[~mask].any()
    right = edit(picture(), **WORDS, region="right", method=Painter(), model=backbone)
    assert right.mask.any()
    assert not right.mask[:, 25:].any()
    Image.fromarray(mask).save(tmp_path / "mask.png")
    drawn = edit(picture(), **WORDS, mask=tmp_path / "mask.png", method=Painter(), model=backbone)
    assert np.array_equal(drawn.counterfactual.pixels, result.counterfactual.pixels)
    both = edit(picture(), **WORDS, region="left", mask=mask, method=Painter(), model=backbone)
    assert not both.mask.any()


def test_bad_masks_and_regions_are_refused_before_any_work(backbone: Backbone, tmp_path: Path) -> None:
    before = backbone.evaluations
    with pytest.raises(ImageError, match="mask is 7x9, the image 50x60"):
        edit(picture(), **WORDS, mask=np.ones((9, 7)), model=backbone)
    with pytest.raises(ImageError, match="mask is empty"):
        edit(picture(), **WORDS, mask=np.zeros((60, 50)), model=backbone)
    with pytest.raises(WordsError, match=r"known are .*left lung"):
        allowed_area(Edit("", "", region="elbow"), (60, 50))
    (tmp_path / "mask.txt").write_text("no image")
    with pytest.raises(ImageError, match=r"mask.txt: the mask cannot be read"):
        edit(picture(), **WORDS, mask=tmp_path / "mask.txt", model=backbone)
    assert backbone.evaluations == before


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_a_drawn_mask_is_what_is_drawn_in_any_mode(mode: str, tmp_path: Path) -> None:
    drawn = np.zeros((60, 50), np.uint8)
    drawn[20:40, 5:20] = 255
    image = Image.fromarray(drawn)
    image.convert(mode).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png").numpy(), drawn > 0)
    image.save(tmp_path / "mask.jpg", quality=60)
    assert abs(int(read_mask(tmp_path / "mask.jpg").sum()) - 300) < 20
    clear = np.dstack([np.full((60, 50, 3), 255, np.uint8), drawn])  # white on nothing
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert np.array_equal(read_mask(tmp_path / "clear.png").numpy(), drawn > 0)
    Image.fromarray(drawn // 255).save(tmp_path / "labels.png")
    assert np.array_equal(read_mask(tmp_path / "labels.png").numpy(), drawn > 0)


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1", "CMYK"])
def test_an_open_image_is_read_as_its_file_would_be(mode: str) -> None:
    grey = Image.fromarray((np.mgrid[:60, :50].sum(0) * 2).astype(np.uint8))
    read = as_picture(grey.convert("RGB").quantize(64) if mode == "P" else grey.convert(mode))
    assert np.corrcoef(read.unit().reshape(60, 50, -1).mean(2).ravel(), np.asarray(grey).ravel())[0, 1] > 0.3
    assert read.pixels.ndim == 2 or read.pixels.shape[2] == 3


@pytest.mark.parametrize(
    "asked",
    [
        {"mask": [[1, 2], [3]]}, {"seed": 2**70}, {"seed": 1.5}, {"seed": -1}, {"region": 5}, {"source": 3, "target": "x"},
        {"remove": None},
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused_in_words(asked: dict[str, Any], backbone: Backbone) -> None:
    words = {} if {"source", "remove"} & set(asked) else WORDS
    with pytest.raises(CounterscanError):
        edit(picture(), **words, **asked, model=backbone)
    with pytest.raises(WordsError, match="0 to 2|text|n >= 1"):
        generate(**{"prompt": "x", "model": backbone} | ({"n": 1.5} if "mask" in asked else {"prompt": None}))


def test_saved_and_loaded_it_is_the_same(backbone: Backbone, tmp_path: Path) -> None:
    Image.fromarray(picture(dtype=np.uint16)).save(tmp_path / "scan.png")
    result = edit(tmp_path / "scan.png", **WORDS, mask=np.ones((60, 50)), method="ddim", model=backbone, seed=3)
    files = result.save(tmp_path / "out")
    assert set(files) == {"image", "counterfactual", "difference", "mask", "figure"}
    assert all((tmp_path / "out" / name).exists() for name in files.values())
    assert (tmp_path / "out" / files["image"]).read_bytes() == (tmp_path / "scan.png").read_bytes()
    again = Counterfactual.load(tmp_path / "out")
    assert np.array_equal(again.factual.pixels, result.factual.pixels)
    assert np.array_equal(again.counterfactual.pixels, result.counterfactual.pixels)
    assert np.array_equal(again.mask, result.mask)
    np.testing.assert_allclose(again.difference, result.difference, atol=1e-4)
    assert (again.edit.source, again.edit.target) == (WORDS["source"], WORDS["target"])
    assert again.edit.mask is not None
    assert bool(again.edit.mask.all())
    for key in ("method", "settings", "seed", "evaluations", "seconds", "model", "fingerprint"):
        assert getattr(again, key) == getattr(result, key)
    assert again.settings["steps"] == 20
    assert again.seed == 3


def test_a_dicom_comes_back_as_a_dicom(backbone: Backbone, tmp_path: Path) -> None:
    from pydicom.data import get_testdata_file

    result = edit(get_testdata_file("CT_small.dcm"), **WORDS, method=Painter(), model=backbone)
    files = result.save(tmp_path, "ct")
    assert files["counterfactual"].endswith(".dcm")
    again = Counterfactual.load(tmp_path)
    assert np.array_equal(again.counterfactual.pixels, result.counterfactual.pixels)
    assert (again.counterfactual.low, again.counterfactual.high) == (result.factual.low, result.factual.high)


def test_no_half_files_are_left(backbone: Backbone, tmp_path: Path) -> None:
    files = edit(picture(), **WORDS, method=Painter(), model=backbone).save(tmp_path, "case")
    assert {p.name for p in tmp_path.iterdir()} == {*files.values(), "case.json"}
    record = json.loads((tmp_path / "case.json").read_text())
    assert record["edit"]["target"] == WORDS["target"]
    (tmp_path / "case.json").write_text('{"files": {}}')
    with pytest.raises(DataError, match=r"case.json: not a saved counterfactual"):
        Counterfactual.load(tmp_path / "case.json")


def test_changes_survive_saving(backbone: Backbone, tmp_path: Path) -> None:
    result = edit(picture(), **WORDS, method=Painter(), model=backbone)
    change = Change("pleural effusion", "add", side="left")
    object.__setattr__(result, "edit", Edit("a", "b", (change,), "left lung", None, ("pacemaker",), ("", "b")))
    result.save(tmp_path)
    assert Counterfactual.load(tmp_path).edit == result.edit


def test_it_shows_itself(backbone: Backbone) -> None:
    result = edit(picture(), **WORDS, method=Painter(), model=backbone)
    assert "\n" not in repr(result)
    assert "painter" in repr(result)
    figure = result.figure(side=100)
    assert figure.height > 100
    assert figure.width > 4 * 80
    assert result._repr_html_().startswith("<img")


def test_red_is_more_blue_is_less_white_is_none() -> None:
    red, white, blue = signed_map(np.array([[1.0, 0.0, -1.0]]), 0.5)[0]
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert (white == 1).all()


def block(value: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An original with fine texture, its smooth reconstruction, and an edit that brightens a block."""
    texture = np.random.default_rng(1).normal(0, 0.05, (128, 128)).astype(np.float32)
    reconstruction = np.full((128, 128), 0.3, np.float32)
    edited = reconstruction.copy()
    edited[40:80, 50:90] += value
    return np.clip(reconstruction + texture, 0, 1), reconstruction, edited


def test_blend_replaces_inside_and_leaves_the_rest() -> None:
    original, reconstruction, edited = block()
    change, weight = blend(original, reconstruction, edited)
    result = original + weight * change
    np.testing.assert_allclose(result[45:75, 55:85], edited[45:75, 55:85], atol=1e-6)
    assert (weight[:30] == 0).all()
    assert (weight[:, 105:] == 0).all()
    assert weight.dtype == change.dtype == np.float32
    assert weight.min() >= 0
    assert weight.max() == 1
    assert np.abs(np.diff(weight, axis=0)).max() < 0.9, "the edge is not feathered"


def test_blend_of_nothing_is_nothing() -> None:
    original, reconstruction, _ = block()
    assert not blend(original, reconstruction, reconstruction)[1].any()


def test_blend_passes_over_specks_and_fills_holes() -> None:
    _, reconstruction, edited = block()
    edited[55:60, 65:70] = reconstruction[55:60, 65:70]
    reconstruction, edited = (image.repeat(4, 0).repeat(4, 1) for image in (reconstruction, edited))
    edited[20, 20] += 0.3
    mask = changed_area(reconstruction, edited)
    assert not mask[:80, :80].any()
    assert mask[168:312, 208:352].all()
    edited[20:26, 20:26] += 0.3  # an electrode is no speck
    assert changed_area(reconstruction, edited)[20:26, 20:26].all()


def test_feather_stays_within_its_limit_but_not_at_the_image_border() -> None:
    limit = np.zeros((32, 32), bool)
    limit[:, :16] = True
    weight = feather(limit, 4, limit)
    assert (weight[:, 16:] == 0).all()
    assert (weight[:, 0] == 1).all()
    assert 0 < weight[10, 15] < 1


def test_generated_images_depend_on_their_own_seed(backbone: Backbone) -> None:
    state = torch.get_rng_state()
    told: list[tuple[int, int]] = []
    three = generate("pacemaker", n=3, steps=4, model=backbone, seed=5, progress=lambda *at: told.append(at))
    assert torch.equal(state, torch.get_rng_state())
    assert told[-1][0] == told[-1][1]
    alone = generate("pacemaker", steps=4, model=backbone, seed=6)[0]
    assert three[1].pixels.dtype == np.uint8
    assert three[1].pixels.shape == (32, 32)
    assert np.abs(three[1].pixels.astype(int) - alone.pixels).max() <= 1
    assert not np.array_equal(three[0].pixels, three[1].pixels)
    with pytest.raises(WordsError, match="n >= 1"):
        generate("pacemaker", n=0, model=backbone)


def test_generation_starts_from_pure_noise_without_a_fault(tmp_path: Path) -> None:
    pixels = generate("pacemaker", steps=5, model=tiny(tmp_path / "zero", zero_snr=True))[0].pixels
    assert pixels.std() > 0


def test_generation_follows_the_model_to_its_distribution() -> None:
    pictures = generate("high", n=8, steps=20, guidance=1.0, model=Gaussian())
    values = np.stack([p.pixels for p in pictures]) / 255
    assert values.mean() == pytest.approx(0.6, abs=0.02)
    assert values.std() == pytest.approx(0.1, abs=0.02)


def test_a_16_bit_colour_array_is_saved_whole(backbone: Backbone, tmp_path: Path) -> None:
    result = edit(picture(dtype=np.uint16, colours=3), **WORDS, method=Painter(), model=backbone)
    result.save(tmp_path)
    again = Counterfactual.load(tmp_path)
    assert np.array_equal(again.factual.pixels, result.factual.pixels)
    assert np.array_equal(again.counterfactual.pixels, result.counterfactual.pixels)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_nifti_comes_back_as_a_nifti(ending: str, backbone: Backbone, tmp_path: Path) -> None:
    import nibabel

    path = tmp_path / f"slice{ending}"
    nibabel.save(nibabel.Nifti1Image(picture(dtype=np.int16).astype(np.int16), np.diag([0.5, 0.7, 1, 1])), path)
    result = edit(path, **WORDS, method=Painter(), model=backbone)
    files = result.save(tmp_path / "out")
    assert files["image"] == f"slice.original{ending}"
    assert files["counterfactual"] == "slice.counterfactual.nii.gz"
    assert np.array_equal(Counterfactual.load(tmp_path / "out").counterfactual.pixels, result.counterfactual.pixels)


def test_dicom_uids_as_names_stay_apart() -> None:
    names = ["1.2.840.7.dcm", "1.2.840.8.dcm", "1.2.840.9", "scan.nii.gz", "a.b.png"]
    assert [stem(Path(name)) for name in names] == ["1.2.840.7", "1.2.840.8", "1.2.840.9", "scan", "a.b"]


def test_the_card_says_which_settings_suit_the_model(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "model")
    card = json.loads((folder / "counterscan.json").read_text())
    card |= {"default_method": "flow-edit", "method_settings": {"flow-edit": {"steps": 3, "guidance": 1.0}}}
    (folder / "counterscan.json").write_text(json.dumps(card))
    model = load(folder)
    result = edit(picture(), **WORDS, model=model)
    assert (result.method, result.settings["steps"], result.evaluations) == ("flow-edit", 3, 6)
    assert edit(picture(), **WORDS, model=model, method="flow-edit").settings == result.settings
    assert edit(picture(), **WORDS, model=model, method=methods.get("flow-edit")).settings["guidance"] == 4.0
    assert edit(picture(), **WORDS, model=model, method="sdedit").settings["guidance"] != 1.0


@pytest.mark.parametrize("wrong", [["flow-edit"], {"flow-edit": 3}])
def test_a_card_with_wrong_settings_is_named(wrong: object, tmp_path: Path) -> None:
    folder = tiny(tmp_path / "model")
    (folder / "counterscan.json").write_text(json.dumps({"name": "x", "method_settings": wrong}))
    with pytest.raises(ModelError, match=r"counterscan.json: not a model card"):
        load(folder)
