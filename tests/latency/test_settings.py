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
        pytest.param(
            {"engines": ["openvin"]}, "engines=openvin: no engine.*did you mean openvino", id="a typo in a list"
        ),
        pytest.param({"engines": "pytorsch"}, "did you mean pytorch", id="a typo"),
        pytest.param({"engines": []}, "nothing to measure", id="no engine"),
        pytest.param({"batch_sizes": [1, 0]}, r"batch_sizes=\[1, 0\]: must be at least 1", id="an empty batch"),
        pytest.param({"threads": []}, r"threads=\[\]: must hold at least one", id="no number of threads"),
        pytest.param({"seconds": 0}, "seconds=0: must be above 0", id="no time"),
    ],
)
def test_mistakes_are_named(given, said):
    with pytest.raises(ValueError, match=said):
        Latency(**given)
