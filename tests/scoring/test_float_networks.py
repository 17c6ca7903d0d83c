"""Float networks have no quantiser: no weight of a real architecture lies on a grid, by chance or initialised."""

import pytest
import timm
import torch

from micronet_cli.layers.rules import own_shape
from micronet_cli.trace.trace import Trace
from tests.timm_families import FAMILIES

ARCHITECTURES = (
    "convnext_atto",
    "efficientnet_b0",
    "ghostnet_050",
    "levit_128s",
    "mobilenetv3_small_050",
    "nf_regnet_b0",
    "regnety_002",
    "resnet18",
    "resnetblur18",
    "xcit_nano_12_p16_224",
)
MOST_PARAMETERS = 100e6  # of those whose values are made here


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_untrained_networks_have_no_quantiser(name):
    torch.manual_seed(0)
    model = timm.create_model(name)
    network = Trace(model, own_shape(model)).read()
    assert network.quantizers == {}
    assert {stored.quantizer for stored in network.stored} == {None}
    assert {value.quantizers for value in network.values} == {None}


@pytest.mark.slow
@pytest.mark.parametrize("module", FAMILIES)
def test_first_architecture_of_every_family_has_no_quantiser(module):
    for name in timm.list_models(module=module)[:1]:
        with torch.device("meta"):
            model = timm.create_model(name)
        if sum(parameter.numel() for parameter in model.parameters()) > MOST_PARAMETERS:
            pytest.skip(f"{name} is too large")
        test_untrained_networks_have_no_quantiser(name)
