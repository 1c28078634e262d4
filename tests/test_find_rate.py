"""``ns train-teacher --find-lr``: a picture and a proposal, and a run that is left as it was."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_runs import TINY, content, in_process, ns, write_config

from noisy_student.cli import main
from noisy_student.learning import sweep

PLAIN = TINY.replace("method: byol", "method: none")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run ``ns train-teacher`` on the tiny data and return its exit code, standard output and standard error."""

    def called(*arguments: str, text: str = PLAIN) -> tuple[int, str, str]:
        common = ("--config", str(write_config(tmp_path, text)), "-o", str(tmp_path / "run"), "--device", "cpu", "-q")
        with pytest.raises(SystemExit) as ended:
            main(["train-teacher", *common, *arguments])
        said = capsys.readouterr()
        return (ended.value.code if isinstance(ended.value.code, int) else 0), said.out, said.err

    return called


@pytest.mark.usefixtures("one_thread")
def test_it_draws_and_proposes_and_the_run_goes_on_as_if_nothing_had_been(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "STEPS", 20)
    run = tmp_path / "run"
    code, out, err = call("--find-lr", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert len(found["rates"]) == len(found["losses"]) > 9
    assert (found["proposal"] is None) == (found["reason"] is not None)
    assert found["curve"] == str(run / "find-lr.svg")
    assert found["member"] is None
    assert "optim.lr" in (run / "find-lr.svg").read_text()
    assert not (run / "gen-0" / "checkpoint").exists()
    assert not (run / "metrics.jsonl").exists()
    picture = (run / "find-lr.svg").read_bytes()

    code, _, err = call("--find-lr")
    assert code == 2
    assert "there is a run already" in err
    code, out, _ = call("--find-lr", "--resume", "--curve", str(tmp_path / "curve.png"))
    assert code == 0
    assert re.search(r"^(Proposed: --set teacher\.optim\.lr=\d\.\de-\d\d|No rate is proposed)", out)
    assert f"Curve: {tmp_path / 'curve.png'}" in out
    with Image.open(tmp_path / "curve.png") as image:
        assert image.format == "PNG"
    assert (run / "find-lr.svg").read_bytes() == picture

    config, fresh = str(write_config(tmp_path, PLAIN)), tmp_path / "fresh"
    common = ["train-teacher", "--config", config, "-q", "--device", "cpu"]
    assert in_process(ns, [*common, "-o", str(run), "--resume"]) == 0
    assert in_process(ns, [*common, "-o", str(fresh)]) == 0
    swept, plain = content(run), content(fresh)
    swept.pop("find-lr.svg")
    assert swept == plain


def test_what_it_refuses(call: Any, tmp_path: Path) -> None:
    code, _, err = call("--curve", "curve.svg")
    assert code == 2
    assert "--curve goes with --find-lr" in err
    code, _, err = call("--find-lr", "--curve", "curve.pdf")
    assert code == 2
    assert "the picture is .svg or .png" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("one_thread")
def test_a_self_supervised_start_is_made_for_the_sweep_and_kept(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "STEPS", 3)
    assert call("--find-lr", text=TINY)[0] == 0
    weights = tmp_path / "run" / "pretrain" / "checkpoint" / "best" / "model.safetensors"
    made = weights.stat().st_mtime_ns
    assert call("--find-lr", "--resume", text=TINY)[0] == 0
    assert weights.stat().st_mtime_ns == made
    assert not (tmp_path / "run" / "gen-0" / "checkpoint").exists()


@pytest.mark.parametrize(("falls", "proposed"), [(True, True), (False, False)])
def test_a_valley_of_the_loss_is_proposed_and_a_plain_is_not(
    call: Any, monkeypatch: pytest.MonkeyPatch, falls: bool, proposed: bool
) -> None:
    rates = np.geomspace(1e-6, 1, 101)
    losses = 1 - 0.5 * falls * np.exp(-(np.log10(rates / 1e-2) ** 2))  # lowest at 1e-2
    monkeypatch.setattr(sweep, "sweep", lambda *_, **__: sweep.Sweep(tuple(rates.tolist()), tuple(losses.tolist())))
    code, out, _ = call("--find-lr", "--json")
    assert code == 0
    assert json.loads(out)["proposal"] == (pytest.approx(1e-3, rel=0.2) if proposed else None)
    code, out, _ = call("--find-lr", "--resume")
    assert ("Proposed: --set teacher.optim.lr=1.0e-03" in out) == proposed
    assert ("No rate is proposed" in out) != proposed


def test_a_dry_run_sweeps_nothing(call: Any, tmp_path: Path) -> None:
    code, out, _ = call("--find-lr", "--dry-run")
    assert code == 0
    assert "steps" in out
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("one_thread")
def test_of_several_members_the_first_is_swept_and_it_says_so(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "STEPS", 10)
    members = ("--set", "teacher.members=[{}, {noise: {strength: 1}}]")
    code, out, _ = call("--find-lr", *members)
    assert code == 0
    assert out.startswith("Swept: the first of 2 members (small_resnet); the rate of another may be another.\n")
    code, out, _ = call("--find-lr", "--resume", "--json", *members)
    assert json.loads(out)["member"] == 0
