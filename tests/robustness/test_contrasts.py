"""A manifest of several contrasts goes through all that takes manifests: batch, studies, augmentation, evaluation."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tests.tables import write_manifest

import counterscan
from counterscan.backbones.card import Card
from counterscan.backbones.compact_pixel import build
from counterscan.data.contrasts import files_of, read, seen_by
from counterscan.result import Counterfactual
from counterscan.robustness.augment import Gates
from counterscan.robustness.balancing import balance
from counterscan.robustness.balancing import write_manifest as write_manifest_of
from counterscan.robustness.classifier import Classifier
from counterscan.robustness.learning import pixels
from counterscan.robustness.study import read_table
from counterscan.types import Edit

ORDER = ("path_T1", "path", "path_T2", "path_FLAIR")  # as the model has them


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    """Eight slices of four contrasts, smooth noise, on paths that are given as ``data world brain`` gives them."""
    from scipy.ndimage import gaussian_filter

    folder, rng, rows = tmp_path_factory.mktemp("brains"), np.random.default_rng(0), []
    for i in range(8):
        files = {column: f"{i}{column.removeprefix('path')}.png" for column in sorted(ORDER)}
        for k, name in enumerate(files.values()):
            plane = gaussian_filter(rng.standard_normal((24, 20)), 2) * 90000 + 20000 + 9000 * k
            Image.fromarray(plane.clip(0, 65535).astype(np.uint16)).save(folder / name)
        split = "test" if i > 3 else "train"
        rows.append(files | {"patient": f"P{i}", "split": split, "lesion": i % 2, "scar": i % 2})
    return write_manifest(folder, rows)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    small = {"resolution": 16, "blocks": (8, 16), "layers": 1, "head_width": 8, "template": "brain mri"}
    classes = ("lesion", "no lesion", "")
    folder = build(tmp_path_factory.mktemp("model") / "pixel", classes=classes, findings=["lesion"], **small)
    card = Card.read(folder)
    assert card is not None
    replace(card, default_method="sdedit", contrasts=("T1", "T1c", "T2", "FLAIR")).write(folder)
    return folder


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return Classifier(["lesion"], size=32, width=8).save(tmp_path_factory.mktemp("judge") / "j", {"name": "j"})


def table(manifest):
    with manifest.open() as file:
        return list(csv.DictReader(file))


def stacked(row, folder):
    return np.stack([np.asarray(Image.open(folder / row[column])) for column in ORDER], -1)


def test_batch_and_the_evaluation_of_what_it_wrote(brains, model, judge, tmp_path, run):
    out = tmp_path / "out"
    code, said, err = run(["batch", brains, "--remove", "lesion", "--model", model, "-o", out, "--json"])
    assert code == 0, err
    assert json.loads(said)["done"] == 8
    records = sorted((out / "items").rglob("*.json"), key=lambda path: path.name)
    for record, row in zip(records, table(brains), strict=True):
        assert np.array_equal(Counterfactual.load(record).factual.pixels, stacked(row, brains.parent))
    words = ["evaluate", "edits", out, "--judge", judge, "--manifest", brains, "-o", tmp_path / "report", "--json"]
    code, said, err = run(words)
    assert code == 0, err
    (line,) = json.loads(said)["rows"]
    assert (line["n"], line["patients"], line["finding"]) == (8, 8, "lesion")
    seen = [Counterfactual.load(record) for record in records]
    gain = [told(judge, one.factual) - told(judge, one.counterfactual) for one in seen]
    assert line["gain"]["mean"] == pytest.approx(np.mean(gain), abs=1e-4)


def told(judge, picture):
    """What a judge of one channel says of the mean of the contrasts."""
    import torch

    from counterscan.imaging import fit

    square = fit(picture.unit().mean(2), 32)[0]
    return float(Classifier.load(judge).probabilities(torch.from_numpy(square)[None, None])[0, 0])


def test_a_study_shows_the_classifier_the_mean_of_the_contrasts_as_in_its_training(brains, model, judge, tmp_path, run):
    words = ["stress", judge, brains, "--remove", "lesion", "--model", model, "-n", 2, "-o", tmp_path / "s", "--json"]
    code, said, err = run(words)
    assert code == 0, err
    assert json.loads(said)["n"] == 2
    rows = [row | {"path": brains.parent / row["path"]} for row in table(brains)]
    looked = [json.loads(line) for line in (tmp_path / "s" / "stress.jsonl").read_text().splitlines()]
    card = counterscan.load(model).card
    for row, one in zip(rows, looked, strict=False):
        picture = read(seen_by(card, files_of(row, brains.parent)).values())
        assert np.array_equal(picture.pixels, stacked(row, brains.parent))
        assert one["before"][0] == pytest.approx(told(judge, picture), abs=1e-4)
    one = {name: brains.parent / row[name] for row in rows[:1] for name in ORDER}
    square = read(one.values()).unit().mean(2)
    assert pixels([one], 24)[0][:, 2:22] == pytest.approx(square * 255, abs=0.6)


def test_augmented_rows_have_a_file_a_contrast(brains, model, tmp_path, monkeypatch):
    """An editor that darkens a corner of T1c, which is in the column ``path`` and the model's second channel."""

    def edit(factual, **_):
        pixels, mask = factual.pixels.copy(), np.zeros((24, 20), bool)
        mask[:8, :8] = True
        pixels[mask, 1] //= 2
        change = pixels[..., 1] / 65535 - factual.unit()[..., 1]
        return Counterfactual(factual, factual.with_pixels(pixels), change, mask, Edit("a", "b"), "corner")

    monkeypatch.setattr("counterscan.editing.edit", edit)
    rows = read_table(brains)[:4]
    made = balance(rows, "lesion", "scar", counterscan.load(model), tmp_path, gates=Gates(identity=0))
    assert [row["refused"] for row in made] == [""] * 4
    written = table(write_manifest_of(rows, made, tmp_path))
    for row in written[4:]:
        before, after = (
            stacked(next(old for old in written if old["path"] == row["source"]), tmp_path),
            stacked(row, tmp_path),
        )
        assert row["path_T1"].startswith("images/") and row["path_T1"].endswith(".T1.png")
        assert np.array_equal(before[..., [0, 2, 3]], after[..., [0, 2, 3]])
        assert np.array_equal(before[:8, :8, 1] // 2, after[:8, :8, 1])


def test_every_contrast_of_the_evaluated_images_is_read(brains, model, judge, tmp_path, run):
    """A folder of stacks against the same manifest: the same images, so no distance in any space."""
    for row in table(brains):
        np.save(tmp_path / f"{row['patient']}.npy", stacked(row, brains.parent))
    code, said, err = run(["evaluate", "fidelity", brains, tmp_path, "--space", judge, "-o", tmp_path / "f", "--json"])
    assert code == 0, err
    (space,) = json.loads(said)["spaces"]
    assert space["scores"]["FID/j"]["value"] == pytest.approx(0, abs=1e-4)
