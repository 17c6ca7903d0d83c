"""Guards ``budget.latency_ms``: the search asks few times and finds the fewest filters; what it measures is real."""

import pytest
import torch

from micronet_cli.config import check_config
from micronet_cli.errors import UserError
from micronet_cli.runs.directory import Run
from micronet_cli.stages import latency_search
from micronet_cli.stages.job import Job
from micronet_cli.stages.latency_search import FLOAT, INT8, Choice, Trials
from micronet_cli.stages.node import Stage
from tests.conftest import TINY, metrics_of

pytest.importorskip("onnxruntime", reason="needs the extra export")
ENGINE = ("latency.engines=onnxruntime", "latency.seconds=0.01")


class Timed(Trials):
    """Takes 2 ms without filters and 10 with all of them in float; in 8 bits so many times that."""

    def __init__(self, int8=0.5, layers=("conv",)):
        self.int8 = int8
        self.layers = layers
        self.asked = []
        self._margin = 0.03

    def measure(self, parts, numbers):
        self.asked.append(parts)
        milliseconds = 10 - 8 * parts / 16
        found = {FLOAT: milliseconds, INT8: self.int8 * milliseconds}
        return {kind: found[kind] for kind in numbers}


def test_the_fewest_filters_go_that_meet_the_target_with_its_noise():
    trials = Timed()
    # 0.97 * 4 = 3.88 ms: 5 - 4 * parts / 16 is below that from 4.48 sixteenths on.
    assert trials.search(4.0) == Choice(5, INT8, 3.75)
    assert len(trials.asked) == 6
    assert Timed().search(0.97**-1 * 5) == Choice(0, INT8, 5.0)


def test_the_faster_numbers_are_taken():
    assert Timed(int8=1.5).search(8.0).numbers == FLOAT


def test_a_target_out_of_reach_or_met_already_is_named():
    with pytest.raises(UserError, match=r"latency_ms=0.1: must be at least 1.289, with int8 numbers and 0.938 of the"):
        Timed().search(0.1)
    with pytest.raises(UserError, match=r"must be at least 5.155, with int8 numbers and 0.000 of the filters of 0 lay"):
        Timed(layers=()).search(1.0)
    with pytest.raises(UserError, match=r"budget.latency_ms=11: the network takes 10 as it is; give less"):
        Timed().search(11)


@pytest.fixture
def trials(composed, trained, tmp_path):
    from micronet_cli.stages.inherit import inherited

    config = inherited(
        composed("stage=allocate", f"init_from={trained}", "budget.latency_ms=1", "quantize=w8a8", *ENGINE)
    )
    job = Job(config, check_config(config), Stage("allocate", ""), Run(tmp_path / "run"))
    return Trials(job, job.network(with_data=False), tmp_path)


def test_filters_go_where_they_can_be_taken_out(trials):
    # What the blocks' second convolutions write is added to the residual stream, which all blocks of a stage share.
    assert trials.layers == ["layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"]
    rules = trials.prune_config(4)["rules"]
    assert rules["filters"]["sparsity"] == 0.25
    smaller = trials._without_filters(4)
    assert smaller.model.layer1[0].conv1.out_channels == 12
    assert trials.network.model.layer1[0].conv1.out_channels == 16


@pytest.mark.slow
def test_float_and_8_bits_are_measured_as_files(trials, monkeypatch):
    seen = []

    class Watched(latency_search.Measurement):
        def prepare(self):
            seen.extend(subject.file for subject in self.subjects)
            super().prepare()

    monkeypatch.setattr(latency_search, "Measurement", Watched)
    assert set(trials.measure(8, [FLOAT, INT8])) == {FLOAT, INT8}
    assert seen == ["float.onnx", "int8.int8.onnx"]
    assert set(trials.measure(8, [FLOAT])) == {FLOAT}


def test_ranges_of_the_trial_are_those_of_its_images(trials):
    quantized = trials.job.network(with_data=False)
    from micronet_cli.config import build
    from micronet_cli.layers.fake_quantize import ActivationFakeQuantize

    build(trials.quantize_config(), "quantize").attach(quantized.model)
    means = quantized.model.bn1.running_mean.clone()
    latency_search._watch_ranges(quantized, torch.ones(2, 3, 16, 16))
    observers = [module for module in quantized.model.modules() if isinstance(module, ActivationFakeQuantize)]
    assert all(observer.seen > 0 for observer in observers)
    assert torch.equal(quantized.model.bn1.running_mean, means)


def chosen(monkeypatch, choice):
    """Let the search end so, however fast this machine is."""
    monkeypatch.setattr(Trials, "search", lambda self, target: choice)


def test_allocation_writes_rules_of_whole_filters_at_8_bits(micronet, trained, monkeypatch):
    chosen(monkeypatch, Choice(8, INT8, 1.5))
    run = micronet("stage=allocate", f"init_from={trained}", "budget.latency_ms=2", *ENGINE)
    metrics = metrics_of(run)
    assert (metrics["filter_sparsity"], metrics["latency_ms"], metrics["weight_bits_mean"]) == (0.5, 1.5, 8.0)
    prune, quantize = ((run / "rules" / group / "budget.yaml").read_text() for group in ("prune", "quantize"))
    assert "granularity.Filter" in prune
    assert "weight_bits: 8" in quantize
    assert "symmetric: true" in quantize


@pytest.mark.slow
def test_a_pipeline_to_milliseconds_shrinks_and_measures_again(micronet, monkeypatch, trained):
    chosen(monkeypatch, Choice(8, INT8, 1.5))
    pytest.importorskip("plotly")
    arguments = ("+experiment=auto", *TINY[2:], f"init_from={trained}", "trainer.epochs=1", *ENGINE)
    run = micronet(*arguments, "budget.latency_ms=1000")
    names = [path.name for path in sorted(run.iterdir()) if path.name[0].isdigit()]
    assert names == [
        "1_train", "2_allocate", "3_prune", "4_shrink", "5_qat", "6_export", "7_latency", "8_report",
    ]  # fmt: skip
    metrics = metrics_of(run)
    assert metrics["reached"] == {"latency_ms": metrics_of(run / "7_latency")["latency_ms"]}
    assert metrics["budget_kept"] is True
    assert metrics_of(run / "4_shrink")["removed_params"] > 0
    assert metrics["weight_bits_mean"] == 8
    assert (run / "6_export" / "model.int8.onnx").is_file()
