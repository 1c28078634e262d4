"""A calibrated model as one ONNX file, and what such a file says of films."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from noisy_student.errors import UsageError
from noisy_student.learning.deployed import Calibrated, OfBytes
from noisy_student.runs import atomic
from noisy_student.stats.consensus import Consensus

INPUT: Final = "films"
OUTPUT: Final = "probability"
INSTALL: Final = "pip install 'noisy_student[onnx]'"


def require() -> None:
    """Check that what writes and reads ONNX is there.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"ONNX needs the extra onnx ({error.name} is not installed)", INSTALL) from None


def write(
    path: Path,
    networks: Sequence[nn.Module],
    calibration: Consensus,
    *,
    tta: str | int,
    shape: tuple[int, int, int],
    metadata: dict[str, Any],
) -> None:
    """Write one ONNX file: ``films`` uint8 (batch, C, S, S) of any batch -> ``probability`` float32 (batch, K).

    Scaling, normalisation, the networks, their mean and the calibration are inside; ``metadata`` stands in it as JSON.

    Raises:
        UsageError: the extra is not installed, or the model is asked with light views.
    """
    require()
    copies = [copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format) for network in networks]
    graph = OfBytes(Calibrated(copies, calibration, tta)).eval()
    example = torch.zeros(2, *shape, dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1, max=1 << 16)}},
            external_data=False,
            verbose=False,
        )
        assert program is not None, "the exporter of torch.export returns its program"
        for key, value in metadata.items():
            program.model.metadata_props[key] = json.dumps(value)
        with atomic(path) as temporary:
            program.save(temporary, external_data=False)


def predict(path: Path, pixels: npt.NDArray[np.uint8], batch: int = 32) -> npt.NDArray[np.float32]:
    """Return what the file at ``path`` says, (N, K), of ``pixels``, uint8 (N, C, S, S)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = [session.run([OUTPUT], {INPUT: pixels[start : start + batch]})[0] for start in range(0, len(pixels), batch)]
    found: npt.NDArray[np.float32] = np.concatenate(parts)
    return found


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep the exporter's reports of its own progress and of its own deprecated parts from the user."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
