"""``docs/brain.md`` in one command: tumours of real brains taken out, put in, and painted under a coarse region.

    python benchmarks/brain_tumour.py brain.csv brain-pairs/manifest.csv --model brain-t1c --work WORK -o docs/brain.md

The data has no healthy brains. A TWIN is an image whose tumour gave way to the other side's tissue (``training.mirror``): those
of the train split are read from its pairs, those of the other splits are made here. Judges: a classifier of the tumour's type,
trained on the real images and twins of the train split; a segmenter, trained on the masks of the train split; and the masks of
the test split. ``WORK`` keeps judges and maps; a stopped run goes on. What a person wrote under "Looked at" stays in the page.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nih_report import table
from PIL import Image
from prompted import tile
from safetensors.torch import load_file
from segmenter import SIDE, found, learned, network, outlines, square, squares

import counterscan
from counterscan.data import manifest as manifests
from counterscan.evaluate.attribution import attribution
from counterscan.evaluate.page import cell
from counterscan.imaging import read
from counterscan.imaging.files import replacing
from counterscan.imaging.masks import mask_of
from counterscan.metrics.intervals import Interval, interval
from counterscan.metrics.localisation import dice
from counterscan.robustness.classifier import Classifier
from counterscan.robustness.learning import learn
from counterscan.training.mirror import healthy
from counterscan.training.paste import BEFORE, outline_of

FINDING, KINDS = "tumour", ("meningioma", "glioma", "pituitary tumour")
SEEN = 20  # pixels of the segmenter's 128 x 128: what is smaller is nothing
MAPS = ("kind", "map", "n", "AUPRC", "Dice (threshold of val)", "pointing", "false alarms", "sensitivity")
SHOWN = 8
MAPPED = 40  # images of a kind and split of which maps are made, and as many without it
Record = manifests.Record


def whole(manifest: Path) -> list[Record]:
    """The rows with paths that do not depend on where the manifest is."""
    return [manifests.located(record, manifest) for record in manifests.read(manifest)]


def twins(records: Sequence[Record], folder: Path) -> dict[str, Path]:
    """Of every image whose sides are alike its twin, by the image's path; made where it is missing."""
    listed = folder / "twins.json"
    if not listed.exists():
        folder.mkdir(parents=True, exist_ok=True)
        names: dict[str, str] = {}
        for record in records:
            if (clear := healthy(*outline_of(record))) is not None:
                names[record.path] = f"{len(names):04d}.png"
                Image.fromarray((clear * 255).round().astype(np.uint8)).convert("L").save(folder / names[record.path])
        with replacing(listed) as draft:
            draft.write_text(json.dumps(names))
    return {path: folder / name for path, name in json.loads(listed.read_text()).items()}


def classifier(folder: Path, rows: Sequence[dict[str, Any]], epochs: int) -> Classifier:
    """Tumour or none, and of which kind; trained where the folder has none."""
    if not (folder / "model.safetensors").exists():
        model, scores = learn(rows, [FINDING, *KINDS], epochs=epochs, size=160)
        model.save(folder, {"scores": scores, "epochs": epochs})
    return Classifier.load(folder)


def segmenter(path: Path, records: Sequence[Record], epochs: int) -> Any:
    """Where a tumour is; trained where there is none yet."""
    if not path.exists():
        images = [Path(record.path) for record in records]
        model = learned(squares(images), outlines([Path(record.mask) for record in records], images), epochs)
        with replacing(path) as draft:
            draft.write_bytes(_bytes(model))
    model = network()
    model.load_state_dict(load_file(path))
    return model.eval()


def _bytes(model: Any) -> bytes:
    from safetensors.torch import save

    return save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})


def truths(records: Sequence[Record]) -> np.ndarray:
    """Where the tumours are, (N, SIDE, SIDE)."""
    return outlines([Path(r.mask) for r in records], [Path(r.path) for r in records])[:, 0].numpy() > 0.5


def seen(model: Any, views: Sequence[np.ndarray]) -> np.ndarray:
    """Where the segmenter sees a tumour, (N, SIDE, SIDE), in grey images (H, W)."""
    return found(model, torch.stack([square(view) for view in views]))


def edited(o: argparse.Namespace, paths: Sequence[Path], **asked: Any) -> list[Any]:
    """Counterfactuals of images by the model, with its method or another."""
    return list(counterscan.edit([str(path) for path in paths], model=o.model, **asked))


def units(edits: Sequence[Any]) -> list[np.ndarray]:
    return [one.counterfactual.unit() for one in edits]


def mean(values: Sequence[float], patients: Sequence[str]) -> Interval:
    return interval([float(value) for value in values], patients)


def kind_of(record: Record) -> str:
    return next(kind for kind in KINDS if record.findings[kind] == 1)


