"""What came of a study: ``report.html`` for people, with plots, and the same numbers as JSON."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from counterscan.evaluate import page
from counterscan.imaging.files import replacing
from counterscan.reader.measure import Given, Rows, given, measure, open_store
from counterscan.reader.statistics import Estimate
from counterscan.reader.study import RATINGS, Study, Task

HIDDEN = ("roc",)
NAMES = {
    "rating": "Real or synthetic, in six steps",
    "forced-choice": "Which of two is synthetic (2AFC)",
    "change": "What changed, and where",
    "quality": "Quality of edits",
}
ABOUT = {
    "rating": "A rating of 4 to 6 counts as synthetic. d_prime: 0 cannot tell, 1 weak, above 2 easily told. "
    "auc: how often a synthetic image is rated above a real one; 0.5 cannot tell. Kappa is weighted quadratically.",
    "forced-choice": "accuracy 0.5 is guessing. d_prime is free of a preference for a side. Kappa: who was right where.",
    "change": "finding: the right one was named. place: the mark's middle lies at the change or within 3 % of the side. "
    "Beside each what guessing gives.",
    "quality": "1 strongly disagree to 5 strongly agree. Kappa is weighted quadratically.",
}
MEANS = (
    "Each reader's interval: Wilson for shares, Gourevitch and Galanter for d_prime, DeLong for auc, a bootstrap over cases "
    "for quality. Over all: the mean of readers; its bootstrap draws readers and cases, and is too narrow under five readers."
)


def write_report(study: Study, store: Path, folder: Path) -> dict[str, Any]:
    """Measure the answers and write ``report.html`` into ``folder``; returns the numbers.

    Raises:
        DataError: there is no store, or it holds answers to another study.
    """
    kept = open_store(store, study)
    try:
        tasks, codes, seconds = given(study, kept), kept.codes(), [a.seconds for _, _, a in kept.answers()]
    finally:
        kept.shut()
    parts, results = [], []
    for task, answers in zip(study.tasks, tasks, strict=True):
        rows, agree = measure(task, answers) if answers else ([], None)
        named = [row | {"reader": codes.get(row["reader"], row["reader"])} for row in rows]
        parts.append(_section(task, answers, named, agree))
        results.append({"kind": task.kind, "cases": len(task.cases), "rows": named, "kappa": agree})
    middle = sorted(seconds)[len(seconds) // 2] if seconds else None
    summary = {"title": study.plan.title, "readers": list(codes.values()), "answers": len(seconds), "seconds": middle}
    plain: dict[str, Any] = _plain(summary | {"tasks": results})
    _write(folder / "report.html", study, plain, parts)
    return plain


def _section(task: Task, answers: Given, rows: Rows, agree: Any) -> str:
    if not rows:
        return page.section(NAMES[task.kind], page.text("No answers yet."))
    head = list(dict.fromkeys(key for row in rows for key in row if key not in HIDDEN))
    lines = [[_cell(row.get(key)) for key in head] for row in rows]
    words = {"kappa": agree} if isinstance(agree, Estimate) else agree or {}
    kappas = "; ".join(f"{name} {value}" if name != "kappa" else str(value) for name, value in words.items())
    said = page.text(
        f"Agreement between readers (Light's kappa): {kappas}." if kappas else "One reader: no agreement to measure."
    )
    plot = page.plot(PLOTS[task.kind](task, answers, rows))
    return page.section(NAMES[task.kind], page.text(ABOUT[task.kind]), page.table(head, lines), said, plot)


def _cell(value: Any) -> Any:
    return str(value) if isinstance(value, Estimate) else value


def _write(path: Path, study: Study, summary: Mapping[str, Any], parts: Sequence[str]) -> None:
    title = html.escape(study.plan.title)
    about = f"{summary['answers']} answers of {len(summary['readers'])} readers"
    about += f", {summary['seconds']:.1f} s each in the middle." if summary["answers"] else "."
    few = len(summary["readers"]) < 5
    warning = (
        '<p class="warn">Fewer than five readers: the intervals over all readers are too narrow.</p>' if few else ""
    )
    text = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{page.STYLE}</style>"
        f"<h1>{title}</h1><p>{about} Study {study.fingerprint}.</p>{warning}{''.join(parts)}<p class=dim>{MEANS}</p>"
        "<p class=dim>The study shows synthetic images. Not for diagnosis.</p>"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    """As JSON knows it: an estimate is an object, NaN is null."""
    if isinstance(value, Estimate):
        return _plain({"value": value.value, "low": value.low, "high": value.high, "n": value.n})
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _figure() -> tuple[Any, Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    return figure, *figure.subplots(1, 2)


def _bars(axes: Any, rows: Rows, key: str, label: str, chance: float | None) -> None:
    """A point and its interval for each reader."""
    for k, row in enumerate(rows):
        if isinstance(found := row.get(key), Estimate):
            reach = [[found.value - found.low], [found.high - found.value]]
            known = not math.isnan(found.low)
            axes.errorbar(found.value, k, xerr=reach if known else None, fmt="D" if row["reader"] == "all" else "o",
                          color="#0b4f8a", capsize=3)  # fmt: skip
    if chance is not None:
        axes.axvline(chance, color="grey", linestyle=":", linewidth=1)
    axes.set_yticks(range(len(rows)), [row["reader"] for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel=label)


def _plot_rating(task: Task, answers: Given, rows: Rows) -> Any:
    figure, left, right = _figure()
    for row in rows:
        if "roc" in row:
            left.plot(*row["roc"], marker=".", label=row["reader"], linewidth=1.2)
    left.plot([0, 1], [0, 1], ":", color="grey", linewidth=1)
    left.set(xlabel="real called synthetic", ylabel="synthetic called synthetic", aspect="equal")
    left.legend(fontsize=7)
    for kind, truth, colour, shift in (("real", 0, "#0b4f8a", -0.2), ("synthetic", 1, "#d1701f", 0.2)):
        said = [a.rating for one in answers.values() for t, a in one.values() if t.case.truth == truth]
        steps = range(1, len(RATINGS) + 1)
        right.bar([step + shift for step in steps], [said.count(step) / max(len(said), 1) for step in steps], 0.4,
                  label=kind, color=colour)  # fmt: skip
    right.set(xlabel="rating, 1 surely real to 6 surely synthetic", ylabel="share of answers")
    right.legend(fontsize=8)
    return figure


def _plot_forced(task: Task, answers: Given, rows: Rows) -> Any:
    figure, left, right = _figure()
    _bars(left, rows, "accuracy", "accuracy", 0.5)
    _bars(right, rows, "d_prime", "d'", 0)
    return figure


def _plot_change(task: Task, answers: Given, rows: Rows) -> Any:
    figure, left, right = _figure()
    _bars(left, rows, "finding", "right finding", rows[0]["finding_by_chance"])
    _bars(right, rows, "place", "right place", rows[0]["place_by_chance"])
    return figure


def _plot_quality(task: Task, answers: Given, rows: Rows) -> Any:
    from matplotlib.figure import Figure

    scales = list(task.scales or {})
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(scales), squeeze=False)[0], scales, strict=True):
        _bars(axes, rows, name, name, 3)
        axes.set_xlim(0.8, 5.2)
    return figure


PLOTS = {"rating": _plot_rating, "forced-choice": _plot_forced, "change": _plot_change, "quality": _plot_quality}
