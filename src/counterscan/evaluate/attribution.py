"""Are a finding's maps right about where, and about whether? By masks or boxes, beside the maps of a classifier."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from counterscan.attribution.calibration import Calibration
from counterscan.attribution.difference import evidence
from counterscan.errors import DataError, ImageError, WordsError
from counterscan.evaluate import localise, rows
from counterscan.evaluate.attribution_page import write_attribution_page
from counterscan.evaluate.edits import ROUGH
from counterscan.evaluate.groups import column_of
from counterscan.evaluate.localise import MEASURES, Located, pooled, scores
from counterscan.evaluate.mapping import CAM, GRADIENTS, REMOVAL, Mapper
from counterscan.evaluate.sources import identity
from counterscan.evaluate.spaces import classifier_folder
from counterscan.evaluate.truths import Question, known_as, part_of, questions, read_boxes
from counterscan.imaging.files import replacing
from counterscan.metrics.intervals import interval, paired

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone

GROUP = 4  # images edited together, and lost by a kill at most


def attribution(
    manifest: Path,
    folder: Path,
    *,
    finding: str,
    model: str | Backbone = "chest-nih",
    judge: str | None = "chest-nih-judge",
    methods: Sequence[str] = (),
    repeats: int = 1,
    rate: float = 0.05,
    boxes: Path | None = None,
    validation: str = "val",
    test: str = "test",
    limit: int | None = None,
    seed: int = 0,
    offline: bool = False,
    progress: rows.Progress | None = None,
) -> dict[str, Any]:
    """Map ``finding`` in the images of a manifest and compare with its masks or with ``boxes``. Writes ``report.html``.

    The maps: the removal's, the attention of the finding's words, Grad-CAM and integrated gradients of ``judge``, and a prior
    on the centre; ``images.jsonl`` has their scores image by image. The split ``validation`` chooses thresholds (of Dice, and
    of presence at a false-positive ``rate``), ``test`` is scored. ``limit`` takes the first images of each kind and split.
    ``calibration.json`` is what :func:`counterscan.attribute` takes. Goes on where it was killed.

    Raises:
        WordsError: the model does not know the finding, nor a world's word for it and others; or the rate is none.
        DataError: the test split has no image with a known label and place.
    """
    mapper = _mapper(finding, model, judge, methods, repeats, seed, offline)
    wider = [f"the model knows {finding} as {mapper.finding}"] if part_of(finding, mapper.finding) else []
    finding = mapper.finding
    if not 0 < rate < 1:
        raise WordsError(f"a false-positive rate lies between 0 and 1, got {rate}")
    at = read_boxes(boxes, finding)
    asked = lambda: questions(manifest, finding, (validation, test), at, limit)  # noqa: E731
    total = sum(1 for _ in asked())
    told = mapper.backbone.fingerprint, finding, mapper.methods, repeats, seed, judge, limit, str(at), validation, test
    key = hashlib.sha256(repr((identity(manifest)[1], told)).encode()).hexdigest()[:16]
    work = folder / "work" / f"attribution-{key}"
    index = work / "rows.jsonl"
    rows.fill(index, asked(), lambda some: _map(some, mapper, work), total=total, progress=progress, group=GROUP)
    table = list(rows.read(index))
    if not any(row.get("located") and row["split"] == test for row in table):
        first = next((f"; the first that cannot be used: {row['error']}" for row in table if "error" in row), "")
        raise DataError(
            f"{manifest}: no image of the split {test!r} says where {finding} is; give masks or boxes{first}"
        )
    lines, images = _lines(table, asked, mapper, work, (validation, test), rate)
    summary = rows.plain(
        {
            "finding": finding,
            "model": mapper.backbone.card.name,
            "judge": judge,
            "rate": rate,
            "n": _counts(table, validation, test),
            "rows": lines,
            "paired": _paired(images),
            "warnings": [*wider, *_peerless(mapper, judge), *_warnings(table, lines, validation, rate)],
            "failed": [row["error"] for row in table if "error" in row],
        }
    )
    _keep(images, [row["peaks"][REMOVAL] for row in _negatives(table, validation)], mapper, folder)
    write_attribution_page(summary, images, work, folder / "report.html")
    return summary


def _keep(images: dict[str, list[rows.Row]], peaks: Sequence[float], mapper: Mapper, folder: Path) -> None:
    """Write the scores of every image, and the calibration where there is one."""
    from counterscan.attribution import several, told

    with replacing(folder / "images.jsonl") as draft:
        scored = ({"map": name} | row for name, some in images.items() for row in some)
        draft.write_text("".join(json.dumps(rows.plain(row)) + "\n" for row in scored), encoding="utf-8")
    if peaks:
        card = mapper.backbone.card
        methods = told(several(mapper.methods, card), card)
        known = Calibration(mapper.finding, tuple(peaks), mapper.backbone.fingerprint, methods, mapper.repeats)
        known.save(folder / "calibration.json")


def _mapper(
    finding: str,
    model: str | Backbone,
    judge: str | None,
    methods: Sequence[str],
    repeats: int,
    seed: int,
    offline: bool,
) -> Mapper:
    from counterscan.backbones import load
    from counterscan.backbones.base import Attentive
    from counterscan.language import resolve
    from counterscan.methods import get
    from counterscan.robustness.classifier import Classifier

    for method in methods:
        get(method)  # refuses wrong words before the model is opened
    backbone = load(model, offline=offline) if isinstance(model, str | Path) else model
    asked = known_as(finding, backbone.card.findings)
    name = resolve(remove=(asked,), card=backbone.card).changes[0].finding
    classifier = Classifier.load(classifier_folder(judge)) if judge else None
    label = column_of(name, classifier.labels) if classifier else None
    words = isinstance(backbone, Attentive)
    return Mapper(backbone, name, tuple(methods) or (None,), repeats, seed, classifier, label, words)


def _map(some: Sequence[Question], mapper: Mapper, work: Path) -> list[rows.Row]:
    """Make and keep the maps of a few images; a row each."""
    from counterscan.data.contrasts import read, seen_by

    pictures: dict[int, Any] = {}
    out: list[rows.Row] = []
    for i, question in enumerate(some):
        item = question.item
        facts = {"name": item.name, "path": str(item.path), "patient": item.patient}
        out.append(facts | {"split": question.split, "present": question.present, "located": False})
        try:
            pictures[i] = read(seen_by(mapper.backbone.card, item.files).values())
            shape = pictures[i].unit().shape[:2]
            out[i]["located"] = question.located and bool(question.truth(shape).any())
            out[i]["present"] = question.present and (question.labelled or out[i]["located"])
        except (ImageError, DataError) as error:
            pictures.pop(i, None)
            out[i]["error"] = f"{item.name}: {error}"
    for i, maps in zip(pictures, mapper(list(pictures.values())) if pictures else [], strict=True):
        name = hashlib.sha256(out[i]["name"].encode()).hexdigest()[:24] + ".npz"
        with replacing(work / name) as draft, draft.open("wb") as file:
            np.savez_compressed(file, **{key: value.astype(np.float16) for key, value in maps.items()})  # type: ignore[arg-type]
        out[i] |= {
            "maps": name,
            "methods": ", ".join(m or "default" for m in mapper.methods),
        }
        out[i]["peaks"] = {key: evidence(maps["signed"] if key == REMOVAL else maps[key]) for key in mapper.names}
        out[i]["highest"] = {key: float(np.float16(maps[key].max())) for key in mapper.names}
    return out


def _located(asked: Any, table: Sequence[rows.Row], work: Path, split: str) -> Iterator[tuple[rows.Row, Located]]:
    """The images of a split whose truth is known, one by one."""
    for question, row in zip(asked(), table, strict=True):
        if row.get("located") and row["split"] == split:
            shape = localise.load_map(work / row["maps"], REMOVAL).shape
            truth = question.truth((shape[0], shape[1]))
            yield row, Located(work / row["maps"], truth, [m.box for m in question.boxes] or localise.boxes_of(truth))


def _lines(
    table: Sequence[rows.Row], asked: Any, mapper: Mapper, work: Path, splits: tuple[str, str], rate: float
) -> tuple[list[dict[str, Any]], dict[str, list[rows.Row]]]:
    """A line of means for every kind of map, and the scores of the test images behind it."""
    validation, test = splits
    lines, images = [], {}
    for name in mapper.names:
        scale = max((row["highest"][name] for row in table if "highest" in row), default=1.0) or 1.0
        chosen = pooled((image for _, image in _located(asked, table, work, validation)), name, scale)
        whole = pooled((image for _, image in _located(asked, table, work, test)), name, scale)
        assert whole is not None
        cut, best = chosen.best()[1] if chosen else None, whole.best()[1]
        scored = []
        for row, image in _located(asked, table, work, test):
            found = scores(image, name, scale, cut, best)
            if name == REMOVAL and mapper.repeats * len(mapper.methods) > 1:
                found["error_ranking"] = localise.error_ranking(image, name, best if cut is None else cut)
            scored.append({key: row[key] for key in ("name", "path", "patient", "maps")} | found)
        images[name] = scored
        line: dict[str, Any] = {"map": name, "n": len(scored), "auprc_pooled": whole.auprc(), "threshold": cut}
        for key in (*MEASURES, "error_ranking"):
            line[key] = _mean([row.get(key, float("nan")) for row in scored], [row["patient"] for row in scored])
        lines.append(line | _presence(table, name, splits, rate))
    return lines, images


def _presence(table: Sequence[rows.Row], name: str, splits: tuple[str, str], rate: float) -> dict[str, Any]:
    """How often the finding is seen where it is not, and where it is, at a threshold that validation images promise ``rate``."""
    validation, test = splits
    peaks = tuple(row["peaks"][name] for row in _negatives(table, validation))
    none = dict.fromkeys(("presence_threshold", "false_alarms", "sensitivity"))
    if len(peaks) < round(1 / rate) - 1:
        return none
    limit = Calibration(name, peaks).threshold(rate)
    out: dict[str, Any] = none | {"presence_threshold": limit}
    for key, some in (("false_alarms", _negatives(table, test)), ("sensitivity", _positives(table, test))):
        seen = [float(row["peaks"][name] > limit) for row in some]
        out[key] = _mean(seen, [row["patient"] for row in some])
    return out


def _mean(values: Sequence[float], patients: Sequence[str]) -> dict[str, Any] | None:
    return None if not len(values) or np.isnan(values).all() else asdict(interval(values, patients))


def _negatives(table: Sequence[rows.Row], split: str) -> list[rows.Row]:
    return [row for row in table if row["split"] == split and not row["present"] and "peaks" in row]


def _positives(table: Sequence[rows.Row], split: str) -> list[rows.Row]:
    return [row for row in table if row["split"] == split and row["present"] and "peaks" in row]


def _counts(table: Sequence[rows.Row], validation: str, test: str) -> dict[str, int]:
    out = {}
    for key, split in (("validation", validation), ("test", test)):
        out[f"{key}_with"] = len(_positives(table, split))
        out[f"{key}_without"] = len(_negatives(table, split))
        out[f"{key}_located"] = sum(bool(row.get("located")) for row in table if row["split"] == split)
    return out


def _paired(images: dict[str, list[rows.Row]]) -> list[dict[str, Any]]:
    """The removal's map against each of the others, on the same images."""
    out = []
    patients = [row["patient"] for row in images[REMOVAL]]
    for other in (name for name in images if name != REMOVAL):
        for measure in ("auprc", "pointing", "boxes_iou"):
            a, b = ([row[measure] for row in images[name]] for name in (REMOVAL, other))
            if np.isnan(np.subtract(a, b)).all():
                continue
            test = paired(a, b, patients)
            facts = {"a": REMOVAL, "b": other, "measure": measure}
            out.append(facts | {"difference": asdict(test.difference), "p": test.p})
    return out


def _peerless(mapper: Mapper, judge: str | None) -> list[str]:
    """Why the maps of a classifier are missing, where one was named."""
    if mapper.classifier is None or mapper.label is not None:
        return []
    return [f"{CAM} and {GRADIENTS} are missing: {judge} does not know {mapper.finding}; name a --judge that does"]


def _warnings(table: Sequence[rows.Row], lines: Sequence[dict[str, Any]], validation: str, rate: float) -> list[str]:
    out = []
    patients = lines[0]["auprc"]["patients"]
    if patients < ROUGH:
        out.append(f"{patients} patients with a known place: under {ROUGH}, bootstrap intervals are too narrow")
    if lines[0]["threshold"] is None:
        out.append(
            f"no image of the split {validation!r} says where it is: no threshold is chosen, boxes use the best one"
        )
    if lines[0]["presence_threshold"] is None:
        without = len(_negatives(table, validation))
        need = round(1 / rate) - 1
        out.append(
            f"{without} images without it in the split {validation!r}, {need} needed to promise a rate of {rate:g}"
        )
    return out
