"""How stored values are shown, where it is no straight line: a monotone curve and its inverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """``stored`` (N,) increasing values and ``unit`` (N,) what each is shown as, in [0, 1] and never falling."""

    stored: Values
    unit: Values

    @property
    def edges(self) -> tuple[float, float]:
        """The stored values between which the curve rises: below and above them everything looks the same."""
        first = int(np.searchsorted(self.unit, self.unit[0], "right")) - 1
        last = int(np.searchsorted(self.unit, self.unit[-1], "left"))
        return float(self.stored[first]), float(self.stored[last])

    def show(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Stored values to unit values, clipped at the ends."""
        return np.interp(values, self.stored, self.unit).astype(np.float32)

    def store(self, unit: Values) -> Values:
        """Unit values to stored values; beyond the curve's ends a straight line of its mean slope."""
        rising, where = np.unique(self.unit, return_index=True)
        low, high = self.edges
        anchors = self.stored[where].copy()
        anchors[0], anchors[-1] = low, high
        beyond = np.minimum(unit - rising[0], 0) + np.maximum(unit - rising[-1], 0)
        return np.interp(unit, rising, anchors) + beyond * (high - low)


def monotone(stored: Values, shown: Values) -> tuple[Curve, bool]:
    """A curve from any look-up table, and True where it falls (the larger the stored value, the darker).

    Tables that rise and fall are levelled to the nearest curve that does not turn: an inverse has to exist.
    """
    falls = bool(shown[-1] < shown[0])
    unit = 1 - shown if falls else shown
    return Curve(stored, np.clip(np.maximum.accumulate(unit), 0, 1)), falls
