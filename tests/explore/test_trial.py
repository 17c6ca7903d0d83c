"""A trial changes one layer as the compressors would."""

import pytest
import timm.layers
import torch

from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.compression.quantization.quantizer import BitsRule, Quantizer
from micronet_cli.explore.sensitivity import Sensitivity
from micronet_cli.explore.trial import Point, Trial
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.models import cifar_resnet  # noqa: F401  registers resnet8
from tests.explore.test_sensitivity import batches, images, network, whole


def test_weights_are_changed_as_the_compressors_change_them():
    rows = Sensitivity(sparsities=[0.7], weight_bits=[3], activation_bits=[]).measure(network(), batches)
    assert [row["layer"] for row in rows[::2]] == list(compressible_layers(network()))
    for row in rows:
        rule = row["layer"].replace(".", r"\.")
        compressor = (
            Pruner({"one": SparsityRule(rule, 0.7)})
            if row["kind"] == "sparsity"
            else Quantizer({"one": BitsRule(rule)}, weight_bits=3, activation_bits=None)
        )
        kl, top1 = whole(network(), compressor, row["layer"])
        assert row["divergence"] == pytest.approx(kl, rel=1e-4, abs=1e-7)
        assert row["top1"] == pytest.approx(top1)


def test_inputs_are_quantised_over_their_own_range():
    model = network()
    trial = Trial(model)
    x = images()
    trial.watch_inputs([x])
    with torch.no_grad(), trial.changed(Point("conv1", "activation_bits", 2)):
        seen = []
        handle = trial.layers["conv1"].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
        trial.model(x)
        handle.remove()
    assert len(seen[0].unique()) <= 4
    assert seen[0].max() == pytest.approx(x.max().item(), rel=0.35)
    with torch.no_grad():
        assert torch.equal(trial.model(x), model(x))


def test_a_standardised_weight_is_ranked_as_a_product_sees_it():
    layer = timm.layers.StdConv2d(4, 1, 1)
    # Around their mean, 3.5, the last is the largest; as they are the first are.
    layer.weight.data = torch.tensor([4.0, 4.1, 4.2, 1.7]).view(1, 4, 1, 1)
    trial = Trial(torch.nn.Sequential(layer))
    assert trial.mask("0", 0.5).flatten().tolist() == [False, False, True, True]
