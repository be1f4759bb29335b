"""The maps of an image that are compared: by removal, by the words' attention, by a classifier, and by knowing nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from counterscan.attribution.difference import combine, strength

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone
    from counterscan.imaging import Picture
    from counterscan.robustness.classifier import Classifier

REMOVAL, WORDS, CAM, GRADIENTS, CENTRE = "removal", "word attention", "Grad-CAM", "integrated gradients", "centre"


@dataclass(frozen=True)
class Mapper:
    """What makes the maps. Without ``label`` (the classifier's output for the finding) it gives none."""

    backbone: Backbone
    finding: str
    methods: tuple[str | None, ...] = (None,)
    repeats: int = 1
    seed: int = 0
    classifier: Classifier | None = None
    label: int | None = None
    words: bool = True

    @property
    def names(self) -> list[str]:
        """The maps there will be, besides ``spread``."""
        peers = [CAM, GRADIENTS] if self.classifier is not None and self.label is not None else []
        return [REMOVAL, *([WORDS] if self.words else []), *peers, CENTRE]

    def __call__(self, pictures: Sequence[Picture]) -> list[dict[str, NDArray[np.float32]]]:
        """For every picture its maps (H, W) >= 0 by name, and ``signed`` and ``spread`` of the removals."""
        from counterscan.attribution.peers import centre_prior
        from counterscan.attribution.repeats import looks
        from counterscan.attribution.words import word_map

        out = []
        removals = looks(pictures, self.finding, self.methods, self.repeats, self.backbone, self.seed)
        for picture, seen in zip(pictures, removals, strict=True):
            mean, spread = combine([look.map for look in seen])
            maps = {"signed": mean, "spread": strength(spread), REMOVAL: strength(mean)}
            if self.words:
                maps[WORDS] = word_map(picture, finding=self.finding, model=self.backbone, seed=self.seed)
            maps |= self._peers(picture)
            maps[CENTRE] = centre_prior((mean.shape[0], mean.shape[1]))
            out.append(maps)
        return out

    def _peers(self, picture: Picture) -> dict[str, NDArray[np.float32]]:
        from counterscan.attribution.peers import grad_cam, integrated_gradients
        from counterscan.imaging import fit
        from counterscan.robustness.study import shown

        model, label = self.classifier, self.label
        if model is None or label is None:
            return {}
        _, placement = fit(picture.unit(), model.size)
        image = shown(picture, model.size, model.channels)[None]
        cam = grad_cam(model, model.blocks[-1], image, label)[0].numpy()
        gradients = strength(integrated_gradients(model, image, label)[0].numpy())
        return {CAM: placement.restore(cam), GRADIENTS: placement.restore(gradients)}
