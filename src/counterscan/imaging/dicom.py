"""DICOM in and out: native stored values stay native; what leaves is marked as derived and synthetic."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import ImageError
from counterscan.imaging.files import replacing
from counterscan.imaging.picture import Picture, check, check_size
from counterscan.imaging.provenance import SOFTWARE, derivation, software_version
from counterscan.imaging.voi import shown_as

STALE = (
    "PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "IconImageSequence", "DigitalSignaturesSequence",
    "MACParametersSequence", "InstanceCreationDate", "InstanceCreationTime", "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData", "PaletteColorLookupTableUID",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
)  # fmt: skip
"""What describes the source's pixels or file and would be false in ours."""


@contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turn whatever pydicom and its decoders raise into one line without values: those may be a patient's."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # every plugin raises its own type
        raise ImageError(f"{path.name}: {what} ({type(error).__name__})") from None


def read_dicom(path: Path) -> Picture:
    """One frame of a DICOM image, 8 to 16 bits, grey or colour. Stored values are kept; the header gives the window.

    ``Picture.header`` is the data set without its pixels.
    """
    import pydicom

    with explained(path, "is not a readable DICOM file"):
        data = pydicom.dcmread(path)
        if "PixelData" not in data:
            raise ImageError(f"{path.name}: the DICOM file has no image pixels; name an image, not a report or a plan")
        frames = int(data.get("NumberOfFrames", 1) or 1)
        if frames > 1:
            raise ImageError(f"{path.name}: has {frames} frames; extract the one to edit as a single-frame file")
        check_size(path.name, int(data.get("Columns", 0)), int(data.get("Rows", 0)))
        bits, grey = int(data.get("BitsStored", 0)), int(data.get("SamplesPerPixel", 1)) == 1
        if not 8 <= bits <= 16:
            raise ImageError(f"{path.name}: {bits} bits are stored for a sample; 8 to 16 are needed")
        top = int(data.get("HighBit", bits - 1))
        if top != bits - 1:  # the values lie further up, and pydicom does not shift them down
            raise ImageError(
                f"{path.name}: HighBit (0028,0102) is {top} where BitsStored (0028,0101) is {bits}; {bits - 1} is needed"
            )
    pixels = _decode(path, data)
    with explained(path, "its header is damaged"):
        del data.PixelData
        if grey and data.PhotometricInterpretation == "PALETTE COLOR":
            pixels, bits = _painted(data, pixels)
        low, high, falls, curve = (0.0, 2.0**bits - 1, False, None) if pixels.ndim == 3 else shown_as(data, pixels)
        inverted = falls != (data.PhotometricInterpretation == "MONOCHROME1")
        spacing = data.get("PixelSpacing") or data.get("ImagerPixelSpacing")
        spacing_mm = (float(spacing[0]), float(spacing[1])) if spacing else None
        synthetic = data.get("SyntheticData") == "YES"
    return check(
        Picture(pixels, path, "dicom", bits, low, high, inverted, spacing_mm, data, curve, synthetic=synthetic)
    )


def _decode(path: Path, data: Any) -> NDArray[Any]:
    """The stored values; colour as RGB."""
    from pydicom.pixels import get_decoder, pixel_array

    with explained(path, "does not name its transfer syntax"):
        syntax = data.file_meta.TransferSyntaxUID
    unsupported = f"transfer syntax {syntax.name!r} cannot be decoded here"
    with explained(path, unsupported):
        decoder = get_decoder(syntax)
        if not decoder.is_available:
            raise ImageError(f"{path.name}: {unsupported}; install counterscan[dicom], or decompress the file first")
    compressed = f"its pixels cannot be decoded from {syntax.name!r}; decompress the file first, if it is not damaged"
    damaged = "its pixels are damaged, truncated or do not fit the header"
    with explained(path, compressed if syntax.is_encapsulated else damaged):
        pixels = pixel_array(data)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] != 3):
        raise ImageError(f"{path.name}: pixels of shape {pixels.shape}; one 2-D frame is needed")
    return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))


