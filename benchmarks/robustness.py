"""Do counterfactuals cure a classifier of a shortcut, and does the stress test find it? On the chest world and on real images.

    python benchmarks/robustness.py --work WORK --nih NIH -o benchmarks/results/robustness

In the training images a device agrees with the finding in 95 %, in the test images in half. The arms differ in nothing
but what they train on, or how; all take the same number of steps:

- plain, reweighted (groups drawn equally) and group-DRO: the images as they are;
- counterfactual: the rare groups filled by the model's default edit, where a judge lets it pass;
- exact: the same by the world's exact counterfactual, the ceiling (there is none of real images);
- oracle: as many images of the same patients, without the correlation.

The worst group is the worst of those without the device, those with it, and the crossed one, in which the shortcut
misleads. Intervals are 95 % bootstraps over test patients and seeds, the same draws for every arm; where there is no certain
gap, no share of it is given. ``--arms`` leaves out what is not asked; what ``WORK`` holds is not made again, so the model's
arm can follow later: same command, all arms.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from robustness_images import (
    APART,
    DEVICE,
    FINDING,
    TEST,
    TRAIN,
    Row,
    case_row,
    nih_rows,
    thinned,
    turned,
    world_rows,
)

from counterscan.imaging.files import replacing
from counterscan.robustness.augment import plan
from counterscan.robustness.balancing import balance
from counterscan.robustness.classifier import Classifier
from counterscan.robustness.fit import as_images
from counterscan.robustness.learning import auc, known_targets, membership, pixels, trained, worst_group_auc
from counterscan.robustness.opening import Outputs, open_classifier
from counterscan.robustness.stress import effects, ranked
from counterscan.robustness.study import Seen, look, stacked
from counterscan.scale.devices import open_backbone
from counterscan.worlds import chest

ARMS = ("plain", "reweighted", "group-dro", "counterfactual", "exact", "oracle")
OBJECTIVES = {"reweighted": "balanced", "group-dro": "group-dro"}
AGREE, DRAWS = 0.95, 500
LEAST = 0.05  # a change of probability that matters: below it an effect is no shortcut, however certain


@dataclass(frozen=True)
class Study:
    """``planted(seed)`` and ``free(seed)`` are training rows with and without the correlation, ``test`` has none."""

    name: str
    folder: Path
    finding: str
    device: str
    model: str
    judge: str
    planted: Callable[[int], list[Row]]
    free: Callable[[int], list[Row]]
    test: list[Row]
    exact: Callable[[Row, int], Row] | None = None


def world_study(o: argparse.Namespace) -> Study:
    images = o.work / f"{o.pixels}px"
    return Study(
        "world",
        o.work / f"world-{o.pixels}px-{o.n}-{o.test}",
        FINDING,
        DEVICE,
        o.model,
        f"{o.model}-judge",
        planted=lambda seed: world_rows(images, TRAIN + APART * seed, o.n, AGREE),
        free=lambda seed: world_rows(images, TRAIN + APART * seed, o.n, 0.5),
        test=world_rows(images, TEST, o.test, 0.5),
        exact=lambda row, value: case_row(images, row["number"], value),
    )


def nih_study(o: argparse.Namespace) -> Study:
    finding, device = "pneumonia", "support devices"
    rows = nih_rows(o.nih, "train", finding, device)
    n = len(thinned(rows, finding, device, AGREE, len(rows), 0))
    return Study(
        "nih",
        o.work / f"nih-{n}",
        finding,
        device,
        o.nih_model,
        f"{o.nih_model}-judge",
        planted=lambda seed: thinned(rows, finding, device, AGREE, n, seed),
        free=lambda seed: thinned(rows, finding, device, 0.5, n, seed),
        test=nih_rows(o.nih, "test", finding, device),
    )


@cache
def view(path: Path, size: int) -> np.ndarray:
    """An image as classifiers see it: most are used by several arms."""
    return pixels([{"path": path}], size)[0]


def views(rows: Sequence[Row], size: int) -> np.ndarray:
    return np.stack([view(row["path"], size) for row in rows])


def tag(o: argparse.Namespace) -> str:
    """All that a classifier depends on besides its images."""
    return f"{o.size}px-{o.epochs}e-w{o.width}"


def training_rows(study: Study, arm: str, seed: int, backbone: Any) -> tuple[list[Row], dict[str, int]]:
    """The rows of an arm, and what was made for it."""
    if arm == "oracle":
        return study.free(seed), {}
    rows = study.planted(seed)
    if arm == "exact":
        assert study.exact is not None
        made = [study.exact(rows[task.index], task.value) for task in plan(rows, study.finding, study.device, seed)]
        return [*rows, *made], {"made": len(made), "refused": 0}
    if arm == "counterfactual":
        folder = study.folder / f"edits-{backbone.fingerprint[:12]}-{seed}"
        judge = open_classifier(study.judge)
        edits = balance(rows, study.finding, study.device, backbone, folder, judge=judge, seed=seed)
        made = [row | {"path": folder / row["path"]} for row in edits if not row["refused"]]
        return [*rows, *made], {"made": len(made), "refused": len(edits) - len(made)}
    return rows, {}


def run(study: Study, arm: str, seed: int, backbone: Any, o: argparse.Namespace) -> dict[str, Any]:
    """Train an arm once and look at the test images: ``p`` (N,) and the folder of the classifier."""
    print_of = f"-{backbone.fingerprint[:12]}" if arm == "counterfactual" else ""
    folder = study.folder / f"{arm}{print_of}-{seed}-{tag(o)}"
    if (folder / "told.json").exists():
        return json.loads((folder / "told.json").read_text()) | {"folder": folder}
    began = time.perf_counter()
    rows, made = training_rows(study, arm, seed, backbone)
    planted = len(study.planted(seed))
    model = trained(
        views(rows, o.size),
        known_targets(rows, [study.finding]),
        membership(rows, study.finding, study.device),
        [study.finding],
        objective=OBJECTIVES.get(arm, "plain"),
        epochs=max(1, round(o.epochs * planted / len(rows))),
        seed=seed,
        width=o.width,
    )
    model.save(folder, {"name": f"{arm} {seed}", "data": study.name})
    p = model.probabilities(as_images(views(study.test, o.size)))[:, 0]
    told = {"p": p.tolist(), "rows": len(rows), "seconds": time.perf_counter() - began} | made
    with replacing(folder / "told.json") as draft:
        draft.write_text(json.dumps(told))
    print(f"{study.name} {arm} {seed}: {len(rows)} images, {told['seconds']:.0f} s", flush=True)
    return told | {"folder": folder}


def scores(study: Study, told: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Per arm AUC, worst-group AUC and the share of the gap closed, with intervals over patients and seeds."""
    y = np.array([int(row[study.finding]) for row in study.test])
    device = np.array([int(row[study.device]) for row in study.test])
    owners = np.unique([row["patient"] for row in study.test], return_inverse=True)[1]
    of = [np.flatnonzero(owners == k) for k in range(owners.max() + 1)]
    p = {arm: np.array([one["p"] for one in runs]) for arm, runs in told.items()}  # (seeds, N)

    def worst(pick: np.ndarray, seeds: np.ndarray) -> dict[str, float]:
        def mean(q: np.ndarray) -> float:
            return float(np.mean([worst_group_auc(q[k][pick], y[pick], device[pick]) for k in seeds]))

        return {arm: mean(q) for arm, q in p.items()}

    def closed(value: Mapping[str, float]) -> dict[str, float]:
        gap = value.get("oracle", np.nan) - value.get("plain", np.nan)
        return {arm: (value[arm] - value["plain"]) / gap if gap > 0 else np.nan for arm in value}

    rng, count = np.random.default_rng(0), len(next(iter(p.values())))
    picks = [np.concatenate([of[i] for i in rng.integers(len(of), size=len(of))]) for _ in range(DRAWS)]
    draws = [worst(pick, rng.integers(count, size=count)) for pick in picks]
    value = worst(np.arange(len(y)), np.arange(count))
    share, shares = closed(value), [closed(draw) for draw in draws]
    sure = np.mean([draw["oracle"] > draw["plain"] for draw in draws]) >= 0.975  # a share of no gap means nothing
    out = {}
    for arm, runs in told.items():
        out[arm] = {
            "auc": float(np.mean([auc(q, y) for q in p[arm]])),
            "worst_group_auc": value[arm],
            "interval": span([draw[arm] for draw in draws]),
            "by_seed": [worst_group_auc(q, y, device) for q in p[arm]],
            "gap_closed": share[arm] if sure else None,
            "gap_interval": span([one[arm] for one in shares]) if sure else None,
            **{key: [one[key] for one in runs] for key in ("rows", "made", "refused") if key in runs[0]},
        }
    return out


