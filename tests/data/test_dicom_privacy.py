"""No identifying field of a DICOM header reaches a file, a message or a log."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from dicom_films import film, write
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from noisy_student.config.load import load
from noisy_student.data import dicom as pixels_of
from noisy_student.data.decode import DecodeSettings, decode
from noisy_student.errors import DataError, NoisyStudentError
from noisy_student.preparation import prepare
from noisy_student.runs import Run

ROOT = "1.2.826.0.1.99990"
PLANTED: dict[str, Any] = {
    "PatientName": "Quillfeather^Ermintrude^Beatrix",
    "PatientID": "MRN7741902",
    "IssuerOfPatientID": "ElsewhereTrust",
    "OtherPatientIDs": "NHS4857773456",
    "PatientBirthDate": "19431027",
    "PatientSex": "F",
    "PatientAge": "073Y",
    "PatientAddress": "17 Larkspur Close",
    "PatientTelephoneNumbers": "+44 1632 960983",
    "PatientMotherBirthName": "Featherstonehaugh",
    "AccessionNumber": "ACC5551273",
    "StudyID": "STUDY88123",
    "StudyDate": "20170315",
    "StudyTime": "141516.171819",
    "SeriesInstanceUID": f"{ROOT}.3.1",
    "StudyDescription": "Chest of Ermintrude",
    "ProtocolName": "Thorax Quillfeather",
    "InstitutionName": "Elsewhere Infirmary",
    "ReferringPhysicianName": "Grimsdyke^Gaston",
    "OperatorsName": "Spratt^Lancelot",
    "StationName": "XR-ROOM-4711",
    "DeviceSerialNumber": "SN0815471112",
    "ImageComments": "Patient Quillfeather moved",
    "BurnedInAnnotation": "YES",
}
SECRETS = [
    "quillfeather", "ermintrude", "beatrix", "mrn7741902", "elsewhere", "nhs4857773456", "19431027", "larkspur",
    "960983", "featherstonehaugh", "acc5551273", "study88123", "20170315", "141516", ROOT, "grimsdyke", "gaston",
    "spratt", "lancelot", "xr-room-4711", "sn0815471112",
]  # fmt: skip


def planted(number: int, pixels: np.ndarray, **elements: Any) -> Dataset:
    more = {
        "SOPInstanceUID": f"{ROOT}.1.{number}",
        "StudyInstanceUID": f"{ROOT}.2.{number // 2}",
        "ViewPosition": "PA",
        **PLANTED,
        "PatientID": f"MRN7741902{number // 2:03d}",
    }
    more["PatientName"] = f"Quillfeather{number // 2}^Ermintrude^Beatrix"
    return film(pixels, **{**more, **elements})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """48 films of 24 patients, and files that make pydicom complain about what is in their headers."""
    folder = tmp_path / "films"
    draw = np.random.default_rng(0)
    for number in range(48):
        write(folder / f"{number:02d}.dcm", planted(number, draw.integers(0, 256, (40, 36), dtype=np.uint8)))
    empty = np.zeros((8, 8), np.uint8)
    write(folder / "frames.dcm", planted(90, empty, Rows=4, NumberOfFrames=2))
    write(folder / "report.dcm", planted(91, empty, Rows=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11"))
    write(folder / "none.dcm", planted(92, empty, PixelData=None))
    write(folder / "packed.dcm", planted(93, draw.integers(0, 9, (8, 8), dtype=np.uint8), syntax=RLELossless))
    whole = write(folder / "plain.dcm", planted(94, draw.integers(0, 256, (40, 36), dtype=np.uint8))).read_bytes()
    (folder / "half.dcm").write_bytes(whole[:-700])
    (folder / "head.dcm").write_bytes(whole[: whole.index(b"Quillfeather") + 5])
    # Values that their type does not allow: pydicom quotes them in warnings and exceptions.
    for name, before, after in (
        ("date.dcm", b"19431027", b"MRN77419"),
        ("time.dcm", b"141516.171819", b"Quillfeather "),
        ("frames-of-name.dcm", b"PA", b"\x00\xff"),
        ("instance.dcm", f"{ROOT}.1.94".encode(), b"Quillfeather MRN7741"),
        ("letters.dcm", b"Ermintrude", b"\xff\xfe\xfd\x1b$Bmint"),
    ):
        assert whole.count(before) >= 1, name
        (folder / name).write_bytes(whole.replace(before, after[: len(before)].ljust(len(before))))
    (folder / "depth.dcm").write_bytes(write_depth(folder, planted(95, empty)))
    rows = [
        {"uid": f"{ROOT}.2.{study}", "Edema": study % 2, "split": ("train", "valid", "test")[study % 3]}
        for study in range(20)
    ]
    rows += [{"uid": f"{ROOT}.2.777", "Edema": 1, "split": ""}]
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    return folder


def write_depth(folder: Path, data: Dataset) -> bytes:
    """A header whose window centre is a name."""
    data.WindowCenter, data.WindowWidth = 12345678, 77
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue().replace(b"12345678", b"Ermintru")


def settings(root: Path) -> list[str]:
    return [
        "data.source=dicom", f"data.root={root}", f"data.csv={root.parent / 'labels.csv'}", "data.labels=[Edema]",
        "data.dicom={join: study, column: uid}", f"data.cache_dir={root.parent / 'cache'}", "data.image_size=32",
        "data.max_bad_share=0.5", "split.labelled_patients=4", "split.stratify=true",  # patients are new in every run
    ]  # fmt: skip


def everything_in(*folders: Path) -> str:
    """All that files hold, tables unpacked, and their names."""
    texts = []
    for folder in folders:
        for path in folder.rglob("*"):
            texts.append(str(path))
            if path.is_file():
                data = path.read_bytes()
                texts += [data.decode("latin-1"), data.decode("utf-16-le", "ignore")]
                if path.suffix == ".parquet":
                    texts.append(pq.read_table(path).to_pandas().to_csv())
                    texts.append(str(pq.read_schema(path).metadata))
    return "\n".join(texts)


def secrets_in(text: str) -> list[str]:
    lower = text.lower()
    return [secret for secret in SECRETS if secret in lower]


def test_the_search_finds_what_is_planted(root: Path) -> None:
    assert set(secrets_in(everything_in(root))) == set(SECRETS)


def test_nothing_written_or_said_names_anybody(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    run = Run(tmp_path / "run")
    run.create()
    prepare(run, load(None, settings(root)))
    written = everything_in(tmp_path / "run", tmp_path / "cache")
    assert "quarantine.csv" in written
    assert "manifest.parquet" in written
    assert "half.dcm" in written
    assert "DICOM files say that words about the patient are burned into their pixels" in caplog.text
    assert "1 of 21 rows fit no film" in caplog.text
    assert secrets_in(written) == []
    assert secrets_in(caplog.text) == []


@pytest.mark.parametrize("command", ["prepare", "check", "stats", "split"])
def test_no_command_names_anybody(root: Path, tmp_path: Path, command: str) -> None:
    words = ["data", command, *(word for each in settings(root) for word in ("--set", each)), "--json"]
    words += ["-v"] if command in ("prepare", "check") else []
    words += ["-o", str(tmp_path / "made" / "split.parquet")] if command == "split" else []
    done = subprocess.run(
        [sys.executable, "-m", "noisy_student", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "always"},
    )
    assert done.returncode in (0, 3), done.stderr
    assert "frames.dcm is left out" in done.stderr
    assert "Traceback" not in done.stderr
    assert secrets_in(done.stdout + done.stderr) == []
    assert secrets_in(everything_in(tmp_path / "cache", tmp_path / "made")) == []


@pytest.mark.parametrize(
    "change",
    [
        "data.dicom={join: instance, column: uid}",
        "data.dicom={join: file, column: uid}",
        "data.dicom={join: study, column: gone}",
        "data.max_bad_share=0",
        "split.labelled_patients=5000",
    ],
)
def test_errors_name_nobody(root: Path, tmp_path: Path, change: str) -> None:
    run = Run(tmp_path / "run")
    run.create()
    with pytest.raises(NoisyStudentError) as caught:
        prepare(run, load(None, [*settings(root), change]))
    assert secrets_in(str(caught.value)) == []


def test_an_exception_of_pydicom_is_not_handed_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def complains(*_: object, **__: object) -> None:
        raise ValueError("Quillfeather is no number")

    monkeypatch.setattr("pydicom.pixels.pixel_array", complains)
    with pytest.raises(DataError) as caught:
        decode(root / "plain.dcm", DecodeSettings(32, 1))
    error: BaseException | None = caught.value
    while error is not None:
        assert secrets_in(str(error)) == []
        error = error.__cause__ or error.__context__
    monkeypatch.setattr("pydicom.dcmread", complains)
    with pytest.raises(ValueError, match=r"its header cannot be read \(ValueError\)"):
        pixels_of.read(root / "plain.dcm")


def test_hashes_cannot_be_had_from_identifiers_alone(root: Path, tmp_path: Path) -> None:
    first = load(None, settings(root))
    other = load(None, [*settings(root), f"data.cache_dir={tmp_path / 'elsewhere-cache'}"])
    from noisy_student.data import sources

    mine, theirs = (set(sources.load(config.data).frame["patient"]) for config in (first, other))
    assert len(mine) == len(theirs)
    assert not mine & theirs
