"""Geometry: flip, crop, scale, shear, rotation, tilt and shift as one matrix per film, elastic knots, and one warp."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from kornia.geometry.transform import remap
from torch import Tensor
from torch.nn import functional

from noisy_student.learning.augment.arrays import placed
from noisy_student.learning.augment.draws import Draws

Floats = npt.NDArray[np.float64]


def matrices(draws: Draws, size: int) -> Floats:
    """Return (B, 3, 3) homographies that take a pixel (x, y, 1) of the clean film to its place on the noisy one.

    About the film's centre, from right to left: flip, crop, scale, shear, rotate, tilt, then shift.
    """
    count, centre = len(draws.rotate), (size - 1) / 2

    def stack(*entries: npt.ArrayLike) -> Floats:
        return np.stack([np.broadcast_to(entry, count) for entry in entries], axis=1).reshape(count, 3, 3)

    angle, (shear_x, shear_y) = np.deg2rad(draws.rotate), np.tan(np.deg2rad(draws.shear)).T
    cos, sin, mirror = np.cos(angle), np.sin(angle), np.where(draws.flip, -1.0, 1.0)
    top, left, bottom, right = draws.crop.T
    to_centre = stack(mirror, 0, -mirror * centre, 0, 1, -centre, 0, 0, 1)
    wide, high = 1.0 / (1.0 - left - right), 1.0 / (1.0 - top - bottom)
    enlarge = stack(wide, 0, wide * (right - left) / 2 * size, 0, high, high * (bottom - top) / 2 * size, 0, 0, 1)
    resize = stack(draws.scale, 0, 0, 0, draws.scale, 0, 0, 0, 1)
    slant = stack(1, shear_x, 0, shear_y, 1 + shear_x * shear_y, 0, 0, 0, 1)  # along x, then along y: determinant 1
    turn = stack(cos, sin, 0, -sin, cos, 0, 0, 0, 1)  # y points down, so this is counter-clockwise on the screen
    tilt_x, tilt_y = draws.perspective.T * (2.0 / size)
    tilt = np.linalg.inv(stack(1, 0, 0, 0, 1, 0, tilt_x, tilt_y, 1))
    shift_x, shift_y = draws.translate.T * size
    back = stack(1, 0, centre + shift_x, 0, 1, centre + shift_y, 0, 0, 1)
    return back @ tilt @ turn @ slant @ resize @ enlarge @ to_centre


def warp(images: Tensor, draws: Draws, pixels: Tensor) -> Tensor:
    """Return (B, C, S, S) ``images`` after one bilinear warp; what lies outside the film is 0.

    Args:
        images: float films.
        draws: their noise.
        pixels: (S,) the numbers 0 ... S - 1 on the device.
    """
    size = len(pixels)
    inverse = np.linalg.inv(matrices(draws, size))  # from a noisy pixel to the clean one it shows
    # Homogeneous coordinates in which pixel centres lie between the edges -1 and 1.
    inverse[:, :2] = inverse[:, :2] * (2.0 / size) + inverse[:, 2:] * (1.0 / size - 1.0)
    rows = placed(inverse.astype(np.float32), images.device)[:, :, :, None, None]
    x, y = (_plane(rows[:, axis], pixels) for axis in (0, 1))
    if (chosen := np.flatnonzero(draws.perspective.any(axis=1))).size:
        tilted = placed(chosen, images.device)
        depth = _plane(rows[tilted, 2], pixels)
        x[tilted], y[tilted] = x[tilted] / depth, y[tilted] / depth
    if (chosen := np.flatnonzero(draws.elastic.any(axis=(1, 2, 3)))).size:
        bent = placed(chosen, images.device)
        knots = placed(2.0 * draws.elastic[chosen].astype(np.float32), images.device)
        shift = functional.interpolate(knots, (size, size), mode="bicubic", align_corners=True)
        x[bent] += shift[:, 0]
        y[bent] += shift[:, 1]
    warped: Tensor = remap(
        images, x, y, mode="bilinear", padding_mode="zeros", align_corners=False, normalized_coordinates=True
    )
    return warped


def _plane(row: Tensor, pixels: Tensor) -> Tensor:
    """Return row[0] * x + row[1] * y + row[2] at every pixel, (B, S, S), for ``row`` (B, 3, 1, 1)."""
    return row[:, 0] * pixels[None, None, :] + (row[:, 1] * pixels[None, :, None] + row[:, 2])
