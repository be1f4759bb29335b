"""Exact nearest neighbours in blocks: memory flat in the number of images, and nothing to tune."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating[Any]]
BLOCK = 2048


def distances(a: Features, b: Features) -> NDArray[np.float64]:
    """Euclidean distances (N, M) of all rows of ``a`` (N, D) to those of ``b`` (M, D)."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * (a @ b.T)
    return np.asarray(np.sqrt(np.clip(squares, 0, None)))


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Slices that cover n rows."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def nearest(queries: Features, index: Features, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distances and positions (N, k) of the k nearest rows of ``index``, nearest first; equal ones by position.

    Both may be memory maps. With the package ``faiss`` installed its exact flat index does the search.
    """
    k = min(k, len(index))
    try:
        faiss = importlib.import_module("faiss")
    except ImportError:
        return _nearest(queries, index, k)
    flat = faiss.IndexFlatL2(index.shape[1])
    for part in blocks(len(index)):
        flat.add(np.ascontiguousarray(index[part], np.float32))
    squares, places = flat.search(np.ascontiguousarray(queries, np.float32), k)
    return np.sqrt(np.clip(squares, 0, None)).astype(np.float64), places.astype(np.int64)


def _nearest(queries: Features, index: Features, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    far, places = np.full((len(queries), k), np.inf), np.zeros((len(queries), k), np.int64)
    for rows in blocks(len(queries)):
        for part in blocks(len(index)):
            fresh = distances(queries[rows], index[part])
            names = np.broadcast_to(np.arange(part.start, part.stop), fresh.shape)
            both = np.concatenate([far[rows], fresh], 1)
            named = np.concatenate([places[rows], names], 1)
            order = np.argsort(both, axis=1, kind="stable")[:, :k]
            far[rows] = np.take_along_axis(both, order, 1)
            places[rows] = np.take_along_axis(named, order, 1)
    return far, places
