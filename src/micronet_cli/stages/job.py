"""What a stage gets: its config, the objects built from it, and the run's directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from omegaconf import DictConfig
from torch import nn

from micronet_cli import checkpoint
from micronet_cli.config import to_plain
from micronet_cli.data.protocol import DataSet, missing_members
from micronet_cli.errors import UserError
from micronet_cli.models.classifier import Asker
from micronet_cli.models.model import InputSpec
from micronet_cli.network import Network
from micronet_cli.runs.directory import Run
from micronet_cli.stages.node import Stage

# The config imports what a stage builds; a stage without a search does not pay for its module.
if TYPE_CHECKING:
    from micronet_cli.artifact.settings import Export
    from micronet_cli.compression.compressor import Compressor
    from micronet_cli.compression.quantization.post_training import PostTraining
    from micronet_cli.data.protocol import Batches
    from micronet_cli.explore.budgets import Budget
    from micronet_cli.explore.search import Search
    from micronet_cli.explore.sensitivity import Sensitivity
    from micronet_cli.models.model import Model
    from micronet_cli.runs.loggers import Logger
    from micronet_cli.scoring.rules import Rules
    from micronet_cli.training.distill import SoftTargets
    from micronet_cli.training.evaluate import Evaluation
    from micronet_cli.training.optim import Optim
    from micronet_cli.training.settings import TrainerSettings

NodeT = TypeVar("NodeT", bound=Stage)


@dataclass(frozen=True)
class Parts:
    """The packaged config groups, built; None where a group is ``none``."""

    model: Model
    data: DataSet
    optim: Optim
    trainer: TrainerSettings
    eval: Evaluation
    score: Rules
    export: Export
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

    def group_config(self, group: str) -> dict[str, Any]:
        """The config of a group as plain values; empty where the group is ``none``."""
        return to_plain(self.config[group]) or {}

    def require_splits(self, *splits: str) -> None:
        """Fail before the heavy work.

        Raises:
            UserError: what is missing of the data.
        """
        lacking = missing_members(self.parts.data, DataSet)
        if lacking:
            kind = self.group_config("data")["_target_"]
            raise UserError(f"data._target_={kind}: a data set must have {', '.join(lacking)}; see docs/extending.md")
        if problems := self.parts.data.problems(splits):
            raise UserError("\n".join(problems))

    def network(self, with_data: bool = True, new_classifier: bool = False) -> Network:
        """The network of ``init_from``; without it the model group's.

        That one has the data's classes, and without data as many as timm says.

        Args:
            with_data: the stage reads images.
            new_classifier: it trains, so that a classifier of other classes can be replaced.

        Raises:
            OtherClasses: one would have to be.
        """
        data = self.group_config("data")
        if self.init_from:
            network = checkpoint.load(self.init_from, config=self.group_config("model"))
            self._check_classes(network.classes)
            network.data = data
            self._run_at_its_size(network)
            return network
        classes: list[str] = []
        asker: Asker = "network"
        if with_data:
            classes = self.parts.data.classes
            asker = "data"
            self._check_classes(classes)
        model = self.parts.model.build(len(classes), asker=asker, new_classifier=new_classifier)
        network = Network(model, self.group_config("model"), classes, InputSpec.of(model), data=data)
        self._run_at_its_size(network)
        return network

    def _run_at_its_size(self, network: Network) -> None:
        """Run the network at the size that the data's config asks for.

        Raises:
            UserError: it was built for another one.
        """
        side = network.data.get("input_size")
        own_size = network.spec.size
        network.run_with(InputSpec.of(network.model, side))
        if network.spec.size == own_size or network.packed is not None:
            return
        try:
            run_once(network.model, network.spec)
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"data.input_size={side}: {network.config['name']} does not take it ({reason}); "
                f"vision transformers do with model.args.img_size={side}"
            ) from None

    def _check_classes(self, classes: list[str]) -> None:
        given = self.parts.model.num_classes
        if given not in (None, len(classes)):
            raise UserError(f"model.num_classes={given}: there are {len(classes)} classes; leave it null")

    def save(self, network: Network, metrics: dict[str, Any]) -> None:
        """Write the network that is reported."""
        if self.run.writes:
            path = self.run.best if network.packed is None else self.run.packed
            checkpoint.save(self.run.claim(path), network, metrics)

    def loader(self, network: Network, split: str, device: torch.device) -> Batches:
        """Batches of a split as the network needs them."""
        return self.parts.data.loader(split, network.spec, device, self.seed, network.classes)


def run_once(model: nn.Module, spec: InputSpec) -> None:
    """Run a network on an empty image, in evaluation mode."""
    image = torch.zeros(1, *spec.size)
    with torch.no_grad():
        model.eval()(image)
