"""What an ONNX file says of itself: enough to run it without anything else."""

import json
from typing import Any

import onnx

from micronet_cli.network import Network, model_name

FIGURES = ("top1", "top5", "micronet_score", "score_profile", "weight_sparsity")


def describe_in(proto: onnx.ModelProto, network: Network) -> None:
    """Write into a graph's metadata, each as JSON, what a runner needs, and the figures that are known.

    ``architecture``, ``classes`` in the order of the logits, ``input_size`` (channels, height, width), ``mean`` and
    ``std`` a channel of values in [0, 1], and of ``FIGURES`` those that were measured.
    """
    spec = network.spec
    told: dict[str, Any] = {
        "architecture": model_name(network.config) if network.config else "",
        "classes": network.classes,
        "input_size": list(spec.size),
        "mean": list(spec.mean),
        "std": list(spec.std),
    }
    for name in FIGURES:
        figure = network.metrics.get(name)
        if figure is not None:
            told[name] = figure
    as_text = {key: json.dumps(value) for key, value in told.items()}
    onnx.helper.set_model_props(proto, as_text)
