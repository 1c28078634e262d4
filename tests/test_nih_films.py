"""Real films of NIH ChestX-ray14 from the command line: decoded, and seen by a teacher."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from noisy_student.cli import main
from noisy_student.runs import read_json


def ns(*arguments: object) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in arguments])
    return ended.value.code


@pytest.mark.real
@pytest.mark.slow
def test_films_of_nih1000_are_decoded_and_a_teacher_takes_two_steps(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    root = real_data / "nih1000"
    if not root.is_dir():
        pytest.skip(f"no real films at {root}; set NS_REAL_DATA")
    settings = [
        "data={source: nih, image_size: 32, labels: [Pleural Effusion, Infiltration]}",
        f"data.root={root}",
        f"data.cache_dir={tmp_path}",
        "split.labelled_patients=60",
        "pretrain.method=none",
        "teacher.model={name: small_resnet}",
        "teacher.optim={steps: 2, phases: [{}], batch_size: 8, eval_every: 2, save_every: 2, bn_images: 16}",
        "evaluation.replicates=100",
        "threads=1",
    ]
    given = [word for setting in settings for word in ("--set", setting)]
    table = pd.read_csv(root / "Data_Entry_2017_v2020.csv", index_col=False)

    assert ns("data", "prepare", "--json", "-q", *given) == 0
    ready = json.loads(capsys.readouterr().out)
    assert ready["films"] == len(table) == 1000
    assert ready["patients"] == table["Patient ID"].nunique()
    assert ready["unreadable"] == []

    run = tmp_path / "run"
    assert ns("train-teacher", "-q", "--device", "cpu", "-o", run, *given) == 0
    assert ns("evaluate", "-q", "--device", "cpu", run) == 0
    listed = (root / "test_list.txt").read_text().split()
    stored = pd.read_parquet(run / "gen-0" / "predictions" / "test.parquet")
    assert sorted(Path(name).name for name in stored["image"]) == sorted(listed)
    logits = stored[["Pleural Effusion", "Infiltration"]].to_numpy()
    assert np.isfinite(logits).all()
    assert logits.std(axis=0).min() > 0
    measured = read_json(run / "gen-0" / "evaluation.json")["splits"]["test"]["image"]
    effusion = table.set_index("Image Index").loc[listed, "Finding Labels"].str.contains("Effusion")
    assert measured["labels"]["Pleural Effusion"]["positives"] == effusion.sum() > 0
