"""Which epoch's network a run ends with."""

from types import SimpleNamespace

import pytest
import torch

from micronet_cli import checkpoint
from micronet_cli.models import cifar_resnet  # noqa: F401  registers its networks
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.network import Network
from micronet_cli.runs.directory import Run
from micronet_cli.training.kept import KeptNetworks

MODEL = {"_target_": "micronet_cli.models.model.Model", "name": "resnet8"}


@pytest.fixture
def model():
    return Model("resnet8").build(3).eval()


@pytest.fixture
def kept(tmp_path, model):
    return KeptNetworks(Run(tmp_path), Network(model, MODEL, ["a", "b", "c"], InputSpec.of(model)))


def header(path):
    return checkpoint.read_header(path)["metrics"]


@pytest.mark.parametrize(
    ("epochs", "best"),
    [
        pytest.param([(50.0, True), (60.0, True), (55.0, True)], 1, id="the highest"),
        pytest.param([(50.0, True), (50.0, True)], 1, id="of equals the later"),
        pytest.param([(90.0, False), (10.0, True)], 1, id="not one on its way"),
        pytest.param([(0.0, True)], 0, id="even at zero"),
    ],
)
def test_the_best_epoch_is_kept(kept, model, epochs, best):
    for epoch, (top1, eligible) in enumerate(epochs):
        kept.add(model, epoch, {"top1": top1, "loss": 1.0}, eligible)
    assert kept.best == {"epoch": best, "val_top1": epochs[best][0], "val_loss": 1.0}
    assert header(kept.run.best) == kept.best
    assert header(kept.run.last) == {"epoch": len(epochs) - 1, "val_top1": epochs[-1][0]}


def test_no_eligible_network_leaves_no_best_file(kept, model):
    kept.add(model, 0, {"top1": 90.0, "loss": 1.0}, eligible=False)
    assert kept.best is None
    assert not kept.run.best.exists()
    assert kept.run.last.is_file()


def test_the_best_comes_back(kept, model):
    kept.add(model, 0, {"top1": 90.0, "loss": 1.0}, eligible=True)
    before = model.linear.weight.clone()
    torch.nn.init.zeros_(model.linear.weight)
    kept.add(model, 1, {"top1": 80.0, "loss": 1.0}, eligible=True)
    kept.load_best(model)
    assert torch.equal(model.linear.weight, before)


def test_only_the_first_process_writes(kept, model, monkeypatch):
    monkeypatch.setattr("micronet_cli.training.kept.distributed", SimpleNamespace(rank=lambda: 1))
    kept.add(model, 0, {"top1": 90.0, "loss": 1.0}, eligible=True)
    assert kept.best["epoch"] == 0
    assert not kept.run.last.exists()
