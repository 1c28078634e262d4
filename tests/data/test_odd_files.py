"""Odd files by the dozen: each works, or is put in quarantine with its reason, and the others go on.

``MADE`` and ``SHIPPED`` are the table of outcomes: the name of a file, how it is made or where pydicom has it, and what
becomes of it: :data:`WORKS`, or words of the reason.
"""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_films import TEST_FILES, film, jpeg
from PIL import Image
from pydicom import uid

from noisy_student.cli import main
from noisy_student.config import DataConfig
from noisy_student.data import cache, sources
from noisy_student.data.decode import DecodeSettings, decode
from noisy_student.data.sources import dicom
from noisy_student.errors import DataError

WORKS = "works"

GREY = np.random.default_rng(0).integers(0, 256, (48, 40), dtype=np.uint8)
WIDE = GREY.astype(np.uint16) * 257
RGB = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])


def picture(pixels: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, kind, **options)
    return stream.getvalue()


def header(data: Any) -> bytes:
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def png(width: int, height: int, *, depth: int = 8, colour: int = 0, chunks: bytes = b"", data: bytes = b"") -> bytes:
    """A PNG from its parts, so that they can lie."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    packed = zlib.compress(data or bytes(min(height * (width + 1), 1 << 20)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunks + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def text_chunk() -> bytes:
    body = b"Comment\0\0" + zlib.compress(bytes(8_000_000), 9)
    return struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))


def exif(turn: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = turn
    return tags


def palette() -> Image.Image:
    image = Image.fromarray(GREY).convert("P")
    image.info["transparency"] = 3
    return image


def pages() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, "TIFF", save_all=True, append_images=[Image.fromarray(GREY[::-1])])
    return stream.getvalue()


JPEG, PNG, TIFF = picture(GREY, "JPEG"), picture(GREY, "PNG"), picture(GREY, "TIFF")
DICOM = header(film(GREY))

MADE: list[tuple[str, Callable[[Path], Any] | bytes, str]] = [
    # kinds of pixels
    ("grey.jpg", JPEG, WORKS),
    ("grey.png", PNG, WORKS),
    ("grey.tif", TIFF, WORKS),
    ("grey.bmp", picture(GREY, "BMP"), WORKS),
    ("grey.webp", picture(GREY, "WEBP"), WORKS),
    ("grey.jp2", picture(GREY, "JPEG2000"), WORKS),
    ("rgb.jpg", picture(RGB, "JPEG"), WORKS),
    ("rgb.png", picture(RGB, "PNG"), WORKS),
    ("rgba.png", picture(np.dstack([RGB, GREY]), "PNG"), WORKS),
    ("grey-alpha.png", picture(np.dstack([GREY, GREY]), "PNG"), WORKS),
    ("cmyk.jpg", picture(Image.fromarray(RGB).convert("CMYK"), "JPEG"), WORKS),
    ("ycbcr.tif", picture(Image.fromarray(RGB).convert("YCbCr"), "TIFF"), WORKS),
    ("lab.tif", picture(Image.fromarray(RGB).convert("LAB"), "TIFF"), WORKS),
    ("palette.png", picture(Image.fromarray(RGB).convert("P"), "PNG"), WORKS),
    ("palette-transparent.png", picture(palette(), "PNG"), WORKS),
    ("one-bit.png", picture(Image.fromarray(GREY > 127), "PNG"), WORKS),
    ("one-bit.tif", picture(Image.fromarray(GREY > 127), "TIFF", compression="group4"), WORKS),
    ("16-bit.png", picture(WIDE, "PNG"), WORKS),
    ("16-bit.tif", picture(WIDE, "TIFF"), WORKS),
    ("16-bit.jp2", picture(WIDE, "JPEG2000"), WORKS),
    ("32-bit.tif", picture(WIDE.astype(np.int32), "TIFF"), WORKS),
    ("32-bit-beyond.tif", picture(WIDE.astype(np.int32) * 9, "TIFF"), "no fixed range"),
    ("negative.tif", picture(WIDE.astype(np.int32) - 9, "TIFF"), "no fixed range"),
    ("float.tif", picture(GREY.astype(np.float32), "TIFF"), "no fixed range"),
    ("progressive.jpg", picture(GREY, "JPEG", progressive=True), WORKS),
    ("lzw.tif", picture(GREY, "TIFF", compression="tiff_lzw"), WORKS),
    ("two-pages.tif", pages(), WORKS),
    ("turned.jpg", picture(GREY, "JPEG", exif=exif(6)), WORKS),
    ("turned.tif", picture(GREY, "TIFF", exif=exif(8)), WORKS),
    ("odd-tags.jpg", picture(GREY, "JPEG", exif=b"Exif\0\0no tags at all"), WORKS),
    # sizes
    ("one-pixel.png", picture(GREY[:1, :1], "PNG"), WORKS),
    ("a-line.png", picture(GREY[:1], "PNG"), WORKS),
    ("a-column.jpg", picture(GREY[:, :1].repeat(1, axis=1), "JPEG"), WORKS),
    ("no-width.png", png(0, 5), "cannot be decoded"),
    ("bomb.png", png(50_000, 50_000), "exceeds limit"),
    ("large.png", png(12_000, 9_000), "more than 100 million"),
    ("bomb-of-text.png", png(8, 8, chunks=text_chunk()), "cannot be decoded"),
    # damage
    ("empty.jpg", b"", "the file is empty"),
    ("one-byte.jpg", b"\xff", "format is not known"),
    ("only-head.jpg", JPEG[:20], "cannot be decoded"),
    ("half.jpg", JPEG[: len(JPEG) // 2], "truncated"),
    ("without-end.jpg", JPEG[:-200], "truncated"),
    ("tail.jpg", JPEG + b"more bytes", WORKS),
    ("half.png", PNG[: len(PNG) // 2], "cannot be decoded"),
    ("flipped-byte.png", PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:], "cannot be decoded"),
    ("half.tif", TIFF[: len(TIFF) // 2], "cannot be decoded"),
    ("zeros.jpg", bytes(5000), "format is not known"),
    ("noise.png", GREY.tobytes(), "format is not known"),
    # what a file is and what it is called
    ("png.jpg", PNG, WORKS),
    ("jpeg.png", JPEG, WORKS),
    ("no-ending", JPEG, WORKS),
    ("LOUD.JPG", JPEG, WORKS),
    ("text.jpg", b"a text", "format is not known"),
    ("page.jpg", b"<!DOCTYPE html><title>404</title>", "format is not known"),
    ("paper.png", b"%PDF-1.7\n", "format is not known"),
    ("script.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "format is not known"),
    ("drawing.jpg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "format is not known"),
    ("film.gif", picture(GREY, "GIF"), "format is not known"),
    ("packed.jpg", b"PK\x03\x04" + bytes(90), "format is not known"),
    ("folder.jpg", lambda path: path.mkdir(), "it is a folder"),
    ("pipe.jpg", os.mkfifo, "it is no regular file"),
    ("loop.jpg", lambda path: path.symlink_to(path.name), "cannot be decoded"),
    ("link.jpg", lambda path: path.symlink_to("grey.jpg"), WORKS),
    ("with space.jpg", JPEG, WORKS),
    ("it's.jpg", JPEG, WORKS),
    ('so "called".jpg', JPEG, WORKS),
    ("new\nline.jpg", JPEG, WORKS),
    ("comma, semicolon;.jpg", JPEG, WORKS),
    ("Röntgen-胸部-🫁.jpg", JPEG, WORKS),
    ("-rf.jpg", JPEG, WORKS),
    ("$(id).jpg", JPEG, WORKS),
    ("n" * 200 + ".jpg", JPEG, WORKS),
    # DICOM
    ("plain.dcm", DICOM, WORKS),
    ("dicom.jpg", DICOM, WORKS),
    ("jpeg.dcm", JPEG, WORKS),
    ("monochrome1.dcm", header(film(WIDE, PhotometricInterpretation="MONOCHROME1")), WORKS),
    ("12-bit.dcm", header(film(WIDE >> 4, bits=12)), WORKS),
    ("signed.dcm", header(film(WIDE.astype(np.int32).astype(np.int16))), WORKS),
    ("colour.dcm", header(film(RGB)), WORKS),
    ("rle.dcm", header(film(WIDE, syntax=uid.RLELossless)), WORKS),
    ("jpeg2000.dcm", header(film(WIDE, syntax=uid.JPEG2000Lossless)), WORKS),
    ("deflated.dcm", header(film(WIDE, syntax=uid.DeflatedExplicitVRLittleEndian)), WORKS),
    ("baseline.dcm", header(jpeg(GREY)), WORKS),
    ("empty.dcm", b"", "the file is empty"),
    ("marker-only.dcm", bytes(128) + b"DICM", "its header"),
    ("half.dcm", DICOM[: len(DICOM) - 900], "its pixels cannot be read"),
    ("frames.dcm", header(film(GREY, Rows=24, NumberOfFrames=2)), "it has 2 frames"),
    ("no-pixels.dcm", header(film(GREY, PixelData=None)), "it has no pixels"),
    ("enormous.dcm", header(film(GREY, Rows=65535, Columns=65535)), "more than 100 million"),
]

FRAMES, SLICE, REPORT = r"it has \d+ frames", r"it has no picture \(.. Image", r"it has no picture \((?!.*Image)"
DOSE, DIRECTORY, UNKNOWN = "it is a radiation dose", "it is the directory of a medium", "format is not known"
NOT_WHOLE = "its header breaks off"
SHIPPED = {
    "693_J2KI.dcm": WORKS, "CT_small.dcm": WORKS, "ExplVR_BigEnd.dcm": WORKS, "ExplVR_BigEndNoMeta.dcm": UNKNOWN,
    "ExplVR_LitEndNoMeta.dcm": UNKNOWN, "GDCMJ2K_TextGBR.dcm": WORKS, "J2K_pixelrep_mismatch.dcm": WORKS,
    "JPEG-lossy.dcm": "its pixels cannot be read", "JPEG2000-embedded-sequence-delimiter.dcm": "are packed",
    "JPEG2000.dcm": WORKS, "JPEGLSNearLossless_08.dcm": WORKS, "JPEGLSNearLossless_16.dcm": WORKS,
    "JPGExtended.dcm": WORKS, "MR_small.dcm": WORKS, "MR_small_RLE.dcm": WORKS, "MR_small_bigendian.dcm": WORKS,
    "MR_small_expb.dcm": WORKS, "MR_small_implicit.dcm": WORKS, "MR_small_jp2klossless.dcm": WORKS,
    "MR_small_jpeg_ls_lossless.dcm": WORKS, "MR_small_padded.dcm": WORKS,
    "MR_truncated.dcm": "its pixels cannot be read", "SC_jpeg_no_color_transform.dcm": WORKS,
    "SC_jpeg_no_color_transform_2.dcm": WORKS, "SC_rgb_dcmtk_+eb+cr.dcm": WORKS, "SC_rgb_dcmtk_+eb+cy+n1.dcm": WORKS,
    "SC_rgb_dcmtk_+eb+cy+n2.dcm": WORKS, "SC_rgb_dcmtk_+eb+cy+np.dcm": WORKS, "SC_rgb_dcmtk_+eb+cy+s2.dcm": WORKS,
    "SC_rgb_dcmtk_+eb+cy+s4.dcm": WORKS, "SC_rgb_gdcm_KY.dcm": WORKS, "SC_rgb_jls_lossy_line.dcm": WORKS,
    "SC_rgb_jls_lossy_sample.dcm": WORKS, "SC_rgb_jpeg.dcm": WORKS, "SC_rgb_jpeg_app14_dcmd.dcm": WORKS,
    "SC_rgb_jpeg_dcmd.dcm": WORKS, "SC_rgb_jpeg_dcmtk.dcm": WORKS, "SC_rgb_jpeg_gdcm.dcm": WORKS,
    "SC_rgb_jpeg_lossy_gdcm.dcm": WORKS, "SC_rgb_rle.dcm": WORKS, "SC_rgb_rle_16bit.dcm": WORKS,
    "SC_rgb_rle_16bit_2frame.dcm": FRAMES, "SC_rgb_rle_2frame.dcm": FRAMES, "SC_rgb_rle_32bit.dcm": WORKS,
    "SC_rgb_rle_32bit_2frame.dcm": FRAMES, "SC_rgb_small_odd.dcm": WORKS, "SC_rgb_small_odd_big_endian.dcm": WORKS,
    "SC_rgb_small_odd_jpeg.dcm": WORKS, "SC_ybr_full_422_uncompressed.dcm": WORKS, "UN_sequence.dcm": SLICE,
    "badVR.dcm": DOSE, "crayons.icc": UNKNOWN, "empty_charset_LEI.dcm": NOT_WHOLE, "examples_jpeg2k.dcm": WORKS,
    "examples_overlay.dcm": WORKS, "examples_palette.dcm": WORKS, "examples_rgb_color.dcm": WORKS,
    "examples_ybr_color.dcm": FRAMES, "image_dfl.dcm": WORKS, "liver_1frame.dcm": "it is a segmentation",
    "liver_expb_1frame.dcm": "it is a segmentation", "meta_missing_tsyntax.dcm": NOT_WHOLE,
    "nested_priv_SQ.dcm": NOT_WHOLE, "no_meta.dcm": UNKNOWN, "no_meta_group_length.dcm": SLICE, "priv_SQ.dcm": SLICE,
    "reportsi.dcm": REPORT, "reportsi_with_empty_number_tags.dcm": REPORT, "rtdose.dcm": DOSE,
    "rtdose_1frame.dcm": DOSE, "rtdose_expb.dcm": DOSE, "rtdose_expb_1frame.dcm": DOSE, "rtdose_rle.dcm": DOSE,
    "rtdose_rle_1frame.dcm": DOSE, "rtplan.dcm": REPORT, "rtplan.dump": UNKNOWN, "rtplan_truncated.dcm": REPORT,
    "rtstruct.dcm": UNKNOWN, "test-SR.dcm": REPORT, "test1.json": UNKNOWN, "waveform_ecg.dcm": REPORT,
    "zipMR.gz": UNKNOWN, "dicomdirtests/DICOMDIR": DIRECTORY, "dicomdirtests/DICOMDIR-bigEnd": DIRECTORY,
    "dicomdirtests/DICOMDIR-empty.dcm": DIRECTORY, "dicomdirtests/77654033/CR1/6154": WORKS,
    "dicomdirtests/77654033/CR2/6247": WORKS, "dicomdirtests/98892003/MR1/15820": WORKS,
    "dicomdirtests/TINY_ALPHA/PT000000/ST000000/SE000000/IM000000": SLICE,
}  # fmt: skip
"""Files that pydicom brings along, and their outcomes; all of them are tried."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd") / "films"
    folder.mkdir()
    for name, how, _ in MADE:
        if isinstance(how, bytes):
            (folder / name).write_bytes(how)
        else:
            how(folder / name)
    for name in SHIPPED:
        (folder / "pydicom" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "pydicom" / name).write_bytes((TEST_FILES / name).read_bytes())
    return folder