def span(values: Sequence[float]) -> list[float]:
    return [float(v) for v in np.nanquantile(values, [0.025, 0.975])]


def both(told: Mapping[str, Sequence[Mapping[str, Any]]], size: int) -> Outputs:
    """The classifiers of the plain arm and of the oracle as one, an output each."""
    names = [(arm, k) for arm in ("plain", "oracle") for k in range(len(told[arm]))]
    models = [Classifier.load(told[arm][k]["folder"]) for arm, k in names]
    labels = tuple(f"{arm} {k}" for arm, k in names)
    return Outputs("both", labels, size, 1, lambda x: torch.cat([model.probabilities(x) for model in models], 1))


def stress(study: Study, told: Mapping[str, Any], backbone: Any, o: argparse.Namespace) -> dict[str, Any]:
    """What moves the classifiers of plain arm and oracle: each finding added where it is not, removed where it is.

    By the model, or exactly where ``backbone`` is ``None``. The edit of the studied finding itself, which must move them, is
    left out. ``first`` is the edit that ranks first, ``shortcuts`` those that stand out by at least ``LEAST``.
    """
    outputs, rows, found = both(told, o.size), study.test[: o.stress], []
    known = chest.FINDINGS if backbone is None else backbone.card.findings
    for name in (name for name in known if name != study.finding and name in rows[0]):
        for verb, value in (("add", 0), ("remove", 1)):
            group = [row for row in rows if str(row[name]) == str(value)]
            if len(group) > 1:
                kept = study.folder / f"stress-{verb}-{name.replace(' ', '-')}-{len(group)}-{o.seeds}-{tag(o)}"
                seen = (
                    exactly(outputs, group, name)
                    if backbone is None
                    else edited(outputs, group, name, verb, backbone, kept)
                )
                owners = [row["patient"] for row in group]
                found += effects(f"{verb} {name}", outputs.labels, seen.before, seen.after, seen.null, owners, {})
    out = {}
    for label in outputs.labels:
        order = ranked([one for one in found if one.output == label])
        strong = [one.edit for one in order if one.distinct and abs(one.change - one.null) >= LEAST]
        out[label] = {"first": order[0].edit, "shortcuts": strong, "effects": [asdict(one) for one in order]}
    return out


