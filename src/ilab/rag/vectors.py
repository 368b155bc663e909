"""Unit vectors, and the nearest of them by exact comparison: a store of 50,000 passages needs no index for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ilab.errors import InputError

Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


def unit(made: Floats) -> Floats:
    """Rows of length 1; rows of zeros stay. Raises InputError where a number is not finite."""
    if not np.isfinite(made).all():
        raise InputError("an embedding holds numbers that are not finite", hint="take another embedding model")
    lengths = np.linalg.norm(made, axis=1, keepdims=True)
    scaled: Floats = np.divide(made, lengths, out=np.zeros_like(made), where=lengths > 0)
    return scaled


def nearest(rows: Floats, query: Floats, count: int) -> list[tuple[int, float]]:
    """The (position, cosine) of the ``count`` rows nearest to ``query``, the nearest first; only those above 0.

    ``rows`` is [n, d] and ``query`` [d], both of length 1. Cosines are compared at five decimals, and among equals the
    smaller position is first, so that the last bit of a sum decides nothing.
    """
    if not len(rows) or count < 1:
        return []
    cosines = np.round(rows @ query, 5)
    found = np.arange(len(rows))
    if len(rows) > count:  # all that are as near as the last one wanted
        least = np.partition(cosines, len(rows) - count)[len(rows) - count]
        found = np.flatnonzero(cosines >= least)
    order = found[np.lexsort((found, -cosines[found]))][:count]
    return [(int(at), float(cosines[at])) for at in order if cosines[at] > 0]
