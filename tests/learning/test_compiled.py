"""``compile: true``: the same training, faster, and without the compiler where it fails."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from networks import LABELS, films, make
from safetensors.torch import load_file
from test_fit import Recorder, make_task, new_run

from noisy_student.errors import ConfigWarning
from noisy_student.learning import fit
from noisy_student.learning.models import Compiled
from noisy_student.runs import read_json

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # torch's own modules warn of themselves while the compiler imports them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
WITHOUT_COMPILER = torch.compile


def losses_of(folder, **changes):
    recorder = Recorder()
    task = make_task(steps=6, phases=[{"trainable": "head", "steps": 2}, {}])
    run = new_run(folder)
    fit.fit(run, replace(task, objective=recorder, **changes))
    return recorder.losses, run.generation(1) / "checkpoint" / "best"


def test_training_is_the_same_and_the_checkpoint_does_not_know_of_it(tmp_path, monkeypatch):
    traced = []

    def backend(graph, inputs, **_):
        traced.append(len(graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(WITHOUT_COMPILER, backend=backend))
    eager, plain = losses_of(tmp_path / "eager")
    assert traced == []
    compiled, fast = losses_of(tmp_path / "compiled", compiled=True)
    assert traced  # the steps did run through it: two phases, head only and all
    assert len(traced) >= 2
    assert compiled == pytest.approx(eager, rel=1e-5)
    ours, theirs = load_file(fast / "model.safetensors"), load_file(plain / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert read_json(fast / "meta.json") == read_json(plain / "meta.json")


def test_where_compiling_fails_a_warning_says_so_once_and_training_goes_on(tmp_path, monkeypatch):
    def backend(graph, inputs, **_):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", partial(WITHOUT_COMPILER, backend=backend))
    eager, _ = losses_of(tmp_path / "eager")
    with pytest.warns(ConfigWarning, match=r"compile: the network could not be compiled .*no compiler here") as caught:
        fallen, _ = losses_of(tmp_path / "compiled", compiled=True)
    assert len([entry for entry in caught if issubclass(entry.category, ConfigWarning)]) == 1
    assert fallen == eager


def test_a_backward_pass_that_does_not_compile_falls_back_too(tmp_path, monkeypatch):
    from torch._dynamo.backends.common import aot_autograd
    from torch._dynamo.backends.debugging import boxed_nop

    def no_backward(graph, inputs):
        raise RuntimeError("no backward here")

    def backend(graph, inputs, **_):
        return aot_autograd(fw_compiler=boxed_nop, bw_compiler=no_backward)(graph, inputs)

    monkeypatch.setattr(torch, "compile", partial(WITHOUT_COMPILER, backend=backend))
    eager, _ = losses_of(tmp_path / "eager")
    with pytest.warns(ConfigWarning, match=r"compile: the network could not be compiled .*no backward here") as caught:
        fallen, _ = losses_of(tmp_path / "compiled", compiled=True)
    assert len([entry for entry in caught if issubclass(entry.category, ConfigWarning)]) == 1
    assert fallen == eager


def test_a_system_that_cannot_compile_at_all_falls_back_too(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("torch.compile is not supported on this system")

    monkeypatch.setattr(torch, "compile", refuse)
    network = make().eval()
    with pytest.warns(ConfigWarning, match="not supported on this system"):
        wrapped = Compiled(network)
    with torch.no_grad():
        assert torch.equal(wrapped(films()), network(films()))
        assert torch.equal(wrapped.features(films()), network.features(films()))


def test_a_wrapped_network_has_no_parameters_of_its_own():
    network = make()
    wrapped = Compiled(network)
    assert [id(parameter) for parameter in wrapped.parameters()] == [
        id(parameter) for parameter in network.parameters()
    ]
    assert network.labels == LABELS


@pytest.mark.slow
def test_the_real_compiler_trains_the_same_within_rounding(tmp_path):
    if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler on this machine")
    eager, plain = losses_of(tmp_path / "eager")
    compiled, fast = losses_of(tmp_path / "compiled", compiled=True)
    # Fused sums round differently, and six steps carry that on.
    assert compiled == pytest.approx(eager, rel=1e-3)
    assert load_file(fast / "model.safetensors").keys() == load_file(plain / "model.safetensors").keys()


@pytest.mark.slow
def test_a_missing_c_compiler_falls_back(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", (str(tmp_path / "no-such-compiler"),))
    network = make().eval()
    with pytest.warns(ConfigWarning, match="could not be compiled"), torch.no_grad():
        found = Compiled(network)(films())
    with torch.no_grad():
        assert torch.equal(found, network(films()))
