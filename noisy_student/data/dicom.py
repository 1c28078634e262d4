"""DICOM files: the picture in them, and why some are no films.

A header names people. So nothing of it goes into a message here but its size, its frames, and terms of the standard's
own dictionary, and the words of an exception of pydicom, which may quote a header, are dropped.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from noisy_student.data.pixels import LARGEST, PixelError, between, check_size, percentiles
from noisy_student.errors import DataError

INSTALL: Final = "pip install 'noisy_student[dicom]'"
DECODERS: Final = "pip install 'noisy_student[dicom,dicom-jpeg]'"

_DIRECTORY: Final = "1.2.840.10008.1.3.10"
_DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
_NO_FILMS: Final = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a label map",
    "1.2.840.10008.5.1.4.1.1.481.2": "a radiation dose",
}
"""Storage classes that have pixels and are no pictures of a patient."""
_IN_USE: Final = ("SOPClassUID", "Rows", "Columns", "NumberOfFrames")

Values = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Curve = Callable[[Values], Values]
Result = TypeVar("Result")


class NoFilmError(PixelError):
    """A DICOM file that holds something else than one picture; its words name the kind and nothing else."""


def read(path: Path, tags: Sequence[str] = ()) -> Any:
    """Return the data set of a DICOM file that holds one film: all of it, or only the elements ``tags``.

    Elements are converted when they are first looked at, so look at them under :func:`safely`.

    Raises:
        NoFilmError: it holds no picture, or several frames.
        PixelError: it is no DICOM file, is damaged, or unpacks to more than a film.
        DataError: pydicom is not installed.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as stream:
        return safely("its header cannot be read", lambda pydicom: _read(stream, tags, pydicom))


def picture(path: Path, window: tuple[float, float] | None = None) -> Image.Image:
    """Return the film of a DICOM file as an 8-bit image, mode L or RGB, with air black.

    Grey values go through the modality LUT or rescale, then through the first VOI LUT or window of the header; then
    MONOCHROME1 is turned over, and padding is black. ``window`` gives percentiles in place of the header's window. With
    neither, 8 bits stay as they are and more bits are spread from the least value to the largest.

    Raises:
        PixelError: the file is no film (:class:`NoFilmError`), is damaged, or needs a decoder that is not installed.
        DataError: pydicom is not installed.
    """
    header = read(path)
    return safely("its pixels cannot be read", lambda pydicom: _render(header, pydicom, window))


def safely(what: str, work: Callable[[Any], Result]) -> Result:
    """Return what ``work`` makes of pydicom, which is silent meanwhile; what it complains of may quote a header.

    Raises:
        PixelError: ``work`` raised one, or anything else: then it says ``what`` and the kind of error.
        DataError: pydicom is not installed.
    """
    with _quiet() as pydicom:
        try:
            return work(pydicom)
        except (MemoryError, DataError):
            raise
        except PixelError as error:
            problem = type(error)(str(error))
        except Exception as error:  # pydicom and its plugins raise nearly anything
            problem = PixelError(f"{what} ({type(error).__name__})")
    raise problem  # here, so that it is not linked to what it stands for


@contextlib.contextmanager
def _quiet() -> Iterator[Any]:
    """Yield pydicom; its warnings and log lines go nowhere."""
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise DataError("a DICOM file cannot be read: pydicom is not installed", INSTALL) from error
    # Not `disabled`: the modules of pydicom log by names below this one, which hand on to it what they say.
    logger = logging.getLogger("pydicom")
    before, logger.propagate = logger.propagate, False
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield pydicom
    finally:
        logger.propagate = before


def _read(stream: BinaryIO, tags: Sequence[str], pydicom: Any) -> Any:
    if stream.read(132)[128:] != b"DICM":
        raise PixelError("it is no DICOM file")
    _check_deflated(stream)
    stream.seek(0)
    wanted = [*tags, *_IN_USE] if tags else None
    found = pydicom.dcmread(stream, stop_before_pixels=bool(tags), specific_tags=wanted)
    _check_film(found)
    return found


# -- what is refused -----------------------------------------------------------------------------------------------


def _check_deflated(stream: BinaryIO) -> None:
    """Raise for a deflated data set that unpacks to more than a film; pydicom would unpack it in one go."""
    stream.seek(132)
    head = stream.read(12)
    if len(head) < 12 or head[:8] != b"\x02\x00\x00\x00UL\x04\x00":
        return
    meta = stream.read(min(struct.unpack("<I", head[8:])[0], 65536))
    if _DEFLATED not in meta:
        return
    unpack, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while part := unpack.unconsumed_tail or stream.read(65536):
        try:
            total += len(unpack.decompress(part, 1 << 20))
        except zlib.error:
            raise PixelError("its header cannot be read (the deflated part is damaged)") from None
        if total > 3 * LARGEST:
            raise PixelError(f"it unpacks to more than {3 * LARGEST // 1_000_000} million bytes")


