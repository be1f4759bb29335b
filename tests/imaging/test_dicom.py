"""DICOM: stored values survive every transfer syntax, headers say what was done, windows follow the standard."""

from __future__ import annotations

import warnings

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from counterscan.errors import ImageError
from counterscan.imaging import composite, from_array, read, write
from counterscan.imaging.provenance import derivation

QUIET = settings(max_examples=20, deadline=None)
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def made(path, pixels=RAMP, *, bits=None, **elements):
    """A small DICOM file of our own."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = data.SOPClassUID, "1.2.3"
    data.SeriesInstanceUID, data.StudyInstanceUID = generate_uid(), generate_uid()
    data.PatientName, data.PatientID = "Doe^Jane", "SECRET-17"
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    data.BitsAllocated = pixels.dtype.itemsize * 8
    data.BitsStored = bits or data.BitsAllocated
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    data["PixelData"].VR = "OB" if data.BitsAllocated == 8 else "OW"
    for name, value in elements.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def item(**elements):
    data = Dataset()
    for name, value in elements.items():
        setattr(data, name, value)
    return data


@st.composite
def stored(draw):
    dtype, bits, low, high = draw(
        st.sampled_from(
            [(np.uint8, 8, 0, 255), (np.uint16, 10, 0, 1023), (np.uint16, 12, 0, 4095), (np.uint16, 16, 0, 65535)]
            + [(np.int16, 12, -2048, 2047), (np.int16, 16, -32768, 32767)]
        )
    )
    shape = (draw(st.integers(16, 33)), draw(st.integers(16, 33))) + ((3,) if dtype == np.uint8 else ())
    pixels = draw(hnp.arrays(dtype, shape, elements=st.integers(low, high)))
    pixels.flat[0], pixels.flat[-1] = low, high
    return pixels, bits


@QUIET
@given(case=stored())
def test_round_trip_is_exact(case, tmp_path_factory):
    pixels, bits = case
    folder = tmp_path_factory.mktemp("dicom")
    picture = read(made(folder / "a.dcm", pixels, bits=bits))
    assert picture.bits == bits and picture.pixels.dtype == pixels.dtype
    out = write(picture, folder / "b.dcm", note={})
    assert np.array_equal(read(out).pixels, pixels)
    data = pydicom.dcmread(out)
    assert np.array_equal(data.pixel_array, pixels)
    assert (data.BitsStored, data.BitsAllocated) == (bits, pixels.dtype.itemsize * 8)
    assert data.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm",
        "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_rle_16bit.dcm",
        "examples_palette.dcm", "ExplVR_BigEnd.dcm", "SC_ybr_full_422_uncompressed.dcm",
    ],
)  # fmt: skip
def test_every_transfer_syntax_becomes_the_same_pixels(name, tmp_path):
    if "jpeg" in name or "jp2k" in name:
        syntax = pydicom.dcmread(get_testdata_file(name)).file_meta.TransferSyntaxUID
        if not pydicom.pixels.get_decoder(syntax).is_available:
            pytest.skip(f"no decoder for {syntax.name}")
    picture = read(get_testdata_file(name))
    back = read(write(picture, tmp_path / "o.dcm", note={}))
    assert np.array_equal(back.pixels, picture.pixels)
    assert np.array_equal(back.unit(), picture.unit())
    if name.startswith("MR_small"):
        assert np.array_equal(picture.pixels, pydicom.dcmread(get_testdata_file("MR_small.dcm")).pixel_array)


def test_the_header_says_what_it_is(tmp_path):
    source = made(
        tmp_path / "a.dcm", ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], BurnedInAnnotation="YES", Laterality="L",
        PixelSpacing=[0.2, 0.3], WindowCenter=2000, WindowWidth=3000, IconImageSequence=[item(Rows=1)],
        LargestImagePixelValue=9, LossyImageCompression="01",
    )  # fmt: skip
    old = pydicom.dcmread(source)
    note = {"method": "ddim", "words": "no effusion " * 200, "model": "m", "fingerprint": "f1f2", "seed": 3}
    picture = read(source)
    out = write(picture.with_pixels(picture.pixels // 2), tmp_path / "b.dcm", note=note)
    new = pydicom.dcmread(out)
    assert new.ImageType == ["DERIVED", "SECONDARY", "AXIAL"] and new.SyntheticData == "YES"
    assert new.SOPInstanceUID == new.file_meta.MediaStorageSOPInstanceUID != old.SOPInstanceUID
    assert new.SeriesInstanceUID != old.SeriesInstanceUID
    for kept in ("StudyInstanceUID", "PatientID", "BurnedInAnnotation", "Laterality", "PixelSpacing", "WindowCenter"):
        assert new[kept] == old[kept]
    assert new.LossyImageCompression == "01" and "IconImageSequence" not in new
    assert new.LargestImagePixelValue == 2047
    assert len(new.DerivationDescription) == 1024
    for fact in ("ddim", "f1f2", "seed: 3", "not for diagnosis", "no effusion"):
        assert fact in new.DerivationDescription
    assert new.SourceImageSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID
    assert new.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert new.ContributingEquipmentSequence[-1].PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert "SYNTHETIC" in new.SeriesDescription
    assert np.array_equal(pydicom.dcmread(source).pixel_array, RAMP), "the source is left alone"
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.dcm", "b.dcm"]


def test_a_second_edit_keeps_the_first_ones_equipment(tmp_path):
    once = write(read(made(tmp_path / "a.dcm")), tmp_path / "b.dcm", note={"seed": 1})
    twice = read(write(read(once), tmp_path / "c.dcm", note={"seed": 2})).header
    assert len(twice.ContributingEquipmentSequence) == 2
    assert twice.SourceImageSequence[0].ReferencedSOPInstanceUID == pydicom.dcmread(once).SOPInstanceUID


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=2000), max_size=4))
def test_a_derivation_always_fits(note):
    text = derivation(note)
    assert len(text) <= 1024 and text.isascii() and text.isprintable() and "not for diagnosis" in text


def test_linear_window_follows_the_standard(tmp_path):
    picture = read(made(tmp_path / "a.dcm", WindowCenter=2048, WindowWidth=4096))
    # PS3.3 C.11.2.1.2: x <= c - 0.5 - (w-1)/2 is black, x > c - 0.5 + (w-1)/2 is white
    assert (picture.low, picture.high) == (0, 4095)
    exact = read(made(tmp_path / "b.dcm", WindowCenter=2048, WindowWidth=4096, VOILUTFunction="LINEAR_EXACT"))
    assert (exact.low, exact.high) == (0, 4096)


def test_window_applies_after_rescale(tmp_path):
    window = {"WindowCenter": 100.5, "WindowWidth": 201, "RescaleSlope": 0.5, "RescaleIntercept": -50}
    picture = read(made(tmp_path / "a.dcm", **window))
    assert (picture.low, picture.high) == (100, 500)  # modality 0 and 200
    assert not picture.inverted
    falling = read(made(tmp_path / "b.dcm", **(window | {"RescaleSlope": -0.5, "RescaleIntercept": 1000})))
    assert (falling.low, falling.high) == (1600, 2000) and falling.inverted


@pytest.mark.parametrize(("polarity", "sign"), [("MONOCHROME2", 1), ("MONOCHROME1", -1)])
def test_both_polarities(tmp_path, polarity, sign):
    path = made(tmp_path / "a.dcm", PhotometricInterpretation=polarity, WindowCenter=2048, WindowWidth=4096)
    picture = read(path)
    shown = RAMP / 4095 if sign == 1 else 1 - RAMP / 4095
    assert np.allclose(picture.unit(), shown, atol=1e-6)
    ones = np.ones((64, 64), np.float32)
    out = composite(picture, 0.1 * ones, ones)
    middle = (RAMP > 500) & (RAMP < 3500)
    moved = out.astype(int) - RAMP
    assert set(np.unique(moved[middle])) <= {sign * 409, sign * 410}  # 0.1 of 4095
    assert out[0, 0] == (410 if sign == 1 else 0) and out[-1, -1] <= 4095 + 410
    back = read(write(picture.with_pixels(out), tmp_path / "b.dcm", note={}))
    assert (back.unit() - picture.unit())[middle] == pytest.approx(0.1, abs=2e-4)
    assert back.header.PhotometricInterpretation == polarity


def test_a_useless_window_is_not_used(tmp_path):
    dark = read(made(tmp_path / "a.dcm", WindowCenter=30000, WindowWidth=10))
    none = read(made(tmp_path / "b.dcm"))
    assert (dark.low, dark.high) == (none.low, none.high) == pytest.approx((4.1, 4090.9), abs=0.01)


@pytest.mark.parametrize("depth", [8, 16])
def test_voi_table(tmp_path, depth):
    top = 2**depth - 1
    table = np.round(top * (np.arange(4096) / 4095) ** 2).astype(np.uint16)
    lut = item(LUTDescriptor=[4096, 0, depth], LUTData=table.astype("<u2").tobytes())
    picture = read(made(tmp_path / "a.dcm", VOILUTSequence=[lut], bits=12))
    assert np.allclose(picture.unit(), table.reshape(64, 64) / top, atol=1e-6)
    ones = np.ones((64, 64), np.float32)
    edited = picture.with_pixels(composite(picture, 0.2 * ones, ones))
    free = (picture.unit() > 0.1) & (picture.unit() < 0.75)
    assert (edited.unit() - picture.unit())[free] == pytest.approx(0.2, abs=2 / 255 if depth == 8 else 1e-3)
    assert np.array_equal(composite(picture, 0 * ones, ones), picture.pixels), "no change is no change"


def test_voi_table_of_packed_bytes(tmp_path):
    table = np.arange(4096) // 16
    lut = item(LUTDescriptor=[4096, 0, 8], LUTData=table.astype(np.uint8).tobytes())
    picture = read(made(tmp_path / "a.dcm", VOILUTSequence=[lut], bits=12))
    assert np.allclose(picture.unit(), table.reshape(64, 64) / 255, atol=1e-6)


def test_modality_table_comes_first(tmp_path):
    table = np.arange(8190, -2, -2).astype("<u2").tobytes()
    modality = item(LUTDescriptor=[4096, 0, 16], LUTData=table, ModalityLUTType="OD")
    path = made(tmp_path / "a.dcm", ModalityLUTSequence=[modality], WindowCenter=4096, WindowWidth=8192)
    picture = read(path)
    assert picture.inverted
    assert np.allclose(picture.unit(), (8190 - 2 * RAMP.astype(float)) / 8191, atol=2e-4)


def test_a_table_survives_big_endian(tmp_path):
    table = np.round(65535 * np.sqrt(np.arange(4096) / 4095)).astype(np.uint16)
    big = item(LUTDescriptor=[4096, 0, 16], LUTData=table.astype(">u2").tobytes())
    data = pydicom.dcmread(made(tmp_path / "a.dcm"))
    data.VOILUTSequence, data.PixelData = [big], RAMP.astype(">u2").tobytes()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
    data.walk(lambda *_: None)  # parsed now, in the byte order it was written in
    data.set_original_encoding(False, False, "utf8")
    data.save_as(tmp_path / "big.dcm", enforce_file_format=True)
    picture = read(tmp_path / "big.dcm")
    assert np.allclose(picture.unit(), table.reshape(64, 64) / 65535, atol=1e-6)
    back = read(write(picture, tmp_path / "little.dcm", note={}))
    assert np.array_equal(back.pixels, RAMP) and np.array_equal(back.unit(), picture.unit())


def test_sigmoid(tmp_path):
    picture = read(made(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=1000, VOILUTFunction="SIGMOID"))
    assert np.allclose(picture.unit(), 1 / (1 + np.exp(-4 * (RAMP - 2000.0) / 1000)), atol=1e-6)


def test_a_saturated_device_can_be_taken_away(tmp_path):
    picture = read(made(tmp_path / "a.dcm", WindowCenter=1000.5, WindowWidth=2001))  # shows 0 to 2000
    ones = np.ones((64, 64), np.float32)
    removed = picture.with_pixels(composite(picture, -0.5 * ones, ones))
    clipped = RAMP >= 2000
    assert removed.unit()[clipped] == pytest.approx(0.5, abs=1e-3)
    higher = composite(picture, 0.01 * ones, ones)
    assert (higher.astype(int) - RAMP)[clipped & (RAMP < 4000)] == pytest.approx(20), "outwards it goes on linearly"
    barely = composite(picture, -0.0001 * ones, ones)
    assert np.abs(barely.astype(int) - RAMP).max() <= 6, "a trace of a change is a trace of a difference"


@pytest.mark.parametrize("polarity", ["MONOCHROME1", "MONOCHROME2"])
@given(seed=st.integers(0, 10**6), bits=st.sampled_from([8, 10, 12, 16]), signed=st.booleans())
@settings(max_examples=25, deadline=None)
def test_composite_never_wraps(tmp_path_factory, polarity, seed, bits, signed):
    rng = np.random.default_rng(seed)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    dtype = (np.int8 if bits == 8 else np.int16) if signed else (np.uint8 if bits == 8 else np.uint16)
    pixels = rng.integers(low, high, (20, 24)).astype(dtype)
    window = {"WindowCenter": float(rng.integers(low, high)), "WindowWidth": float(rng.integers(2, high - low))}
    path = tmp_path_factory.mktemp("d") / "a.dcm"
    picture = read(made(path, pixels, bits=bits, PhotometricInterpretation=polarity, **window))
    weight = rng.random((20, 24)).astype(np.float32) * (rng.random((20, 24)) > 0.4)
    change = rng.uniform(-3, 3, (20, 24)).astype(np.float32)
    out = composite(picture, change, weight)
    assert out.dtype == dtype and out.min() >= low and out.max() < high
    assert np.array_equal(out[weight == 0], pixels[weight == 0])
    sign = -1 if polarity == "MONOCHROME1" else 1
    assert (sign * np.sign(change) * (out.astype(int) - pixels.astype(int)) >= 0).all(), "moves the way it is told"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rtdose.dcm", "15 frames; extract"),
        ("JPGExtended.dcm", "JPEG Extended"),
        ("MR_truncated.dcm", "truncated"),
        ("liver_1frame.dcm", "1 bits"),
        ("SC_rgb_rle_32bit.dcm", "32 bits"),
        ("rtplan.dcm", "no image pixels"),
        ("badVR.dcm", "not a readable"),
        ("no_meta.dcm", "not a readable"),
        ("SC_rgb_small_odd.dcm", "3x3"),
    ],
)
def test_what_cannot_be_used_is_named(name, words):
    with pytest.raises(ImageError, match=words) as caught:
        read(get_testdata_file(name))
    assert str(caught.value).startswith(f"{name}: ") and "\n" not in str(caught.value)


def test_values_that_lie_high_in_their_bits_are_refused(tmp_path):
    path = made(tmp_path / "a.dcm", RAMP << 4, bits=12, HighBit=15)
    with pytest.raises(
        ImageError, match=r"^a\.dcm: HighBit \(0028,0102\) is 15 where BitsStored \(0028,0101\) is 12; 11"
    ):
        read(path)


def test_unknown_transfer_syntax_is_named(tmp_path):
    path = made(tmp_path / "a.dcm")
    text = path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0", 1)
    path.write_bytes(text)
    with pytest.raises(ImageError, match=r"^a\.dcm: .*1\.2\.840\.10008\.1\.2\.9"):
        read(path)


def test_no_message_tells_who_the_patient_is(tmp_path):
    data = made(tmp_path / "a.dcm").read_bytes()
    said = []
    for cut in range(140, len(data), 97):
        (tmp_path / "cut.dcm").write_bytes(data[:cut])
        with pytest.raises(ImageError) as caught:
            read(tmp_path / "cut.dcm")
        said.append(str(caught.value))
    assert all(text.startswith("cut.dcm: ") and "\n" not in text for text in said)
    assert not any(secret in text for text in said for secret in ("Doe", "Jane", "SECRET"))


def test_pydicoms_warnings_are_not_passed_on(tmp_path):
    path = made(tmp_path / "a.dcm")
    study = str(pydicom.dcmread(path).StudyInstanceUID).encode()
    path.write_bytes(path.read_bytes().replace(study, b"Doe^Jane".ljust(len(study), b"x")))
    with pytest.warns(UserWarning, match="Doe"):  # this is what pydicom says of it
        str(pydicom.dcmread(path))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        write(read(path), tmp_path / "b.dcm", note={})
    assert not heard


def test_huge_claims_are_refused_before_decoding(tmp_path):
    path = made(tmp_path / "a.dcm", Rows=20000, Columns=20000)
    with pytest.raises(ImageError, match="20000x20000"):
        read(path)


def test_only_dicom_becomes_dicom(tmp_path):
    with pytest.raises(ImageError, match="only a picture read from DICOM"):
        write(from_array(RAMP), tmp_path / "a.dcm", note={})


def test_a_png_of_a_dicom_shows_what_the_window_shows(tmp_path):
    source = made(tmp_path / "a.dcm", WindowCenter=2048, WindowWidth=4096, PhotometricInterpretation="MONOCHROME1")
    picture = read(source)
    back = read(write(picture, tmp_path / "a.png", note={}))
    assert back.bits == 16 and np.abs(back.unit() - picture.unit()).max() < 1e-5


@pytest.mark.parametrize("name", ["CT_small.dcm", "JPEG2000.dcm", "MR_small_RLE.dcm", "SC_rgb_rle_16bit.dcm"])
def test_an_edit_opens_in_another_reader(name, tmp_path):
    """GDCM, which shares no code with pydicom, sees the source's size and depth, and the edited values."""
    gdcm = pytest.importorskip("gdcm")
    picture = read(get_testdata_file(name))
    change = np.zeros(picture.pixels.shape[:2], np.float32)
    change[8:24, 8:24] = 0.2
    edited = picture.with_pixels(composite(picture, change, (change > 0).astype(np.float32)))
    assert not np.array_equal(edited.pixels, picture.pixels)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(write(edited, tmp_path / "edited.dcm", note={})))
    assert reader.Read()
    image = reader.GetImage()
    assert (image.GetDimension(1), image.GetDimension(0)) == picture.pixels.shape[:2]
    assert image.GetPixelFormat().GetBitsStored() == picture.bits
    content = image.GetBuffer().encode("utf-8", "surrogateescape")
    assert content == np.ascontiguousarray(edited.pixels).tobytes()