def _painted(data: Any, pixels: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Palette indices as the colours they stand for, and the bits of those."""
    from pydicom.pixels import apply_color_lut

    colour = np.ascontiguousarray(apply_color_lut(pixels, data)[..., :3])
    return colour, colour.dtype.itemsize * 8


def write_dicom(picture: Picture, path: Path, note: Mapping[str, Any] | None) -> Path:
    """Write a derived image of the source's study: new UIDs, native depth, marked synthetic in every standard place.

    ``note`` may hold method, words, model, fingerprint and seed; it goes into DerivationDescription. Patient, study and
    BurnedInAnnotation stay as they are: writing takes nobody's identity away. ``None`` writes the source itself again.
    """
    from pydicom.dataset import Dataset

    if not isinstance(picture.header, Dataset):
        raise ImageError(f"{path.name}: only a picture read from DICOM can be written as DICOM; write .png")
    with explained(path, "its source's header cannot be written again; write .png"):
        data = deepcopy(picture.header)
        _to_little_endian(data)
        for name in STALE:
            if name in data:
                delattr(data, name)
        if note is not None:
            _declare(data, note)
        _set_pixels(data, picture)
        with replacing(path) as draft:
            data.save_as(draft, enforce_file_format=True)
    return path


def _declare(data: Any, note: Mapping[str, Any]) -> None:
    """Say in the header what this image is, what it was made from and by what."""
    from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

    data.SOPClassUID = data.get("SOPClassUID") or SecondaryCaptureImageStorage
    if data.get("SOPInstanceUID"):  # without, nothing can refer to it
        data.SourceImageSequence = [
            _item(
                ReferencedSOPClassUID=data.SOPClassUID,
                ReferencedSOPInstanceUID=data.SOPInstanceUID,
                PurposeOfReferenceCodeSequence=[code("121322", "Source image for image processing operation")],
            )
        ]
    data.SOPInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    kind = data.get("ImageType") or []
    data.ImageType = ["DERIVED", "SECONDARY", *([] if isinstance(kind, str) else kind[2:])]
    data.SyntheticData = "YES"
    data.DerivationDescription = derivation(note)
    data.SeriesDescription = "SYNTHETIC counterfactual, not for diagnosis"
    equipment = _item(
        Manufacturer=SOFTWARE,
        ManufacturerModelName=SOFTWARE,
        SoftwareVersions=software_version(),
        ContributionDateTime=datetime.now().astimezone().strftime("%Y%m%d%H%M%S%z"),
        ContributionDescription="Synthetic counterfactual image",
        PurposeOfReferenceCodeSequence=[code("109102", "Processing Equipment")],
    )
    data.ContributingEquipmentSequence = [*(data.get("ContributingEquipmentSequence") or []), equipment]


def _set_pixels(data: Any, picture: Picture) -> None:
    """The picture's pixels, uncompressed, and what the header says of their layout."""
    from pydicom.uid import ExplicitVRLittleEndian

    pixels, width = picture.pixels, picture.pixels.dtype.itemsize * 8
    raw = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes()
    data.Rows, data.Columns = pixels.shape[:2]
    data.BitsAllocated, data.BitsStored, data.HighBit = width, picture.bits, picture.bits - 1
    data.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    if pixels.ndim == 3:
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    for name, value in (("SmallestImagePixelValue", pixels.min()), ("LargestImagePixelValue", pixels.max())):
        if name in data:
            setattr(data, name, int(value))
    data.add_new("PixelData", "OB" if width == 8 else "OW", raw + b"\0" * (len(raw) % 2))
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.preamble = b"\0" * 128  # the source's may point into its own file


def _to_little_endian(data: Any) -> None:
    """Parse every element in the source's byte order, and turn the 16-bit words that pydicom leaves as bytes."""
    big = not data.file_meta.TransferSyntaxUID.is_little_endian

    def turn(_: Any, element: Any) -> None:
        if big and element.VR == "OW" and isinstance(element.value, bytes):
            element.value = np.frombuffer(element.value, ">u2").astype("<u2").tobytes()

    data.walk(turn)
    data.set_original_encoding(False, True, data.original_character_set)


def _item(**elements: Any) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return item


def code(value: str, meaning: str) -> Any:
    """An item of DICOM's own coding scheme."""
    return _item(CodeValue=value, CodingSchemeDesignator="DCM", CodeMeaning=meaning)
