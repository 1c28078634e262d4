"""DICOM films for tests, written with pydicom."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pydicom = pytest.importorskip("pydicom", reason="needs the extra dicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid  # noqa: E402

RADIOGRAPH = UID("1.2.840.10008.5.1.4.1.1.1.1")  # digital X-ray, for presentation
TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
"""Files that pydicom ships with itself."""


def film(
    pixels: np.ndarray, *, bits: int | None = None, syntax: Any = ExplicitVRLittleEndian, **elements: Any
) -> Dataset:
    """A radiograph with grey (H, W) or colour (H, W, 3) pixels and the given elements; ``None`` removes one."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = RADIOGRAPH
    data.SOPClassUID = RADIOGRAPH
    data.SOPInstanceUID = generate_uid(entropy_srcs=[repr(sorted(elements.items(), key=str)), pixels.tobytes().hex()])
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.Modality = "DX"
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    data.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = pixels.dtype.itemsize * 8
    data.BitsStored = bits or data.BitsAllocated
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    data["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    for name, value in elements.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    if syntax.is_encapsulated:
        data.compress(syntax, generate_instance_uid=False)
    else:
        data.file_meta.TransferSyntaxUID = syntax
    return data


def jpeg(pixels: np.ndarray, quality: int = 95, **elements: Any) -> Dataset:
    """A radiograph whose 8-bit pixels are packed as baseline JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    data = film(pixels, **elements)
    data.PixelData = encapsulate([stream.getvalue()])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    return data


def write(path: Path, data: Dataset) -> Path:
    """Write a data set as a DICOM file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path
