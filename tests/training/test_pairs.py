"""Pairs: an image beside the noisy one, seen with and without noise; and pasted findings that make them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tests.training.small import config

import counterscan
from counterscan.data import manifest as manifests
from counterscan.errors import DataError, WordsError
from counterscan.training import paste
from counterscan.training.corpus import open_corpus, words_of
from counterscan.training.session import Session
from counterscan.training.trainer import train

SHAPE = {
    "resolution": 32, "vae_kind": "tiny", "vae_blocks": [16, 16, 16], "unet_blocks": [16, 16], "unet_heads": 2,
    "text_hidden": 16, "text_heads": 2, "text_layers": 1, "sees_image": True,
}  # fmt: skip
DEVICE = (slice(20, 24), slice(4, 20))


def pairs(folder, count=16):
    """Smooth squares: rows with a bright bar, and rows that take the bar off or let it be; returns the manifest."""
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), [["path", "caption", "split", "path_before"]]
    for i in range(count):
        plain = np.linspace(0, 20, 32, dtype=np.uint8)[None] + np.full((32, 32), rng.integers(40, 110), np.uint8)
        barred = plain.copy()
        barred[DEVICE] = 240
        for name, pixels in (("plain", plain), ("barred", barred)):
            Image.fromarray(pixels).save(folder / f"{name}{i}.png")
        rows += [
            [f"plain{i}.png", "no bar", "train", f"barred{i}.png"],
            [f"barred{i}.png", "bar", "train", f"barred{i}.png"],
            [f"plain{i}.png", "no bar", "train", ""],
        ]
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "manifest.csv"


def settings(folder, **changes):
    """A run from nothing on the pairs of ``folder``."""
    if not (folder / "pairs").exists():
        pairs(folder / "pairs")
    data = {"manifest": str(folder / "pairs/manifest.csv"), "before": "before"} | changes.pop("data", {})
    values = {
        "compact": SHAPE,
        "objective": {"seen": 0.9},
        "steps": 2,
        "batch": 8,
        "micro_batch": 8,
        "save_every": 1000,
    }
    return config(folder, **(values | changes), data=data)


def test_pairs_teach_to_remove_in_one_pass(tmp_path):
    result = train(
        settings(tmp_path, steps=250, train=["unet", "text_encoder"], optimizer={"rate": 3e-3, "warmup": 20}, ema=0.98)
    )
    backbone = counterscan.load(result.folder)
    assert backbone.sees_image and backbone.card.default_method == "instruct"
    image = torch.full((1, 1, 32, 32), 0.3)
    image[0, 0][DEVICE] = 240 / 255
    z = backbone.encode(image)
    share = 0.15
    t = int(share * (len(backbone.schedule) - 1))
    signal = backbone.schedule.coefficients(torch.tensor([t]))[0].view(-1, 1, 1, 1)
    with torch.no_grad():
        kept, gone = (backbone.predict(signal * z, t, backbone.embed([w]).beside(z)).clean for w in ("bar", "no bar"))
        after = backbone.decode(z + gone - kept)
    bar, clean = image[0, 0][DEVICE].mean(), 0.3
    assert (after[0, 0][DEVICE].mean() - clean).abs() < 0.4 * (bar - clean)
    assert (after[0, 0, :12] - image[0, 0, :12]).abs().mean() < 0.05


def test_a_pair_is_shown_as_it_is_said(tmp_path):
    asked = settings(tmp_path, data={"captions": {"drop": 1.0}})
    corpus = open_corpus(asked.data)
    assert len(corpus) == 48 and sorted(corpus.paired) == [i for i in range(48) if i % 3 < 2]
    assert [path.name for (path,) in corpus.before[:3]] == ["barred0.png", "barred0.png", "plain0.png"]
    assert len(corpus.with_before()) == 96 and corpus.with_before().where(49) == corpus.where(1)
    rng = np.random.default_rng(0)
    assert [words_of(corpus, i, asked.data.captions, rng) for i in range(3)] == ["no bar", "bar", ""]
    source = Session(asked).source()
    z, text, _, before = source.sample(0, 0)
    assert text == "no bar" and before is not None and (z - before).abs().max() > 0.1
    assert torch.equal(source.sample(0, 1)[0], source.sample(0, 1)[3]) and source.sample(0, 2)[3] is None


def test_how_a_batch_with_pairs_is_cut_does_not_matter(tmp_path):
    curves = []
    for size in (8, 1):
        out = tmp_path / f"run{size}"
        train(settings(tmp_path, steps=3, micro_batch=size, output=str(out), objective={"seen": 0.5}))
        curves.append([json.loads(line)["loss"] for line in (out / "log.jsonl").open()])
    assert curves[0] == pytest.approx(curves[1], rel=1e-4) and len(curves[0]) == 3


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"data": {"cache": False}}, WordsError, "kept latents"),
        ({"data": {"before": "earlier"}}, DataError, "path_earlier"),
    ],
)
def test_pairs_that_cannot_be(tmp_path, changes, error, says):
    with pytest.raises(error, match=says):
        train(settings(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"compact": SHAPE | {"sees_image": False}}, "compact.sees_image"),
        ({"train": "vae"}, "single images"),
        ({"data": {"before": None}}, "objective.seen"),
    ],
)
def test_settings_of_pairs_that_do_not_fit(tmp_path, changes, says):
    with pytest.raises(ValueError, match=says):
        settings(tmp_path, **changes)


def test_pairs_without_words_and_images_before_that_are_not_there(tmp_path):
    asked = settings(tmp_path, data={"captions": {"source": "auto"}})
    text = asked.data.manifest.read_text()
    asked.data.manifest.write_text(text.replace("plain3.png,no bar,train,barred3.png", "plain3.png,,train,barred3.png"))
    with pytest.raises(DataError, match=r"1 pairs have no caption \(rows 10\)"):
        train(asked)
    asked.data.manifest.write_text(text)
    (asked.data.manifest.parent / "barred3.png").unlink()
    with pytest.raises(DataError, match=r"row 11: .*barred3.png"):
        train(asked)


def outlined(folder):
    """Two red images with a white disc, outlined, and two without; returns the manifest and its records."""
    (folder / "images").mkdir(parents=True)
    y, x = np.mgrid[:64, :80]
    records = []
    for i in range(4):
        pixels = np.full((64, 80, 3), (150 + 10 * i, 70, 60), np.uint8)
        disc = (y - 30) ** 2 + (x - 40) ** 2 < 81
        mask = ""
        if i < 2:
            pixels[disc] = 250
            mask = str(folder / f"images/{i}-mask.png")
            Image.fromarray(disc.astype(np.uint8) * 255).save(mask)
        path = folder / f"images/{i}.png"
        Image.fromarray(pixels).save(path)
        records.append(manifests.Record(str(path), split="train", mask=mask, findings={"polyp": int(i < 2), "tube": 0}))
    manifests.write(folder / "all.csv", records, ("polyp", "tube"))
    return folder / "all.csv", records


def test_pasted_pairs_change_only_where_something_was_laid(tmp_path):
    manifest, records = outlined(tmp_path)
    made = paste.pairs(manifest, records, "polyp", "endoscopy", tmp_path / "a", 8, 3)
    bytes_of = [path.read_bytes() for path in sorted((tmp_path / "a").glob("*.png"))]
    assert made == paste.pairs(manifest, records, "polyp", "endoscopy", tmp_path / "a", 8, 3)
    assert bytes_of == [path.read_bytes() for path in sorted((tmp_path / "a").glob("*.png"))] and len(bytes_of) == 8
    removals = [row for row in made if row.path != row.contrasts["before"] and row.findings["polyp"] == 0]
    assert len(removals) == 8 and sum(row.path == row.contrasts["before"] for row in made) == 6
    assert {row.caption for row in made} == {"endoscopy: polyp.", "endoscopy: no polyp."}
    for row in removals:
        real, laid = (np.asarray(Image.open(path), np.float32) for path in (row.path, row.contrasts["before"]))
        change = np.abs(laid - real).max(2)
        assert change.max() > 60 and (change > 0).mean() < 0.4  # a disc, and most pixels bit by bit as they were
        assert row.findings["tube"] is None


def test_nothing_is_laid_into_the_dark(tmp_path):
    rng = np.random.default_rng(0)
    patch, mask = np.ones((9, 9, 3), np.float32), np.pad(np.ones((3, 3), np.float32), 3)
    assert paste.lay(np.zeros((40, 40, 3), np.float32), patch, mask, rng) is None
    lit = paste.lay(np.full((40, 40, 3), 0.5, np.float32), patch, mask, rng)
    assert lit is not None and lit.shape == (40, 40, 3)


def test_pasting_from_the_command_line_keeps_every_row(tmp_path, monkeypatch, capsys):
    manifest, _ = outlined(tmp_path)
    monkeypatch.setattr(
        "sys.argv", ["paste", str(manifest), "--finding", "polyp", "-n", "4", "-o", str(tmp_path / "out")]
    )
    paste.main()
    rows = list(manifests.read(tmp_path / "out/manifest.csv"))
    assert "4 pairs" in capsys.readouterr().out
    assert len(rows) == 13 and sum("before" in row.contrasts for row in rows) == 9


def test_nothing_to_paste_is_told(tmp_path):
    manifest, records = outlined(tmp_path)
    some = [row for row in records if row.findings["polyp"] == 1]
    for finding, says in (("tube", "both are needed"), ("polyp", "both are needed"), ("cyst", "no column 'cyst'")):
        with pytest.raises(DataError, match=says):
            paste.pairs(manifest, some, finding, "endoscopy", tmp_path / "a", 1, 0)
    large = np.zeros((64, 80), np.uint8)
    large[10:-10, 10:-10] = 255
    Image.fromarray(large).save(tmp_path / "images/0-mask.png")
    Image.fromarray(np.roll(large, 10, 0)).save(tmp_path / "images/1-mask.png")
    with pytest.raises(DataError, match="0 of 1 images only"):
        paste.pairs(manifest, records, "polyp", "endoscopy", tmp_path / "a", 1, 0)
    for name in ("0", "1"):
        (tmp_path / f"images/{name}-mask.png").unlink()
    with pytest.raises(DataError, match="row"):
        paste.pairs(manifest, records, "polyp", "endoscopy", tmp_path / "a", 1, 0)


def test_thin_outlines_and_those_at_the_border_are_passed_over():
    rng = np.random.default_rng(0)
    thin = np.zeros((40, 40), bool)
    thin[20, 10:20] = True
    assert all(paste.patch_of(np.ones((40, 40, 3), np.float32), thin, rng, 40) is None for _ in range(20))
    assert paste.usable(np.pad(np.ones((9, 9), bool), 9))
    assert not paste.usable(np.pad(np.ones((9, 9), bool), ((0, 18), (9, 9))))
    assert not paste.usable(np.zeros((9, 9), bool)) and not paste.usable(np.ones((9, 9), bool))