OUTCOMES = {name: outcome for name, _, outcome in MADE} | {f"pydicom/{name}": SHIPPED[name] for name in SHIPPED}


def test_there_are_enough_of_them() -> None:
    assert len(OUTCOMES) == len(MADE) + len(SHIPPED) >= 160
    assert sum(outcome != WORKS for outcome in OUTCOMES.values()) >= 60


@pytest.mark.parametrize("settings", [DecodeSettings(24, 1), DecodeSettings(24, 3, "pad", (1, 99))], ids=["1", "3"])
@pytest.mark.parametrize("name", OUTCOMES, ids=ascii)
def test_every_file_has_its_outcome(root: Path, name: str, settings: DecodeSettings) -> None:
    outcome = OUTCOMES[name]
    if outcome == WORKS or (settings.window is not None and outcome == "no fixed range"):
        pixels = decode(root / name, settings)
        assert pixels.shape == (settings.channels, 24, 24)
        assert pixels.dtype == np.uint8
        return
    with pytest.raises(DataError, match=outcome) as caught:
        decode(root / name, settings)
    assert caught.value.message.startswith(f"{root / name}: ")
    assert caught.value.message.count(str(root)) == 1
    assert caught.value.hint


def test_a_cache_of_all_of_them_has_the_good_ones_and_the_reasons_of_the_others(root: Path, tmp_path: Path) -> None:
    built = cache.build(root, sorted(OUTCOMES), DecodeSettings(24, 1), tmp_path, workers=1, max_bad_share=1)
    bad = dict(built.bad())
    assert set(bad) == {name for name, outcome in OUTCOMES.items() if outcome != WORKS}
    with (built.folder / "quarantine.csv").open(newline="", encoding="utf-8") as stream:
        stored = list(csv.reader(stream))
    assert stored[0] == ["image", "reason"]
    assert dict(stored[1:]) == bad
    assert not any(str(root) in reason for reason in bad.values())


