"""How like real images generated ones are: distances and manifolds in named feature spaces, and diversity within a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import DataError
from counterscan.evaluate import page, rows
from counterscan.evaluate.features import Extracted, extract
from counterscan.evaluate.spaces import Space, open_space
from counterscan.metrics.distribution import (
    Moments,
    frechet_distance,
    frechet_limit,
    kernel_distance,
    label_score,
    moments,
)
from counterscan.metrics.intervals import interval, too_few
from counterscan.metrics.manifold import manifold
from counterscan.metrics.neighbours import blocks, nearest

NEIGHBOURS = 5
MOST = 10_000  # images of a kind in precision, recall and nearest images, whose cost is the product of both
PROMPTS, PER_PROMPT = 200, 4  # of which the diversity is taken


@dataclass(frozen=True)
class InSpace:
    """The scores of one feature space by their full names ("FID/chest-nih-judge"), and what the report shows of it."""

    space: str
    scores: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)


def fidelity(
    real: Path,
    generated: Path,
    folder: Path,
    *,
    spaces: Sequence[str | Space] = ("chest-nih-judge",),
    split: str | None = None,
    offline: bool = False,
    progress: rows.Progress | None = None,
) -> dict[str, Any]:
    """Compare the images of two manifests or folders; ``split`` is that of the real manifest. Writes ``report.html``.

    Features go to ``folder/work``; a second run with the same words goes on where the first was killed, or reuses them.

    Raises:
        DataError: fewer than 7 readable images of a kind.
        WordsError, ModelError: a feature space is unknown or cannot be opened.
    """
    opened = [open_space(spec, offline=offline) for spec in spaces]  # refuses wrong words before any work
    found: list[InSpace] = []
    sets: list[Extracted] = []
    for space in opened:
        sets = [
            extract(source, space, folder / "work", split=part, progress=progress)
            for source, part in ((real, split), (generated, None))
        ]
        for source, each in zip((real, generated), sets, strict=True):
            if len(each.values) < NEIGHBOURS + 2:
                few = f"{source}: has {len(each.values)} readable images"
                raise DataError(f"{few}, fidelity needs at least {NEIGHBOURS + 2} of a kind")
        found.append(in_space(space, *sets))
    varied = diversity(sets[1].index)
    summary = {
        "real": {"images": len(sets[0].values), "patients": len(set(sets[0].patients))},
        "generated": {"images": len(sets[1].values), "prompts": len(prompts(sets[1].index))},
        "spaces": [{"space": each.space, "scores": each.scores} for each in found],
        "diversity": varied,
        "warnings": [warning for each in found for warning in each.warnings],
        "failed": [reason for each in sets for reason in each.failed],
    }
    summary = rows.plain(summary)
    _write(summary, found, folder)
    return summary


def in_space(space: Space, real: Extracted, generated: Extracted) -> InSpace:
    """All scores of one space."""
    name, a, b = space.name, real.values, generated.values
    told, made = _moments(a), _moments(b)
    distance = frechet_distance(told, made)
    limit, slope = frechet_limit(told, b) if len(b) >= 16 else (float("nan"), float("nan"))
    kernel, deviation = kernel_distance(a, b)
    floor = _floor(a, real.patients)
    scores: dict[str, Any] = {
        f"FID/{name}": {"value": distance, "limit": limit, "slope": slope, "real_halves": floor, "n": len(b)},
        f"KID/{name}": {"value": kernel, "deviation": deviation},
    }
    few_a, few_b = _few(a), _few(b)
    terms = manifold(a[few_a], b[few_b], k=NEIGHBOURS)
    owners = {"recall": few_a, "coverage": few_a, "precision": few_b, "density": few_b}
    for key, few in owners.items():
        patients = [(real if few is few_a else generated).patients[i] for i in few]
        scores[f"{key}/{name}"] = asdict(interval(getattr(terms, key), patients))
    if space.read is not None:
        scores[f"label score/{name}"] = {"value": label_score(_probabilities(space, b))}
    if space.texts is not None:
        scores |= _alignment(space, generated)
    warning = too_few(len(b), b.shape[1], distance, None if np.isnan(limit) else limit)
    warnings = [f"FID/{name}: {warning}"] if warning else []
    return InSpace(name, scores, warnings, _pictures(real, generated, told, few_a, few_b))


def diversity(index: Path) -> dict[str, Any] | None:
    """Mean MS-SSIM between images of one prompt, over prompts: lower is more diverse. ``None`` where no prompt has two."""
    from counterscan.errors import ImageError
    from counterscan.imaging import read
    from counterscan.metrics.similarity import ms_ssim_diversity

    several = [paths for paths in prompts(index).values() if len(paths) > 1]
    chosen = np.random.default_rng(0).permutation(len(several))[:PROMPTS]
    values = []
    for i in sorted(chosen):
        try:
            values.append(ms_ssim_diversity([read(path).unit() for path in several[i][:PER_PROMPT]]))
        except (ValueError, ImageError):  # too small for five scales, or of several sizes
            continue
    if not values:
        return None
    return asdict(interval(values, range(len(values)))) | {"measure": "MS-SSIM within a prompt (lower is more diverse)"}


def prompts(index: Path) -> dict[str, list[Path]]:
    """The readable images of each caption; those without are of no prompt."""
    out: dict[str, list[Path]] = {}
    for row in rows.read(index):
        if "error" not in row and row["caption"]:
            out.setdefault(row["caption"], []).append(Path(row["path"]))
    return out


def _moments(values: NDArray[np.float32]) -> Moments:
    return moments(values[part] for part in blocks(len(values)))


def _floor(values: NDArray[np.float32], patients: Sequence[str]) -> float | None:
    """The distance between two halves of the real images, parted by patient: what a perfect generator would have at that n."""
    names = list(dict.fromkeys(patients))
    first = {names[i] for i in np.random.default_rng(0).permutation(len(names))[: len(names) // 2]}
    places = np.array([patient in first for patient in patients])
    halves = np.flatnonzero(places), np.flatnonzero(~places)
    if min(map(len, halves)) < 2:
        return None
    a, b = (moments(values[half[part]] for part in blocks(len(half))) for half in halves)
    return frechet_distance(a, b)


def _few(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Positions of at most ``MOST`` images, always the same ones."""
    return np.sort(np.random.default_rng(0).permutation(len(values))[:MOST])


