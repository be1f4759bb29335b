"""Pictures in and out: nothing changes that should not, and bad files end in one clear error."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pydicom.data import get_testdata_file

from counterscan.errors import ImageError
from counterscan.imaging import composite, fit, from_array, read, write

QUIET = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
sides = st.integers(16, 40)


@st.composite
def arrays(draw):
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    shape = (draw(sides), draw(sides)) + ((3,) if dtype == np.uint8 and draw(st.booleans()) else ())
    return draw(hnp.arrays(dtype, shape, elements=st.integers(0, np.iinfo(dtype).max)))


def varied(array):
    array = array.copy()
    array.flat[0], array.flat[-1] = 0, np.iinfo(array.dtype).max
    if array.ndim == 3:
        array[1, 1] = (1, 2, 3)
    return array


@QUIET
@given(array=arrays())
def test_png_round_trip_is_exact(array, tmp_path):
    array = varied(array)
    path = write(from_array(array), tmp_path / "a.png", note={"seed": 1})
    back = read(path)
    assert back.pixels.dtype == array.dtype
    assert np.array_equal(back.pixels, array)
    with Image.open(path) as image:
        assert image.text["Synthetic"] == "yes" and "Not for diagnosis" in image.text["Disclaimer"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@QUIET
@given(array=arrays(), seed=st.integers(0, 999))
def test_composite_is_exact_outside_and_never_wraps(array, seed):
    picture = from_array(varied(array))
    rng = np.random.default_rng(seed)
    weight = (rng.random(picture.pixels.shape[:2]) > 0.5).astype(np.float32)
    change = rng.uniform(-2, 2, picture.pixels.shape).astype(np.float32)
    out = composite(picture, change, weight)
    assert out.dtype == picture.pixels.dtype
    assert np.array_equal(out[weight == 0], picture.pixels[weight == 0])
    exact = picture.unit() + change
    top = np.iinfo(out.dtype).max
    assert np.abs(out / top - np.clip(exact, 0, 1))[weight > 0].max(initial=0) < 1.5 / top


@pytest.mark.parametrize("shape", [(100, 60), (60, 100), (64, 64), (33, 200)])
def test_a_point_stays_where_it_was(shape):
    y, x = shape[0] // 3, shape[1] // 2
    image = np.zeros(shape, np.float32)
    image[y - 3 : y + 4, x - 3 : x + 4] = 1
    square, placement = fit(image, 48)
    back = placement.restore(square)
    assert back.shape == shape
    rows, columns = np.indices(shape)
    assert abs((rows * back).sum() / back.sum() - y) < 0.7
    assert abs((columns * back).sum() / back.sum() - x) < 0.7


def test_dicom_keeps_pixels_and_says_synthetic(tmp_path):
    picture = read(get_testdata_file("CT_small.dcm"))
    back = read(write(picture, tmp_path / "o.dcm", note={"method": "ddim", "seed": 3}))
    assert np.array_equal(back.pixels, picture.pixels) and back.pixels.dtype == picture.pixels.dtype
    header = back.header
    assert header.ImageType[:2] == ["DERIVED", "SECONDARY"] and header.SyntheticData == "YES"
    assert header.SOPInstanceUID != picture.header.SOPInstanceUID
    assert header.SourceImageSequence[0].ReferencedSOPInstanceUID == picture.header.SOPInstanceUID
    assert "not for diagnosis" in header.DerivationDescription and "ddim" in header.DerivationDescription
    assert back.spacing_mm == picture.spacing_mm


def test_monochrome1_is_shown_bright_for_dense(tmp_path):
    picture = read(get_testdata_file("CT_small.dcm"))
    picture.header.PhotometricInterpretation = "MONOCHROME1"
    back = read(write(picture, tmp_path / "o.dcm", note={}))
    assert back.inverted
    assert np.allclose(back.unit(), 1 - picture.unit(), atol=1e-6)
    brighter = composite(back, np.full(back.pixels.shape, 0.1, np.float32), np.ones(back.pixels.shape, np.float32))
    middle = (back.unit() > 0.2) & (back.unit() < 0.8)
    assert (brighter[middle] < back.pixels[middle]).all()


def bad_files(folder: Path) -> dict[str, Path]:
    good = folder / "good.png"
    write(from_array(np.arange(4096, dtype=np.uint16).reshape(64, 64)), good, note={})
    header = b"IHDR" + (20000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    huge = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    contents = {
        "truncated": good.read_bytes()[:300],
        "empty": b"",
        "text": b"this is a letter, not an image",
        "huge": huge + (0).to_bytes(4, "big") + b"IDAT" + zlib.crc32(b"IDAT").to_bytes(4, "big"),
    }
    paths = {name: folder / f"{name}.png" for name in contents}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    for name, array in {"black": np.zeros((64, 64), np.uint8), "dot": np.zeros((1, 1), np.uint8)}.items():
        paths[name] = folder / f"{name}.png"
        Image.fromarray(array).save(paths[name])
    return paths


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("truncated", "truncated"),
        ("empty", "empty"),
        ("text", "not a PNG"),
        ("huge", "20000x20000|too many pixels"),
        ("black", "no contrast"),
        ("dot", "1x1"),
    ],
)
def test_bad_files_are_named_in_one_line(name, words, tmp_path):
    path = bad_files(tmp_path)[name]
    with pytest.raises(ImageError, match=words) as caught:
        read(path)
    assert str(caught.value).startswith(path.name) and "\n" not in str(caught.value)


def test_multi_frame_dicom_is_refused_with_advice():
    with pytest.raises(ImageError, match="frames"):
        read(get_testdata_file("rtdose.dcm"))


@pytest.mark.parametrize("bad", [np.full((32, 32), np.nan), np.full((32, 32), 3.0), np.zeros((4, 32, 32)), np.zeros(9)])
def test_bad_arrays(bad):
    with pytest.raises(ImageError):
        from_array(bad)


def test_missing_file_is_named():
    with pytest.raises(ImageError, match="nowhere.png"):
        read("nowhere.png")