def test_one_odd_file_does_not_stop_a_command(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "labels.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "patient", "split", "Edema"])
        writer.writerows([name, number, "train", number % 2] for number, name in enumerate(OUTCOMES))
    given = ["--set", "data.source=csv", "--set", f"data.root={root}", "--set", f"data.csv={table}"]
    given += ["--set", "data.labels=[Edema]", "--set", f"data.cache_dir={tmp_path}", "--set", "data.image_size=24"]
    with pytest.raises(SystemExit) as ended:
        main(["data", "prepare", *given, "--set", "data.max_bad_share=1", "--json"])
    assert ended.value.code == 0
    captured = capsys.readouterr()
    unreadable = {entry["image"] for entry in json.loads(captured.out)["unreadable"]}
    assert unreadable == {name for name, outcome in OUTCOMES.items() if outcome != WORKS}
    assert "Traceback" not in captured.err
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", *given, "--json"])
    assert ended.value.code == 3
    found = {entry["image"] for entry in json.loads(capsys.readouterr().out)["films"] if entry["problem"] in (
        "missing", "unreadable")}  # fmt: skip
    assert found == unreadable


def test_a_folder_of_all_of_them_is_a_dicom_set(root: Path) -> None:
    films = sources.load(DataConfig(source="dicom", root=root, labels=("Edema",)))
    names = set(films.frame["image"])
    for name, outcome in OUTCOMES.items():
        told = name.endswith(dicom.ENDINGS) or ((root / name).is_file() and decodable_header(root / name))
        refused = outcome in (FRAMES, REPORT, DOSE, DIRECTORY, "it has 2 frames", "it is a segmentation")
        assert (name in names) == (told and not refused), name


def decodable_header(path: Path) -> bool:
    return path.read_bytes()[128:132] == b"DICM"
