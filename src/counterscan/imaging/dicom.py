"""DICOM in and out: native stored values stay native; what leaves is marked as derived and synthetic."""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from counterscan.errors import ImageError
from counterscan.imaging.picture import Picture, check, check_size


def is_dicom(path: Path) -> bool:
    """True when the file has the DICOM preamble or ends in .dcm."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


def read_dicom(path: Path) -> Picture:
    """One frame of a DICOM image. Stored values are kept; the window becomes ``low`` and ``high``."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    if path.stat().st_size == 0:
        raise ImageError(f"{path.name}: the file is empty")
    try:
        data = pydicom.dcmread(path)
    except (InvalidDicomError, EOFError, OSError, ValueError) as error:
        raise ImageError(f"{path.name}: is not a readable DICOM file ({type(error).__name__})") from None
    if "PixelData" not in data:
        raise ImageError(f"{path.name}: the DICOM file has no pixels")
    frames = int(data.get("NumberOfFrames", 1) or 1)
    if frames > 1:
        raise ImageError(f"{path.name}: has {frames} frames; extract the one to edit as a single-frame file")
    check_size(path.name, int(data.get("Columns", 0)), int(data.get("Rows", 0)))
    try:
        pixels = data.pixel_array
    except Exception as error:  # every decoder plugin raises its own type
        syntax = data.file_meta.TransferSyntaxUID.name if "TransferSyntaxUID" in data.file_meta else "unknown"
        raise ImageError(f"{path.name}: cannot decode transfer syntax {syntax!r} ({type(error).__name__})") from None
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] != 3):
        raise ImageError(f"{path.name}: pixels of shape {pixels.shape}; one 2-D frame is needed")
    bits = int(data.BitsStored)
    low, high = _window(data, pixels, bits)
    return check(
        Picture(
            np.ascontiguousarray(pixels), path, "dicom", bits, low, high,
            inverted=data.get("PhotometricInterpretation") == "MONOCHROME1", spacing_mm=_spacing(data), header=data,
        )
    )  # fmt: skip


def _window(data: Any, pixels: np.ndarray, bits: int) -> tuple[float, float]:
    """The window in stored values: from WindowCenter/Width through the rescale, else from the pixels themselves."""
    slope, intercept = float(data.get("RescaleSlope", 1) or 1), float(data.get("RescaleIntercept", 0) or 0)
    first = lambda value: float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)  # noqa: E731
    if pixels.ndim == 3:
        return 0.0, float(2**bits - 1)
    if data.get("WindowCenter") is not None and data.get("WindowWidth") is not None:
        centre, width = first(data.WindowCenter), first(data.WindowWidth)
        if width > 1:
            low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
            return (low - intercept) / slope, (high - intercept) / slope
    low, high = (float(x) for x in np.percentile(pixels, [0.1, 99.9]))
    return (low, high) if high > low else (float(pixels.min()), float(pixels.max()) + 1e-6)


def _spacing(data: Any) -> tuple[float, float] | None:
    value = data.get("PixelSpacing") or data.get("ImagerPixelSpacing")
    return (float(value[0]), float(value[1])) if value else None


def write_dicom(picture: Picture, path: Path, note: Mapping[str, Any]) -> Path:
    """Write a derived image of the source's study: new UIDs, native depth, marked synthetic in every standard place.

    ``note`` may hold method, words, model, fingerprint and seed; it goes into DerivationDescription.
    """
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    if picture.header is None:
        raise ImageError(f"{path.name}: only a picture read from DICOM can be written as DICOM")
    data = deepcopy(picture.header)
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    source.PurposeOfReferenceCodeSequence = Sequence(
        [_code("121322", "DCM", "Source image for image processing operation")]
    )
    data.SourceImageSequence = Sequence([source])
    data.SOPInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    old = list(data.get("ImageType", []))
    data.ImageType = ["DERIVED", "SECONDARY", *old[2:]]
    data.SyntheticData = "YES"
    words = ", ".join(f"{key}: {value}" for key, value in note.items())
    data.DerivationDescription = f"Counterscan synthetic counterfactual, not for diagnosis. {words}"[:1024]
    data.SeriesDescription = "SYNTHETIC counterfactual"
    equipment = Dataset()
    equipment.Manufacturer, equipment.ManufacturerModelName = "Counterscan", "Counterscan"
    equipment.PurposeOfReferenceCodeSequence = Sequence([_code("109102", "DCM", "Processing Equipment")])
    data.ContributingEquipmentSequence = Sequence([*data.get("ContributingEquipmentSequence", []), equipment])
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    width = 8 if picture.pixels.dtype.itemsize == 1 else 16
    signed = np.issubdtype(picture.pixels.dtype, np.signedinteger)
    raw = np.ascontiguousarray(picture.pixels.astype(f"<{'i' if signed else 'u'}{width // 8}")).tobytes()
    data.BitsAllocated, data.PixelRepresentation = width, int(signed)
    if picture.pixels.ndim == 3:
        data.PhotometricInterpretation, data.PlanarConfiguration = "RGB", 0
    data.PixelData = raw + b"\0" * (len(raw) % 2)
    data["PixelData"].VR = "OB" if width == 8 else "OW"
    data["PixelData"].is_undefined_length = False
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data.save_as(temporary, enforce_file_format=True)
    os.replace(temporary, path)
    return path


def _code(value: str, scheme: str, meaning: str) -> Any:
    from pydicom.dataset import Dataset

    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code
