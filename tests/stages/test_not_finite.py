"""No stage answers with a figure made of values that are not finite: each names the layer, and metrics.json is JSON."""

import json
from dataclasses import dataclass

import pytest
import torch

from micronet_cli import checkpoint
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.network import Network
from tests.conftest import TINY

CLASSES = [str(digit) for digit in range(10)]
SPOILT = "layer2.0.conv1"


@dataclass(frozen=True)
class Case:
    """A stage, and how its answer begins."""

    arguments: tuple[str, ...]
    says: str


CASES = {
    "eval": Case(
        ("stage=eval",), f"eval: the output is not finite, first in layer {SPOILT}, whose weight is not finite"
    ),
    "score": Case(
        ("stage=score",), f"score: zeros and bits say nothing about layer {SPOILT}, whose weight is not finite"
    ),
    "export": Case(
        ("stage=export",), f"score: zeros and bits say nothing about layer {SPOILT}, whose weight is not finite"
    ),
    "shrink": Case(("stage=shrink",), f"eval: the output is not finite, first in layer {SPOILT}"),
    "sensitivity": Case(("stage=sensitivity",), f"eval: the output is not finite, first in layer {SPOILT}"),
    "ptq": Case(
        ("stage=ptq", "quantize=w4a4"),
        f"stage=ptq: the output of the network in float is not finite, first in layer {SPOILT}",
    ),
    "prune": Case(("stage=prune",), f"trainer: the loss is nan at step 0, first seen in parameter {SPOILT}.weight"),
}


def refuse(constant):
    raise AssertionError(constant)


def strict(path):
    return json.loads(path.read_text(), parse_constant=refuse)


def saved(path, change):
    """A checkpoint of a small network with one weight changed."""
    torch.manual_seed(0)
    config = {"_target_": "micronet_cli.models.model.Model", "name": "resnet8"}
    model = Model("resnet8").build(10).eval()
    with torch.no_grad():
        change(model.get_submodule(SPOILT).weight)
    spec = InputSpec.of(model, 16)
    data = {"_target_": "micronet_cli.data.datasets.Digits"}
    checkpoint.save(path, Network(model, config, CLASSES, spec, data=data), {})
    return path


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    def change(weight):
        weight[0, 0, 0, 0] = float("nan")

    return saved(tmp_path_factory.mktemp("spoilt") / "nan.safetensors", change)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_weight_that_is_not_finite_ends_the_run(case, spoilt, mistake, tmp_path):
    said = mistake(*case.arguments, *TINY, f"init_from={spoilt}", directory=tmp_path / "run")
    assert said.startswith(f"micronet: {case.says}")
    assert len(said.splitlines()) == 1
    # Nothing was made of the network, so nothing is left that a report or a sweep could take for a result.
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_an_overflow_of_half_precision_ends_an_evaluation(mistake, tmp_path):
    large = saved(tmp_path / "large.safetensors", lambda weight: weight.mul_(1e7))
    said = mistake("stage=eval", *TINY, f"init_from={large}", "eval.amp=fp16")
    assert said.startswith(
        f"micronet: eval.amp=fp16: the output is not finite, first in layer {SPOILT}; use bf16 or none"
    )


def test_a_learning_rate_that_ends_in_no_network_completes_no_run(mistake, tmp_path):
    said = mistake("stage=train", *TINY, "optim.lr=1e30", "trainer.max_steps=1", directory=tmp_path / "run")
    assert said.startswith("micronet: trainer: the output is not finite, first in layer ")
    metrics = strict(tmp_path / "run" / "metrics.json")
    assert metrics["status"] == "failed"
    assert "top1" not in metrics
