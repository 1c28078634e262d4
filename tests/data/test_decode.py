"""Film files to pixels: depth, modes, and damage."""

from __future__ import annotations

from pathlib import Path

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
    for name in ("rgba.png", "la.png", "p.png"):
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

    monkeypatch.setattr(Image, "open", full)
    with pytest.raises(MemoryError):
        decode(tmp_path / "film.png", GREY)