def localised(o: argparse.Namespace, others: Sequence[Record], kind: str) -> tuple[list[list[Any]], list[str]]:
    """Of a kind the rows of the removal's maps against masks, beside the peers', and the paired tests. Images of the other kinds
    are those without it.
    """
    rows = []
    for split, has in product(("val", "test"), (1, 0)):
        some = [r for r in others if r.split == split and r.findings[kind] == has]
        rows += [replace(some[k], mask=some[k].mask if has else "") for k in spread(len(some), MAPPED)]
    folder = o.work / f"maps-{kind.replace(' ', '-')}"
    folder.mkdir(parents=True, exist_ok=True)
    manifests.write(folder / "manifest.csv", rows, (FINDING, *KINDS))
    told = attribution(folder / "manifest.csv", folder, finding=kind, model=o.model, judge=str(o.work / "judge"))
    keys = ("map", "n", "auprc", "dice_validation", "pointing", "false_alarms", "sensitivity")
    tests = [t for t in told["paired"] if t["measure"] == "auprc"]
    notes = [
        f"- {kind}: AUPRC of {t['a']} less that of {t['b']}: {cell(t['difference'])}, p = {t['p']:.2g}" for t in tests
    ]
    return [[kind, *(row.get(key) for key in keys)] for row in told["rows"]], notes


def gone(model: Any, records: Sequence[Record], edits: Sequence[Any], name: str) -> tuple[Any, ...]:
    """The row of a removal: what the segmenter still sees where the tumour was, of what it saw there before."""
    truth = truths(records)
    before, after = (seen(model, views) & truth for views in ([read(r.path).unit() for r in records], units(edits)))
    known = before.sum((1, 2)) >= SEEN
    share = after.sum((1, 2))[known] / before.sum((1, 2))[known]
    patients = [r.patient for r, k in zip(records, known, strict=True) if k]
    drift = mean([float(np.abs(e.difference)[~coarse(r)].mean()) for e, r in zip(edits, records, strict=True)],
                 [r.patient for r in records])  # fmt: skip
    return name, int(known.sum()), mean(list(share), patients), mean(list(share < 0.2), patients), drift


def removals(o: argparse.Namespace, model: Any, test: Sequence[Record]) -> tuple[str, list[Any]]:
    """The table of tumours taken out, and the edits of which the kind was named."""
    ways: dict[str, Callable[[Record], dict[str, Any]]] = {
        "the kind is named": lambda r: {"remove": kind_of(r)},
        'a "tumour" is named': lambda r: {"remove": FINDING},
        "the kind, in a coarse region": lambda r: {"remove": kind_of(r), "mask": coarse(r)},
        "the same by `masked`": lambda r: {"remove": kind_of(r), "mask": coarse(r), "method": "masked"},
    }
    edits = {name: [edited(o, [Path(r.path)], **ask(r))[0] for r in test] for name, ask in ways.items()}
    lines = [gone(model, test, some, name) for name, some in edits.items()]
    named = next(iter(edits.values()))
    for kind in KINDS:
        rows = [(r, e) for r, e in zip(test, named, strict=True) if kind_of(r) == kind]
        if rows:
            lines.append(gone(model, *zip(*rows, strict=True), f"the kind is named: {kind}"))
    head = ("removal", "n", "share still seen", "less than a fifth is still seen", "change outside the coarse region")
    return table(head, lines), named


def insertions(
    o: argparse.Namespace, model: Any, judge: Classifier, pairs: Sequence[tuple[Record, Path]]
) -> tuple[str, Any]:
    """The table of tumours put into twins: do the judges see what was asked for, where it was asked for?"""
    lines, shown = [], {}
    paths = [path for _, path in pairs]
    before = seen(model, [read(path).unit() for path in paths])
    for kind in KINDS[:2]:
        for side in ("left", "right"):
            edits = edited(o, paths, add=f"large {side} {kind}")
            shown[f"{side} {kind}"] = edits
            lines.append(judged(f"large {side} {kind}", units(edits), kind, side, model, judge, before, pairs))
    real = [(r, p) for r, p in pairs if any(word in r.caption for word in ("image left", "image right"))]
    for kind in KINDS[:2]:
        some = [k for k, (r, _) in enumerate(real) if r.findings[kind] == 1]
        views = [read(real[k][0].path).unit() for k in some]
        none = np.zeros((len(some), SIDE, SIDE), bool)
        lines.append(
            judged(f"real {kind}, for comparison", views, kind, None, model, judge, none, [real[k] for k in some])
        )
    head = ("asked", "n", "classifier sees a tumour", "classifier: kind", "segmenter sees it", "segmenter: side")
    return table(head, lines), shown


