"""How much removing a finding changes images that do not have it, and so: how much change is evidence, at a stated rate."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from counterscan.errors import DataError, WordsError

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone
    from counterscan.methods import Method


@dataclass(frozen=True)
class Calibration:
    """``peaks`` are the :func:`~counterscan.attribution.difference.evidence` of images without ``finding``.

    They hold for one model (``fingerprint``), its methods with their settings, and the number of repeats, each from a frame of
    its own (``frames``; a calibration of several repeats from before has none).
    """

    finding: str
    peaks: tuple[float, ...]
    fingerprint: str = ""
    methods: tuple[str, ...] = ()
    repeats: int = 1
    frames: bool = False

    def threshold(self, rate: float) -> float:
        """What at most a share ``rate`` of other images without the finding exceed, on average (split conformal prediction).

        It is the ``ceil((n + 1)(1 - rate))``-th smallest of the n peaks (Vovk et al. 2005; Angelopoulos and Bates 2023).

        Raises:
            WordsError: a rate outside (0, 1), or too few images to promise it.
        """
        if not 0 < rate < 1:
            raise WordsError(f"a false-positive rate lies between 0 and 1, got {rate}")
        place = int(np.ceil((len(self.peaks) + 1) * (1 - rate) - 1e-9))
        if place > len(self.peaks):
            raise WordsError(
                f"{len(self.peaks)} images cannot promise a rate of {rate:g}: calibrate on {int(np.ceil(1 / rate)) - 1} or more"
            )
        return float(np.sort(self.peaks)[max(place, 1) - 1])

    def save(self, path: Path) -> Path:
        """Write as JSON."""
        from counterscan.imaging.files import replacing

        with replacing(path) as draft:
            draft.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path

    @staticmethod
    def load(path: Path) -> Calibration:
        """Read what ``save`` wrote. ``DataError`` where it is something else."""
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            peaks = tuple(float(peak) for peak in told.pop("peaks"))
            return Calibration(peaks=peaks, **told | {"methods": tuple(told["methods"])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: no calibration ({' '.join(str(error).split())[:120]})") from None


def calibrate(
    images: Sequence[Any],
    *,
    finding: str,
    repeats: int = 1,
    method: str | Method | Sequence[str | Method] | None = None,
    model: str | Path | Backbone = "chest-nih",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Remove ``finding`` from images that do not have it, the same way ``attribute`` does."""
    from counterscan.attribution import several, told
    from counterscan.attribution.difference import combine, evidence
    from counterscan.attribution.repeats import looks
    from counterscan.editing import as_backbone, as_picture

    backbone = as_backbone(model)
    peaks: list[float] = []
    name, methods = finding, several(method, backbone.card)
    for i, image in enumerate(images):
        (seen,) = looks([as_picture(image)], finding, methods, repeats, backbone, seed)
        peaks.append(evidence(combine([look.map for look in seen])[0]))
        name = seen[0].result.edit.changes[0].finding
        if progress is not None:
            progress(i + 1, len(images))
    return Calibration(name, tuple(peaks), backbone.fingerprint, told(methods, backbone.card), repeats, repeats > 1)
