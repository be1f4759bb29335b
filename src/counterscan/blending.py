"""Which part of a model's change goes into the original image, and how it fades out: one rule, as a pure function.

A model gives two decodings: ``reconstruction`` of the image as it is and ``edited``. Both share the autoencoder's
error, so their difference is the change the edit made. Where that is strong the edit replaces what the original
holds (also the detail that the autoencoder lost), so there the change is counted from the original itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

THRESHOLD = 0.04  # smoothed absolute change, in intensities from 0 to 1, that counts as changed
SMOOTHING = 1 / 128  # of the image side: how far a pixel looks around before it is called changed
MARGIN = 1 / 64  # of the image side: how far the changed area is grown
FEATHER = 1 / 64  # of the image side: over what distance the change fades out
SMALLEST = 5e-4  # of the image area: smaller changed areas are noise


def blend(
    original: Array,
    reconstruction: Array,
    edited: Array,
    *,
    threshold: float = THRESHOLD,
    region_mask: NDArray[np.bool_] | None = None,
) -> tuple[Array, Array]:
    """The signed change (H, W[, C]) to add to the original, and its weight (H, W) in [0, 1].

    All three images are float32 (H, W[, C]) in [0, 1], square or not. The weight is 0 outside the changed area and
    outside ``region_mask``, 1 well inside, and falls smoothly between. The change is not yet multiplied by the weight.
    """
    mask = changed_area(reconstruction, edited, threshold=threshold)
    if region_mask is not None:
        mask &= region_mask
    side = max(mask.shape)
    weight = feather(mask, FEATHER * side, region_mask)
    inside = weight[..., None] if original.ndim == 3 else weight
    change = inside * (edited - original) + (1 - inside) * (edited - reconstruction)
    return change.astype(np.float32), weight


def changed_area(reconstruction: Array, edited: Array, *, threshold: float = THRESHOLD) -> NDArray[np.bool_]:
    """Where the smoothed absolute difference exceeds ``threshold``, without specks and holes, grown by a margin. (H,
    W).
    """
    from scipy import ndimage

    difference = np.abs(edited - reconstruction)
    if difference.ndim == 3:
        difference = difference.max(axis=2)
    side = max(difference.shape)
    mask = ndimage.gaussian_filter(difference, SMOOTHING * side) > threshold
    labels, count = ndimage.label(mask)
    if count:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        mask = (sizes >= SMALLEST * mask.size)[labels]
    grown = ndimage.distance_transform_edt(~mask) <= MARGIN * side if mask.any() else mask
    return ndimage.binary_fill_holes(grown)


def feather(mask: NDArray[np.bool_], distance: float, limit: NDArray[np.bool_] | None = None) -> Array:
    """1 inside ``mask``, falling to 0 over ``distance`` pixels outside it; with a ``limit`` also falling to 0 at its
    border.
    """
    from scipy import ndimage

    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    distance = max(distance, 1.0)
    weight = np.clip(1 - ndimage.distance_transform_edt(~mask) / distance, 0, 1)
    if limit is not None:
        # the image's own border is no border of the limit: pad with True before measuring
        depth = ndimage.distance_transform_edt(np.pad(limit, 1, mode="edge"))[1:-1, 1:-1]
        weight = np.where(limit, weight * np.clip(depth / distance, 0, 1), 0)
    return (weight * weight * (3 - 2 * weight)).astype(np.float32)
