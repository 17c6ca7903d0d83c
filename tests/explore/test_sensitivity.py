"""Sensitivities: what is measured is what evaluation would give, and the estimate follows it."""

import weakref

import pytest
import timm
import torch
from torch import nn

from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.errors import UserError
from micronet_cli.explore.sensitivity import Sensitivity, table
from micronet_cli.explore.trial import Point, Trial
from micronet_cli.functional.divergence import divergence
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.models import cifar_resnet  # noqa: F401  registers resnet8

METHODS = ("evaluate", "estimate")


def network(seed=0):
    torch.manual_seed(seed)
    return timm.create_model("resnet8", num_classes=5).eval()


def images(count=12, seed=1):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def batches():
    yield from zip(images().split(5), torch.arange(12).remainder(5).split(5), strict=True)


@torch.no_grad()
def whole(model, compressor, layer):
    """Divergence and top1 of the whole network with a compressor attached."""
    x, labels = images(), torch.arange(12).remainder(5)
    logits = model(x)
    compressor.attach(model)
    compressor.update(1, 1)
    changed = model.eval()(x)
    return divergence(logits, changed).mean().item(), 100 * (changed.argmax(1) == labels).double().mean().item()


def test_the_network_is_left_as_it_was():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Sensitivity().measure(model, batches)
    Sensitivity(method="estimate").measure(model, batches)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert effective_weight(model.conv1) is None
    assert not [p for p in model.parameters() if p.grad is not None]


def test_a_pruned_network_keeps_its_mask():
    model = network()
    pruner = Pruner({"all": SparsityRule(".*", 0.5)})
    pruner.attach(model)
    pruner.update(1, 1)
    trial = Trial(model)
    layer = trial.layers["layer1.0.conv1"]
    kept = layer.weight != 0
    with trial.changed(Point("layer1.0.conv1", "sparsity", 0.75)):
        assert int((layer.weight != 0).sum()) == layer.weight.numel() // 4
        assert not (layer.weight != 0)[~kept].any()
    with trial.changed(Point("layer1.0.conv1", "weight_bits", 3)):
        assert not (layer.weight != 0)[~kept].any()
    assert torch.equal(layer.weight != 0, kept)


def test_the_number_of_images_together_changes_nothing():
    few, many = (Sensitivity(memory_mb=mb).measure(network(), batches) for mb in (1, 64))
    for one, other in zip(few, many, strict=True):
        if one["kind"] != "activation_bits":  # a range is an average over chunks
            assert one["divergence"] == pytest.approx(other["divergence"], rel=1e-3, abs=1e-6)


class Attention(nn.Module):
    """Its projection is used, but never called as a module."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)[..., [0, 1, 2, 0]]
        return self.head(self.attention(x, x, x)[0].mean(1))


def test_layers_that_are_not_called_have_weights_but_no_inputs():
    torch.manual_seed(0)
    rows = Sensitivity([0.5], [3], [3]).measure(Attention(), batches)
    kinds = {layer: [row["kind"] for row in rows if row["layer"] == layer] for layer in ("attention.out_proj", "head")}
    assert kinds == {
        "attention.out_proj": ["sparsity", "weight_bits"],
        "head": ["sparsity", "weight_bits", "activation_bits"],
    }
    assert all(row["divergence"] > 0 for row in rows)
    estimated = Sensitivity([0.5], [3], [3], method="estimate").measure(Attention(), batches)
    assert [row["layer"] for row in estimated] == ["head"] * 3


class Table(nn.Module):
    """A layer that is fed by a table, as position biases are."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.randn(1, 5, 2))
        self.bias, self.head = nn.Linear(2, 3), nn.Linear(15, 5)

    def forward(self, x):
        return self.head(x.flatten(1)[:, :15] + self.bias(self.table).flatten(1))


def test_layers_that_see_no_image_are_evaluated_but_not_estimated(caplog):
    torch.manual_seed(0)
    evaluated, estimated = (Sensitivity([0.5], [3], [3], method).measure(Table(), batches) for method in METHODS)
    assert [row["layer"] for row in evaluated] == ["bias"] * 3 + ["head"] * 3
    assert [row["layer"] for row in estimated] == ["head"] * 3
    assert "not on images: bias" in caplog.text


@pytest.mark.parametrize("method", METHODS)
def test_images_are_let_go_chunk_by_chunk(method):
    alive = weakref.WeakSet()

    def many():
        for _ in range(6):
            assert len(alive) <= 3
            alive.add(some := images(2))
            yield some, torch.zeros(2, dtype=torch.long)

    torch.manual_seed(0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    Sensitivity([0.5], [3], [3], method).measure(model, many)


def test_table_has_a_row_a_layer():
    rows = [
        {"layer": "a", "kind": "sparsity", "value": 0.5, "divergence": 0.25},
        {"layer": "a", "kind": "weight_bits", "value": 2, "divergence": 1.5},
        {"layer": "b", "kind": "activation_bits", "value": 2.5, "divergence": 1e-4},
    ]
    assert table(rows) == [{"layer": "a", "0.5 zeros": "0.25", "w2": "1.5"}, {"layer": "b", "a2.5": "0.0001"}]


@pytest.mark.parametrize("method", ["evaluate", "estimate"])
def test_figures_that_are_not_finite_name_point_and_layer(method, monkeypatch):
    def overflow(quantizer, x):
        return x * torch.inf

    monkeypatch.setattr(ActivationFakeQuantize, "forward", overflow)
    settings = Sensitivity(sparsities=[], weight_bits=[], activation_bits=[4], method=method)
    with pytest.raises(UserError, match=r"^sensitivity: conv1 with activation_bits=4: its figures are not finite"):
        settings.measure(network(), batches)
