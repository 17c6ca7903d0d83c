"""Guards the warning of few bits that are rounded to the nearest."""

from typing import NamedTuple

import pytest

from micronet_cli.compression.quantization.adaround import AdaRound
from micronet_cli.compression.quantization.post_training import PostTraining
from micronet_cli.stages.calibration import warn_of_nearest


class Warned(NamedTuple):
    """Bits of weight and input by layer, and how many layers are warned of."""

    bits: list[tuple[float | None, float | None]]
    adaround: AdaRound | None
    layers: int


WARNED = {
    "weights and inputs": Warned([(4, 8), (8, 4), (2.5, None), (5, 8)], None, 3),
    "enough bits": Warned([(8, 8), (5, None)], None, 0),
    "learned": Warned([(4, 4)], AdaRound(), 0),
}


@pytest.mark.parametrize("case", WARNED.values(), ids=WARNED)
def test_few_bits_to_the_nearest_are_warned_of(case, caplog):
    rules = {}
    for number, (weight_bits, activation_bits) in enumerate(case.bits):
        rules[str(number)] = {"weight_bits": weight_bits, "activation_bits": activation_bits}
    warn_of_nearest(PostTraining(adaround=case.adaround), rules)
    said = [f"ptq.adaround=null: {case.layers} layers of 4 bits or fewer"] if case.layers else []
    assert [record.getMessage()[: len(said[0])] for record in caplog.records] == said
