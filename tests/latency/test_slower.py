"""Why a network is no faster: what the profiles differ in, and advice that fits what is known of it."""

import re
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from micronet_cli.compression.quantization import weight_quantizers
from micronet_cli.compression.quantization.quantizer import Quantizer
from micronet_cli.latency.slower import Nature, advice, nature, profiles, verdict
from micronet_cli.latency.subjects import Subject
from micronet_cli.layers.effective_weight import attach_mask
from tests.artifact.exportable import ALL, small
from tests.latency.fake import Clock, FakeEngine

ENGINE = FakeEngine("onnxruntime", Clock())
IMAGES = np.zeros((1, 3, 4, 4), np.float32)


def subject(name="2"):
    source = Path(f"{name}.onnx") if name else nn.Identity()
    return Subject("compressed", ENGINE, source, 10)


def test_profiles_name_operators_and_layers_that_take_longer():
    total, operators, layers = profiles(subject("0.002"), subject("0.001"), IMAGES, 1)
    assert total == "all: 1.00 -> 2.00 ms"
    assert operators == "operators: Mul 0.75 -> 1.50 ms, Conv 0.25 -> 0.50 ms"
    assert layers == "layers: second 0.75 -> 1.50 ms, first 0.25 -> 0.50 ms"


def test_what_takes_less_time_is_an_operator_that_changed_and_no_slow_layer():
    total, operators, layers = profiles(subject("0.001"), subject("0.002"), IMAGES, 1)
    assert "all: 2.00 -> 1.00 ms, which is faster: other work" in total
    assert operators == "operators: Mul 1.50 -> 0.75 ms, Conv 0.50 -> 0.25 ms"
    assert layers == "layers: none differs noticeably"


def test_nature_of_a_masked_and_quantised_network():
    model = small()
    assert nature(model, False, False) == Nature()
    attach_mask(model[3]).mask[:8] = False
    Quantizer(ALL, 4, 4).attach(model)
    found = nature(model, False, False)
    assert (found.has_codes, found.has_quantizers) == (True, True)
    assert not found.has_varied_zero_points  # no layer has groups
    assert found.zeros > 0.3
    assert not found.has_odd_widths


@pytest.mark.parametrize(
    ("symmetric", "varied"), [pytest.param(True, False, id="symmetric"), pytest.param(False, True, id="zero points")]
)
def test_zero_points_of_grouped_convolutions_are_looked_at(symmetric, varied):
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    scheme = weight_quantizers.RangeLinear(symmetric=symmetric)
    Quantizer(ALL, 8, None, weight=scheme).attach(model)
    assert nature(model, False, False).has_varied_zero_points == varied


def test_narrow_layers_are_odd_where_channels_went():
    assert nature(small(), False, True).has_odd_widths


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        pytest.param("model", Nature(has_codes=True), "export.int8=true", id="narrow codes"),
        pytest.param(
            "model.int8", Nature(has_codes=True, has_varied_zero_points=True), "quantize=symmetric", id="zero points"
        ),
        pytest.param("", Nature(has_quantizers=True), "imitates quantisers in float", id="in training"),
        pytest.param(
            "", Nature(has_codes=True, has_quantizers=True, is_packed=True), "packed network's integers", id="packed"
        ),
        pytest.param("model.int8", Nature(has_codes=True), "conversions to integers and back", id="8-bit codes"),
        pytest.param("model", Nature(zeros=0.5), "the 50 % of zeros.*prune=filter, then stage=shrink", id="zeros"),
        pytest.param(
            "model", Nature(has_fewer_channels=True, has_odd_widths=True), "stage.multiple=16", id="odd widths"
        ),
    ],
)
def test_advice_fits_what_is_known(name, known, said):
    (line,) = advice(subject(name), known)
    assert re.search(said, line)


def test_nothing_known_is_no_advice():
    assert advice(subject("model"), Nature()) == []


def test_a_difference_within_the_noise_is_no_gain():
    assert [verdict(ratio) for ratio in (0.8, 0.99, 1.01, 1.1)] == ["slower", "no faster", "no faster", ""]