def judged(
    name: str, views: Sequence[np.ndarray], kind: str, side: str | None, model: Any, judge: Classifier, before: np.ndarray,
    pairs: Sequence[tuple[Record, Path]],
) -> tuple[Any, ...]:  # fmt: skip
    """A row: shares of the images in which the judges see a tumour, its kind and its side (``None``: that of the caption)."""
    p = judge.probabilities(torch.stack([square(view, judge.size) for view in views])).numpy()
    column = {label: k for k, label in enumerate(judge.labels)}
    kinds = p[:, [column[other] for other in KINDS]].argmax(1) == KINDS.index(kind)
    new = seen(model, views) & ~before
    there = new.sum((1, 2)) >= SEEN
    middles = [np.flatnonzero(one.any(0)).mean() if one.any() else np.nan for one in new]
    sides = [side or ("left" if "image left" in r.caption else "right") for r, _ in pairs]
    right = [(m < SIDE / 2) == (s == "left") for m, s in zip(middles, sides, strict=True)]
    patients = [r.patient for r, _ in pairs]
    ok = [bool(r) for r, t in zip(right, there, strict=True) if t]
    at = [q for q, t in zip(patients, there, strict=True) if t]
    seen_shares = [mean(list(part), patients) for part in (p[:, column[FINDING]] > 0.5, kinds, there)]
    return (name, len(views), *seen_shares, mean(ok, at) if ok else None)


def coarse(record: Record) -> np.ndarray:
    """The box of a tumour, a quarter larger on every side: what a reader would draw."""
    shape = read(record.path).unit().shape[:2]
    mask = mask_of(Path(record.mask), shape)
    out = np.zeros(shape, bool)
    (top, bottom), (left, right) = ((at.min(), at.max() + 1) for at in np.nonzero(mask))
    y, x = (bottom - top) // 4 + 2, (right - left) // 4 + 2
    out[max(top - y, 0) : bottom + y, max(left - x, 0) : right + x] = True
    return out


def painted(o: argparse.Namespace, model: Any, pairs: Sequence[tuple[Record, Path]]) -> tuple[str, list[Any]]:
    """The table of tumours painted into twins, under the coarse region where the real one was."""
    lines: list[Any] = []
    first: list[Any] = []
    truth = truths([r for r, _ in pairs])
    patients = [r.patient for r, _ in pairs]
    kinds = [kind_of(r) for r, _ in pairs]
    before = seen(model, [read(path).unit() for _, path in pairs])
    for method in (None, "masked"):
        edits = [
            edited(o, [p], add=k, mask=coarse(r), method=method)[0] for k, (r, p) in zip(kinds, pairs, strict=True)
        ]
        first = first or edits
        new = seen(model, units(edits)) & ~before
        overlap = [dice(a, b) for a, b in zip(new, truth, strict=True)]
        lines.append(
            (
                method or edits[0].method,
                len(edits),
                mean(list(new.sum((1, 2)) >= SEEN), patients),
                mean(overlap, patients),
            )
        )
    there = seen(model, [read(r.path).unit() for r, _ in pairs])
    real = [dice(a, b) for a, b in zip(there, truth, strict=True)]
    lines.append(("the real tumours", len(real), mean(list(there.sum((1, 2)) >= SEEN), patients), mean(real, patients)))
    return table(("painted by", "n", "segmenter sees it", "Dice with the real outline"), lines), first


