"""The ``latency`` group: what it takes, and the mistakes that it names."""

import pytest

from micronet_cli.latency.settings import Latency


def test_engines_are_all_one_or_some():
    assert Latency().engine_names is None
    assert Latency("openvino").engine_names == ["openvino"]
    assert Latency(["pytorch", "openvino", "pytorch"]).engine_names == ["pytorch", "openvino"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"engines": ["openvin"]}, "engines=openvin: no engine.*did you mean openvino"),
        ({"engines": "pytorsch"}, "did you mean pytorch"),
        ({"engines": []}, "nothing to measure"),
        ({"batch_sizes": [1, 0]}, r"batch_sizes=\[1, 0\]: must be at least 1"),
        ({"threads": []}, r"threads=\[\]: must hold at least one"),
        ({"seconds": 0}, "seconds=0: must be above 0"),
    ],
)
def test_mistakes_are_named(given, said):
    with pytest.raises(ValueError, match=said):
        Latency(**given)
