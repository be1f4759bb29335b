"""Maps and masks as NIfTI and DICOM segmentation, read back by nibabel and pydicom."""

from __future__ import annotations

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from counterscan.attribution import Attribution
from counterscan.attribution.difference import regions
from counterscan.errors import ImageError, WordsError
from counterscan.imaging import from_array, read
from counterscan.result import Counterfactual
from counterscan.types import Edit


def attribution(picture, finding="lung nodule"):
    height, width = picture.unit().shape[:2]
    difference = np.zeros((height, width), np.float32)
    difference[2:20, 5:12] = -0.25
    mask = difference < 0
    found = regions(mask, difference, picture.spacing_mm)
    return Attribution(
        picture, finding, difference, np.zeros_like(difference), mask, 0.02, found, True, 1, 0.1, 0, "tiny", "abc"
    )


def test_nifti_lies_on_its_source(tmp_path):
    values = np.random.default_rng(0).integers(0, 1000, (30, 40, 1)).astype(np.int16)
    affine = np.array([[0, 1.5, 0, 4], [-2.0, 0, 0, 5], [0, 0, 3, 6], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "scan.nii.gz")
    picture = read(tmp_path / "scan.nii.gz")
    result = attribution(picture)
    names = result.save(tmp_path / "out", "a", ["png", "nifti"])
    assert set(names) == {"map", "mask", "overlay", "map_nifti", "mask_nifti"}
    image = nibabel.load(tmp_path / "out" / names["map_nifti"])
    assert image.shape == (30, 40, 1) and np.allclose(image.affine, affine)
    again = picture.header.turn.apply(np.asarray(image.dataobj)[..., 0])
    np.testing.assert_array_equal(again, result.map)
    assert np.asarray(nibabel.load(tmp_path / "out" / names["mask_nifti"]).dataobj).sum() == result.mask.sum()


def test_an_edit_in_the_same_folder_keeps_its_mask(tmp_path):
    picture = from_array(np.random.default_rng(0).integers(0, 255, (30, 40)).astype(np.uint8))
    mask = np.zeros((30, 40), bool)
    Counterfactual(picture, picture, np.zeros((30, 40), np.float32), mask, Edit("a", "b"), "none").save(tmp_path, "a")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    names = attribution(picture).save(tmp_path, "a", ["png", "nifti"])
    assert not before.keys() & set(names.values())
    assert not Counterfactual.load(tmp_path / "a.json").mask.any()


def test_nifti_of_another_image_has_its_spacing(tmp_path):
    result = attribution(from_array(np.random.default_rng(0).integers(0, 255, (30, 40)).astype(np.uint8)))
    image = nibabel.load(tmp_path / result.save(tmp_path, "a", ["nifti"])["map_nifti"])
    np.testing.assert_array_equal(np.asarray(image.dataobj)[..., 0].T, result.map)
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")


def test_a_dicom_segmentation_refers_to_its_source(tmp_path):
    pytest.importorskip("highdicom")
    source = get_testdata_file("CT_small.dcm")
    result = attribution(read(source))
    path = tmp_path / result.save(tmp_path, "a", ["dicom-seg"])["segmentation"]
    data, told = pydicom.dcmread(path), pydicom.dcmread(source)
    assert data.Modality == "SEG" and data.StudyInstanceUID == told.StudyInstanceUID
    assert (
        data.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == told.SOPInstanceUID
    )
    assert data.SegmentSequence[0].SegmentLabel == "lung nodule"
    np.testing.assert_array_equal(data.pixel_array > 0, result.mask)
    assert result.regions[0].size_mm == pytest.approx((7 * told.PixelSpacing[1], 18 * told.PixelSpacing[0]))


def radiograph(path, **attributes):
    """A projection: no frame of reference, spacing at the detector only."""
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.Modality, data.PatientID, data.PatientName, data.ViewPosition = "DX", "7", "A^B", "PA"
    data.ImagerPixelSpacing, data.PatientOrientation = [0.15, 0.2], ["L", "F"]
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 40, 30, 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = np.random.default_rng(0).integers(0, 4096, (40, 30), np.uint16).tobytes()
    for name, value in attributes.items():
        setattr(data, name, value)
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"PixelSpacing": [0.15, 0.2]},
        {"PixelSpacing": [0.15, 0.2], "FrameOfReferenceUID": "1.2.3"},
        {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"},
        {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jörg"},
    ],
)
def test_a_segmentation_of_a_radiograph_is_read_by_its_own_library(tmp_path, attributes):
    highdicom = pytest.importorskip("highdicom")
    source = radiograph(tmp_path / "source.dcm", **attributes)
    result, told = attribution(read(source)), pydicom.dcmread(source)
    again = highdicom.seg.segread(tmp_path / result.save(tmp_path, "a", ["dicom-seg"])["segmentation"])
    uids = told.StudyInstanceUID, told.SeriesInstanceUID, told.SOPInstanceUID
    assert again.get_source_image_uids() == [uids]
    pixels = again.get_pixels_by_source_instance([told.SOPInstanceUID], segment_numbers=[1])
    np.testing.assert_array_equal(pixels[0, ..., 0] > 0, result.mask)
    (segment,) = again.SegmentSequence
    assert (segment.SegmentLabel, segment.SegmentAlgorithmType) == ("lung nodule", "AUTOMATIC")
    assert again.segmented_property_types[0].meaning == "Lesion"
    assert (again.PatientName, again.PatientID) == (told.PatientName, told.PatientID)
    assert again.SeriesInstanceUID != told.SeriesInstanceUID and "not for diagnosis" in again.SeriesDescription


def test_a_segmented_device_is_no_lesion(tmp_path):
    pytest.importorskip("highdicom")
    result = attribution(read(radiograph(tmp_path / "source.dcm")), "cardiac device")
    (segment,) = pydicom.dcmread(tmp_path / result.save(tmp_path, "a", ["dicom-seg"])["segmentation"]).SegmentSequence
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Physical object"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Device"


@pytest.mark.parametrize("gap", ["StudyInstanceUID", "SeriesInstanceUID", "SliceThickness"])
def test_a_header_with_gaps_is_refused_in_one_line(tmp_path, gap):
    pytest.importorskip("highdicom")
    data = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    delattr(data, gap)
    data.save_as(tmp_path / "source.dcm")
    with pytest.raises(ImageError, match="source.dcm: its header does not allow a DICOM segmentation; save PNG"):
        attribution(read(tmp_path / "source.dcm")).save(tmp_path, "a", ["dicom-seg"])
    assert not list(tmp_path.glob("*a.seg*"))


def test_what_cannot_be_written(tmp_path):
    result = attribution(from_array(np.random.default_rng(0).integers(0, 255, (30, 40)).astype(np.uint8)))
    with pytest.raises(ImageError, match="needs a DICOM image"):
        result.save(tmp_path, "a", ["dicom-seg"])
    with pytest.raises(WordsError, match="no format 'jpeg'"):
        result.save(tmp_path, "a", ["jpeg"])
