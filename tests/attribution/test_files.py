"""Maps and masks as NIfTI and DICOM segmentation, read back by nibabel and pydicom."""

from __future__ import annotations

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from counterscan.attribution import Attribution
from counterscan.attribution.difference import regions
from counterscan.errors import ImageError, WordsError
from counterscan.imaging import from_array, read


def attribution(picture):
    height, width = picture.unit().shape[:2]
    difference = np.zeros((height, width), np.float32)
    difference[2:20, 5:12] = -0.25
    mask = difference < 0
    found = regions(mask, difference, picture.spacing_mm)
    return Attribution(
        picture, "lung nodule", difference, np.zeros_like(difference), mask, 0.02, found, True, 1, 0.1, 0, "tiny", "abc"
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


def test_what_cannot_be_written(tmp_path):
    result = attribution(from_array(np.random.default_rng(0).integers(0, 255, (30, 40)).astype(np.uint8)))
    with pytest.raises(ImageError, match="needs a DICOM image"):
        result.save(tmp_path, "a", ["dicom-seg"])
    with pytest.raises(WordsError, match="no format 'jpeg'"):
        result.save(tmp_path, "a", ["jpeg"])
