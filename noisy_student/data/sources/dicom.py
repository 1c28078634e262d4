"""A folder of DICOM files, with or without a table of labels -> manifest.

Of a header only the view leaves this module, and the patient and study as keyed hashes. Names, identifiers, dates and
UIDs are neither stored nor said. Paths of files are kept as they are, and so are pixels.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import secrets
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from noisy_student import runs
from noisy_student.config import DataConfig
from noisy_student.data import cache
from noisy_student.data import manifest as manifests
from noisy_student.data.dicom import NoFilmError, read, safely
from noisy_student.data.manifest import Manifest
from noisy_student.data.pixels import PixelError
from noisy_student.data.sources import dicom_labels
from noisy_student.data.sources.files import begins_like_dicom, storable
from noisy_student.errors import ConfigError, DataError

ENDINGS: Final = (".dcm", ".dicom", ".dic", ".ima")
"""Files with these endings are taken for DICOM; of the others, those that begin like DICOM."""
SHORTEST_KEY: Final = 16
"""Characters that a key of patients has at least."""
INLINE: Final = 2000
"""Up to this many headers are read in this process."""

_TAGS: Final = (
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "SOPInstanceUID",
    "ViewPosition", "ViewCodeSequence", "PatientOrientation", "BurnedInAnnotation",
)  # fmt: skip
_VIEWS: Final = {
    "PA": ("frontal", "PA"), "POSTEROANTERIOR": ("frontal", "PA"),
    "AP": ("frontal", "AP"), "ANTEROPOSTERIOR": ("frontal", "AP"),
    "FRONTAL": ("frontal", ""), "FRONTALPROJECTION": ("frontal", ""),
    "LL": ("lateral", "LL"), "LEFTLATERAL": ("lateral", "LL"), "LLAT": ("lateral", "LL"),
    "RL": ("lateral", "RL"), "RIGHTLATERAL": ("lateral", "RL"), "RLAT": ("lateral", "RL"),
    "LAT": ("lateral", ""), "LATERAL": ("lateral", ""), "LATERALPROJECTION": ("lateral", ""),
}  # fmt: skip
_NAMED: Final = 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Header:
    """What is taken from one file; nothing of it names a patient.

    Attributes:
        patient: keyed hash of the patient; of the study or the path where the header names none.
        bare: that of the identifier without its issuer; empty where there is no identifier.
        study: keyed hash of patient and study.
        study_uid, instance_uid: keyed hashes, to join labels by.
        view, projection: as in the manifest.
        problem: why the file is no film; empty for a film, and for a file that the decoder has to judge.
        remarks: names of what :func:`_say` warns of.
    """

    patient: str
    study: str
    bare: str = ""
    study_uid: str = ""
    instance_uid: str = ""
    view: str = ""
    projection: str = ""
    problem: str = ""
    remarks: tuple[str, ...] = ()


def tables(root: Path, config: DataConfig) -> list[Path]:
    """Return the table of labels, or the folder where there is none."""
    return [root / config.csv] if config.csv else [root]


def load(root: Path, config: DataConfig, images: bool) -> Manifest:  # noqa: ARG001 - the headers are the table
    """Return the films below ``root``, in order of their paths.

    Files with several frames or without a picture are left out and named in a warning. A file whose header cannot be
    read stays: it is its own patient, and the decoder says what is wrong with it. Labels come from ``data.csv``, joined
    as ``data.dicom`` says; without a table no film carries any.

    Raises:
        DataError: there are no DICOM files, pydicom is not installed, or the table does not fit the films.
        ConfigError: the key of the patients is missing or too short.
    """
    key = patient_key(config)
    files = sorted(_files(root))
    if not files:
        raise DataError(f"{root}: has no DICOM files", "Set data.root to the folder that holds them.")
    headers = _one_name(_headers(root, files, key), key)
    _say(headers, files)
    kept = [row for row, header in enumerate(headers) if not header.problem]
    if not kept:
        raise DataError(
            f"{root}: none of the {len(files)} DICOM files is a film, such as '{files[0]}': {headers[0].problem}",
            "Set data.root to a folder of radiographs.",
        )
    films, found = [files[row] for row in kept], [headers[row] for row in kept]
    columns: dict[str, Any] = {
        "image": films,
        "patient": [header.patient for header in found],
        "study": [header.study for header in found],
        "view": [header.view for header in found],
        "projection": [header.projection for header in found],
    }
    if not config.csv:
        blank = np.full(len(films), np.nan, dtype=np.float32)
        return manifests.build({**columns, **dict.fromkeys(config.labels, blank)}, config.labels)
    names = {
        "file": films,
        "instance": [header.instance_uid for header in found],
        "study": [header.study_uid for header in found],
    }[config.dicom.join]
    hashed = None if config.dicom.join == "file" else partial(pseudonym, key, "uid")
    more = dicom_labels.join(root / config.csv, names, config, hashed)
    return manifests.build({**columns, **more}, config.labels)


# -- patients as hashes --------------------------------------------------------------------------------------------


def patient_key(config: DataConfig) -> bytes:
    """Return the secret that turns patients into hashes.

    It is the content of ``data.dicom.key_file``, else ``$NS_PATIENT_KEY``, else that of ``patient.key`` beside the
    cache, which is drawn at random and written, for its owner alone, where it is not there. Equal keys give equal
    hashes, so a split moves between machines with its key; without the key nobody can try identifiers out.

    Raises:
        ConfigError: the file is missing, or the key is too short.
    """
    if config.dicom.key_file is not None:
        try:
            key, where = config.dicom.key_file.read_bytes().strip(), f"data.dicom.key_file: {config.dicom.key_file}"
        except OSError as error:
            raise ConfigError(
                f"data.dicom.key_file: {config.dicom.key_file} cannot be read ({error.strerror})", "Name a text file."
            ) from error
    elif os.environ.get("NS_PATIENT_KEY"):
        key, where = os.environ["NS_PATIENT_KEY"].encode(), "$NS_PATIENT_KEY"
    else:
        path = (config.cache_dir or cache.default_folder()) / "patient.key"
        key, where = _stored_key(path), str(path)
    if len(key) < SHORTEST_KEY:
        raise ConfigError(
            f"{where}: the key of the patients has fewer than {SHORTEST_KEY} characters",
            "Use a long random text: identifiers hashed with a short one can be found out by trying.",
        )
    return key


def _stored_key(path: Path) -> bytes:
    """Return the key in a file, after making both where they are not there."""
    with runs.storage_errors(path):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
                stream.write(secrets.token_hex(32) + "\n")
            try:
                os.link(temporary, path)  # unlike a renaming, this never replaces the key of another process
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        return path.read_bytes().strip()


def pseudonym(key: bytes, kind: str, *parts: str) -> str:
    """Return 32 hexadecimal digits that stand for ``parts``, by BLAKE2b with the secret ``key``."""
    text = "\0".join((kind, *parts)).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, key=hashlib.sha256(key).digest(), digest_size=16).hexdigest()


# -- files and headers ---------------------------------------------------------------------------------------------


def _files(root: Path) -> Iterator[str]:
    """Yield the paths below ``root`` of what may be DICOM; hidden files and links to folders are passed over."""
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if not name.startswith((".", "__MACOSX"))]
        prefix = os.path.relpath(folder, root)
        for name in names:
            path = name if prefix == "." else f"{prefix}/{name}"
            if name.startswith(".") or not (name.lower().endswith(ENDINGS) or begins_like_dicom(root / path)):
                continue
            if storable(path):
                yield path


def _headers(root: Path, files: Sequence[str], key: bytes) -> list[Header]:
    task = partial(header, root, key)
    workers = os.cpu_count() or 1
    if len(files) <= INLINE or workers == 1:
        return [task(file) for file in files]
    # Not forked: this process may hold threads, which a fork would leave in the middle of anything.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(task, files, chunksize=256))


def header(root: Path, key: bytes, file: str) -> Header:
    """Return what is taken from the header of ``root / file``.

    Raises:
        DataError: pydicom is not installed.
    """
    path = root / file
    alone = pseudonym(key, "file", file)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise PixelError("no file")
        found = read(path, _TAGS)
        return safely("its header cannot be read", lambda _: _taken(found, file, key, alone))
    except NoFilmError as error:
        return Header(alone, alone, problem=str(error))
    except (PixelError, OSError):
        return Header(alone, alone, remarks=("unread",))


def _taken(found: Any, file: str, key: bytes, alone: str) -> Header:
    texts = {name: str(found.get(name) or "").strip() for name in _TAGS}
    study, person = texts["StudyInstanceUID"], (texts["PatientName"], texts["PatientBirthDate"])
    remarks, bare = [], ""
    if texts["PatientID"]:
        bare = pseudonym(key, "patient", "", texts["PatientID"])
        patient = pseudonym(key, "patient", texts["IssuerOfPatientID"], texts["PatientID"])
    elif all(person):
        patient = pseudonym(key, "person", *person)
    else:
        patient = pseudonym(key, "patient of study", study) if study else alone
        remarks.append("nobody")
    if texts["BurnedInAnnotation"].upper() == "YES":
        remarks.append("burned in")
    if _names(file, texts):
        remarks.append("path")
    view, projection = _view(found)
    study_uid = pseudonym(key, "uid", study) if study else ""
    return Header(
        patient,
        pseudonym(key, "study", patient, study_uid or alone),
        bare,
        study_uid,
        pseudonym(key, "uid", texts["SOPInstanceUID"]) if texts["SOPInstanceUID"] else "",
        view,
        projection,
        remarks=tuple(remarks),
    )


def _one_name(headers: Sequence[Header], key: bytes) -> list[Header]:
    """Return the headers, with one name for a patient whose issuer stands in some of them alone.

    An identifier without issuer is that of the only issuer who has it, or, of several, of the one who has the study.
    """
    issued: dict[str, set[str]] = {}
    by_study: dict[tuple[str, str], set[str]] = {}
    for header in headers:
        if header.bare and header.patient != header.bare:
            issued.setdefault(header.bare, set()).add(header.patient)
            by_study.setdefault((header.bare, header.study_uid), set()).add(header.patient)
    found = []
    for header in headers:
        named = issued.get(header.bare, set()) if header.bare and header.patient == header.bare else set()
        if len(named) > 1 and header.study_uid:
            named = by_study.get((header.bare, header.study_uid), set())
        if len(named) == 1:
            (patient,) = named
            study = pseudonym(key, "study", patient, header.study_uid) if header.study_uid else header.study
            header = replace(header, patient=patient, study=study)
        found.append(header)
    return found


def _names(file: str, texts: dict[str, str]) -> bool:
    """Return whether a path holds the identifier of the patient or a part of the name."""
    words = [texts["PatientID"], *texts["PatientName"].replace("=", "^").split("^")]
    return any(len(word) >= 4 and word.lower() in file.lower() for word in words)


def _view(found: Any) -> tuple[str, str]:
    """Return view and projection from ViewPosition, else the view's code, else the patient's orientation."""
    codes = found.get("ViewCodeSequence") or []
    for text in (found.get("ViewPosition"), *(item.get("CodeMeaning") for item in codes)):
        word = "".join(letter for letter in str(text or "").upper() if letter.isalpha())
        if word in _VIEWS:
            return _VIEWS[word]
    orientation = found.get("PatientOrientation") or ""
    across = str(orientation if isinstance(orientation, str) else orientation[0])[:1].upper()
    return {"L": "frontal", "R": "frontal", "A": "lateral", "P": "lateral"}.get(across, ""), ""


def _say(headers: Sequence[Header], files: Sequence[str]) -> None:
    """Warn of what is left out, by name, and of what a user has to know about patients."""
    refused = [(file, header.problem) for file, header in zip(files, headers, strict=True) if header.problem]
    for file, problem in refused[:_NAMED]:
        _log.warning("%s is left out: %s", file, problem)
    if len(refused) > _NAMED:
        kinds = Counter(problem for _, problem in refused[_NAMED:])
        counts = "; ".join(f"{count} where {problem}" for problem, count in kinds.most_common())
        _log.warning("%d more files are left out: %s", len(refused) - _NAMED, counts)
    count = Counter(remark for header in headers for remark in header.remarks)
    for remark, words in {
        "unread": "have no DICOM header that can be read, and count as patients of their own",
        "nobody": "name no patient: each of their studies counts as a patient",
        "burned in": "say that words about the patient are burned into their pixels",
        "path": "lie at a path that holds the patient's name or identifier; paths are kept as they are: rename them",
    }.items():
        if count[remark]:
            _log.warning("%d of %d DICOM files %s", count[remark], len(files), words)
