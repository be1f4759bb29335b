"""Where is the finding? The image is asked what it would look like without it; the difference answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from counterscan.attribution.difference import Region, combine, regions, strength, threshold

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone
    from counterscan.imaging import Picture
    from counterscan.methods import Method, Progress

__all__ = ["Attribution", "Region", "attribute"]


@dataclass(frozen=True, eq=False)
class Attribution:
    """Where removing a finding changes an image.

    ``map`` (H, W) is the mean signed difference, counterfactual minus factual, at native size; ``spread`` its standard
    deviation over repeats; ``mask`` where its :func:`~counterscan.attribution.difference.strength` exceeds ``threshold``:
    what a null edit of the same image changes, and what removing the finding changes in 95 % of images that do not have it
    (``Card.null_change``, where the model was calibrated). ``present`` is False when no region is left: the model sees no
    such finding here.
    """

    factual: Picture
    finding: str
    map: NDArray[np.float32]
    spread: NDArray[np.float32]
    mask: NDArray[np.bool_]
    threshold: float
    regions: list[Region]
    present: bool
    evaluations: int
    seconds: float
    seed: int
    model: str
    fingerprint: str

    def save(self, folder: str | Path, stem: str) -> dict[str, str]:
        """Write the heat map, the mask and the overlay as PNG into ``folder``; returns their names by kind."""
        from counterscan.attribution.maps import save_map

        return save_map(self.factual.unit(), self.map, self.mask, Path(folder), stem)


def attribute(
    image: Any,
    *,
    finding: str,
    repeats: int = 1,
    method: str | Method | None = None,
    model: str | Path | Backbone = "chest-nih",
    seed: int = 0,
    progress: Progress | None = None,
) -> Attribution:
    """Find a finding by removing it ``repeats`` times, with seeds ``seed``, ``seed + 1``, …

    Raises:
        WordsError: an unknown finding or fewer than one repeat.
    """
    from counterscan.editing import as_backbone, as_picture, edit
    from counterscan.errors import WordsError

    if repeats < 1:
        raise WordsError(f"repeats must be at least 1, got {repeats}")
    picture, backbone = as_picture(image), as_backbone(model)

    def part(k: int) -> Progress:
        return lambda done, total: progress(k * total + done, (repeats + 1) * total) if progress else None

    settings: dict[str, Any] = {"method": method, "model": backbone}
    results = [edit(picture, remove=[finding], **settings, seed=seed + k, progress=part(k)) for k in range(repeats)]
    source = results[0].edit.source
    null = edit(picture, source=source, target=source, **settings, seed=seed, progress=part(repeats))
    mean, spread = combine([result.difference for result in results])
    name = results[0].edit.changes[0].finding
    limit = max(threshold([null.difference]), float(backbone.card.null_change.get(name, 0.0)))
    mask = strength(mean) > limit
    found = regions(mask, mean, picture.spacing_mm)
    return Attribution(
        picture, finding, mean, spread, mask, limit, found, bool(found),
        evaluations=sum(r.evaluations for r in results) + null.evaluations,
        seconds=sum(r.seconds for r in results) + null.seconds,
        seed=seed, model=results[0].model, fingerprint=results[0].fingerprint,
    )  # fmt: skip
