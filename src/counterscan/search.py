"""Search among edits: the weakest that convinces a classifier, and the best of several seeds.

What chooses (the *selector*) must not be what scores: whoever optimises a number can no longer report it. So ``judged`` asks
another classifier, and both refuse to be the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from counterscan.errors import WordsError

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone
    from counterscan.imaging import Picture
    from counterscan.methods import Method, Progress
    from counterscan.result import Counterfactual
    from counterscan.robustness.opening import Outputs
    from counterscan.types import Change, Edit

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # times the method's own, tried from the weakest
REFINEMENTS = 2  # bisections between the first strength that convinces and the one before it


@dataclass(frozen=True)
class Trial:
    """One edit that was tried: its seed, its strength (1: the method's own), and what the selector said (larger is better)."""

    seed: int
    strength: float
    score: float


@dataclass(frozen=True)
class Found:
    """The chosen counterfactual and its strength, everything tried, and whether the goal was reached (``None``: there was none).

    ``evaluations`` and ``seconds`` are those of all trials.
    """

    result: Counterfactual
    strength: float
    trials: tuple[Trial, ...]
    reached: bool | None
    evaluations: int
    seconds: float


def search(
    image: Any,
    *,
    model: Backbone,
    method: str | Method | None = None,
    until: float | None = None,
    best_of: int = 1,
    selector: Outputs | None = None,
    judge: Outputs | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **request: Any,
) -> Found:
    """Edit one image several times and keep one result; ``request`` is what ``counterscan.edit`` takes.

    ``until`` p in (0, 1) takes the weakest strength (where a method has none, the weakest guidance) at which the selector
    finds what was asked with probability p in every changed finding (gone: 1 - P); where none reaches it, the best of all.
    ``best_of`` n tries the seeds ``seed`` to ``seed + n - 1`` at every strength; a method without random numbers is tried
    once. Without a selector the model itself chooses: the image that it explains best by the target against the source
    prompt. ``judge`` is only made sure not to be the selector; ask it with ``judged``.

    Raises:
        WordsError: ``until`` without a selector, changes without names, findings that the selector does not know, a judge
            that is the selector.
    """
    from counterscan import methods
    from counterscan.editing import as_picture
    from counterscan.language import resolve

    if until is not None and not 0 < until < 1:
        raise WordsError(f"until is a probability between 0 and 1, got {until:g}")
    if until is not None and selector is None:
        raise WordsError("until needs a selector: the classifier that has to be convinced, such as one of your own")
    if best_of < 1:
        raise WordsError(f"best of how many? at least 1, got {best_of}")
    if method is None or isinstance(method, str):
        method = methods.suited(model.card, method, keep=bool(request.get("keep")))
    if selector is not None:
        words = {key: value for key, value in request.items() if key != "mask"}
        check_selector(selector, judge, resolve(**words, card=model.card))
    run = _Run(as_picture(image), request, method, model, selector, range(seed, seed + best_of), progress)
    if until is None:
        run.at(1.0)
        return run.found(None)
    below = 0.0
    for factor in STRENGTHS:
        if run.at(factor) >= until:
            for _ in range(REFINEMENTS):
                middle = (below + factor) / 2
                below, factor = (below, middle) if run.at(middle) >= until else (middle, factor)
            return run.found(until)
        below = factor
    return run.found(until)


class _Run:
    """The trials of one search."""

    def __init__(
        self,
        picture: Picture,
        request: dict[str, Any],
        method: Method,
        model: Backbone,
        selector: Outputs | None,
        seeds: range,
        progress: Progress | None,
    ) -> None:
        self.picture, self.request, self.method, self.model = picture, request, method, model
        self.selector, self.seeds, self.progress = selector, seeds, progress
        self.tried: list[tuple[Trial, Counterfactual]] = []

    def at(self, strength: float) -> float:
        """Try every seed at this strength; the best score."""
        from counterscan.editing import edit

        method = self.method if strength == 1 else stronger(self.method, strength)
        scores: list[float] = []
        first: Counterfactual | None = None
        for seed in self.seeds:
            result = edit(
                self.picture, **self.request, method=method, model=self.model, seed=seed, progress=self.progress
            )
            scores.append(score(result, self.selector, self.model))
            self.tried.append((Trial(seed, strength, scores[-1]), result))
            if first is not None and np.array_equal(first.counterfactual.pixels, result.counterfactual.pixels):
                break  # the method draws no random numbers: other seeds give the same
            first = first or result
        return max(scores)

    def found(self, goal: float | None) -> Found:
        """The best of the weakest strength that reached the goal, or else the best of all."""
        good = [pair for pair in self.tried if goal is not None and pair[0].score >= goal]
        weakest = min((trial.strength for trial, _ in good), default=None)
        choice = [pair for pair in good if pair[0].strength == weakest] or self.tried
        chosen, best = max(choice, key=lambda pair: pair[0].score)
        return Found(
            best,
            chosen.strength,
            tuple(trial for trial, _ in self.tried),
            None if goal is None else bool(good),
            sum(result.evaluations for _, result in self.tried),
            sum(result.seconds for _, result in self.tried),
        )


def score(result: Counterfactual, selector: Outputs | None, model: Backbone) -> float:
    """How well an edit did what was asked: the selector's probability of its least convincing change, or the model's view."""
    if selector is None:
        return _own_view(result, model)
    said = _probabilities(selector, result.counterfactual)
    return min(
        said[_column(selector, change)] if change.direction == "add" else 1 - said[_column(selector, change)]
        for change in named_changes(result.edit)
    )


def judged(result: Counterfactual, judge: Outputs) -> dict[str, tuple[float, float]]:
    """What the judge says of every changed finding it knows, before and after the edit."""
    before, after = (_probabilities(judge, picture) for picture in (result.factual, result.counterfactual))
    known = [name.lower() for name in judge.labels]
    return {
        change.finding: (before[known.index(change.finding)], after[known.index(change.finding)])
        for change in result.edit.changes
        if change.finding in known
    }


def check_selector(selector: Outputs, judge: Outputs | None, request: Edit) -> None:
    """Raises ``WordsError`` before any work: a selector that is the judge, or lacks a finding that the edit changes."""
    if judge is not None and judge.name == selector.name:
        raise WordsError(f"{selector.name} cannot both choose and judge: give another --selector or another --judge")
    for change in named_changes(request):
        _column(selector, change)


def named_changes(request: Edit) -> Sequence[Change]:
    """The changes of an edit. ``WordsError`` where two prompts were given, and no findings."""
    if not request.changes:
        raise WordsError("a selector looks at findings: name them by remove or add, or by an instruction")
    return request.changes


def _column(outputs: Outputs, change: Change) -> int:
    known = [label.lower() for label in outputs.labels]
    if change.finding not in known:
        raise WordsError(f"{outputs.name} has no output for {change.finding!r}; it has {', '.join(outputs.labels)}")
    return known.index(change.finding)


def _probabilities(outputs: Outputs, picture: Picture) -> list[float]:
    from counterscan.robustness.study import probabilities

    values: list[float] = probabilities(outputs, picture)[0].tolist()
    return values


def _own_view(result: Counterfactual, model: Backbone) -> float:
    import torch

    from counterscan.editing import to_tensor
    from counterscan.imaging import fit
    from counterscan.methods.preference import preference

    square, _ = fit(result.counterfactual.unit(), model.resolution)
    with torch.no_grad():
        z = model.encode(to_tensor(square, model.channels)[None].to(model.device))
        return preference(model, z, model.embed([result.edit.source, result.edit.target])).item()


def stronger(method: Method, factor: float) -> Method:
    """The method with ``factor`` times its strength, or guidance where it has no strength (at most 100)."""
    known = {field.name for field in fields(method)}  # type: ignore[arg-type]
    name = next((name for name in ("strength", "guidance") if name in known), None)
    if name is None:
        raise WordsError(f"method {method.name!r} has no guidance, so there is no strength to search")
    changed: Any = replace(method, **{name: min(factor * vars(method)[name], 100.0)})  # type: ignore[type-var]
    return changed
