"""A model's answers on any number of films as a CSV that grows as they come, and goes on after an interruption.

Until it is finished it is a folder ``OUT.csv.part``: ``rows.csv``, ``bad.csv`` and ``state.json``, of which model.
Both tables follow the order of the films, so how far they got tells where to go on; nothing else is kept in memory.
"""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from tqdm import tqdm

from noisy_student.data.streaming import Named, stream
from noisy_student.deploy import listing
from noisy_student.deploy.model import BATCH, Answers, Model, Pixels, acquainted
from noisy_student.errors import UsageError
from noisy_student.runs import atomic, fsync_file, read_json, storage_errors, write_json
from noisy_student.stats.familiarity import FAR
from noisy_student.stats.operating import KINDS

ROWS: Final = "rows.csv"
BAD: Final = "bad.csv"
_STATE: Final = "state.json"
_BAD_HEADER: Final = ("path", "reason")


@dataclass(frozen=True)
class Written:
    """What was written: how many films were scored, are unreadable, and are far from the training films.

    ``resumed`` is how many were there before; ``bad_list`` is the table of the unreadable ones. ``odd_intensity`` and
    ``odd_features`` are of this call's films, ``None`` where the model does not know its training films.
    """

    output: Path
    films: int
    scored: int
    bad: int
    bad_list: Path | None
    resumed: int
    odd_intensity: int | None
    odd_features: int | None
    odd: int | None
    """Films far in either way."""
    asked: int
    """Films scored by this call."""
    unknown: str | None
    """Why films were not compared with the training films, where they were not."""

    def warning(self) -> str | None:
        """Return a sentence where more films are far from the training films than chance explains (99 in 100 times)."""
        from scipy.stats import binom  # here, because it takes most of a second to import

        chance = 2 * (1 - FAR)  # there are two ways to be far
        if self.odd is None or self.odd <= binom.ppf(0.99, self.asked, chance):
            return None
        return (
            f"{self.odd} of {self.asked} films are far from the training films ({self.odd_intensity} in their grey "
            f"values, {self.odd_features} in what the network sees; of films like those it would be {chance:.0%} at "
            "most). What is said of them rests on nothing alike. They are marked in the column far."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        far = {"any": self.odd, "intensity": self.odd_intensity, "features": self.odd_features}
        return {
            "output": str(self.output),
            "films": self.films,
            "scored": self.scored,
            "bad": self.bad,
            "bad_list": self.bad_list and str(self.bad_list),
            "resumed": self.resumed,
            "far": None if self.odd is None else far,
            "far_reason": self.unknown,
            "warning": self.warning(),
        }


def header(model: Model, *, maps: bool) -> list[str]:
    """Return the names of the columns: ``path``; every label; ``LABEL:KIND`` for the decisions; ``sd:LABEL``; ``far``
    where the model knows its training films; ``maps`` where there are any.
    """
    decisions = [f"{label}:{kind}" for label in model.labels for kind in KINDS]
    spread = [f"sd:{label}" for label in model.labels]
    far = [] if model.familiar is None else ["far"]
    return ["path", *model.labels, *decisions, *spread, *far, *(["maps"] if maps else [])]


def write(
    model: Model,
    asked: Sequence[str],
    output: Path,
    *,
    maps: Path | None = None,
    overwrite: bool = False,
    workers: int = 1,
    progress: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Written:
    """Write what ``model`` says of the films that ``asked`` names to ``output``, going on where an interrupted call of
    the same model and films stopped.

    Films that cannot be decoded are not in it but in ``NAME.bad.csv`` beside it, with the reason.

    Args:
        model: the model.
        asked: files, folders, globs, tables; see :func:`listing.films`.
        output: the CSV.
        maps: folder for activation maps, of the labels called positive at Youden's point, else of the likeliest.
        overwrite: replace ``output``, and begin anew where a call was interrupted.
        workers: processes that decode.
        progress: show films/s and the time left on stderr.
        stop: asked between films whether to stop.

    Raises:
        UsageError: ``output`` is there already, is asked for itself, or was begun by another model or for other films.
        DataError: there are no films.
        StoppedError: ``stop()`` became true; the same call goes on.
        StorageError: something cannot be written.
    """
    part = output.with_name(f"{output.name}.part")
    with storage_errors(part):
        if part.is_dir() and {entry.name for entry in part.iterdir()} <= {BAD, _STATE}:  # its rows are in place
            shutil.rmtree(part)
    if output.is_dir() or (output.exists() and not overwrite):
        raise UsageError(f"{output}: is there already", "Name another file, or add --overwrite.")
    if output.exists() and any(Path(name).exists() and output.samefile(name) for name in asked):
        raise UsageError(f"{output}: is one of the films or tables asked for", "Name another file for the scores.")
    model, unknown = acquainted(model, workers=workers, progress=progress, stop=stop)
    total, columns = listing.count(asked), header(model, maps=maps is not None)
    state = {"key": model.recipe.key, "columns": columns, "maps": maps and str(maps.absolute())}
    with storage_errors(output):
        if overwrite and part.is_dir():
            shutil.rmtree(part)
        if not (part / _STATE).is_file():
            part.mkdir(parents=True, exist_ok=True)
            (part / ROWS).write_bytes(_record(columns))
            (part / BAD).write_bytes(_record(_BAD_HEADER))
            write_json(part / _STATE, state)
        elif read_json(part / _STATE) != state:
            raise UsageError(
                f"{part}: was begun by another model, or with other options",
                "Use the same ones to go on, or add --overwrite to begin anew.",
            )
        done, bad = _cut_back(part, listing.films(asked))
        resumed, scored_before = done + bad, done
        rest = islice(listing.films(asked), resumed, None)
        counts = np.zeros(3, dtype=np.int64)
        with (
            (part / ROWS).open("ab") as rows,
            (part / BAD).open("ab") as failures,
            tqdm(total=total, initial=resumed, unit="film", desc="predict", disable=not progress) as bar,
            contextlib.closing(stream(rest, model.recipe.decode, workers=workers, batch=BATCH, stop=stop)) as parts,
        ):
            for chunk in parts:
                # Bad ones first: rows then never get ahead of what both tables together say is done.
                for place, reason in chunk.reasons.items():
                    failures.write(_record((chunk.names[place], reason)))
                _flush(failures)
                if len(chunk.pixels):
                    names = [name for name, good in zip(chunk.names, chunk.good, strict=True) if good]
                    answers = model.answers(chunk.pixels)
                    drawn = None if maps is None else _draw(model, chunk.pixels, answers, maps, done)
                    rows.write(b"".join(_lines(model, names, answers, drawn)))
                    counts += _odd(answers)
                _flush(rows)
                done, bad = done + len(chunk.pixels), bad + len(chunk.reasons)
                bar.update(len(chunk.names))
        listed = output.with_name(f"{output.stem}.bad.csv")
        if bad:  # a copy: until the rows are in place a call that is killed here goes on
            with atomic(listed) as temporary:
                shutil.copyfile(part / BAD, temporary)
        else:
            listed.unlink(missing_ok=True)
        (part / ROWS).replace(output)
        fsync_file(output.parent)
        shutil.rmtree(part)
    known = model.familiar is not None
    intensity, features, either = (int(number) if known else None for number in counts)
    new = done - scored_before
    return Written(
        output, total, done, bad, listed if bad else None, resumed, intensity, features, either, new, unknown
    )


# -- rows ----------------------------------------------------------------------------------------------------------


def _record(values: Sequence[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode("utf-8", errors="surrogateescape")


def _lines(model: Model, names: Sequence[str], answers: Answers, drawn: Sequence[str] | None) -> Iterator[bytes]:
    decided = np.stack([model.decisions(answers.probability, kind) for kind in KINDS], axis=2)
    for row, name in enumerate(names):
        cells: list[object] = [name, *(f"{value:.6g}" for value in answers.probability[row])]
        cells += ["" if np.isnan(value) else int(value) for value in decided[row].ravel()]
        cells += ["" if np.isnan(value) else f"{value:.4g}" for value in answers.sd[row]]
        if answers.odd_intensity is not None and answers.odd_features is not None:
            kinds = (("intensity", answers.odd_intensity[row]), ("features", answers.odd_features[row]))
            cells.append(" and ".join(kind for kind, found in kinds if found))
        yield _record(cells if drawn is None else [*cells, drawn[row]])


def _odd(answers: Answers) -> tuple[int, int, int]:
    if answers.odd_intensity is None or answers.odd_features is None:
        return 0, 0, 0
    both = answers.odd_intensity | answers.odd_features
    return int(answers.odd_intensity.sum()), int(answers.odd_features.sum()), int(both.sum())


def _draw(model: Model, pixels: Pixels, answers: Answers, folder: Path, done: int) -> list[str]:
    """Write the maps of some films and return the names of their files, several of a film joined by ``;``."""
    from PIL import Image

    from noisy_student.illustration import overlay

    called, written = model.decisions(answers.probability), []
    for row, film in enumerate(pixels):
        chosen = np.flatnonzero(called[row] == 1).tolist() or [int(answers.probability[row].argmax())]
        grey = Image.fromarray(np.rint(film.mean(axis=0)).astype(np.uint8))
        names = []
        for column in chosen:
            label = model.labels[column]
            values = model.activation_map(film, label)
            if values is None:
                raise UsageError("--maps: no network of the model has activation maps", "Leave --maps out.")
            names.append(f"{done + row:07d}-{''.join(c if c.isalnum() else '-' for c in label)}.png")
            with atomic(folder / names[-1]) as temporary:
                overlay(grey, values).save(temporary, format="PNG")
        written.append(";".join(names))
    return written


# -- going on ------------------------------------------------------------------------------------------------------


def _flush(stream: BinaryIO) -> None:
    stream.flush()
    fsync_file(Path(stream.name))


def _records(stream: BinaryIO) -> Iterator[tuple[str, int]]:
    """Yield the first cell of every whole record after the head, and where the record ends; first the head's end."""
    buffer, end = b"", 0
    for line in stream:
        buffer += line
        if buffer.endswith(b"\n") and buffer.count(b'"') % 2 == 0:  # a name may hold a line break, in quotes
            end += len(buffer)
            text = buffer.decode("utf-8", errors="surrogateescape")
            yield next(csv.reader(io.StringIO(text, newline="")))[0], end
            buffer = b""


def _cut_back(part: Path, films: Iterator[Named]) -> tuple[int, int]:
    """Return how many films are scored and how many are bad, after cutting both tables back to where they agree with
    ``films``.

    Raises:
        UsageError: the rows are of other films.
    """
    with (part / ROWS).open("r+b") as rows, (part / BAD).open("r+b") as failures:
        tables = [_records(rows), _records(failures)]
        ends = [next(table)[1] for table in tables]
        heads = [next(table, None) for table in tables]
        counts = [0, 0]
        for name, _ in films:
            which = next((at for at, head in enumerate(heads) if head is not None and head[0] == name), None)
            if which is None:
                break
            head = heads[which]
            assert head is not None
            ends[which], heads[which] = head[1], next(tables[which], None)
            counts[which] += 1
        if heads[0] is not None:
            raise UsageError(
                f"{part}: was begun for other films (it goes on with '{heads[0][0]}')",
                "Name the same films to go on, or add --overwrite to begin anew.",
            )
    for name, end in zip((ROWS, BAD), ends, strict=True):
        with (part / name).open("r+b") as table:
            table.truncate(end)
    return counts[0], counts[1]
