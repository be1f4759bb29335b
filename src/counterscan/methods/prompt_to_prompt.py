"""Prompt-to-prompt (Hertz et al. 2022, "Prompt-to-Prompt Image Editing with Cross Attention Control"), on any inversion.

Two branches go down together: ``x`` under the source prompt, and ``y`` under the target. In the first ``self_replace`` of the
steps, ``y`` looks at itself as ``x`` does (self-attention: layout); in the first ``cross_replace``, it reads the words that both
prompts share where ``x`` reads them (cross-attention; *refine*), and with ``replace`` also the exchanged words there. Maps of
new words are multiplied by ``reweight``. Above 0, ``blend`` is the local blend: ``y`` goes back to ``x`` where the words that
differ draw less than this share of their largest attention::

    ε̂(y) = negative + guidance (target - negative),  target = network(y, target; maps of x)

``inversion`` says where ``x`` comes from and what the negative is::

    ddim           DDIM upwards; x goes down by itself                          negative = source
    direct         the same, x stays on the way up; what its own step misses    negative = source
                   is added to y as well
    edit-friendly  independent noise at every level, otherwise as direct        negative = source
    null-text      DDIM upwards; x goes down under the fitted "no prompt"       negative = that one

With equal prompts ``y`` is ``x``: the encoded image for ``direct`` and ``edit-friendly``, the reconstruction for the others.
Several ``self_replace`` are all tried, and each image keeps its best: by ``selector(before, after, edit)`` (B, C, H, W twice,
larger is better), or else by how much better the model itself explains the result by the target than by the source.

Cost with k = steps * depth and c values of ``self_replace``: 3kc down, and k up for ``ddim`` and ``direct``, 0 for
``edit-friendly``, 1 + k (3 + inner) for ``null-text``; with c > 1 and no selector 8c more. Differs from the paper: prompts are
aligned by their longest common runs of word pieces, so any tokenizer will do; the negative is the source, not "".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from counterscan.backbones.base import Attentive, Backbone
from counterscan.diffusion import ddim_step, guide, posterior_deviation
from counterscan.errors import WordsError
from counterscan.methods import Progress
from counterscan.methods.attention_control import BLEND_FROM, Alignment, Steering, attentive
from counterscan.methods.ddim import downwards, invert
from counterscan.methods.edit_friendly import noisy_path
from counterscan.methods.null_text import NullText
from counterscan.methods.preference import preference
from counterscan.methods.prompts import check_settings, ticker
from counterscan.types import Condition, Edit, Prediction

Inversion = Literal["ddim", "direct", "edit-friendly", "null-text"]
Selector = Callable[[Tensor, Tensor, Edit], Tensor]


@dataclass(frozen=True)
class _Source:
    """The source's way down: ``path`` (k + 1 latents) where it is known beforehand, and the negatives of its steps."""

    start: Tensor
    path: Sequence[Tensor] | None
    negatives: Sequence[Condition]
    eta: float = 0.0
    residues: bool = False


