"""NIfTI slices: stored values, scaling and geometry survive; volumes are refused with advice."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from counterscan.errors import ImageError
from counterscan.imaging import composite, read, write

RAS = np.diag([0.8, 1.5, 3.0, 1.0])


def ramp(shape, dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def saved(path, data, affine=RAS, scaling=None, **header):
    image = nib.Nifti1Image(data, affine)
    for key, value in header.items():
        image.header[key] = value
    if scaling:  # nibabel divides by the slope on the way out: these are the values that are meant
        image = nib.Nifti1Image(data * scaling[0] + scaling[1], affine, image.header)
        image.header.set_data_dtype(data.dtype)
        image.header.set_slope_inter(*scaling)
    nib.save(image, path)
    return path


def raw(path):
    proxy = nib.load(path).dataobj
    return np.asarray(proxy.get_unscaled())


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, ">i2"])
def test_round_trip_is_exact(tmp_path, dtype, ending):
    source = saved(tmp_path / f"a{ending}", ramp((20, 30), np.dtype(dtype)))
    out = write(read(source), tmp_path / f"b{ending}", note={"seed": 7})
    before, after = nib.load(source), nib.load(out)
    assert np.array_equal(raw(source), raw(out))
    assert after.get_data_dtype() == before.get_data_dtype() and after.shape == before.shape
    assert np.array_equal(after.affine, before.affine)
    assert b"not for diagnosis" in bytes(after.header["descrip"])
    assert b'"seed": 7' in after.header.extensions[0].get_content()
    assert {p.name for p in tmp_path.iterdir()} == {source.name, out.name}


def test_shown_head_up_and_patients_right_on_the_left(tmp_path):
    data = np.zeros((20, 30), np.int16)  # first axis to the patient's Right, second to the Front
    data[19, 29] = 1000  # right front
    picture = read(saved(tmp_path / "a.nii", data))
    assert picture.pixels.shape == (30, 20) and picture.pixels[0, 0] == 1000
    assert picture.spacing_mm == pytest.approx((1.5, 0.8))


def test_without_orientation_rows_are_the_first_axis(tmp_path):
    data = ramp((20, 30))
    path = saved(tmp_path / "a.nii", data, affine=None)
    assert np.array_equal(read(path).pixels, data)


def test_scaling_is_kept_and_a_falling_scale_is_dark_for_large(tmp_path):
    path = saved(tmp_path / "a.nii", ramp((20, 30)), scaling=(-0.5, 10.0))
    picture = read(path)
    assert picture.inverted
    out = write(picture, tmp_path / "b.nii", note={})
    assert np.array_equal(np.asarray(nib.load(out).dataobj), np.asarray(nib.load(path).dataobj))
    meant = np.asarray(nib.load(path).dataobj)
    brightest = np.unravel_index(picture.unit().argmax(), picture.unit().shape)
    assert picture.header.turn.apply(meant)[brightest] >= np.percentile(meant, 99)


def test_cal_min_and_max_are_the_window(tmp_path):
    picture = read(saved(tmp_path / "a.nii", ramp((20, 30)), cal_min=100, cal_max=300))
    assert (picture.low, picture.high) == (100, 300)


def test_one_slice_of_a_volume_lies_where_it_was(tmp_path):
    data = ramp((20, 30, 5))
    path = saved(tmp_path / "a.nii.gz", data)
    with pytest.raises(ImageError, match=r"^a\.nii\.gz: is a volume of 20x30x5; give a slice index from 0 to 4"):
        read(path)
    with pytest.raises(ImageError, match="no slice 5"):
        read(path, slice_index=5)
    out = nib.load(write(read(path, slice_index=3), tmp_path / "b.nii.gz", note={}))
    assert out.shape == (20, 30, 1)
    assert np.array_equal(np.asarray(out.dataobj)[..., 0], data[..., 3])
    assert np.allclose(out.affine @ [4, 5, 0, 1], RAS @ [4, 5, 3, 1])


@pytest.mark.parametrize("shape", [(20, 30, 1), (1, 20, 30), (20, 1, 30), (20, 30, 1, 1)])
def test_axes_of_length_one_do_not_matter(tmp_path, shape):
    path = saved(tmp_path / "a.nii", ramp(shape))
    out = write(read(path), tmp_path / "b.nii", note={})
    assert np.array_equal(raw(path), raw(out)) and nib.load(out).shape == nib.load(path).shape


def test_float_slices_are_edited_without_rounding(tmp_path):
    picture = read(saved(tmp_path / "a.nii", ramp((20, 30), np.float32) / 1000))
    weight = np.zeros(picture.pixels.shape, np.float32)
    weight[5:9, 5:9] = 1
    out = composite(picture, np.full(weight.shape, 0.25, np.float32), weight)
    assert np.array_equal(out[weight == 0], picture.pixels[weight == 0])
    moved = (out - picture.pixels)[weight == 1]
    assert moved == pytest.approx(0.25 * (picture.high - picture.low), rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(tmp_path, bad):
    data = ramp((20, 30), np.float32)
    data[3, 3] = bad
    with pytest.raises(ImageError, match="NaN"):
        read(saved(tmp_path / "a.nii", data))


def test_what_is_no_grey_slice_is_refused(tmp_path):
    saved(tmp_path / "four.nii", ramp((20, 30, 2, 2)))
    saved(tmp_path / "complex.nii", ramp((20, 30)).astype(np.complex64))
    saved(tmp_path / "flat.nii", np.full((20, 30), 4, np.int16))
    saved(tmp_path / "small.nii", ramp((4, 30)))
    (tmp_path / "text.nii").write_text("a letter")
    (tmp_path / "text.nii.gz").write_text("a letter")
    whole = saved(tmp_path / "whole.nii", ramp((20, 30))).read_bytes()
    (tmp_path / "cut.nii").write_bytes(whole[:-100])
    words = {
        "four.nii": "dimensions", "complex.nii": "complex64", "flat.nii": "no contrast", "small.nii": "at least 16x16",
        "text.nii": "not a readable", "text.nii.gz": "not a readable", "cut.nii": "not a readable",
    }  # fmt: skip
    for name, word in words.items():
        with pytest.raises(ImageError, match=word) as caught:
            read(tmp_path / name)
        assert str(caught.value).startswith(f"{name}: ") and "\n" not in str(caught.value)
