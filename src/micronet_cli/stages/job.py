"""What a stage gets: its config, the objects built from it, and the run's directory."""

from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig

from micronet_cli import checkpoint
from micronet_cli.config import to_plain
from micronet_cli.data.loader import Loader
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec
from micronet_cli.network import Network
from micronet_cli.runs.directory import Run


@dataclass
class Job:
    """What a stage gets.

    Attributes:
        config: the whole config, composed.
        parts: config group -> the object built from it.
        run: the run's directory.
    """

    config: DictConfig
    parts: Any
    run: Run

    def require_splits(self, *splits: str) -> None:
        """Fail before the heavy work.

        Raises:
            UserError: what is missing of the data.
        """
        if problems := self.parts["data"].problems(splits):
            raise UserError("\n".join(problems))

    def network(self, with_data: bool = True) -> Network:
        """The network of ``init_from``; without it the model group's.

        That one has the data's classes, and without data as many as timm says.
        """
        data = to_plain(self.config.data)
        if self.config.init_from:
            network = checkpoint.load(self.config.init_from, config=to_plain(self.config.model))
            self._check_classes(network.classes)
            network.data = data
            network.spec = InputSpec.of(network.model, data.get("input_size") or network.spec.size[-1])
            return network
        classes = self.parts["data"].classes if with_data else []
        if with_data:
            self._check_classes(classes)
        model = self.parts["model"].build(len(classes))
        spec = InputSpec.of(model, data.get("input_size"))
        return Network(model, to_plain(self.config.model), classes, spec, data=data)

    def _check_classes(self, classes: list[str]) -> None:
        if (wanted := self.parts["model"].num_classes) not in (None, len(classes)):
            raise UserError(f"model.num_classes={wanted}: there are {len(classes)} classes; leave it null")

    def save(self, network: Network, metrics: dict[str, Any]) -> None:
        """Write the network that is reported."""
        if self.run.writes:
            checkpoint.save(self.run.best if network.packed is None else self.run.packed, network, metrics)

    def loader(self, network: Network, split: str, device: torch.device) -> Loader:
        """Batches of a split as the network wants them."""
        return self.parts["data"].loader(split, network.spec, device, self.config.seed, network.classes)
