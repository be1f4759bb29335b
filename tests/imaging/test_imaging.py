"""Pictures in and out: nothing changes that should not, and bad files end in one clear error."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import ExifTags, Image, ImageOps
from pydicom.data import get_testdata_file

from counterscan.errors import ImageError
from counterscan.imaging import composite, fit, from_array, read, write

QUIET = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
sides = st.integers(16, 40)


@st.composite
def arrays(draw):
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    shape = (draw(sides), draw(sides)) + ((3,) if draw(st.booleans()) else ())
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
        assert image.text["Software"] == "Counterscan" and json.loads(image.text["Counterscan"]) == {"seed": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def png_of(samples, colour_type, filters):
    """A 16-bit PNG written by the book (PNG specification, 9.2), each row with the next of ``filters``."""
    height, width, channels = samples.shape
    rows = samples.astype(">u2").view(np.uint8).reshape(height, -1).astype(int)
    step, above, lines = 2 * channels, np.zeros(rows.shape[1], int), []
    for y, row in enumerate(rows):
        kind = filters[y % len(filters)]
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        corner = np.concatenate([np.zeros(step, int), above[:-step]])
        p = left + above - corner
        near = [abs(p - left), abs(p - above), abs(p - corner)]
        paeth = np.where((near[0] <= near[1]) & (near[0] <= near[2]), left, np.where(near[1] <= near[2], above, corner))
        guess = [0 * row, left, above, (left + above) // 2, paeth][kind]
        lines.append(bytes([kind]) + ((row - guess) % 256).astype(np.uint8).tobytes())
        above = row
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(lines))),
        (b"IEND", b""),
    ]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@QUIET
@given(seed=st.integers(0, 10**6), filters=st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_16_bit_png_of_every_layout_is_read_exactly(colour_type, channels, seed, filters, tmp_path):
    samples = np.random.default_rng(seed).integers(0, 65536, (17, 19, channels)).astype(np.uint16)
    path = tmp_path / "a.png"
    path.write_bytes(png_of(samples, colour_type, filters))
    pixels = read(path).pixels
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, samples[..., :3] if channels > 2 else samples[..., 0])


def test_modes_with_the_same_values_read_the_same(tmp_path):
    grey = np.arange(4096).reshape(64, 64).astype(np.uint8)
    image = Image.fromarray(grey)
    alpha = Image.fromarray(255 - grey)
    palette = Image.fromarray(grey).convert("P")
    forms = {
        "l": image, "rgb": image.convert("RGB"), "p": palette,
        "la": Image.merge("LA", [image, alpha]), "rgba": Image.merge("RGBA", [image, image, image, alpha]),
    }  # fmt: skip
    for name, form in forms.items():
        form.save(tmp_path / f"{name}.png")
        pixels = read(tmp_path / f"{name}.png").pixels
        assert pixels.dtype == np.uint8 and np.array_equal(pixels, grey), name


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_grey_stored_as_three_colours_is_written_as_three_colours(depth, tmp_path):
    grey = (np.arange(4096).reshape(64, 64) * (np.iinfo(depth).max // 4095 or 1)).astype(depth)
    for name, array in {"grey": grey, "colours": np.stack([grey] * 3, axis=2)}.items():
        write(from_array(array), tmp_path / "in.png", note={})
        picture = read(tmp_path / "in.png")
        assert picture.pixels.shape == grey.shape
        write(picture.with_pixels(picture.pixels[::-1].copy()), tmp_path / f"{name}.png", note={})
        again = read(tmp_path / f"{name}.png")
        assert np.array_equal(again.pixels, grey[::-1])
        assert again.in_colour == picture.in_colour == (name == "colours")


def test_jpeg_is_read_as_decoded(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    for name, array in {"grey": colour[..., 0], "colour": colour}.items():
        Image.fromarray(array).save(tmp_path / f"{name}.jpg", quality=90)
        picture = read(tmp_path / f"{name}.jpg")
        with Image.open(tmp_path / f"{name}.jpg") as image:
            assert picture.format == "jpeg" and np.array_equal(picture.pixels, np.asarray(image))


@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 9])
@pytest.mark.parametrize("kind", ["grey.jpg", "colour.jpg", "grey.png"])
def test_exif_says_which_way_up(kind, orientation, tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(colour if "colour" in kind else colour[..., 0]).save(tmp_path / kind, exif=exif)
    picture = read(tmp_path / kind)
    with Image.open(tmp_path / kind) as image:
        assert np.array_equal(picture.pixels, np.asarray(ImageOps.exif_transpose(image)))
    assert picture.turned == (orientation in range(2, 9)) and picture.pixels.flags.c_contiguous


def test_damaged_exif_is_passed_over(tmp_path):
    grey = np.arange(4096).reshape(64, 64).astype(np.uint8)
    for exif in (b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        Image.fromarray(grey).save(tmp_path / "a.jpg", exif=exif)
        assert not read(tmp_path / "a.jpg").turned


def test_unit_is_the_stored_fraction():
    picture = from_array(varied(np.full((20, 20), 1000, np.uint16)))
    unit = picture.unit()
    assert unit.dtype == np.float32 and unit.shape == (20, 20)
    assert unit[0, 0] == 0 and unit[-1, -1] == 1 and unit[5, 5] == pytest.approx(1000 / 65535)


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
    exact = picture.unit() + change  # weights are 0 and 1
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


@QUIET
@given(weight=st.floats(0, 1, width=32), change=st.floats(-1, 1, width=32), start=st.integers(0, 65535))
def test_composite_adds_weight_times_change(weight, change, start):
    pixels = np.full((16, 16), start, np.uint16)
    pixels[0, 0], pixels[-1, -1] = 0, 65535
    out = composite(from_array(pixels), np.full((16, 16), change, np.float32), np.full((16, 16), weight, np.float32))
    assert out[5, 5] == np.clip(
        np.round(start + float(np.float32(weight)) * float(np.float32(change)) * 65535), 0, 65535
    )


def test_composite_refuses_what_does_not_fit():
    picture = from_array(np.arange(400, dtype=np.uint16).reshape(20, 20))
    ones = np.ones((20, 20), np.float32)
    with pytest.raises(ImageError, match="array: change"):
        composite(picture, ones[:10], ones)
    with pytest.raises(ImageError, match="array: change"):
        composite(picture, np.ones((20, 20, 3), np.float32), ones)
    with pytest.raises(ImageError, match="NaN"):
        composite(picture, ones * np.nan, ones)
    assert np.array_equal(composite(picture, ones * np.nan, ones * 0), picture.pixels)


@pytest.mark.parametrize("shape", [(500, 300), (60, 100), (64, 64), (16, 900, 3)])
def test_aspect_is_kept_and_the_rest_is_black(shape):
    square, placement = fit(np.full(shape, 0.5, np.float32), 128)
    assert square.shape == (128, 128, *shape[2:]) and square.dtype == np.float32
    rows, columns = placement.inner
    assert max(rows, columns) == 128
    assert abs(rows / columns - shape[0] / shape[1]) <= 0.5 * (1 + shape[0] / shape[1]) / columns + 1e-9
    inside = np.zeros((128, 128), bool)
    inside[placement.top : placement.top + rows, placement.left : placement.left + columns] = True
    assert np.allclose(square[inside], 0.5, atol=1e-6) and not square[~inside].any()
    assert np.allclose(placement.restore(square), 0.5, atol=1e-6)


@QUIET
@given(seed=st.integers(0, 10**6), height=st.integers(16, 300), width=st.integers(16, 300))
def test_a_restored_weight_is_a_weight_and_zero_far_away(seed, height, width):
    mask = np.zeros((64, 64), np.float32)
    top, left = np.random.default_rng(seed).integers(0, 40, 2)
    mask[top : top + 20, left : left + 20] = 1
    _, placement = fit(np.zeros((height, width), np.float32), 64)
    weight = placement.restore(mask)
    assert weight.shape == (height, width) and weight.min() >= 0 and weight.max() <= 1
    rows = (np.arange(height) + 0.5) * placement.inner[0] / height + placement.top
    columns = (np.arange(width) + 0.5) * placement.inner[1] / width + placement.left
    reach = 2 * max(1, placement.inner[0] / height, placement.inner[1] / width) + 1
    far = (np.abs(rows - top - 10) > 10 + reach)[:, None] | (np.abs(columns - left - 10) > 10 + reach)[None]
    assert not weight[far].any()


def test_downsampling_does_not_alias():
    stripes = np.zeros((512, 512), np.float32)
    stripes[:, ::2] = 1
    square, placement = fit(stripes, 64)
    assert np.abs(square[8:-8, 8:-8] - 0.5).max() < 0.02
    assert np.allclose(placement.restore(square)[64:-64, 64:-64], 0.5, atol=0.02)


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


@pytest.mark.parametrize(
    "bad", [np.full((32, 32), np.nan), np.full((32, 32), 3.0), np.zeros((4, 32, 32)), np.zeros(9), np.zeros((0, 32))]
)
def test_bad_arrays(bad):
    with pytest.raises(ImageError):
        from_array(bad)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_of_any_width_become_16_bits(dtype):
    array = np.linspace(0, 1, 400).reshape(20, 20).astype(dtype)
    assert np.abs(from_array(array).pixels - array.astype(np.float64) * 65535).max() < 0.51


def test_other_pixels_are_synthetic_and_stay_so(tmp_path):
    picture = from_array(np.arange(400, dtype=np.uint16).reshape(20, 20))
    other = picture.with_pixels(picture.pixels[::-1].copy())
    assert not picture.with_pixels(picture.pixels.copy()).synthetic
    assert other.synthetic and other.with_pixels(other.pixels).synthetic
    assert not read(write(picture, tmp_path / "a.png", note=None)).synthetic
    assert read(write(other, tmp_path / "b.png", note=None)).synthetic


def test_every_damage_to_a_file_is_one_error_or_an_image(tmp_path):
    rng = np.random.default_rng(0)
    for name, array in {"g": rng.integers(0, 65536, (24, 24)), "c": rng.integers(0, 65536, (24, 24, 3))}.items():
        whole = write(from_array(array.astype(np.uint16)), tmp_path / f"{name}.png", note={}).read_bytes()
        for k in range(150):
            broken = bytearray(whole[: rng.integers(1, len(whole))] if k % 2 else whole)
            for place in rng.integers(0, len(broken), 3):
                broken[place] = rng.integers(0, 256)
            path = tmp_path / "broken.png"
            path.write_bytes(broken)
            said = "broken.png: "
            try:
                read(path)
            except ImageError as error:
                said = str(error)
            assert said.startswith("broken.png: ") and "\n" not in said


def test_writing_says_what_is_wrong_and_leaves_nothing(tmp_path):
    picture = from_array(np.arange(400, dtype=np.uint16).reshape(20, 20))
    with pytest.raises(ImageError, match=r"^a\.jpg: .*lossless"):
        write(picture, tmp_path / "a.jpg", note={})
    with pytest.raises(ImageError, match=r"^a\.png: cannot be written"):
        write(picture, tmp_path / "nowhere" / "a.png", note={})
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ImageError, match=r"^a\.png: cannot be written"):
        write(picture, tmp_path / "a.png", note={})
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("name", [".", "a" * 5000, "a\0b.png"])
def test_names_that_are_no_files(name):
    with pytest.raises(ImageError):
        read(name)


def test_missing_file_is_named():
    with pytest.raises(ImageError, match="nowhere.png"):
        read("nowhere.png")
