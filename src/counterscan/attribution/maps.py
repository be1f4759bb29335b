"""Save a finding's map: PNG files marked synthetic, NIfTI, and a DICOM segmentation."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from counterscan.drawing import difference_scale, overlay, signed_map
from counterscan.errors import ImageError, ModelError, WordsError
from counterscan.imaging.files import is_dicom, replacing

if TYPE_CHECKING:
    from counterscan.attribution import Attribution
    from counterscan.imaging import Picture

FORMATS = ("png", "nifti", "dicom-seg")
FILES = {"mask": "map-mask"}  # an edit of the same image has a mask of its own


def save_attribution(result: Attribution, folder: Path, stem: str, formats: Sequence[str]) -> dict[str, str]:
    """Write ``result`` in every format; names by kind (``map``, ``mask``, ``overlay``, ``map_nifti``, ``segmentation`` …)."""
    check_formats(formats)
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, str] = {}
    extra: dict[str, NDArray[np.float32]] = {"spread": result.spread} if result.spread.any() else {}
    extra |= {} if result.attention is None else {"attention": result.attention}
    if "png" in formats:
        names |= save_map(result.factual.unit(), result.map, result.mask, folder, stem)
        for kind, value in extra.items():
            tinted = overlay(result.factual.unit(), value, float(value.max()) or 1.0)
            names[kind] = _save_png(tinted, folder / f"{stem}.{kind}.png", kind)
    if "nifti" in formats:
        values: dict[str, NDArray[Any]] = {"map": result.map, "mask": result.mask.astype(np.uint8)}
        for kind, value in (values | extra).items():
            path = folder / f"{stem}.{FILES.get(kind, kind)}.nii.gz"
            names[f"{kind}_nifti"] = save_nifti(value, result.factual, path).name
    if "dicom-seg" in formats:
        names["segmentation"] = save_segmentation(result, folder / f"{stem}.seg.dcm").name
    return names


def check_formats(formats: Sequence[str]) -> None:
    """Raises ``WordsError`` for a format that nobody knows."""
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise WordsError(f"no format {unknown[0]!r}: known are {', '.join(FORMATS)}")


def check_segmentable(images: Sequence[Path]) -> None:
    """Raises ``WordsError`` for an image that no DICOM segmentation can refer to, ``ModelError`` without highdicom.

    Only what is there is looked at: that an image is absent or damaged is said when it is read.
    """
    _highdicom()
    for path in images:
        if path.is_file() and not is_dicom(path):
            raise WordsError(f"{path}: a DICOM segmentation needs a DICOM image; ask for png or nifti")


def save_map(
    factual: NDArray[np.float32], difference: NDArray[np.float32], mask: NDArray[np.bool_], folder: Path, stem: str
) -> dict[str, str]:
    """Write ``<stem>.map.png``, ``<stem>.map-mask.png`` and ``<stem>.overlay.png``; returns their names by kind."""
    folder.mkdir(parents=True, exist_ok=True)
    scale = difference_scale(difference)
    shown = np.where(mask, difference, 0).astype(np.float32)
    images = {
        "map": signed_map(difference, scale),
        "mask": mask.astype(np.float32),
        "overlay": overlay(factual, shown, scale),
    }
    return {
        kind: _save_png(image, folder / f"{stem}.{FILES.get(kind, kind)}.png", kind) for kind, image in images.items()
    }


def _save_png(image: NDArray[Any], path: Path, kind: str) -> str:
    """Write an image in [0, 1], or of 8 bits, and what it is; returns its name."""
    from counterscan.imaging.raster import write_png

    pixels = image if image.dtype == np.uint8 else (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return write_png(pixels, path, {"kind": kind}).name


def save_nifti(values: NDArray[Any], factual: Picture, path: Path) -> Path:
    """Write (H, W) as NIfTI, float32 or uint8.

    In the voxel grid and with the affine of a NIfTI source, so that viewers lay one over the other. Other images become a
    slice of the spacing that is known (1 mm where none is), x to the patient's left and y to the front, as on the screen.
    """
    import nibabel

    from counterscan.imaging.nifti import Geometry
    from counterscan.imaging.provenance import SOFTWARE

    geometry = factual.header
    if isinstance(geometry, Geometry):
        grid = geometry.turn.undo(values).reshape(geometry.shape, order="F")
        image = nibabel.Nifti1Image(grid, geometry.header.get_best_affine())
    else:
        down, across = factual.spacing_mm or (1.0, 1.0)
        image = nibabel.Nifti1Image(values.T[..., None], np.diag([-across, -down, 1.0, 1.0]))
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"{SOFTWARE}: synthetic, not for diagnosis".encode()
    with replacing(path) as draft:
        whole = draft.with_name(f"{draft.name}.nii.gz")
        try:
            nibabel.save(image, whole)
            whole.replace(draft)
        finally:
            whole.unlink(missing_ok=True)
    return path


def save_segmentation(result: Attribution, path: Path) -> Path:
    """Write the mask as a binary DICOM segmentation that refers to the source image (highdicom; Bridge et al. 2022)."""
    from pydicom.dataset import Dataset

    from counterscan.imaging.dicom import explained

    if not isinstance(result.factual.header, Dataset):
        raise ImageError(f"{result.factual.name}: a DICOM segmentation needs a DICOM image; save PNG or NIfTI")
    if not result.mask.any():
        raise ImageError(f"{result.factual.name}: no {result.finding} was found, and a segmentation may not be empty")
    highdicom = _highdicom()
    refused = "its header does not allow a DICOM segmentation; save PNG or NIfTI"
    with explained(Path(result.factual.name), refused), replacing(path) as draft:
        _segmentation(highdicom, result).save_as(draft, enforce_file_format=True)
        highdicom.seg.segread(draft)  # what the library writes of a header with gaps, it may refuse to read
    return path


def _highdicom() -> Any:
    try:
        return importlib.import_module("highdicom")
    except ImportError:
        raise ModelError("DICOM segmentations need highdicom; pip install counterscan[dicom]") from None


def _segmentation(highdicom: Any, result: Attribution) -> Any:
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code
    from pydicom.uid import generate_uid

    from counterscan.imaging.provenance import DISCLAIMER, SOFTWARE, software_version

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=f"{SOFTWARE} {result.model}"[:64], version=software_version(), family=codes.DCM.ArtificialIntelligence
    )
    category, kind = codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion
    if _is_device(result.finding):
        category, kind = codes.SCT.PhysicalObject, Code("49062001", "SCT", "Device")
    segment = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label=result.finding[:64],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
    )
    return highdicom.seg.Segmentation(
        source_images=[_source_header(result.factual.header)],
        pixel_array=result.mask.astype(np.uint8)[None],
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=SOFTWARE,
        manufacturer_model_name=SOFTWARE,
        software_versions=software_version(),
        device_serial_number="0",
        series_description="SYNTHETIC attribution, not for diagnosis",
        content_description=DISCLAIMER[:64],
    )


def _is_device(word: str) -> bool:
    """Whether a finding is a thing. What the vocabulary does not know is taken for a lesion."""
    from counterscan.language.vocabulary import lookup

    try:
        return lookup(word).kind == "device"
    except WordsError:
        return False


def _source_header(header: Any) -> Any:
    """The source's header as highdicom takes it.

    Attributes of patient and study that files in the wild lack are there, empty, as the standard has it. Text is in UTF-8:
    highdicom knows no lists of character sets, as Japanese files have. A projection has no pixel spacing, because highdicom
    would write it without a slice thickness and then refuse to read it; viewers take it from the image.
    """
    from copy import deepcopy

    out = deepcopy(header)
    out.decode()
    out.SpecificCharacterSet = "ISO_IR 192"
    if "PatientName" in out:
        out.PatientName = str(out.PatientName)  # it keeps its old bytes otherwise
    if "ImagePositionPatient" not in out and "PixelSpacing" in out:
        del out.PixelSpacing
    lacking = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate")
    for name in (*lacking, "StudyTime", "ReferringPhysicianName"):
        if name not in out:
            setattr(out, name, "")
    return out
