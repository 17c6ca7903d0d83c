"""Guards the diagnosis of quantised layers: the one that was spoilt comes first, and the network stays as it was."""

import copy

import pytest
import timm
import torch
from torch import nn

from micronet_cli.compression.quantization.bits_rules import BitsRule
from micronet_cli.compression.quantization.quantizer import Quantizer
from micronet_cli.explore.diagnosis import Diagnosis, Row
from micronet_cli.explore.in_float import float_weights
from micronet_cli.functional.logit_distance import LogitDistance
from micronet_cli.models import cifar_resnet  # noqa: F401  registers resnet8
from tests.explore.test_output_errors import Undifferentiable

IMAGES = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def quantized(spoilt=None, fold=False):
    """A resnet8 of w8a8, one layer of which has two bits."""
    torch.manual_seed(0)
    model = timm.create_model("resnet8", num_classes=10).eval()
    reference = copy.deepcopy(model)
    rules = {"all": BitsRule("(?!{stem}$).*")}
    if spoilt:
        rules["spoilt"] = BitsRule(spoilt.replace(".", r"\."), weight_bits=2, activation_bits=2)
    Quantizer(rules, 8, 8, fold_batch_norm=fold).attach(model)
    with torch.no_grad():
        for module in model.modules():
            module.train(hasattr(module, "low"))
        model(IMAGES)
    return model.eval(), reference


def diagnosis_of(model, reference, **options):
    return Diagnosis(model, reference, float_weights(model), **options)


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("spoilt", ["layer1.0.conv2", "layer3.0.conv1", "linear"])
def test_the_layer_that_was_spoilt_is_the_worst(spoilt, fold):
    model, reference = quantized(spoilt, fold)
    rows = diagnosis_of(model, reference).rows(IMAGES, measured=3)
    assert rows[0].layer == spoilt
    assert rows[0].error_saved > 0.9
    assert rows[0].part == rows[0].error_saved
    assert [row.error_saved is not None for row in rows] == [True] * 3 + [False] * 4
    assert {row.layer for row in rows if row.error_share > 0.5} == {spoilt}


def test_it_is_the_same_in_chunks(monkeypatch):
    model, reference = quantized("layer2.0.conv1")
    whole = diagnosis_of(model, reference).rows(IMAGES, measured=2)
    monkeypatch.setattr("micronet_cli.explore.diagnosis.REMEMBERED_BYTES", 1)
    parts = diagnosis_of(model, reference).rows(IMAGES, measured=2)
    assert [row.layer for row in parts] == [row.layer for row in whole]
    for one, other in zip(parts, whole, strict=True):
        assert one.error_share == pytest.approx(other.error_share, abs=0.02)  # ties may round otherwise
        assert one.part == pytest.approx(other.part, abs=0.02)


@torch.no_grad()
def test_what_is_saved_is_what_the_network_says():
    model, reference = quantized("linear")
    diagnosis = diagnosis_of(model, reference)
    before = diagnosis.distance([IMAGES[:5], IMAGES[5:]])
    assert before.images == 12
    assert before.error == pytest.approx(LogitDistance.between(reference(IMAGES), model(IMAGES)).error)
    worst = diagnosis.rows(IMAGES, measured=1)[0]
    other, _ = quantized()
    Quantizer({"linear": BitsRule("linear")}, None, None).attach(other)
    after = LogitDistance.between(reference(IMAGES), other(IMAGES))
    assert worst.error_saved == pytest.approx(1 - after.error / before.error)
    assert worst.predictions_saved == before.changed - after.changed


@torch.no_grad()
def test_what_was_corrected_behind_a_layer_is_no_harm_of_it():
    """The classifier's bias makes up for the spoilt layer, and would be wrong behind the layer in float."""
    model, reference = quantized("layer3.0.conv2")
    model.linear.bias += (reference(IMAGES) - model(IMAGES)).mean(0)
    plain, kept = (diagnosis_of(model, reference, corrected=names).rows(IMAGES, 1)[0] for names in ((), ("linear",)))
    assert kept.layer == "layer3.0.conv2"
    assert kept.error_saved > 0.9
    assert kept.error_saved > plain.error_saved


def test_the_network_stays_as_it_was():
    model, reference = quantized("linear")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    diagnosis_of(model, reference).rows(IMAGES, measured=9)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags


def test_without_derivatives_every_layer_is_measured():
    model = Undifferentiable().eval()
    reference = copy.deepcopy(model)
    Quantizer({"all": BitsRule(".*")}, 2, None).attach(model)
    rows = diagnosis_of(model, reference).rows(torch.randn(6, 4), measured=1)
    assert {row.layer for row in rows} == {"first", "second"}
    assert all(row.error_saved is not None and row.error_share is None for row in rows)


def test_an_error_that_is_not_known_counts_as_none():
    assert Row("a").part == 0
    assert Row("a", error_share=0.5).part == 0.5


class Alone(nn.Module):
    """Reads its layer's weight itself."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return nn.functional.linear(x, self.layer.weight)


def test_a_layer_that_is_not_called_as_a_module_is_measured():
    model = Alone().eval()
    reference = copy.deepcopy(model)
    Quantizer({"all": BitsRule(".*")}, 2, None).attach(model)
    (row,) = diagnosis_of(model, reference).rows(torch.randn(6, 4), measured=1)
    assert row == Row("layer", None, 1.0, row.predictions_saved)
