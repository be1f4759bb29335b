"""A picture that did not come from DICOM, as a DICOM Secondary Capture: so that every answer can go into an archive."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from counterscan.imaging.files import replacing
from counterscan.imaging.provenance import SOFTWARE, derivation, software_version

if TYPE_CHECKING:
    from counterscan.imaging import Picture

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def write_capture(picture: Picture, path: Path, note: Mapping[str, Any]) -> Path:
    """Write a picture as shown, 16 bits grey or 8 bits colour, marked derived and synthetic. Names no patient.

    It is an image of a new study of nobody: an archive asks for the patient before it takes it.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    unit, now = picture.unit(), datetime.now()
    grey = unit.ndim == 2
    bits = 16 if grey else 8
    pixels = np.round(unit * (2**bits - 1)).astype(np.dtype(f"<u{bits // 8}"))
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = UID(SECONDARY_CAPTURE), generate_uid()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    for empty in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber",
                  "ReferringPhysicianName", "StudyDate", "StudyTime"):  # fmt: skip
        setattr(data, empty, "")
    data.SeriesNumber, data.InstanceNumber = 1, 1
    data.ContentDate, data.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    data.Modality, data.ConversionType, data.ImageType = "OT", "WSD", ["DERIVED", "SECONDARY"]
    data.Manufacturer, data.SoftwareVersions = SOFTWARE, software_version()
    data.SyntheticData, data.DerivationDescription = "YES", derivation(note)
    data.SeriesDescription = "SYNTHETIC counterfactual, not for diagnosis"
    data.Rows, data.Columns = pixels.shape[:2]
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.PixelRepresentation = bits - 1, 0
    data.SamplesPerPixel, data.PhotometricInterpretation = (1, "MONOCHROME2") if grey else (3, "RGB")
    if not grey:
        data.PlanarConfiguration = 0
    if picture.spacing_mm:
        data.PixelSpacing = list(picture.spacing_mm)
    raw = pixels.tobytes()
    data.add_new("PixelData", "OW" if grey else "OB", raw + b"\0" * (len(raw) % 2))
    with replacing(path) as draft:
        data.save_as(draft, enforce_file_format=True)
    return path
