"""A network: a model, and everything that is needed to build it again."""

from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from micronet_cli.models.model import InputSpec, state_input, untrained

VERSIONS = ("micronet-cli", "torch", "torchvision", "timm", "hydra-core", "numpy")


@dataclass
class Network:
    """A model and everything needed to build it again.

    Attributes:
        model: the live model.
        config: the ``model`` config group.
        classes: class names in the order of the logits.
        spec: the input that it is run with; the model states it too.
        compressors: configs of the compressors attached so far, in order.
        data: the ``data`` config group it was trained on.
        metrics: what its checkpoint reports of it; empty for a network that was not read from one.
        packed: the packed file it was read from, None for others; such a network runs on integers and is not trained.
    """

    model: nn.Module
    config: dict[str, Any]
    classes: list[str]
    spec: InputSpec
    compressors: list[dict[str, Any]] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    packed: Path | None = None

    def __post_init__(self) -> None:
        self.run_with(self.spec)

    def run_with(self, spec: InputSpec) -> None:
        """From now on this is its input."""
        self.spec = spec
        state_input(self.model, spec.size)


def versions() -> dict[str, str]:
    """Versions of the packages that compute, by name."""
    return {name: version(name) for name in VERSIONS}


def describe(network: Network, metrics: dict[str, Any]) -> dict[str, Any]:
    """What a file's header says of a network, except its compressors; plain values only."""
    return {
        "model": untrained(network.config),
        "classes": network.classes,
        "input": asdict(network.spec),
        "data": network.data,
        "metrics": metrics,
        "versions": versions(),
    }
