"""Do images show what words say? From the embeddings of any dual encoder (CLIP, BiomedCLIP, BioViL-T), rows of (N, D)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating[Any]]


def image_text_score(images: Features, texts: Features) -> NDArray[np.float64]:
    """Cosine (N,) in [-1, 1] of each image with its own text (Hessel et al., EMNLP 2021, without its factor 2.5)."""
    return (_unit(images) * _unit(texts)).sum(1)


def directional_score(before: Features, after: Features, source: Features, target: Features) -> NDArray[np.float64]:
    """Cosine (N,) of the way from image to edited image with that from source to target text (Gal et al. 2022).

    RadEdit keeps edits of at least 0.2; 0 where nothing changed.
    """
    return (_unit(np.subtract(after, before)) * _unit(np.subtract(target, source))).sum(1)


def retrieval(images: Features, texts: Features) -> NDArray[np.float64]:
    """1 where an image's own text is the nearest of all N texts, else 0; (N,). Chance is 1 / N."""
    return np.asarray((_unit(images) @ _unit(texts).T).argmax(1) == np.arange(len(images)), np.float64)


def _unit(x: Features) -> NDArray[np.float64]:
    x = np.asarray(x, np.float64)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12))
