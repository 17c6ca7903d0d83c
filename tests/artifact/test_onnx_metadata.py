"""An ONNX file says what a runner needs, and no figure that was not measured."""

import json

import onnx
from torch import nn

from micronet_cli.artifact.onnx_metadata import describe_in
from micronet_cli.network import Network
from tests.artifact.exportable import SPEC


def test_metadata_is_json_of_what_is_known():
    network = Network(
        nn.Identity(), {"name": "resnet8"}, ["cat, tabby", "dog"], SPEC, metrics={"top1": 90.5, "loss": 1}
    )
    proto = onnx.ModelProto()
    describe_in(proto, network)
    told = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    assert told == {
        "architecture": "resnet8",
        "classes": ["cat, tabby", "dog"],
        "input_size": [3, 12, 12],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "top1": 90.5,
    }