def _probabilities(space: Space, values: NDArray[np.float32]) -> NDArray[np.float64]:
    import torch

    assert space.read is not None
    with torch.no_grad():
        parts = [space.read(torch.from_numpy(np.array(values[part]))).numpy() for part in blocks(len(values))]
    return np.concatenate(parts).astype(np.float64)


def _alignment(space: Space, generated: Extracted) -> dict[str, Any]:
    """The cosine of each captioned image with its words."""
    from counterscan.metrics.alignment import image_text_score

    assert space.texts is not None
    captions = [row["caption"] for row in rows.read(generated.index) if "error" not in row]
    named = [i for i, caption in enumerate(captions) if caption]
    if not named:
        return {}
    scores = np.concatenate(
        [
            image_text_score(generated.values[named[part]], space.texts([captions[i] for i in named[part]]).numpy())
            for part in blocks(len(named), 64)
        ]
    )
    return {f"image-text/{space.name}": asdict(interval(scores, [generated.patients[i] for i in named]))}


def _pictures(
    real: Extracted, generated: Extracted, told: Moments, few_a: NDArray[np.int64], few_b: NDArray[np.int64]
) -> list[str]:
    """Both sets along the main directions of the real one, distances to the nearest real image, and cases."""
    from matplotlib.figure import Figure

    a, b = real.values[few_a], generated.values[few_b]
    directions = np.linalg.eigh(told.covariance)[1][:, -2:]
    far, place = nearest(b, a, 1)
    among = nearest(a, a, 2)[0][:, 1]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for values, name in ((a, "real"), (b, "generated")):
        x = (values - told.mean) @ directions
        left.scatter(x[:, 1], x[:, 0], s=6, alpha=0.5, label=name)
    left.set(title="along the two main directions of real images")
    right.hist([among, far[:, 0]], bins=30, density=True, label=["real to another real", "generated to real"])
    right.set(title="distance to the nearest real image")
    for axes in (left, right):
        axes.legend()
    parts, paths = [page.plot(figure)], [_good_paths(each.index) for each in (real, generated)]
    for name, places in page.best_median_worst(-far[:, 0]).items():
        shown = [_pair(paths[1][few_b[i]], paths[0][few_a[place[i, 0]]], float(far[i, 0])) for i in places]
        parts.append(f"<h3>{name}</h3>" + "".join(shown))
    return parts


def _good_paths(index: Path) -> list[Path]:
    return [Path(row["path"]) for row in rows.read(index) if "error" not in row]


def _pair(made: Path, nearest_real: Path, far: float) -> str:
    from counterscan.imaging import read

    caption = f"{made.name}, and the nearest real image: distance {far:.3g}"
    return page.case([read(made).unit(), read(nearest_real).unit()], caption)


def _lines(scores: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    for name, score in scores.items():
        if "mean" in score:
            yield name, score, f"n = {score['n']}"
        else:
            facts = (
                f"{key} {page.cell(value)}" for key, value in score.items() if key != "value" and value is not None
            )
            yield name, score["value"], ", ".join(facts)


def _write(summary: dict[str, Any], found: Sequence[InSpace], folder: Path) -> None:
    about = (
        f"{summary['generated']['images']} generated images against {summary['real']['images']} real ones of "
        f"{summary['real']['patients']} patients. A score belongs to its feature space: compare none across spaces. "
        "real_halves is the distance between two halves of the real images."
    )
    parts = []
    for each, told in zip(found, summary["spaces"], strict=True):
        lines = page.table(("score", "value", "with"), _lines(told["scores"]))
        parts.append(page.section(f"Feature space {each.space}", lines, *each.parts))
    if summary["diversity"]:
        parts.append(
            page.section(
                "Diversity", page.table(("measure", "value"), [(summary["diversity"]["measure"], summary["diversity"])])
            )
        )
    page.write_page(folder / "report.html", "Fidelity", about, summary["warnings"] + summary["failed"], parts)