def _check_film(header: Any) -> None:
    """Raise for a file that holds no picture, or several."""
    kind = str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")
    if kind == _DIRECTORY:
        raise NoFilmError("it is the directory of a medium, not a film")
    if kind in _NO_FILMS:
        raise NoFilmError(f"it is {_NO_FILMS[kind]}, not a film")
    if "Rows" not in header or "Columns" not in header:
        if not kind:
            raise PixelError("its header breaks off before it says what it is")
        from pydicom.uid import UID

        name = UID(kind).name if UID(kind).type == "SOP Class" else ""
        words = f"it has no picture ({name})" if name else "it has no picture"
        raise (PixelError if "Image Storage" in name else NoFilmError)(
            words
        )  # a file that breaks off is for quarantine
    try:
        frames = int(header.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        raise NoFilmError("its number of frames is no number") from None
    if frames > 1:
        raise NoFilmError(f"it has {frames} frames, and a film has one")


def _check_packing(header: Any, pydicom: Any) -> None:
    """Raise when no decoder for the compression is installed, or the packed picture is not of the header's size."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise PixelError("its header does not say how the pixels are packed")
    if not any(name in header for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise PixelError("it has no pixels")
    try:
        available = pydicom.pixels.get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        name = syntax.name if syntax.type == "Transfer Syntax" else "a packing of its maker"
        raise PixelError(f"no decoder for {name} is installed; {DECODERS}")
    if not syntax.is_encapsulated or "JPEG" not in syntax.name:
        return
    size = packed_size(pydicom.encaps.get_frame(header.PixelData, 0, number_of_frames=1))
    if size is not None and size != (header.Columns, header.Rows):
        raise PixelError(
            f"its header says {header.Columns} x {header.Rows} pixels, and {size[0]} x {size[1]} are packed"
        )


def packed_size(frame: bytes) -> tuple[int, int] | None:
    """Return width and height that a JPEG or JPEG 2000 stream declares; ``None`` where that is not found."""
    start = frame.find(b"\xff\x4f\xff\x51") if frame[:12].endswith(b"jP  \r\n\x87\n") else 0
    if frame[start : start + 4] == b"\xff\x4f\xff\x51" and len(frame) >= start + 24:
        right, bottom, left, top = struct.unpack(">4I", frame[start + 8 : start + 24])
        return right - left, bottom - top
    place = 2 if frame[:2] == b"\xff\xd8" else len(frame)
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker, length = frame[place + 1], int.from_bytes(frame[place + 2 : place + 4])
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            height, width = struct.unpack(">2H", frame[place + 5 : place + 9])
            return width, height
        place += 1 if marker == 0xFF else 2 + length
    return None


# -- from stored values to a picture -------------------------------------------------------------------------------


def _render(header: Any, pydicom: Any, window: tuple[float, float] | None) -> Image.Image:
    _check_packing(header, pydicom)
    check_size(int(header.Rows), int(header.Columns))
    stored = pydicom.pixels.pixel_array(header)
    if header.get("PhotometricInterpretation") == "PALETTE COLOR":
        colours = pydicom.pixels.apply_color_lut(stored, header)[..., :3]
        return Image.fromarray(_scaled(colours, int(header.RedPaletteColorLookupTableDescriptor[2])))
    if stored.ndim == 3:
        return Image.fromarray(_scaled(stored[..., :3], int(header.BitsStored)))
    return Image.fromarray(grey(header, stored, window))


def _scaled(colours: Values, bits: int) -> Bytes:
    return colours if colours.dtype == np.uint8 and bits == 8 else between(colours, 0, 2.0**bits - 1)


def grey(header: Any, stored: Values, window: tuple[float, float] | None) -> Bytes:
    """Return uint8 (H, W) of the stored grey values (H, W); see :func:`picture`."""
    padding = _padding(header, stored)
    kept = stored if padding is None else stored[~padding]
    if not kept.size:
        raise PixelError("every pixel is padding")
    modality = _modality(header)
    curve = None if window is not None else _voi(header)
    if curve is None:
        bits = int(header.get("BitsStored", 16))
        if window is not None:
            ends = percentiles(modality(kept), window)
        elif bits <= 8 and not header.get("PixelRepresentation"):
            ends = (0.0, float(2**bits - 1)) if _plain(header) else _range(modality(kept))
        else:
            ends = _range(modality(kept))
        curve = lambda values: between(values, *ends)  # noqa: E731
    pixels = _mapped(stored, lambda values: curve(modality(values)))
    if header.get("PhotometricInterpretation") == "MONOCHROME1":
        pixels = 255 - pixels
    if padding is not None:
        pixels[padding] = 0
    return pixels


def _mapped(stored: Values, curve: Curve) -> Bytes:
    """Return ``curve`` of every value, by a table where there are more pixels than levels."""
    low, high = stored.min(), stored.max()
    if stored.dtype.kind == "f" or int(high) - int(low) >= min(1 << 20, stored.size):
        return curve(stored.astype(np.float64))
    table = curve(np.arange(int(low), int(high) + 1, dtype=np.float64))
    return np.asarray(table[stored.astype(np.int64) - int(low)], dtype=np.uint8)


def _range(values: Values) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise PixelError("it has pixels that are no numbers")
    return low, high


def _plain(header: Any) -> bool:
    """Return whether stored values are the values."""
    line = _number(header.get("RescaleSlope"), 1.0) or 1.0, _number(header.get("RescaleIntercept"), 0.0)
    return not header.get("ModalityLUTSequence") and line == (1.0, 0.0)


def _padding(header: Any, stored: Values) -> npt.NDArray[np.bool_] | None:
    """Return where pixels are padding (DICOM PS3.3 C.7.5.1.1.2); ``None`` where none are."""
    value = header.get("PixelPaddingValue")
    if not isinstance(value, int) or stored.dtype.kind == "f":
        return None
    limit = header.get("PixelPaddingRangeLimit")
    ends = sorted((value, limit if isinstance(limit, int) else value))
    found = (stored >= ends[0]) & (stored <= ends[1])
    return found if found.any() else None


def _modality(header: Any) -> Curve:
    """Return the function from stored values to those of the modality (PS3.3 C.11.1)."""
    if header.get("ModalityLUTSequence"):
        first, entries, _ = _table(header.ModalityLUTSequence[0], header)
        return lambda stored: entries[np.clip(np.rint(stored) - first, 0, len(entries) - 1).astype(np.int64)]
    slope, intercept = _number(header.get("RescaleSlope"), 1.0), _number(header.get("RescaleIntercept"), 0.0)
    return lambda stored: stored.astype(np.float64) * (slope or 1.0) + intercept


def _voi(header: Any) -> Curve | None:
    """Return the function from values to uint8 of the VOI LUT or window (PS3.3 C.11.2); ``None`` without one."""
    if header.get("VOILUTSequence"):
        first, entries, top = _table(header.VOILUTSequence[0], header)
        shades = between(entries, 0, top)
        return lambda values: shades[np.clip(np.rint(values) - first, 0, len(shades) - 1).astype(np.int64)]
    centre, width = _number(header.get("WindowCenter"), np.nan), _number(header.get("WindowWidth"), np.nan)
    function = str(header.get("VOILUTFunction") or "LINEAR").upper()
    if not np.isfinite([centre, width]).all() or width < (1 if function == "LINEAR" else 1e-12):
        return None
    if function == "SIGMOID":
        return lambda values: np.rint(255 / (1 + np.exp(-4 * (values - centre) / width))).astype(np.uint8)
    if function != "LINEAR_EXACT":
        centre, width = centre - 0.5, width - 1
    return lambda values: between(values, centre - width / 2, centre + width / 2)


def _table(item: Any, header: Any) -> tuple[int, Values, float]:
    """Return the first value that a lookup table maps, its entries, and the largest entry that it may have."""
    count, first, bits = (int(value) for value in item.LUTDescriptor)
    data = item.LUTData
    if isinstance(data, bytes):
        little = header.file_meta.TransferSyntaxUID.is_little_endian
        kind = "u1" if len(data) <= (count or 65536) + 1 and bits <= 8 else "<u2" if little else ">u2"
        data = np.frombuffer(data[: len(data) // np.dtype(kind).itemsize * np.dtype(kind).itemsize], kind)
    entries = np.atleast_1d(np.asarray(data)).astype(np.float64)[: count or 65536]
    if not np.isfinite(entries).all() or not len(entries) or not 1 <= bits <= 16:
        raise PixelError("its lookup table is empty or of an unknown depth")
    return first, entries, float(2**bits - 1)


def _number(value: Any, otherwise: float) -> float:
    """Return the first number of an element, ``otherwise`` where there is none."""
    if not isinstance(value, str | int | float) and hasattr(value, "__getitem__"):
        value = value[0] if len(value) else None
    try:
        return float(value)
    except (TypeError, ValueError):
        return otherwise
