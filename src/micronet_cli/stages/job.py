"""What a stage gets: its config, the objects built from it, and the run's directory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from omegaconf import DictConfig
from torch import nn

from micronet_cli import checkpoint
from micronet_cli.config import to_plain
from micronet_cli.data.protocol import DataSet
from micronet_cli.errors import UserError
from micronet_cli.layers.rules import stated_shape
from micronet_cli.models.classifier import Asker
from micronet_cli.models.model import InputSpec
from micronet_cli.models.own import OwnModel
from micronet_cli.network import Network, model_name
from micronet_cli.runs.directory import Run
from micronet_cli.stages.head import Head, fresh_head, inherited_head
from micronet_cli.stages.node import Stage
from micronet_cli.stages.own_input import input_of, run_once

# The config imports what a stage builds; a stage without a search does not pay for its module.
if TYPE_CHECKING:
    from micronet_cli.artifact.settings import Export
    from micronet_cli.compression.compressor import Compressor
    from micronet_cli.compression.quantization.post_training import PostTraining
    from micronet_cli.data.protocol import Batches
    from micronet_cli.explore.budgets import Budget
    from micronet_cli.explore.search import Search
    from micronet_cli.explore.sensitivity import Sensitivity
    from micronet_cli.latency.settings import Latency
    from micronet_cli.models.model import Model
    from micronet_cli.runs.loggers import Logger
    from micronet_cli.scoring.rules import Rules
    from micronet_cli.training.distill import SoftTargets
    from micronet_cli.training.evaluate import Evaluation
    from micronet_cli.training.optim import Optim
    from micronet_cli.training.settings import TrainerSettings

log = logging.getLogger(__name__)
NodeT = TypeVar("NodeT", bound=Stage)


@dataclass(frozen=True)
class Parts:
    """The packaged config groups, built; None where a group is ``none``."""

    model: Model | OwnModel
    data: DataSet
    optim: Optim
    trainer: TrainerSettings
    eval: Evaluation
    score: Rules
    export: Export
    latency: Latency
    sensitivity: Sensitivity
    budget: Budget
    prune: Compressor | None
    quantize: Compressor | None
    ptq: PostTraining | None
    distill: SoftTargets | None
    logger: Logger | None
    search: Search | None


@dataclass
class Job(Generic[NodeT]):
    """What a stage gets.

    Attributes:
        config: the whole config, composed; for stages that compose others. The rest read ``parts`` and ``node``.
        checked: what the check of the stage's config found: config group -> the object built from it.
        node: the config node ``stage``.
        run: the run's directory.
    """

    config: DictConfig
    checked: Mapping[str, Any]
    node: NodeT
    run: Run

    @cached_property
    def parts(self) -> Parts:
        """The packaged groups' objects; those of groups of one's own are in ``checked``."""
        return Parts(**{field.name: self.checked[field.name] for field in fields(Parts)})

    @property
    def seed(self) -> int:
        """What every random number of the run follows from."""
        return self.config.seed

    @property
    def init_from(self) -> str | None:
        """The run directory or checkpoint to start from."""
        return self.config.init_from

    @property
    def runs(self) -> str | None:
        """Glob of the run directories that a report is about."""
        return self.config.runs

    @property
    def trust(self) -> tuple[str, ...]:
        """Packages beside micronet that the files of this run may name."""
        return tuple(self.config.get("trust") or ())

    def group_config(self, group: str) -> dict[str, Any]:
        """The config of a group as plain values; empty where the group is ``none``."""
        return to_plain(self.config[group]) or {}

    def require_splits(self, *splits: str) -> None:
        """Fail before the heavy work.

        Raises:
            UserError: what is missing of the data.
        """
        if problems := self.parts.data.problems(splits):
            raise UserError("\n".join(problems))

    def network(self, with_data: bool = True, new_classifier: bool = False) -> Network:
        """The network of ``init_from``; without it the model group's. What it is goes to the log.

        A fresh one has the data's classes. Where the stage needs no data and that does not tell its classes, there are
        as many as timm says.

        Args:
            with_data: the stage reads images.
            new_classifier: it trains, so that a classifier of other classes can be replaced.

        Raises:
            OtherClasses: one would have to be.
        """
        config = self.group_config("model")
        data_config = self.group_config("data")
        model, data = self.parts.model, self.parts.data
        if self.init_from:
            network = checkpoint.load(self.init_from, config=config, trust=self.trust)
            head = inherited_head(network, model, data, data_config, with_data)
        else:
            asks_data = with_data or isinstance(model, OwnModel)  # timm tells nothing of a network of one's own
            head = fresh_head(model, data, data_config, asks_data)
            asker: Asker = "data" if asks_data else "network"
            built = model.build(len(head.classes), asker=asker, new_classifier=new_classifier)
            network = Network(built, config, head.classes, self._input_of(built, config))
        network.classes = head.classes
        network.data = data_config
        network.trust = self.trust
        self._run_at_its_size(network)
        log.info("%s", self._described(network, head))
        return network

    def _described(self, network: Network, head: Head) -> str:
        """What a stage begins with, in a line."""
        classes = len(head.classes) or getattr(network.model, "num_classes", 0)
        size = "x".join(str(side) for side in network.spec.size)
        text = f"{model_name(network.config)}: {classes} classes ({head.source}), input {size}"
        text += f", {network.params:,} parameters"
        top1 = network.metrics.get("top1")
        if top1 is None:
            return text
        split = network.metrics.get("split", "its split")
        return f"{text}; top-1 {top1:.2f} % on {split}, as {self.init_from} says"

    def _input_of(self, model: nn.Module, config: Mapping[str, Any]) -> InputSpec:
        """What a network states, else what the images tell."""
        if stated_shape(model) is None:
            return input_of(model, model_name(config), self.parts.data)
        return InputSpec.of(model)

    def _run_at_its_size(self, network: Network) -> None:
        """Run the network at the size that the data's config asks for.

        Raises:
            UserError: it was built for another one.
        """
        side = network.data.get("input_size")
        own_size = network.spec.size
        channels, height, width = own_size
        size = (channels, side or height, side or width)
        network.run_with(replace(network.spec, size=size))
        if network.spec.size == own_size or network.packed is not None:
            return
        try:
            run_once(network.model, network.spec)
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"data.input_size={side}: {model_name(network.config)} does not take it ({reason}); "
                f"vision transformers do with model.args.img_size={side}"
            ) from None

    def save(self, network: Network, metrics: dict[str, Any]) -> None:
        """Write the network that is reported."""
        if self.run.writes:
            path = self.run.best if network.packed is None else self.run.packed
            checkpoint.save(self.run.claim(path), network, metrics)

    def loader(self, network: Network, split: str, device: torch.device) -> Batches:
        """Batches of a split as the network needs them."""
        return self.parts.data.loader(split, network.spec, device, self.seed, network.classes)