@dataclass(frozen=True)
class PromptToPrompt:
    """See the module. ``cross_replace`` and ``self_replace`` are shares of the steps, ``inner`` is that of null-text."""

    steps: int = 20
    depth: float = 1.0
    guidance: float = 4.0
    inversion: Inversion = "direct"
    replace: bool = False
    cross_replace: float = 0.8
    self_replace: float | tuple[float, ...] = 0.5
    reweight: float = 1.0
    blend: float = 0.0
    inner: int = 10
    selector: InitVar[Selector | None] = None  # no field: a network is not a setting that could be written down
    name: ClassVar[str] = "prompt-to-prompt"

    def __post_init__(self, selector: Selector | None) -> None:
        check_settings(self.name, self.steps, self.depth, self.guidance)
        if self.inversion not in get_args(Inversion):
            raise WordsError(
                f"{self.name}: no inversion {self.inversion!r}: known are {', '.join(get_args(Inversion))}"
            )
        for name, value in [("cross_replace", self.cross_replace), ("blend", self.blend)]:
            if not 0 <= value <= 1:
                raise WordsError(f"{self.name}: {name} must be between 0 and 1, got {value!r}")
        if not self._sweep or not all(0 <= share <= 1 for share in self._sweep):
            raise WordsError(f"{self.name}: self_replace must be between 0 and 1, got {self.self_replace!r}")
        if not 0 <= self.reweight <= 100:
            raise WordsError(f"{self.name}: reweight must be between 0 and 100, got {self.reweight!r}")
        NullText(self.steps, self.depth, self.guidance, self.inner)  # refuses what it cannot work with
        object.__setattr__(self, "selector", selector)

    @property
    def _sweep(self) -> tuple[float, ...]:
        return self.self_replace if isinstance(self.self_replace, tuple) else (self.self_replace,)

    @torch.no_grad()
    def __call__(
        self,
        backbone: Backbone,
        image: Tensor,
        edit: Edit,
        *,
        generator: torch.Generator | Sequence[torch.Generator],
        progress: Progress | None = None,
    ) -> Tensor:
        """See ``counterscan.methods.Method``. ``generator`` is used by the edit-friendly inversion only."""
        network = attentive(backbone, self.name)
        alignment = Alignment.of(network.pieces(edit.source), network.pieces(edit.target), replace=self.replace)
        times = backbone.schedule.timesteps(self.steps, self.depth).tolist()
        tick = ticker(progress, (1 + len(self._sweep)) * len(times))
        z, pair = backbone.encode(image), backbone.embed([edit.source, edit.target])
        source = self._invert(backbone, z, times, pair[0], generator, tick)
        results = []
        for share in self._sweep:
            steering = Steering(alignment, len(z), cross=self.cross_replace, self_=share, weight=self.reweight)
            results.append(self._down(backbone, network, source, times, pair, steering, tick))
        images = [backbone.decode(y) for y in results]
        if len(results) == 1:
            return images[0]
        return _best(images, self._scores(backbone, image, images, results, edit, pair))

    def _invert(
        self,
        backbone: Backbone,
        z: Tensor,
        times: Sequence[int],
        source: Condition,
        generator: torch.Generator | Sequence[torch.Generator],
        tick: Callable[[], None],
    ) -> _Source:
        every = [source.repeat(len(z))] * len(times)
        if self.inversion == "edit-friendly":
            path = noisy_path(backbone.schedule, z, times, generator)
            for _ in times:
                tick()
            return _Source(path[0], path, every, eta=1.0, residues=True)
        if self.inversion == "null-text":
            method = NullText(self.steps, self.depth, self.guidance, self.inner)
            start, fitted = method.fit(backbone, z, times, every[0], tick)
            steps = list(fitted)
            return _Source(start, [start, *(x for _, x in steps)], [null for null, _ in steps])
        path = invert(backbone, z, times, source, tick)
        return _Source(
            path[0], path if self.inversion == "direct" else None, every, residues=self.inversion == "direct"
        )

    def _down(
        self,
        backbone: Backbone,
        network: Attentive,
        source: _Source,
        times: Sequence[int],
        pair: Condition,
        steering: Steering,
        tick: Callable[[], None],
    ) -> Tensor:
        """The edited latent (B, c, h, w): both branches, a call of three rows an image at every step."""
        x = y = source.start
        rows, schedule = len(x), backbone.schedule
        before, after = pair[0].repeat(rows), pair[1].repeat(rows)
        for i, (t, below) in enumerate(downwards(times)):
            steering.at(i / len(times))
            with network.controlled(steering):
                every = Condition.cat([before, source.negatives[i], after])
                prediction = backbone.predict(torch.cat([x, y, y]), t, every)
            own, away, towards = _split(prediction, rows)
            here, there = schedule.coefficients(t), schedule.coefficients(below)
            levels = (*there, posterior_deviation(*here, *there, source.eta))
            stepped = ddim_step(own, *levels)
            x = stepped if source.path is None else source.path[i + 1]
            y = ddim_step(guide(away, towards, self.guidance), *levels)
            y = y + (x - stepped) if source.residues else y
            if self.blend and i >= BLEND_FROM * len(times):
                y = torch.where(steering.mask(y, self.blend), y, x)
            tick()
        return y

    def _scores(
        self,
        backbone: Backbone,
        image: Tensor,
        images: Sequence[Tensor],
        latents: Iterable[Tensor],
        edit: Edit,
        pair: Condition,
    ) -> Tensor:
        """(candidates, B), larger is better."""
        chosen: Selector | None = vars(self)["selector"]
        if chosen is not None:
            return torch.stack([chosen(image, candidate, edit) for candidate in images])
        return torch.stack([preference(backbone, z, pair) for z in latents])


def _best(images: Sequence[Tensor], scores: Tensor) -> Tensor:
    """For every image its candidate of the largest score, the first of equals."""
    chosen = scores.argmax(0).tolist()
    return torch.stack([images[c][i] for i, c in enumerate(chosen)])


def _split(prediction: Prediction, rows: int) -> list[Prediction]:
    return [Prediction(c, n) for c, n in zip(prediction.clean.split(rows), prediction.noise.split(rows), strict=True)]
