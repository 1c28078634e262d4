"""The command that draws what the input noise does, for a person to judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from noisy_student.cli import options
from noisy_student.config import DataConfig, SyntheticConfig
from noisy_student.config.noise import STRONGEST
from noisy_student.data.manifest import Manifest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@click.command("augment-preview")
@click.argument("out", metavar="OUT.png", type=click.Path(path_type=Path))
@options.config
@options.overrides
@click.option("--generation", type=click.IntRange(min=0), default=1, show_default=True, help="Whose noise to draw.")
@click.option(
    "--strengths", default="0,3,7,10", show_default=True, metavar="S,S,...", help="Settings of the dial for the policy."
)
@click.option("--films", "count", type=click.IntRange(1, 32), default=4, show_default=True, help="Number of films.")
@options.as_json
@options.example(
    "ns augment-preview sheet.png\n"
    "ns augment-preview sheet.png --config configs/kermany160.yaml --set data.root=/data/kermany160 --strengths 3,7"
)
def augment_preview(
    out: Path, config_path: Path | None, overrides: tuple[str, ...], generation: int, strengths: str, count: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Draw what the input noise of a generation does to films of the data set, and write the picture OUT.png.

    Every operation stands alone at the strength of the configuration, then the whole policy at several strengths. The
    films show as many different findings as there are; without a configuration they are synthetic.
    """
    from PIL import Image

    from noisy_student.config.load import DEMO, load
    from noisy_student.errors import UsageError
    from noisy_student.learning import augment
    from noisy_student.runs import atomic

    if out.is_dir():
        raise UsageError(f"{out}: is a directory", f"Name a picture, such as {out / 'sheet.png'}.")
    dial = _strengths(strengths)
    config = load(config_path or DEMO, overrides)
    films, pixels = _films(config.data, count)
    sheet = augment.preview(
        pixels,
        config.phase(generation).noise,
        strengths=dial,
        names=_findings(films),
        seed=config.seed,
        generation=generation,
    )
    with options.hint_on_failure("Choose another place for the picture."), atomic(out) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
    if as_json:
        options.print_json({"path": str(out), "films": len(films), "generation": generation, "strengths": dial})
        return
    click.echo(f"{len(films)} films under the noise of generation {generation} are in {out}")


def _strengths(text: str) -> list[float]:
    from noisy_student.errors import UsageError

    try:
        dial = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        dial = []
    if not dial or not all(0 <= value <= STRONGEST for value in dial):
        raise UsageError(
            f"--strengths {text}: is no list of numbers from 0 to {STRONGEST:g}", "Write --strengths 0,3,7,10."
        )
    return dial


def _few(data: DataConfig) -> DataConfig:
    """Return the data set, a small one where it is synthetic: a preview is not worth thousands of phantoms."""
    few = {"train_patients": 24, "valid_patients": 1, "test_patients": 1}
    if data.source != "synthetic" or data.root is not None:
        return data
    return data.model_copy(update={"synthetic": SyntheticConfig(**data.synthetic.model_dump() | few)})


def _films(data: DataConfig, count: int) -> tuple[Manifest, npt.NDArray[np.uint8]]:
    """Return ``count`` films of the train table (fewer where there are fewer), of as many findings as there are.

    With them their pixels (N, C, S, S). A film that cannot be read is left out with a warning, for another.

    Raises:
        DataError: more than ``count`` films cannot be read, or none can.
    """
    import numpy as np

    from noisy_student.data import manifest, sources, synthetic
    from noisy_student.data.decode import decode
    from noisy_student.errors import DataError
    from noisy_student.preparation import data_root, decode_settings

    data = _few(data)
    root, settings = data_root(data), decode_settings(data)
    if data.source == "synthetic":
        synthetic.write_dataset(root, data.synthetic)
    films = sources.load(data.model_copy(update={"root": root}))
    if len(found := manifest.select(films, split="train")):
        films = found
    positive, images = manifest.values(films) == 1, films.frame["image"].to_numpy(dtype=object)
    left = np.random.default_rng(0).permutation(len(films))  # tables are often sorted by class
    chosen: dict[int, npt.NDArray[np.uint8]] = {}
    bad = 0
    while len(chosen) < count and len(left):
        # The film whose findings are shown least so far.
        shown = positive[list(chosen)].sum(axis=0)
        cost = np.where(positive[left], shown, np.inf).min(axis=1, initial=np.inf)
        film = int(left[np.argmin(cost)])
        left = left[left != film]
        try:
            chosen[film] = decode(root / images[film], settings)
        except DataError as error:
            bad += 1
            if bad > count or not (chosen or len(left)):
                raise
            click.echo(f"ns: warning: {error.message}; the film is left out", err=True)
    rows = sorted(chosen)
    return manifest.rows(films, np.isin(np.arange(len(films)), rows)), np.stack([chosen[row] for row in rows])


def _findings(films: Manifest) -> list[str]:
    from noisy_student.data import manifest

    positive = manifest.values(films) == 1
    return [
        ", ".join(label for label, is_there in zip(films.labels, row, strict=True) if is_there) or "no label"
        for row in positive
    ]
