"""From DICOM to pixels: grey curves against pydicom's own, compression, depth, and what is refused."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_films import TEST_FILES, film, jpeg, pydicom, write
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from noisy_student.data import dicom
from noisy_student.data.decode import DecodeSettings, decode
from noisy_student.errors import DataError

GREY = DecodeSettings(32, 1)


def ramp(low: int, high: int, kind: Any = np.uint16) -> np.ndarray:
    return np.tile(np.linspace(low, high, 32).round().astype(kind), (32, 1))


def shown(data: Dataset, path: Path, window: tuple[float, float] | None = None) -> np.ndarray:
    return np.asarray(dicom.picture(write(path / "film.dcm", data), window))


def eight(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(255 * (values.astype(float) - low) / (high - low)).astype(np.uint8)


# -- grey values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2.5, -1000)])
@pytest.mark.parametrize("signed", [False, True])
def test_the_window_is_that_of_pydicom(
    tmp_path: Path, function: str | None, slope: float, intercept: float, signed: bool
) -> None:
    stored = ramp(-2048, 2047, np.int16) if signed else ramp(0, 4095)
    middle = slope * (0 if signed else 2048) + intercept
    more = {"VOILUTFunction": function} if function else {}
    data = film(
        stored, bits=12, RescaleSlope=slope, RescaleIntercept=intercept, WindowCenter=[middle + 100, 5],
        WindowWidth=[1500, 7], **more,
    )  # fmt: skip
    values = pydicom.pixels.apply_modality_lut(stored, data)
    windowed = pydicom.pixels.apply_windowing(values, data)
    ends = (stored.min() * slope + intercept, stored.max() * slope + intercept)
    np.testing.assert_allclose(shown(data, tmp_path), 255 * (windowed - ends[0]) / (ends[1] - ends[0]), atol=0.5001)


def test_monochrome1_is_turned_over(tmp_path: Path) -> None:
    settings = {"bits": 12, "WindowCenter": 2048, "WindowWidth": 4096}
    plain = shown(film(ramp(0, 4095), **settings), tmp_path)
    turned = shown(film(ramp(0, 4095), PhotometricInterpretation="MONOCHROME1", **settings), tmp_path)
    assert plain[0, 0] == 0
    np.testing.assert_array_equal(turned, 255 - plain)


def lut(first: int, entries: np.ndarray, bits: int, *, packed: bool) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries), first, bits])
    if packed:
        item.add_new("LUTData", "OW", entries.astype("u1" if bits <= 8 else "<u2").tobytes())
    else:
        item.add_new("LUTData", "US", entries.tolist())
    return item


@pytest.mark.parametrize("packed", [False, True])
def test_lookup_tables_are_those_of_pydicom(tmp_path: Path, packed: bool) -> None:
    stored = ramp(0, 1100)
    modality = (np.sqrt(np.linspace(0, 1, 1000)) * 4095).astype(np.uint16)
    voi = (np.linspace(0, 1, 3000) ** 2 * 1023).astype(np.uint16)
    data = film(stored, bits=12, WindowCenter=5, WindowWidth=5)
    data.ModalityLUTSequence = [lut(50, modality, 16, packed=packed)]
    data.VOILUTSequence = [lut(700, voi, 10, packed=packed)]
    values = pydicom.pixels.apply_voi(pydicom.pixels.apply_modality_lut(stored, data), data)
    np.testing.assert_array_equal(shown(data, tmp_path), eight(values, 0, 1023))


def test_a_table_of_bytes(tmp_path: Path) -> None:
    data = film(ramp(0, 31))
    data.VOILUTSequence = [lut(0, np.arange(32) * 8, 8, packed=True)]
    np.testing.assert_array_equal(shown(data, tmp_path)[0], np.arange(32) * 8)


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": 50},
        {"WindowCenter": 50, "WindowWidth": 0},
        {"WindowCenter": 50, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"},
    ],
)
def test_without_a_usable_window_the_film_is_spread_from_least_to_most(
    tmp_path: Path, elements: dict[str, Any]
) -> None:
    stored = ramp(300, 900)
    np.testing.assert_array_equal(shown(film(stored, bits=12, **elements), tmp_path), eight(stored, 300, 900))


@pytest.mark.parametrize(("kind", "bits"), [(np.uint8, 8), (np.uint8, 6), (np.uint16, 8)])
def test_8_bits_stay_as_they_are(tmp_path: Path, kind: Any, bits: int) -> None:
    top = 2**bits - 1
    stored = ramp(top // 4, top // 2, kind)
    np.testing.assert_array_equal(shown(film(stored, bits=bits), tmp_path), eight(stored, 0, top))
    if bits == 8:
        np.testing.assert_array_equal(shown(film(stored, bits=bits), tmp_path), stored)


def test_8_bits_stay_as_they_are_under_a_rescaling_that_changes_nothing(tmp_path: Path) -> None:
    stored = ramp(40, 90, np.uint8)
    np.testing.assert_array_equal(shown(film(stored, RescaleSlope=1, RescaleIntercept=0), tmp_path), stored)


def test_rescaled_8_bits_are_spread(tmp_path: Path) -> None:
    stored = ramp(40, 90, np.uint8)
    found = shown(film(stored, RescaleSlope=3, RescaleIntercept=7), tmp_path)
    np.testing.assert_array_equal(found, eight(stored, 40, 90))


def test_percentiles_take_the_place_of_the_window(tmp_path: Path) -> None:
    stored = ramp(100, 4000)
    data = film(stored, bits=12, WindowCenter=5, WindowWidth=5, RescaleSlope=2, RescaleIntercept=-9)
    low, high = np.percentile(2.0 * stored - 9, (5, 90))
    expected = np.rint(255 * np.clip((2.0 * stored - 9 - low) / (high - low), 0, 1))
    np.testing.assert_array_equal(shown(data, tmp_path, (5, 90)), expected)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_count(tmp_path: Path, photometric: str) -> None:
    stored = ramp(1000, 2000)
    inside = shown(film(stored, bits=12, PhotometricInterpretation=photometric), tmp_path)
    stored[:4], stored[4:8] = 0, 17
    data = film(stored, bits=12, PhotometricInterpretation=photometric, PixelPaddingValue=0, PixelPaddingRangeLimit=20)
    padded = shown(data, tmp_path)
    assert not padded[:8].any()
    np.testing.assert_array_equal(padded[8:], inside[8:])
    for where in (slice(0, 4), slice(4, 8)):
        stored[where] = 0
    assert not shown(film(stored, bits=12, PixelPaddingValue=0), tmp_path)[:8].any()
    plain = film(ramp(1000, 2000), bits=12, PhotometricInterpretation=photometric, PixelPaddingValue=5)
    np.testing.assert_array_equal(shown(plain, tmp_path), inside)
    with pytest.raises(ValueError, match="every pixel is padding"):
        shown(film(np.zeros((8, 8), np.uint16), PixelPaddingValue=0), tmp_path)


def test_wide_and_floating_point_values(tmp_path: Path) -> None:
    wide = (np.arange(1024, dtype=np.uint32) * 4_000_000).reshape(32, 32)
    np.testing.assert_array_equal(shown(film(wide), tmp_path), eight(wide, 0, wide.max()))
    data = film(wide)
    values = np.linspace(-3, 9, 1024, dtype=np.float32).reshape(32, 32)
    del data.PixelData, data.BitsStored, data.HighBit, data.PixelRepresentation
    data.FloatPixelData = values.tobytes()
    np.testing.assert_array_equal(shown(data, tmp_path), eight(values, -3, 9))
    values[3, 3] = np.inf
    data.FloatPixelData = values.tobytes()
    with pytest.raises(ValueError, match="pixels that are no numbers"):
        shown(data, tmp_path)


# -- colour --------------------------------------------------------------------------------------------------------


def test_colour_and_palette(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert dicom.picture(write(tmp_path / "rgb.dcm", film(colours))).mode == "RGB"
    np.testing.assert_array_equal(shown(film(colours), tmp_path), colours)
    wide = film(colours.astype(np.uint16) * 257)
    np.testing.assert_array_equal(shown(wide, tmp_path), colours)
    found = np.asarray(dicom.picture(TEST_FILES / "examples_palette.dcm"))
    data = pydicom.dcmread(TEST_FILES / "examples_palette.dcm")
    expected = pydicom.pixels.apply_color_lut(data.pixel_array, data)
    np.testing.assert_array_equal(found, np.rint(expected / 65535 * 255))
    assert decode(TEST_FILES / "examples_palette.dcm", DecodeSettings(32, 3)).shape == (3, 32, 32)


# -- compression ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless,
        uid.JPEG2000Lossless,
    ],
    ids=lambda syntax: syntax.keyword,
)  # fmt: skip
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_syntaxes_give_the_same_pixels(tmp_path: Path, syntax: Any, bits: int) -> None:
    draw = np.random.default_rng(0)
    stored = draw.integers(0, 2**bits, (40, 48), dtype=np.uint8 if bits == 8 else np.uint16)
    plain = shown(film(stored, bits=bits), tmp_path)
    np.testing.assert_array_equal(shown(film(stored, bits=bits, syntax=syntax), tmp_path), plain)


def test_jpeg_and_lossy_jpeg2000_come_close(tmp_path: Path) -> None:
    smooth = np.asarray(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 6), dtype=np.uint8)).resize((96, 80))
    )
    np.testing.assert_allclose(shown(jpeg(smooth), tmp_path).astype(int), smooth.astype(int), atol=4)
    data = film(smooth)
    data.compress(uid.JPEG2000, j2k_psnr=[45], generate_instance_uid=False)
    error = shown(data, tmp_path).astype(float) - smooth
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 40  # decibels; the edges of the film are worst


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm",
    ],
)  # fmt: skip
def test_the_copies_of_one_slice_in_all_syntaxes_are_equal(name: str) -> None:
    settings = DecodeSettings(64, 1)
    np.testing.assert_array_equal(decode(TEST_FILES / name, settings), decode(TEST_FILES / "MR_small.dcm", settings))


def test_jpeg_of_12_bits_and_lossless_jpeg() -> None:
    assert np.ptp(decode(TEST_FILES / "JPGExtended.dcm", GREY)) > 50
    colour = DecodeSettings(100, 3)
    lossless, plain = (decode(TEST_FILES / f"SC_rgb_{name}.dcm", colour) for name in ("jpeg_gdcm", "rle"))
    np.testing.assert_array_equal(lossless, plain)


def test_a_decoder_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "film.dcm", film(ramp(0, 255, np.uint8), syntax=uid.RLELossless))
    decoder = pydicom.pixels.get_decoder(uid.RLELossless)
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(DataError, match=r"no decoder for RLE Lossless is installed; pip install 'noisy_student\[dicom"):
        decode(path, GREY)
    write(path, film(ramp(0, 255, np.uint8)))
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.99999.1.2.1\0"))
    with pytest.raises(DataError, match="no decoder for a packing of its maker"):
        decode(path, GREY)


def test_without_pydicom_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "film.dcm", film(ramp(0, 255, np.uint8)))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match="pydicom is not installed") as caught:
        decode(path, GREY)
    assert caught.value.hint == "pip install 'noisy_student[dicom]'"


# -- what is refused -----------------------------------------------------------------------------------------------


def words(data: Dataset, path: Path) -> str:
    write(path / "film.dcm", data)
    with pytest.raises(DataError) as caught:
        decode(path / "film.dcm", GREY)
    message = caught.value.message
    assert message.startswith(f"{path / 'film.dcm'}: cannot be decoded (")
    return message.split("cannot be decoded (")[1].removesuffix(")")


def test_files_that_hold_no_film_are_refused_by_what_they_are(tmp_path: Path) -> None:
    data = film(np.zeros((8, 8), np.uint8), Rows=4, NumberOfFrames=2)
    assert words(data, tmp_path) == "it has 2 frames, and a film has one"
    kind = uid.UID("1.2.840.10008.5.1.4.1.1.88.11")
    data = film(np.zeros((8, 8), np.uint8), Rows=None, SOPClassUID=kind)
    assert words(data, tmp_path) == "it has no picture (Basic Text SR Storage)"
    data = film(np.zeros((8, 8), np.uint8), Rows=None, SOPClassUID="1.2.3.4")
    assert words(data, tmp_path) == "it has no picture"
    assert words(film(np.zeros((8, 8), np.uint8), PixelData=None), tmp_path) == "it has no pixels"
    assert words(film(np.zeros((8, 8), np.uint8), Rows=0), tmp_path) == "it has no pixels"
    segmentation = film(np.zeros((8, 8), np.uint8), SOPClassUID=uid.SegmentationStorage)
    assert words(segmentation, tmp_path) == "it is a segmentation, not a film"


def test_a_header_has_to_say_how_pixels_are_packed(tmp_path: Path) -> None:
    path = write(tmp_path / "film.dcm", film(ramp(0, 255, np.uint8)))
    path.write_bytes(path.read_bytes().replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI"))
    with pytest.raises(DataError, match="its header does not say how the pixels are packed"):
        decode(path, GREY)


def test_a_film_that_claims_to_be_enormous_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    data = film(np.zeros((8, 8), np.uint8), Rows=60000, Columns=60000, syntax=uid.ExplicitVRLittleEndian)
    assert words(data, tmp_path) == "60000 x 60000 pixels are more than 100 million"


def test_a_packed_picture_of_another_size_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    data = jpeg(np.zeros((600, 800), np.uint8))
    data.Rows, data.Columns = 6, 8
    assert words(data, tmp_path) == "its header says 8 x 6 pixels, and 800 x 600 are packed"
    data = film(np.zeros((600, 800), np.uint8), syntax=uid.JPEG2000Lossless)
    data.Rows, data.Columns = 6, 8
    assert words(data, tmp_path) == "its header says 8 x 6 pixels, and 800 x 600 are packed"


def test_the_size_of_a_packed_picture() -> None:
    assert dicom.packed_size(b"") is None
    assert dicom.packed_size(b"\xff\xd8\xff") is None
    assert dicom.packed_size(b"\xff\xd8\xff\xff\xc0\x00\x0b\x08\x00\x05\x00\x07\x01") == (7, 5)
    assert dicom.packed_size(b"\xff\xd8\xff\xe0\x00\x04ab\xff\xf7\x00\x0b\x08\x00\x05\x00\x07\x01") == (7, 5)


def test_a_deflated_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = film(ramp(0, 255, np.uint8), syntax=uid.DeflatedExplicitVRLittleEndian)
    path = write(tmp_path / "film.dcm", data)
    whole = path.read_bytes()
    head = whole[: 144 + int.from_bytes(whole[140:144], "little")]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    with path.open("wb") as stream:
        stream.write(head)
        for _ in range(310):
            stream.write(packer.compress(bytes(1_000_000)))
        stream.write(packer.flush())
    assert path.stat().st_size < 400_000
    with monkeypatch.context() as patch:
        patch.setattr(zlib, "decompress", lambda *_: pytest.fail("unpacked in one go"))
        with pytest.raises(DataError, match="it unpacks to more than 300 million bytes"):
            decode(path, GREY)
    path.write_bytes(head + b"\xffno deflated data")
    with pytest.raises(DataError, match="the deflated part is damaged"):
        decode(path, GREY)


def test_damaged_files_say_where(tmp_path: Path) -> None:
    data = film(ramp(0, 255, np.uint8))
    path = write(tmp_path / "film.dcm", data)
    whole = path.read_bytes()
    path.write_bytes(whole[:-500])
    with pytest.raises(DataError, match=r"its pixels cannot be read \(ValueError\)"):
        decode(path, GREY)
    path.write_bytes(whole[:140])
    with pytest.raises(DataError, match=r"film.dcm: cannot be decoded \(its header breaks off before"):
        decode(path, GREY)
    with pytest.raises(ValueError, match="it is no DICOM file"):
        dicom.read(TEST_FILES / "README.txt")
    data = film(ramp(0, 255, np.uint8))
    data.VOILUTSequence = [lut(0, np.zeros(0), 8, packed=True)]
    assert words(data, tmp_path) == "its lookup table is empty or of an unknown depth"
    data = jpeg(ramp(0, 255, np.uint8))
    data.PixelData = encapsulate([b"\xff\xd8 not a picture"])
    assert words(data, tmp_path) == "its pixels cannot be read (RuntimeError)"
    write(path, data)
    data = film(ramp(0, 255, np.uint8), NumberOfFrames="1")
    write(path, data)
    path.write_bytes(path.read_bytes().replace(b"IS\x02\x001 ", b"IS\x02\x00x?"))
    with pytest.raises(DataError, match="its number of frames is no number"):
        decode(path, GREY)


def test_want_of_memory_is_no_fault_of_the_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    path = write(tmp_path / "film.dcm", film(ramp(0, 255, np.uint8)))
    monkeypatch.setattr(pydicom.pixels, "pixel_array", full)
    with pytest.raises(MemoryError):
        decode(path, GREY)


def test_what_a_file_is_its_content_says_not_its_name(tmp_path: Path) -> None:
    write(tmp_path / "film.jpg", film(ramp(0, 255, np.uint8)))
    Image.fromarray(ramp(0, 255, np.uint8)).save(tmp_path / "film.png")
    (tmp_path / "film.png").rename(tmp_path / "film.dicom")
    for name in ("film.jpg", "film.dicom"):
        np.testing.assert_array_equal(decode(tmp_path / name, GREY)[0], ramp(0, 255, np.uint8))


def test_fit_and_channels_hold_for_dicom(tmp_path: Path) -> None:
    wide = np.full((64, 128), 200, np.uint8)
    write(tmp_path / "film.dcm", film(wide))
    Image.fromarray(wide).save(tmp_path / "film.png")
    for fit in ("stretch", "pad", "crop"):
        settings = DecodeSettings(32, 3, fit=fit)
        np.testing.assert_array_equal(decode(tmp_path / "film.dcm", settings), decode(tmp_path / "film.png", settings))
