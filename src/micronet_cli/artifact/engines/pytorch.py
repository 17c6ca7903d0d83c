"""PyTorch: the live network, as it is or compiled."""

import os
import shutil
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from micronet_cli.artifact.engines.engine import Operation
from micronet_cli.layers.copies import copied
from micronet_cli.layers.plain_weights import give_plain_weights

SILENT = "99"  # torch's profiler prints lines on a terminal that tell a user nothing
COMPILERS = ("c++", "g++", "clang++", "cl")


class PyTorch:
    """The door to PyTorch.

    Attributes:
        name: ``pytorch``, or ``pytorch_compiled`` for what ``torch.compile`` makes of the network.
    """

    package = "torch"
    extra = ""
    suffixes: Sequence[str] = ()

    def __init__(self, compiles: bool = False) -> None:
        self.name = "pytorch_compiled" if compiles else "pytorch"
        self._compiles = compiles

    def installed(self) -> bool:
        """Whether it can be used here: ``torch.compile`` needs a C++ compiler."""
        if not self._compiles:
            return True
        return any(shutil.which(name) for name in COMPILERS)

    def open(self, source: nn.Module, threads: int, shape: Sequence[int] | None = None) -> "OpenedNetwork":
        """As ``Engine.open``; a compiled network is compiled when it runs first, for the shape that it gets then.

        Masks and weight quantisers are applied once for all; quantisers of activations stay. The number of threads is
        one of the whole process, and stays behind. Networks that run in turns are opened before any of them runs:
        each that is opened makes the others compile again, as torch compiles a few only before it gives up.
        """
        model = copied(source).eval()
        give_plain_weights(model)
        model = model.to(memory_format=torch.channels_last)
        if self._compiles:
            torch.compiler.reset()
            model.compile(dynamic=False)
        return OpenedNetwork(model, threads)

    def profile(self, source: nn.Module, threads: int, images: np.ndarray, runs: int) -> list[Operation]:
        """As ``Engine.profile``; operators of one kind are one operation, for PyTorch knows no names of layers."""
        os.environ.setdefault("KINETO_LOG_LEVEL", SILENT)
        opened = self.open(source, threads)
        opened.run(images)
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            for _ in range(runs):
                opened.run(images)
        found = []
        for operator in profiled.key_averages():
            milliseconds = operator.self_cpu_time_total / runs / 1000
            found.append(Operation(operator.key, operator.key, milliseconds))
        return found


class OpenedNetwork:
    """A network with plain weights, its images in channels-last order."""

    def __init__(self, model: nn.Module, threads: int) -> None:
        self.model = model
        self._threads = threads

    @torch.inference_mode()
    def run(self, images: np.ndarray) -> np.ndarray:
        """As ``Opened.run``."""
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        tensor = torch.from_numpy(images).to(memory_format=torch.channels_last)
        return self.model(tensor).numpy()
