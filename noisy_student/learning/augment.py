"""Input noise: geometry, intensity, blur, grain and erasing, drawn per film and applied to a whole batch at once.

What a film gets is a pure function of (seed, generation, position in the sample sequence, image id): on the CPU, bit
for bit, whatever else is in the batch. Kornia's random transforms draw per batch, so the draws are ours; the geometry
is one matrix per film and one :func:`kornia.geometry.transform.remap` (``warp_affine`` takes 17 times as long on 64
films of 96 pixels). Gamma, contrast and brightness are one table of 256 levels per film, which costs one gather instead
of a pass per operation. The blur is a sum of shifted films because the grouped convolution of ``gaussian_blur2d`` picks
another algorithm, and other last bits, for a batch of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from kornia.geometry.transform import remap
from torch import Tensor
from torch.nn import functional

from noisy_student import randomness
from noisy_student.config.learning import NoiseConfig

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BANK: Final = 2**20
"""Places at which a film's grain can start in the fixed bank of normal numbers; the sign doubles them."""

# The order is part of the meaning of a seed: add new draws at the end.
_OPS: Final = (
    *("flip", "rotate", "scale", "shift_x", "shift_y", "shear_x", "shear_y", "gamma", "contrast", "brightness"),
    *("blur", "blur_sigma", "noise", "noise_offset", "noise_sign"),
    *("erase", "erase_area", "erase_aspect", "erase_x", "erase_y"),
)


@dataclass(frozen=True)
class Draws:
    """The noise of each film of a batch; every array has shape (B,) unless said otherwise."""

    flip: npt.NDArray[np.bool_]
    """Whether left and right are exchanged."""
    rotate: Floats
    """Degrees, counter-clockwise on the screen."""
    scale: Floats
    """Factor of size, symmetric about 1 on a logarithmic scale."""
    translate: Floats
    """Shift right and down as shares of the side, (B, 2)."""
    shear: Floats
    """Degrees of shear along x and along y, (B, 2)."""
    gamma: Floats
    """Exponent of the intensities."""
    contrast: Floats
    """Factor of the distance to the film's mean, >= 0."""
    brightness: Floats
    """Added on the [0, 1] scale."""
    blur_sigma: Floats
    """Standard deviation of the blur in pixels of a 96-pixel film; 0 is no blur."""
    noise: Floats
    """Standard deviation of the grain on the [0, 1] scale."""
    noise_offset: Ints
    """Start of the film's grain in the bank, in [0, BANK)."""
    noise_sign: Floats
    """-1 or 1, the sign with which the grain is added."""
    erase: Floats
    """Top, left, bottom and right of the erased rectangle as shares of the side, (B, 4); empty where not erased."""


def draw(noise: NoiseConfig, *, seed: int, generation: int, position: Ints, image_id: Ints) -> Draws:
    """Return the noise of each film, a pure function of its coordinates.

    Ranges are multiplied by ``noise.strength``; probabilities too, up to strength 1 (beyond it a flip would become
    certain). Shear stays below 60 degrees and the erased area below 0.9.

    Args:
        noise: what to draw from.
        seed: seed of the run.
        generation: 0 for the teacher, 1 for its first student, ...
        position: (B,) place of each film in the sample sequence; a film drawn twice in an epoch has two.
        image_id: (B,) stable identifiers of the films.
    """
    ops = np.arange(len(_OPS), dtype=np.int64)
    drawn = randomness.uniform(seed, generation, position[:, None], image_id[:, None], ops[None, :])  # (B, ops)
    u = {name: drawn[:, index] for index, name in enumerate(_OPS)}
    s = {name: 2.0 * values - 1.0 for name, values in u.items()}  # in [-1, 1)
    dial, chance = noise.strength, min(noise.strength, 1.0)

    area = np.where(u["erase"] < noise.erase * chance, u["erase_area"] * min(noise.erase_area * dial, 0.9), 0.0)
    aspect = np.exp2(s["erase_aspect"])  # height / width between 1/2 and 2
    height, width = np.minimum(np.sqrt(area * aspect), 1.0), np.minimum(np.sqrt(area / aspect), 1.0)
    top, left = u["erase_y"] * (1.0 - height), u["erase_x"] * (1.0 - width)
    shear = min(noise.shear * dial, 60.0)
    return Draws(
        flip=u["flip"] < noise.flip * chance,
        rotate=s["rotate"] * noise.rotate * dial,
        scale=np.exp(s["scale"] * np.log1p(noise.scale * dial)),
        translate=np.stack([s["shift_x"], s["shift_y"]], axis=1) * noise.translate * dial,
        shear=np.stack([s["shear_x"], s["shear_y"]], axis=1) * shear,
        gamma=np.exp2(s["gamma"] * noise.gamma * dial),
        contrast=np.maximum(1.0 + s["contrast"] * noise.contrast * dial, 0.0),
        brightness=s["brightness"] * noise.brightness * dial,
        blur_sigma=np.where(
            u["blur"] < noise.blur * chance, (0.1 + 0.9 * u["blur_sigma"]) * noise.blur_sigma * dial, 0.0
        ),
        noise=u["noise"] * noise.noise * dial,
        noise_offset=(u["noise_offset"] * BANK).astype(np.int64),
        noise_sign=np.where(u["noise_sign"] < 0.5, -1.0, 1.0),
        erase=np.stack([top, left, top + height, left + width], axis=1),
    )


