"""Exact nearest neighbours in blocks: memory flat in the number of images, and nothing to tune."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating[Any]]
BLOCK, INDEX_BLOCK = 2048, 16384  # rows held at once


def distances(a: Features, b: Features) -> NDArray[np.float64]:
    """Euclidean distances (N, M) of all rows of ``a`` (N, D) to those of ``b`` (M, D)."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * (a @ b.T)
    return np.asarray(np.sqrt(np.clip(squares, 0, None)))


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Slices that cover n rows."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def nearest(queries: Features, index: Features, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distances and positions (N, k) of the k nearest rows of ``index``, nearest first.

    Exact, so that no copy is missed, and block by block, so that both may be memory maps of any length. The package
    ``faiss`` does the search of a block where it is installed.
    """
    k = min(k, len(index))
    try:
        search = importlib.import_module("faiss").knn
    except ImportError:
        search = _knn
    far, places = np.full((len(queries), k), np.inf, np.float32), np.zeros((len(queries), k), np.int64)
    for rows in blocks(len(queries)):
        asked = np.ascontiguousarray(queries[rows], np.float32)
        for part in blocks(len(index), INDEX_BLOCK):
            squares, local = search(
                asked, np.ascontiguousarray(index[part], np.float32), min(k, part.stop - part.start)
            )
            both = np.concatenate([far[rows], squares], 1)
            named = np.concatenate([places[rows], local + part.start], 1)
            order = np.argsort(both, axis=1, kind="stable")[:, :k]
            far[rows], places[rows] = np.take_along_axis(both, order, 1), np.take_along_axis(named, order, 1)
    return np.sqrt(np.clip(far, 0, None)).astype(np.float64), places


def _knn(queries: Features, index: Features, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Squared distances and positions (N, k), in any order, as ``faiss.knn`` gives them."""
    squares = np.square(queries).sum(1)[:, None] + np.square(index).sum(1) - 2 * (queries @ index.T)
    names = np.argpartition(squares, k - 1, axis=1)[:, :k]
    return np.take_along_axis(squares, names, 1), names