def strip(views: Sequence[Sequence[np.ndarray]], path: Path) -> str:
    """Columns of pictures, one an image; the Markdown that shows them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [np.concatenate([tile(view) for view in column]) for column in views]
    Image.fromarray(np.concatenate(columns, axis=1)).save(path, quality=85)
    return f"![](figures/{path.name})"


def spread(count: int, most: int = SHOWN) -> list[int]:
    """At most so many of ``count`` places, evenly."""
    return [int(k) for k in np.linspace(0, count - 1, min(most, count))]


def prepared(o: argparse.Namespace) -> tuple[list[Record], dict[str, Path], Classifier, Any]:
    """Test and validation images, their twins, and the judges."""
    o.work.mkdir(parents=True, exist_ok=True)
    records = [r for r in whole(o.manifest) if r.mask]
    others = [r for r in records if r.split in ("val", "test")]
    train = [r for r in records if r.split == "train"]
    twin = twins(others, o.work / "twins")
    clear = [r for r in whole(o.pairs) if r.findings[FINDING] == 0 and BEFORE not in r.contrasts]
    rows: list[dict[str, Any]] = [{"path": r.path, "split": "train", **r.findings} for r in (*train, *clear)]
    test = [r for r in others if r.split == "test"]
    rows += [{"path": r.path, "split": "test", **r.findings} for r in test]
    rows += [
        {"path": twin[r.path], "split": "test", **dict.fromkeys((FINDING, *KINDS), 0)} for r in test if r.path in twin
    ]
    judge = classifier(o.work / "judge", rows, o.epochs)
    return others, twin, judge, segmenter(o.work / "segmenter.safetensors", train, o.epochs)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("pairs", type=Path, help="the manifest that training.mirror made of it")
    parser.add_argument("--model", default="brain-t1c")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("-o", "--page", type=Path, required=True)
    parser.add_argument("-n", "--most", type=int, help="test images, for a trial")
    parser.add_argument("--every", type=int, default=2, help="of the test images every so manieth loses its tumour")
    parser.add_argument("--epochs", type=int, default=12, help="of the judges")
    o = parser.parse_args()
    others, twin, judge, model = prepared(o)
    test = [r for r in others if r.split == "test"][: o.most]
    alike = [r for r in test if r.path in twin]
    pairs = [(r, twin[r.path]) for r in alike]
    maps: list[list[Any]] = []
    notes: list[str] = []
    for kind in KINDS:
        rows, tests = localised(o, others, kind)
        maps, notes = maps + rows, notes + tests
    truth = truths(test)
    at = seen(model, [read(r.path).unit() for r in test])
    skill = mean([dice(a, b) for a, b in zip(at, truth, strict=True)], [r.patient for r in test])
    empty = seen(model, [read(path).unit() for _, path in pairs]).sum((1, 2))
    tested = test[:: o.every]
    taken_out, removed = removals(o, model, tested)
    inserted, shown = insertions(o, model, judge, pairs)
    paint, first = painted(o, model, pairs)
    figures, some = o.page.parent / "figures", spread(len(alike))
    originals, clear_views = (
        [read(paths[k]).unit() for k in some] for paths in zip(*((r.path, p) for r, p in pairs), strict=True)
    )
    first_seen = [
        next(k for k, r in enumerate(tested) if r.patient == q) for q in dict.fromkeys(r.patient for r in tested)
    ]
    taken = [removed[first_seen[k]] for k in spread(len(first_seen), 2 * SHOWN)]
    put = [[edits[k].counterfactual.unit() for edits in shown.values()] for k in some]
    drawn = [first[k].counterfactual.unit() for k in some]
    pictures = {
        "removed": strip(
            [
                (one.factual.unit(), one.counterfactual.unit(), np.clip(2 * np.abs(one.difference), 0, 1))
                for one in taken
            ],
            figures / "brain-removed.jpg",
        ),
        "added": strip([(c, *d) for c, d in zip(clear_views, put, strict=True)], figures / "brain-added.jpg"),
        "painted": strip(list(zip(originals, clear_views, drawn, strict=True)), figures / "brain-painted.jpg"),
    }
    old = o.page.read_text(encoding="utf-8") if o.page.exists() else ""
    hand = "## Looked at" + old.partition("## Looked at")[2] if "## Looked at" in old else ""
    scores = {key: round(value, 3) for key, value in judge.facts["scores"].items()}
    auc = ", ".join(f"{key.removeprefix('auc ')} {value}" for key, value in scores.items() if key.startswith("auc "))
    card = counterscan.load(o.model).card
    o.page.write_text(
        f"""# Tumours of real brains

Written by `benchmarks/brain_tumour.py`. In brackets: 95 %, by patient. Images are synthetic. Not for diagnosis.

{card.credit}

The data has no healthy brains, and healthy brains of another source differ in contrast, plane and preparation: who compares the
two measures the source. So nothing here is compared with a healthy brain. A **twin** is an image whose tumour gave way to the
other side's tissue, turned and shifted to fit; there is one of {len(alike)} of the {len(test)} test images,
those that are axial or coronal and whose tumour keeps to one side. Judges: a classifier (AUC on the test split: {auc}), which
learned twins and real images of the train split; a segmenter, which learned the masks of the train split (Dice on the test split
{cell(skill)}; it sees something in {(empty >= SEEN).mean():.2f} of the twins).

## Taken out

What the segmenter still sees where the tumour was, of what it saw there before.

{taken_out}
Test images of different patients: original, without the tumour, change (twice as strong).

{pictures["removed"]}

## Where it was

The map of the removal of a kind against the real masks. False alarms, asked to be 5 %, are those of images with another kind.

{table(MAPS, maps)}
{chr(10).join(notes)}

## Put in

Into the {len(pairs)} twins of the test split. The segmenter's side is told where it sees a tumour.

{inserted}
Eight twins; with a large meningioma on the left, on the right; with a large glioma on the left, on the right.

{pictures["added"]}

## Painted under a coarse region

The box around the real tumour, a quarter larger on every side, in its twin.

{paint}
Eight test images: the real one, its twin, the twin with a tumour painted in.

{pictures["painted"]}

{hand}""",
        encoding="utf-8",
    )
    print(o.page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