def matrices(draws: Draws, size: int) -> Floats:
    """Return (B, 3, 3) matrices that take a pixel (x, y, 1) of the clean film to its place on the noisy one.

    About the film's centre, from right to left: flip, scale, shear, rotate, then shift.
    """
    count, centre = len(draws.rotate), (size - 1) / 2

    def stack(*entries: npt.ArrayLike) -> Floats:
        return np.stack([np.broadcast_to(entry, count) for entry in entries], axis=1).reshape(count, 3, 3)

    angle, (shear_x, shear_y) = np.deg2rad(draws.rotate), np.tan(np.deg2rad(draws.shear)).T
    cos, sin, mirror = np.cos(angle), np.sin(angle), np.where(draws.flip, -1.0, 1.0)
    to_centre = stack(1, 0, -centre, 0, 1, -centre, 0, 0, 1)
    resize = stack(mirror * draws.scale, 0, 0, 0, draws.scale, 0, 0, 0, 1)
    slant = stack(1, shear_x, 0, shear_y, 1 + shear_x * shear_y, 0, 0, 0, 1)  # along x, then along y: determinant 1
    turn = stack(cos, sin, 0, -sin, cos, 0, 0, 0, 1)  # y points down, so this is counter-clockwise on the screen
    shift_x, shift_y = draws.translate.T * size
    back = stack(1, 0, centre + shift_x, 0, 1, centre + shift_y, 0, 0, 1)
    return back @ turn @ slant @ resize @ to_centre


def to_float(images: Tensor) -> Tensor:
    """Return uint8 ``images`` as float32 in [0, 1]: the clean path, without noise."""
    return images.to(torch.float32) / 255.0


def blur(images: Tensor, sigma: Floats, radius: int) -> Tensor:
    """Return (B, C, H, W) ``images`` after a Gaussian blur with ``sigma`` (B,) > 0 in pixels; edges reflect."""
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    taps = torch.from_numpy(weights.astype(np.float32)).to(images.device)[:, :, None, None, None]
    for axis, padding in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        padded = functional.pad(images, padding, mode="reflect")
        images = padded.narrow(axis, 0, images.shape[axis]) * taps[:, 0]
        for tap in range(1, 2 * radius + 1):
            images += padded.narrow(axis, tap, images.shape[axis]) * taps[:, tap]
    return images


