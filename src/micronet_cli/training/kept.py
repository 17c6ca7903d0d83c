"""Which networks of a run are kept: the last one, and the best."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from micronet_cli import checkpoint, distributed
from micronet_cli.models.weights_file import read_tensors
from micronet_cli.network import Network
from micronet_cli.runs.directory import Run


class KeptNetworks:
    """The checkpoints of a run.

    Args:
        run: where they go.
        network: what the header says of them; its model is not written.

    Attributes:
        best: epoch and val metrics of the best network so far.
    """

    def __init__(self, run: Run, network: Network) -> None:
        self.run = run
        self.network = network
        self.best: dict[str, Any] | None = None

    def add(self, model: nn.Module, epoch: int, metrics: dict[str, Any], eligible: bool) -> None:
        """Write the network of an epoch as the last, and as the best where it is; of equals the later one is.

        Args:
            model: the network.
            epoch: its number, from 0.
            metrics: its ``top1`` in percent and ``loss`` on val.
            eligible: whether it may be the best; one on the way to its targets may not.
        """
        top1 = metrics["top1"]
        own = {"epoch": epoch, "val_top1": top1}
        self._write(self.run.last, model, own)
        if not eligible:
            return
        if self.best is not None and top1 < self.best["val_top1"]:
            return
        own["val_loss"] = metrics["loss"]
        self.best = own
        self._write(self.run.best, model, self.best)

    def load_best(self, model: nn.Module) -> None:
        """Give ``model`` the best network's parameters and buffers, in every process."""
        if distributed.rank() == 0:
            tensors = read_tensors(self.run.best, "best")
            model.load_state_dict(tensors)
        distributed.broadcast_model(model)

    def _write(self, path: Path, model: nn.Module, metrics: dict[str, Any]) -> None:
        if distributed.rank() != 0:
            return
        claimed = self.run.claim(path)
        network = replace(self.network, model=model)
        checkpoint.save(claimed, network, metrics)
