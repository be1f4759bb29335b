"""From a DICOM header to the window: modality LUT or rescale first, then VOI LUT, sigmoid or linear window."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.imaging.picture import middle_window
from counterscan.imaging.window import Curve, Values, monotone

Shown = tuple[float, float, bool, Curve | None]
"""Low, high, True where the larger stored value is darker (before MONOCHROME1 is considered), and the curve if any."""


def shown_as(data: Any, pixels: NDArray[Any]) -> Shown:
    """How the header wants grey pixels shown; where it says nothing, or its window shows nothing, as the pixels suggest."""
    if data.get("ModalityLUTSequence") or data.get("VOILUTSequence") or _sigmoid(data):
        return _curve(data, pixels)
    slope, intercept = _rescale(data)
    window = _linear(data)
    if window is not None:
        low, high = sorted((edge - intercept) / slope for edge in window)
        if low < pixels.max() and high > pixels.min():
            return low, high, slope < 0, None
    padding = data.get("PixelPaddingValue")
    low, high = middle_window(pixels, without=float(padding) if isinstance(padding, int) else None)
    return low, high, slope < 0, None


def _curve(data: Any, pixels: NDArray[Any]) -> Shown:
    stored = np.arange(int(pixels.min()), int(pixels.max()) + 1, dtype=np.float64)
    little = data.file_meta.TransferSyntaxUID.is_little_endian
    if data.get("ModalityLUTSequence"):
        item = data.ModalityLUTSequence[0]
        modality, top = _look_up(item, stored, little)
    else:
        slope, intercept = _rescale(data)
        modality, top = stored * slope + intercept, None
    if data.get("VOILUTSequence"):
        shown, most = _look_up(data.VOILUTSequence[0], modality, little)
        shown = shown / most
    elif _sigmoid(data):
        centre, width = _first(data.WindowCenter), _first(data.WindowWidth)
        shown = 1 / (1 + np.exp(-4 * (modality - centre) / width))
    else:
        low, high = _linear(data) or (0.0, float(top or 1))
        shown = np.clip((modality - low) / (high - low), 0, 1)
    curve, falls = monotone(stored, shown)
    low, high = curve.edges
    if low >= high or curve.unit[0] == curve.unit[-1]:  # the table shows these pixels all alike
        return *middle_window(pixels), falls, None
    return low, high, falls, curve


def _look_up(item: Any, values: Values, little_endian: bool) -> tuple[Values, int]:
    """Values through a LUT item, and the largest value that its depth allows."""
    entries, first, depth = (int(x) for x in item.LUTDescriptor)
    entries = entries % 65536 or 65536  # 0 stands for 65536, and the field may have been read as signed
    if first >= 32768 and values[0] < 0:
        first -= 65536
    data = item.LUTData
    if isinstance(data, bytes):
        narrow = len(data) < 2 * entries
        data = np.frombuffer(data, "u1" if narrow else "<u2" if little_endian else ">u2")
    table = np.asarray(data, np.int64) % 65536
    index = np.clip(np.round(values) - first, 0, min(entries, len(table)) - 1).astype(np.int64)
    return table[index].astype(np.float64), 2**depth - 1


def _linear(data: Any) -> tuple[float, float] | None:
    """The window's edges in modality values (PS3.3 C.11.2.1.2 and .3), or None without a usable one."""
    if data.get("WindowCenter") in (None, "") or data.get("WindowWidth") in (None, ""):
        return None
    centre, width = _first(data.WindowCenter), _first(data.WindowWidth)
    if data.get("VOILUTFunction") == "LINEAR_EXACT":
        return (centre - width / 2, centre + width / 2) if width > 0 else None
    return (centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2) if width > 1 else None


def _sigmoid(data: Any) -> bool:
    return data.get("VOILUTFunction") == "SIGMOID" and _linear(data) is not None


def _rescale(data: Any) -> tuple[float, float]:
    slope, intercept = data.get("RescaleSlope"), data.get("RescaleIntercept")
    return float(slope or 1), float(intercept or 0)


def _first(value: Any) -> float:
    """A header value, or the first of several."""
    return float(value if isinstance(value, (str, int, float)) or not hasattr(value, "__len__") else value[0])