class Augment:
    """Callable that gives a batch its noise; holds the bank of normal numbers and the pixel grid on the device."""

    def __init__(
        self, noise: NoiseConfig, *, size: int, channels: int, device: torch.device | str, seed: int, generation: int
    ) -> None:
        self.noise, self.size, self.channels, self.device = noise, size, channels, torch.device(device)
        self.seed, self.generation = seed, generation
        active = noise.strength > 0
        self._warps = active and max(noise.flip, noise.rotate, noise.scale, noise.translate, noise.shear) > 0
        self._levels = active and max(noise.gamma, noise.contrast, noise.brightness) > 0
        self._grain = active and noise.noise > 0
        self._erases = active and min(noise.erase, noise.erase_area) > 0
        # Wider kernels than three deviations add nothing; reflection needs a radius below the side.
        self._sigma_scale = size / 96
        self._radius = min(int(np.ceil(3 * noise.blur_sigma * noise.strength * self._sigma_scale)), size - 1)
        # Tables are made in double precision on the CPU: its vectorised and scalar powers differ in the last bit, and
        # which one an entry meets depends on the batch. Rounding to float32 hides that; GPUs have one power.
        self._precise = torch.float64 if self.device.type == "cpu" else torch.float32
        self._pixels = torch.arange(size, dtype=torch.float32, device=self.device)
        if self._grain:
            bank = randomness.generator(seed, randomness.text_id("grain")).standard_normal(
                BANK + size * size, np.float32
            )
            self._bank = torch.from_numpy(bank).to(self.device).unfold(0, size * size, 1)  # a view, (BANK + 1, H * W)

    def __call__(self, images: Tensor, position: Ints, image_id: Ints) -> Tensor:
        """Return the noisy films as float32 (B, C, H, W) in [0, 1].

        Args:
            images: uint8 (B, C, H, W) on the device; not changed.
            position: (B,) places in the sample sequence.
            image_id: (B,) stable identifiers of the films.
        """
        assert images.shape[1:] == (self.channels, self.size, self.size), "films of another shape than announced"
        if self.noise.strength == 0:
            return to_float(images)
        draws = draw(self.noise, seed=self.seed, generation=self.generation, position=position, image_id=image_id)
        table = self._table(images, draws)  # (B, 257): the film's 256 levels, then its mean
        black = table[:, :1].clone()
        if self._warps:
            # What comes in from outside is black as it is on this film, not the 0 of the [0, 1] scale: a corner
            # must not tell the network how bright the film was made. So black is 0 during the warp.
            noisy = self._warp(_lookup(table - black, images), draws).add_(_per_film(black))
        else:
            noisy = _lookup(table, images)
        chosen = np.flatnonzero(draws.blur_sigma)
        if len(chosen):
            rows = torch.from_numpy(chosen).to(self.device)
            noisy[rows] = blur(noisy[rows], draws.blur_sigma[chosen] * self._sigma_scale, self._radius)
        if self._grain:
            field = self._bank[self._send(draws.noise_offset)]  # (B, H * W), the same on every channel
            field *= self._send(draws.noise * draws.noise_sign).float()[:, None]
            noisy += field.view(-1, 1, self.size, self.size)
        if self._erases:
            noisy = self._erase(noisy, table[:, -1:], draws)
        return noisy.clamp_(0.0, 1.0)

    def _send(self, values: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values).to(self.device, non_blocking=True)

    def _table(self, images: Tensor, draws: Draws) -> Tensor:
        """Return (B, 257) intensities: each of the 256 levels and the film's mean after gamma, contrast, brightness."""
        steps = to_float(torch.arange(256, device=self.device)).to(self._precise)
        # An integer sum is exact in any order, so the mean does not depend on how threads share the batch.
        total = images.flatten(1).sum(1, dtype=torch.int64, keepdim=True).to(self._precise)
        mean = total / (255.0 * images[0].numel())
        levels = torch.cat([steps.expand(len(images), 256), mean], dim=1)
        if not self._levels:
            return levels.float()
        parameters = np.stack([draws.contrast, draws.gamma, draws.brightness], axis=1)
        contrast, gamma, brightness = self._send(parameters).to(self._precise)[:, :, None].unbind(1)
        levels = (levels * contrast + mean * (1.0 - contrast)).clamp_(0.0, 1.0)
        return (levels.pow(gamma) + brightness).clamp_(0.0, 1.0).float()

    def _warp(self, images: Tensor, draws: Draws) -> Tensor:
        """Return ``images`` after one bilinear warp; what lies outside the film is 0."""
        inverse = np.linalg.inv(matrices(draws, self.size))[:, :2]  # from a noisy pixel to the clean one it shows
        inverse = inverse * (2.0 / self.size)
        inverse[:, :, 2] += 1.0 / self.size - 1.0  # pixel centres: -1 and 1 are the film's edges
        rows = self._send(inverse.astype(np.float32))[:, :, :, None, None]
        x, y = (
            rows[:, axis, 0] * self._pixels[None, None, :] + (rows[:, axis, 1] * self._pixels[None, :, None])
            + rows[:, axis, 2]
            for axis in (0, 1)
        )  # fmt: skip
        warped: Tensor = remap(
            images, x, y, mode="bilinear", padding_mode="zeros", align_corners=False, normalized_coordinates=True
        )
        return warped

    def _erase(self, images: Tensor, fill: Tensor, draws: Draws) -> Tensor:
        """Return ``images`` with one rectangle per film set to ``fill`` (B, 1)."""
        top, left, bottom, right = self._send(np.rint(draws.erase * self.size)).float()[:, :, None].unbind(1)
        down = (self._pixels >= top) & (self._pixels < bottom)  # (B, H)
        across = (self._pixels >= left) & (self._pixels < right)  # (B, W)
        inside = (down[:, :, None] & across[:, None, :])[:, None]  # (B, 1, H, W)
        return torch.where(inside, _per_film(fill), images)


def _per_film(values: Tensor) -> Tensor:
    """Return (B, 1) ``values`` shaped to broadcast over (B, C, H, W)."""
    return values[:, :, None, None]


def _lookup(table: Tensor, images: Tensor) -> Tensor:
    """Return table[b, images[b]] with the shape of ``images``."""
    return table.gather(1, images.flatten(1).long()).view(images.shape)


def contact_sheet(clean: Tensor, noisy: Tensor, columns: int = 8) -> npt.NDArray[np.uint8]:
    """Return a grey (H', W') picture of films with their noisy version below, ``columns`` pairs to a row.

    Args:
        clean: uint8 (B, C, H, W); of several channels the mean is shown.
        noisy: float (B, C, H, W) in [0, 1].
        columns: pairs per row; the last row is filled with black.
    """
    above = clean.float().mean(1).cpu().numpy()
    below = noisy.float().mean(1).cpu().numpy() * 255.0
    pairs = np.concatenate([above, below], axis=1)  # (B, 2 H, W)
    pairs = np.pad(pairs, ((0, -len(pairs) % columns), (1, 1), (1, 1)))
    count, height, width = pairs.shape
    grid = pairs.reshape(count // columns, columns, height, width).transpose(0, 2, 1, 3)
    sheet: npt.NDArray[np.uint8] = np.rint(grid.reshape(-1, columns * width)).clip(0, 255).astype(np.uint8)
    return sheet
