"""The ``logger`` config group: history lines as curves elsewhere. Libraries are imported when a run opens one."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Protocol

from micronet_cli.errors import UserError


class Tracker(Protocol):
    """Where a run's numbers go."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers at an optimiser step."""
        ...

    def close(self) -> None:
        """The run ended."""
        ...


class Logger(Protocol):
    """The ``logger`` config group's object.

    Attributes:
        writes: names that it writes into the run's directory, and that belong to that one run.
    """

    writes: ClassVar[tuple[str, ...]]

    def open(self, directory: Path, config: Mapping[str, Any]) -> Tracker:
        """Begin to log the run in ``directory``.

        Raises:
            UserError: the library is not installed.
        """
        ...


@dataclass(frozen=True)
class TensorBoard:
    """Event files in ``<run>/tensorboard``."""

    writes: ClassVar[tuple[str, ...]] = ("tensorboard",)

    def open(self, directory: Path, config: Mapping[str, Any]) -> Tracker:
        """Begin.

        Raises:
            UserError: tensorboard is not installed.
        """
        _require("tensorboard", option="tensorboard", package="'micronet-cli[log]'")
        tensorboard = importlib.import_module("torch.utils.tensorboard")
        events = directory / "tensorboard"
        writer = tensorboard.SummaryWriter(str(events))
        return _TensorBoardTracker(writer)


class _TensorBoardTracker:
    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


@dataclass(frozen=True)
class WeightsAndBiases:
    """Weights & Biases.

    Attributes:
        project: its name there.
        mode: ``offline`` writes below the run's directory, for ``wandb sync``.
    """

    writes: ClassVar[tuple[str, ...]] = ()
    project: str = "micronet"
    mode: str = "offline"

    def open(self, directory: Path, config: Mapping[str, Any]) -> Tracker:
        """Begin.

        Raises:
            UserError: wandb is not installed.
        """
        wandb = _require("wandb", option="wandb", package="wandb")
        run = wandb.init(
            project=self.project,
            mode=self.mode,
            dir=str(directory),
            config=dict(config),
        )
        return _WandbTracker(run)


class _WandbTracker:
    def __init__(self, run: Any) -> None:
        self.run = run

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


@dataclass(frozen=True)
class MLflow:
    """MLflow.

    Attributes:
        tracking_uri: a server, or a database as ``sqlite:///mlflow.db``.
        experiment: its name there.
    """

    writes: ClassVar[tuple[str, ...]] = ()
    tracking_uri: str = "sqlite:///mlflow.db"
    experiment: str = "micronet"

    def open(self, directory: Path, config: Mapping[str, Any]) -> Tracker:
        """Begin.

        Raises:
            UserError: mlflow is not installed.
        """
        mlflow = _require("mlflow", option="mlflow", package="mlflow")
        mlflow.set_tracking_uri(self.tracking_uri)
        mlflow.set_experiment(self.experiment)
        mlflow.start_run(run_name=str(directory))
        return _MlflowTracker(mlflow)


class _MlflowTracker:
    def __init__(self, mlflow: Any) -> None:
        self.mlflow = mlflow

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self.mlflow.end_run()


def _require(module: str, option: str, package: str) -> ModuleType:
    """The imported module, or a way to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f"logger={option}: {module} is not installed; pip install {package}") from None
