"""Film files to pixels: depth, modes, and damage."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from noisy_student.data.decode import DecodeSettings, decode
from noisy_student.errors import DataError

GREY = DecodeSettings(32, 1)
COLOUR = DecodeSettings(32, 3)


def ramp(height: int = 32, width: int = 32) -> np.ndarray:
    """A left-to-right ramp from 0 to 255."""
    return np.tile(np.linspace(0, 255, width).round().astype(np.uint8), (height, 1))


@pytest.mark.parametrize("settings", [GREY, COLOUR])
@pytest.mark.parametrize("name", ["film.png", "film.jpg", "film.bmp", "film.tif"])
def test_shape_type_and_content(tmp_path: Path, name: str, settings: DecodeSettings) -> None:
    Image.fromarray(ramp(64, 64)).save(tmp_path / name)
    pixels = decode(tmp_path / name, settings)
    assert pixels.shape == (settings.channels, 32, 32)
    assert pixels.dtype == np.uint8
    assert pixels.flags["C_CONTIGUOUS"]
    for channel in pixels:
        # 3 grey levels: the JPEG's quantisation and the averaging of two columns of a ramp of step 4.
        np.testing.assert_allclose(channel.astype(float), ramp().astype(float), atol=3 + 255 / 63)


def test_a_lossless_film_of_the_right_size_is_unchanged(tmp_path: Path) -> None:
    Image.fromarray(ramp()).save(tmp_path / "film.png")
    np.testing.assert_array_equal(decode(tmp_path / "film.png", GREY)[0], ramp())


def test_the_whole_film_is_resized_not_cropped(tmp_path: Path) -> None:
    wide = np.zeros((64, 320), dtype=np.uint8)
    wide[:, 160:] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    pixels = decode(tmp_path / "wide.png", GREY)[0]
    assert (pixels[:, :15] == 0).all()
    assert (pixels[:, 17:] == 200).all()


def test_a_large_jpeg_is_the_same_through_draft(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 5), dtype=np.uint8)
    large = Image.fromarray(image).resize((700, 900), Image.Resampling.BICUBIC)
    large.save(tmp_path / "film.jpg", quality=95)
    expected = np.asarray(large.resize((32, 32), Image.Resampling.BILINEAR), dtype=float)
    # The same filter after libjpeg's own halving: a few grey levels on a smooth film.
    np.testing.assert_allclose(decode(tmp_path / "film.jpg", GREY)[0].astype(float), expected, atol=6)


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_16_bits_are_scaled_linearly(tmp_path: Path, kind: str) -> None:
    wide = np.tile(np.linspace(0, 65535, 32).round().astype(np.uint16), (32, 1))
    Image.fromarray(wide).save(tmp_path / f"film.{kind}")
    expected = np.rint(wide / 257).astype(np.uint8)
    np.testing.assert_array_equal(decode(tmp_path / f"film.{kind}", GREY)[0], expected)
    for channel in decode(tmp_path / f"film.{kind}", COLOUR):
        np.testing.assert_array_equal(channel, expected)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_whose_white_is_zero_is_turned_over(tmp_path: Path, kind: Any) -> None:
    values = np.tile(np.linspace(0, np.iinfo(kind).max, 32).round().astype(kind), (32, 1))
    Image.fromarray(values).save(tmp_path / "black.tif")
    tag = struct.pack("<HHI", 262, 3, 1)  # photometric interpretation, one number of 16 bits
    written = (tmp_path / "black.tif").read_bytes()
    assert written.count(tag + struct.pack("<I", 1)) == 1
    turned = written.replace(tag + struct.pack("<I", 1), tag + struct.pack("<I", 0))
    (tmp_path / "white.tif").write_bytes(turned)
    black, white = (decode(tmp_path / f"{name}.tif", GREY)[0] for name in ("black", "white"))
    assert (black[0, 0], black[0, -1]) == (0, 255)
    np.testing.assert_array_equal(white, 255 - black)


def test_32_bit_pixels_within_16_bits_are_scaled_alike_and_beyond_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 65535, dtype=np.int32)).save(tmp_path / "in.tif")
    assert (decode(tmp_path / "in.tif", GREY) == 255).all()
    Image.fromarray(np.full((8, 8), 65536, dtype=np.int32)).save(tmp_path / "out.tif")
    with pytest.raises(DataError, match=r"out.tif: cannot be decoded \(32-bit"):
        decode(tmp_path / "out.tif", GREY)
    Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match="floating-point"):
        decode(tmp_path / "float.tif", GREY)


def test_palette_one_bit_and_cmyk(tmp_path: Path) -> None:
    Image.fromarray(ramp()).convert("P").save(tmp_path / "p.png")
    np.testing.assert_array_equal(decode(tmp_path / "p.png", GREY)[0], ramp())
    Image.fromarray(ramp() > 127).save(tmp_path / "one.png")
    assert set(np.unique(decode(tmp_path / "one.png", GREY))) == {0, 255}
    Image.fromarray(ramp()).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    np.testing.assert_allclose(decode(tmp_path / "cmyk.jpg", GREY)[0].astype(float), ramp().astype(float), atol=4)


@pytest.mark.parametrize("settings", [GREY, COLOUR])
def test_transparency_is_put_on_black(tmp_path: Path, settings: DecodeSettings) -> None:
    grey = np.full((32, 32), 200, dtype=np.uint8)
    alpha = np.zeros_like(grey)
    alpha[:16] = 255
    Image.fromarray(np.dstack([grey] * 3 + [alpha])).save(tmp_path / "rgba.png")
    Image.fromarray(np.dstack([grey, alpha])).save(tmp_path / "la.png")
    palette = Image.fromarray((alpha > 0).astype(np.uint8)).convert("P")
    palette.putpalette([9, 9, 9, 200, 200, 200])
    palette.save(tmp_path / "p.png", transparency=bytes([0, 255]))
    marked = np.where(alpha > 0, grey, 7).astype(np.uint8)  # one level is transparent
    Image.fromarray(marked).save(tmp_path / "l.png", transparency=7)
    Image.fromarray(np.dstack([marked] * 3)).save(tmp_path / "rgb.png", transparency=(7, 7, 7))
    for name in ("rgba.png", "la.png", "p.png", "l.png", "rgb.png"):
        pixels = decode(tmp_path / name, settings)
        assert (pixels[:, :14] == 200).all(), name
        assert (pixels[:, 18:] == 0).all(), name


def test_colour_keeps_the_order_of_channels(tmp_path: Path) -> None:
    red = np.zeros((32, 32, 3), dtype=np.uint8)
    red[..., 0] = 255
    Image.fromarray(red).save(tmp_path / "red.png")
    np.testing.assert_array_equal(decode(tmp_path / "red.png", COLOUR)[:, 0, 0], [255, 0, 0])
    assert decode(tmp_path / "red.png", GREY)[0, 0, 0] == 76  # ITU-R 601: 0.299 * 255


@pytest.mark.parametrize("name", ["film.jpg", "film.png"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=f"{name}: cannot be decoded") as caught:
        decode(path, GREY)
    assert str(caught.value).count(str(tmp_path)) == 1


def test_missing_and_foreign_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.png: cannot be decoded"):
        decode(tmp_path / "gone.png", GREY)
    (tmp_path / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(DataError, match=r"script.png: cannot be decoded"):
        decode(tmp_path / "script.png", GREY)


def test_want_of_memory_is_no_fault_of_the_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    (tmp_path / "film.png").write_bytes(b"a film")
    monkeypatch.setattr(Image, "open", full)
    with pytest.raises(MemoryError):
        decode(tmp_path / "film.png", GREY)


# -- bit for bit ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [30, 90])
@pytest.mark.parametrize(("width", "height"), [(390, 320), (320, 390), (31, 40), (1500, 1200)])
def test_grey_jpegs_are_those_of_the_plain_pillow_calls(tmp_path: Path, width: int, height: int, quality: int) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "film.jpg", quality=quality)
    with Image.open(tmp_path / "film.jpg") as image:
        image.draft("L", (32, 32))
        plain = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR, reducing_gap=2.0))
    np.testing.assert_array_equal(decode(tmp_path / "film.jpg", GREY)[0], plain)


# -- fit -----------------------------------------------------------------------------------------------------------


def test_padding_keeps_the_aspect_ratio_and_fills_with_black(tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 128), 200, np.uint8)).save(tmp_path / "wide.png")
    Image.fromarray(np.full((128, 64), 200, np.uint8)).save(tmp_path / "tall.png")
    Image.fromarray(np.full((2, 900), 200, np.uint8)).save(tmp_path / "line.png")
    wide = decode(tmp_path / "wide.png", DecodeSettings(32, 1, fit="pad"))[0]
    assert (wide[8:24] == 200).all()
    assert not wide[:8].any()
    assert not wide[24:].any()
    np.testing.assert_array_equal(decode(tmp_path / "tall.png", DecodeSettings(32, 1, fit="pad"))[0], wide.T)
    assert (decode(tmp_path / "line.png", DecodeSettings(32, 1, fit="pad"))[0] > 0).any(axis=1).sum() == 1
    colour = decode(tmp_path / "wide.png", DecodeSettings(32, 3, fit="pad"))
    np.testing.assert_array_equal(colour, np.stack([wide] * 3))


def test_cropping_takes_the_centre(tmp_path: Path) -> None:
    film = np.zeros((64, 192), dtype=np.uint8)
    film[:, 64:128] = ramp(64, 64)
    Image.fromarray(film).save(tmp_path / "wide.png")
    Image.fromarray(ramp(64, 64)).save(tmp_path / "centre.png")
    cropped = decode(tmp_path / "wide.png", DecodeSettings(32, 1, fit="crop"))[0].astype(int)
    # The filter reaches a pixel beyond the box.
    np.testing.assert_allclose(cropped[:, 1:-1], decode(tmp_path / "centre.png", GREY)[0].astype(int)[:, 1:-1], atol=1)


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_a_square_film_is_the_same_whatever_the_fit(tmp_path: Path, fit: str) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 400), dtype=np.uint8)).save(tmp_path / "film.jpg")
    settings = DecodeSettings(32, 1, fit=fit)  # type: ignore[arg-type]
    np.testing.assert_array_equal(decode(tmp_path / "film.jpg", settings), decode(tmp_path / "film.jpg", GREY))


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_a_large_jpeg_keeps_its_shape_through_draft(tmp_path: Path, fit: str) -> None:
    yy, xx = np.mgrid[:900, :600]
    disc = (255 * (np.hypot(yy - 450, xx - 300) < 200)).astype(np.uint8)
    Image.fromarray(disc).save(tmp_path / "disc.jpg", quality=95)
    found = decode(tmp_path / "disc.jpg", DecodeSettings(90, 1, fit=fit))[0] > 127  # type: ignore[arg-type]
    high, wide = np.ptp(np.flatnonzero(found.any(axis=1))) + 1, np.ptp(np.flatnonzero(found.any(axis=0))) + 1
    assert abs(high - wide) <= 1
    assert abs(high - 400 * 90 / (900 if fit == "pad" else 600)) <= 2


# -- orientation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_film_is_put_upright(tmp_path: Path, turn: int, kind: str, fit: str) -> None:
    film = np.zeros((120, 80), dtype=np.uint8)
    film[:60, :40], film[:60, 40:], film[60:, :40] = 240, 160, 80
    # What the camera stored: the inverse of what each orientation asks for (EXIF 2.32, table of tag 0x0112).
    stored = {
        1: film, 2: film[:, ::-1], 3: film[::-1, ::-1], 4: film[::-1],
        5: film.T, 6: np.rot90(film), 7: film[::-1, ::-1].T, 8: np.rot90(film, -1),
    }[turn]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = turn
    more = {"quality": 95, "exif": exif} if kind != "tif" else {"exif": exif}
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"film.{kind}", **more)
    Image.fromarray(film).save(tmp_path / "upright.png")
    settings = DecodeSettings(32, 1, fit=fit)  # type: ignore[arg-type]
    found, upright = (decode(tmp_path / name, settings)[0].astype(int) for name in (f"film.{kind}", "upright.png"))
    # 24: a lossy edge falls between two pixels; a wrong turn is 80 off over a quarter of the film.
    assert np.percentile(np.abs(found - upright), 85) <= 24
    corners = [(4, 8), (4, -8), (-4, 8)] if fit != "pad" else [(4, 11), (4, -11), (-4, 11)]
    for corner, level in zip(corners, (240, 160, 80), strict=True):
        assert abs(found[corner] - level) <= 8


def test_tags_that_cannot_be_read_leave_the_film_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(ramp()).save(tmp_path / "plain.jpg", quality=95)
    for name, exif in (("odd", b"Exif\x00\x00garbage!"), ("nine", None)):
        tags = Image.Exif()
        tags[0x0112] = 9
        Image.fromarray(ramp()).save(tmp_path / f"{name}.jpg", quality=95, exif=exif or tags)
        np.testing.assert_array_equal(decode(tmp_path / f"{name}.jpg", GREY), decode(tmp_path / "plain.jpg", GREY))


# -- depth ---------------------------------------------------------------------------------------------------------


def test_percentiles_become_black_and_white_on_16_bits(tmp_path: Path) -> None:
    wide = np.tile(np.linspace(1000, 5000, 32).round().astype(np.uint16), (32, 1))
    wide[0, 0] = 65535  # one dead pixel
    Image.fromarray(wide).save(tmp_path / "film.png")
    plain = decode(tmp_path / "film.png", GREY)[0]
    assert np.ptp(plain[1:]) < 20
    spread = decode(tmp_path / "film.png", DecodeSettings(32, 1, window=(1, 99)))[0]
    low, high = np.percentile(wide, (1, 99))
    expected = np.rint(255 * np.clip((wide.astype(float) - low) / (high - low), 0, 1))
    np.testing.assert_array_equal(spread, expected.astype(np.uint8))


def test_percentiles_leave_8_bits_alone(tmp_path: Path) -> None:
    Image.fromarray(ramp() // 2 + 20).save(tmp_path / "film.png")
    spread = DecodeSettings(32, 1, window=(1, 99))
    np.testing.assert_array_equal(decode(tmp_path / "film.png", spread), decode(tmp_path / "film.png", GREY))


def test_percentiles_give_a_range_to_what_has_none(tmp_path: Path) -> None:
    spread = DecodeSettings(32, 1, window=(0, 100))
    Image.fromarray(ramp().astype(np.float32) / 7 - 3).save(tmp_path / "float.tif")
    np.testing.assert_allclose(decode(tmp_path / "float.tif", spread)[0].astype(int), ramp().astype(int), atol=1)
    Image.fromarray(ramp().astype(np.int32) * 8_000_000 - 70_000_000).save(tmp_path / "deep.tif")
    np.testing.assert_array_equal(decode(tmp_path / "deep.tif", spread)[0], ramp())
    Image.fromarray(np.full((8, 8), np.nan, dtype=np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(DataError, match="pixels that are no numbers"):
        decode(tmp_path / "nan.tif", spread)
    Image.fromarray(np.full((8, 8), 500, dtype=np.uint16)).save(tmp_path / "flat.png")
    assert not decode(tmp_path / "flat.png", spread).any()