def exactly(outputs: Outputs, rows: list[Row], name: str) -> Seen:
    """Before and after the exact counterfactual; the null edit changes nothing."""
    after = [row | {"path": turned(row["path"].parent, row, name)} for row in rows]
    before, then = (outputs(as_images(views(some, outputs.size))).numpy() for some in (rows, after))
    return Seen(before, then, before)


def edited(outputs: Outputs, rows: list[Row], name: str, verb: str, backbone: Any, kept: Path) -> Seen:
    """Before and after the model's default edit and its null edit."""
    made = kept.with_name(f"{kept.name}-{backbone.fingerprint[:12]}.jsonl")
    return stacked(look(outputs, rows, {verb: [name]}, backbone, made))


def table(name: str, report: Mapping[str, Any]) -> str:
    """The study as Markdown."""
    head = ("arm", "images", "AUC", "worst-group AUC", "95 %", "gap closed", "95 %")
    lines = [f"## {name}", "", report["words"], "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for arm, one in report["arms"].items():
        low, high = one["interval"]
        left, right = one["gap_interval"] or (np.nan, np.nan)
        share = " | " if one["gap_closed"] is None else f"{one['gap_closed']:.0%} | {left:.0%} to {right:.0%}"
        line = (arm, ", ".join(map(str, one["rows"])), f"{one['auc']:.3f}", f"{one['worst_group_auc']:.3f}")
        lines.append(f"| {' | '.join(line)} | {low:.3f} to {high:.3f} | {share} |")
    for how, classifiers in report["stress"].items():
        lines += ["", f"Stress test by {how} edits:", "", "| classifier | first | change | null edit | stand out |"]
        lines.append("|" + " --- |" * 5)
        for label, one in classifiers.items():
            top = one["effects"][0]
            change = f"{top['change']:+.3f} ({top['low']:+.3f} to {top['high']:+.3f})"
            strong = ", ".join(one["shortcuts"]) or "none"
            lines.append(f"| {label} | {one['first']} | {change} | {top['null']:+.3f} | {strong} |")
    return "\n".join(lines) + "\n"


def words(study: Study, o: argparse.Namespace, model: bool) -> str:
    """What was done, in a sentence."""
    return (
        f"{study.finding} against {study.device}: {len(study.planted(0))} training images, {len(study.test)} test images, "
        + (f"drawn at {o.pixels} px, " if study.exact else "")
        + f"{o.seeds} seeds, seen at {o.size} px, {o.epochs} epochs, width {o.width}."
        + ("" if model else " The model's arm is still to be run.")
    )


def report(study: Study, arms: Sequence[str], backbone: Any, o: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing, and measure."""
    told = {arm: [run(study, arm, seed, backbone, o) for seed in range(o.seeds)] for arm in arms}
    seen = {"exact": stress(study, told, None, o)} if study.exact else {}
    seen |= {} if backbone is None else {backbone.card.name: stress(study, told, backbone, o)}
    model = None if backbone is None else {"name": backbone.card.name, "fingerprint": backbone.fingerprint}
    return {"words": words(study, o, backbone is not None), "model": model, "arms": scores(study, told), "stress": seen}


def main() -> None:
    """Run the studies that are asked for, and write results.json and results.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--nih", type=Path, help="folder of real radiographs with images/ and metadata.csv")
    parser.add_argument("--arms", default=",".join(ARMS), help="plain and oracle are always run")
    parser.add_argument("-n", type=int, default=300, help="training images of the world")
    parser.add_argument("--test", type=int, default=300, help="test images of the world")
    parser.add_argument("--pixels", type=int, default=256, help="pixels a side of the world's images")
    parser.add_argument("--stress", type=int, default=40, help="test images of the stress tests")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=96, help="pixels a side of what classifiers see")
    parser.add_argument("--width", type=int, default=12, help="of the classifiers' first stage")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--model", default="chest-world")
    parser.add_argument("--nih-model", default="chest-nih")
    parser.add_argument("--device", default="cpu", help="where the model runs: cpu, openvino or cuda")
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results/robustness"))
    o = parser.parse_args()
    arms = [arm for arm in ARMS if arm in {"plain", "oracle", *o.arms.split(",")}]
    facts = {}
    for study in [world_study(o), *([nih_study(o)] if o.nih else [])]:
        backbone = open_backbone(study.model, o.device, offline=True) if "counterfactual" in arms else None
        facts[study.name] = report(study, [arm for arm in arms if arm != "exact" or study.exact], backbone, o)
        o.o.mkdir(parents=True, exist_ok=True)
        (o.o / "results.json").write_text(json.dumps(facts, indent=1) + "\n")
        (o.o / "results.md").write_text("# Shortcuts\n\n" + "\n".join(table(*one) for one in facts.items()))
        print(table(study.name, facts[study.name]), flush=True)


if __name__ == "__main__":
    main()
