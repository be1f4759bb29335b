"""DICOM headers without the patient: what is on a list of harmless attributes stays, everything else goes.

The list holds what describes the pixels, their geometry and how they were made. Of the person, sex and age stay (90 and
above become 90). Identifiers become pseudonyms, the same for the same key, so patients, studies and references still belong
together. PS3.15's Basic Application Confidentiality Profile with the Retain Patient Characteristics Option. Pixels are not
looked at: text burnt into them stays, so files that say they have some are refused.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Any

from counterscan.errors import ImageError
from counterscan.imaging.files import replacing

KEPT = frozenset(
    """
    SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID
    SyntheticData Modality PresentationIntentType Manufacturer ManufacturerModelName PatientSex PatientAge
    BodyPartExamined ViewPosition Laterality ImageLaterality PatientPosition PatientOrientation SeriesNumber
    InstanceNumber AcquisitionNumber SliceThickness SpacingBetweenSlices SliceLocation ImagePositionPatient
    ImageOrientationPatient PixelSpacing ImagerPixelSpacing PixelAspectRatio PositionReferenceIndicator
    KVP Exposure ExposureTime XRayTubeCurrent ExposureInuAs DistanceSourceToDetector DistanceSourceToPatient FocalSpots
    Grid FilterType ConvolutionKernel ScanningSequence SequenceVariant ScanOptions MRAcquisitionType RepetitionTime
    EchoTime InversionTime FlipAngle EchoTrainLength MagneticFieldStrength ImagingFrequency NumberOfAverages
    SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows Columns BitsAllocated BitsStored
    HighBit PixelRepresentation SmallestImagePixelValue LargestImagePixelValue PixelPaddingValue
    PixelPaddingRangeLimit PixelIntensityRelationship PixelIntensityRelationshipSign RescaleIntercept RescaleSlope
    RescaleType WindowCenter WindowWidth VOILUTFunction VOILUTSequence ModalityLUTSequence LUTDescriptor LUTData
    ModalityLUTType PresentationLUTShape LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod
    BurnedInAnnotation RecognizableVisualFeatures
    RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor
    RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData
    SourceImageSequence ReferencedSOPClassUID ReferencedSOPInstanceUID
    PixelData ExtendedOffsetTable ExtendedOffsetTableLengths
    """.split()
)
EMPTY = ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID", "PatientBirthDate")
"""What an image has to have, if only empty."""
CODED = frozenset(
    {"CS", "DS", "IS", "UI", "AS", "US", "SS", "FL", "FD", "SL", "UL", "OB", "OW", "OV", "SQ", "LO", "SH"}
)
METHODS = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113108", "Retain Patient Characteristics Option"),
)
OLDEST = 90


def deidentify(path: Path, folder: Path, key: bytes) -> tuple[Path, bool]:
    """Write a file's pixels as they are, with a header by the list, into ``folder``, named by its new instance UID.

    Returns the file, and whether the source says that its pixels show no text; where it does not, somebody has to look.

    Raises:
        ImageError: no readable DICOM image, or one that says that text is burnt into its pixels.
    """
    import pydicom

    from counterscan.imaging.dicom import explained

    with explained(path, "is not a readable DICOM file"):
        source = pydicom.dcmread(path)
        if "PixelData" not in source:
            raise ImageError(f"{path.name}: the DICOM file has no image pixels; leave reports and plans out")
        burnt = str(source.get("BurnedInAnnotation") or "")
        if burnt == "YES":
            raise ImageError(
                f"{path.name}: says that text is burnt into its pixels; blank it first, then set (0028,0301) to NO"
            )
        data = _listed(source, key)
        _name_again(data, str(source.get("PatientID") or ""), key)
        data.file_meta = _meta(source, data)
        target = folder / f"{data.SOPInstanceUID}.dcm"
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(target) as draft:
            data.save_as(draft, enforce_file_format=True)
    return target, burnt == "NO"


def _listed(source: Any, key: bytes) -> Any:
    """The elements on the list, in sequences too; identifiers replaced."""
    from pydicom.dataset import Dataset

    data = Dataset()
    for element in source:
        if element.tag.is_private or element.keyword not in KEPT or element.VR.split()[0] not in CODED:
            continue
        if element.VR == "SQ":
            element.value = [_listed(item, key) for item in element.value]
        elif element.VR == "UI":
            element.value = _uid(str(element.value), key)
        data.add(element)
    return data


def _name_again(data: Any, patient: str, key: bytes) -> None:
    """What a header has to have: a pseudonym, empty dates, and that it was de-identified and how."""
    from counterscan.imaging.dicom import code

    data.PatientID = data.PatientName = hmac.new(key, patient.encode(), hashlib.sha256).hexdigest()[:16]
    for name in EMPTY:
        setattr(data, name, "")
    age = str(data.get("PatientAge") or "")
    if age.endswith("Y") and age[:-1].isdigit() and int(age[:-1]) >= OLDEST:
        data.PatientAge = f"{OLDEST:03d}Y"
    data.PatientIdentityRemoved = "YES"
    data.DeidentificationMethod = "Headers by an allow-list; pixels unchanged"
    data.DeidentificationMethodCodeSequence = [code(value, meaning) for value, meaning in METHODS]


def _meta(source: Any, data: Any) -> Any:
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = source.file_meta.TransferSyntaxUID
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    return meta


def _uid(uid: str, key: bytes) -> str:
    """The standard's own UIDs stay; any other becomes one that only the key leads to."""
    from pydicom.uid import generate_uid

    if uid.startswith("1.2.840.10008."):
        return uid
    return str(generate_uid(entropy_srcs=[hmac.new(key, uid.encode(), hashlib.sha256).hexdigest()]))
