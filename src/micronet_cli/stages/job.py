"""One run of a stage: inherit, check, seed, run, write metrics.json."""

import errno
import importlib
import logging
import random
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from micronet_cli import checkpoint, distributed
from micronet_cli.config import ALLOWED_TARGETS, build, check_config, to_plain
from micronet_cli.data.loader import Loader
from micronet_cli.errors import Interrupted, UserError
from micronet_cli.paths import CONF
from micronet_cli.runs import Run, own_paths

log = logging.getLogger(__name__)

SUMMARY = {
    "top1": "top-1 {:.2f} %",
    "images": "{} images",
    "weight_sparsity": "sparsity {:.3f}",
    "micronet_score": "score {:.5f}",
}
FILES = ("init_from", "model.weights", "distill.teacher.weights")
# What saved state and kept results belong to; files among it may have moved.
IDENTITY = ("stage.name", "model", "prune", "quantize", "distill", "optim.name")
DEFAULT_MODEL = {"_target_": "micronet_cli.models.model.Model", "name": "resnet20"}


@dataclass(frozen=True)
class Step:
    """A step of ``stage=pipeline``.

    Attributes:
        groups: the compression groups that it keeps; without any it is the dense network's.
        settings: what it fills in where the pipeline leaves null.
    """

    groups: list[Literal["prune", "quantize", "distill"]] = field(default_factory=list)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """The node ``stage``.

    Attributes:
        name: what metrics.json and the default directory call it.
        module: dotted path of a module with ``run(job)``.
        steps: of a pipeline; null leaves one out.
        multiple: of ``stage=shrink``, the channels that stay are a multiple of.
    """

    name: str
    module: str
    steps: Mapping[str, Step | None] = field(default_factory=dict)
    multiple: int = 1

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise ValueError(f"multiple={self.multiple}: a whole number from 1 up is wanted")


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

    def network(self, with_data: bool = True) -> checkpoint.Network:
        """The network of ``init_from``; without it the model group's.

        That one has the data's classes, and without data as many as timm says.
        """
        data = to_plain(self.config.data)
        if self.config.init_from:
            network = checkpoint.load(self.config.init_from, config=to_plain(self.config.model))
            self._check_classes(network.classes)
            network.data = data
            network.spec = checkpoint.InputSpec.of(network.model, data.get("input_size") or network.spec.size[-1])
            return network
        classes = self.parts["data"].classes if with_data else []
        if with_data:
            self._check_classes(classes)
        model = self.parts["model"].build(len(classes))
        spec = checkpoint.InputSpec.of(model, data.get("input_size"))
        return checkpoint.Network(model, to_plain(self.config.model), classes, spec, data=data)

    def _check_classes(self, classes: list[str]) -> None:
        if (wanted := self.parts["model"].num_classes) not in (None, len(classes)):
            raise UserError(f"model.num_classes={wanted}: there are {len(classes)} classes; leave it null")

    def save(self, network: checkpoint.Network, metrics: dict[str, Any]) -> None:
        """Write the network that is reported."""
        if self.run.writes:
            checkpoint.save(self.run.best if network.packed is None else self.run.packed, network, metrics)

    def loader(self, network: checkpoint.Network, split: str, device: torch.device) -> Loader:
        """Batches of a split as the network wants them."""
        return self.parts["data"].loader(split, network.spec, device, self.config.seed, network.classes)


def execute(config: DictConfig, directory: Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """Run ``config``'s stage in ``directory``, in as many processes as it asks for; what metrics.json holds.

    Raises:
        UserError: a mistake in the config (nothing of an earlier run was touched), a file or the data, or a process
            that died.
        Interrupted: SIGINT or SIGTERM.
    """
    stage = stage_module(config)
    config = inherited(config)
    parts = getattr(stage, "check", check_config)(config)
    alone = distributed.started_by_launcher() or getattr(stage, "ONE_PROCESS", False)
    if config.trainer.devices > 1 and not alone:
        # The processes check for themselves again; here a mistake is answered before any is started.
        return distributed.launch(
            config.trainer.devices,
            _work,
            OmegaConf.to_container(config),
            directory,
            overrides,
            on_failure=_go_on(directory),
        )
    with distributed.process_group():
        return _run_stage(stage, config, parts, distributed.from_rank_zero(directory), overrides or [])


def execute_missing(config: DictConfig, directory: Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """As ``execute``; with ``resume`` a completed run of the same config stays, and one of another config is set aside.

    For the jobs of a sweep, whose numbers may mean something else the second time.

    Raises:
        UserError, Interrupted: as ``execute``.
    """
    config = inherited(config)
    if config.resume:
        recorded = directory / "config.yaml"
        config.resume = recorded.is_file() and _settings(OmegaConf.load(recorded)) == _settings(config)
        if config.resume and (metrics := Run(directory, resume=True).metrics()).get("status") == "completed":
            log.info("already there: %s", summary(metrics, directory))
            return metrics
    return execute(config, directory, overrides)


def check_directory(config: DictConfig, directory: Path) -> None:
    """Before anything in ``directory`` is touched.

    Raises:
        UserError: the run reads what it would set aside, or resumes a run of another kind.
    """
    recorded = directory / "config.yaml"
    if config.resume and recorded.is_file():
        then = OmegaConf.load(recorded)
        for key in IDENTITY:
            if _identity(then, key) != _identity(config, key):
                raise UserError(
                    f"resume=true: the run in {str(directory)!r} has another {key}; use its own config, or leave "
                    "resume out to start afresh"
                )
    if not config.resume:
        aside = [path.resolve() for path in (*own_paths(directory), directory / "previous")]
        for key in FILES:
            given = OmegaConf.select(config, key)
            path = Path(given or "").expanduser().resolve()
            if given and (path == directory.resolve() or any(path.is_relative_to(own) for own in aside)):
                raise UserError(f"{key}={given!r}: lies in this run's own directory; give another hydra.run.dir")


def _identity(config: Any, key: str) -> Any:
    node = to_plain(OmegaConf.select(config, key))
    nodes = [node, node.get("teacher")] if isinstance(node, dict) else []
    for part in filter(None, nodes):
        part.pop("weights", None)
    return node


def _settings(config: Any) -> dict[str, Any]:
    """What a run's results depend on."""
    return {key: value for key, value in to_plain(config).items() if key not in ("resume", "debug")}


def _run_stage(
    stage: ModuleType, config: DictConfig, parts: Any, directory: Path, overrides: list[str]
) -> dict[str, Any]:
    started = time.perf_counter()
    check_directory(config, directory)
    run = Run(directory, config.resume, writes=distributed.rank() == 0)
    distributed.wait_for_all()  # nobody reads what rank 0 is still moving
    run.write_text("config.yaml", OmegaConf.to_yaml(config, resolve=True))
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)
    torch.manual_seed(config.seed)
    metrics: dict[str, Any] = {"stage": config.stage.name, "status": "failed"}
    try:
        if (logger := parts.get("logger")) and run.writes:
            run.tracker = logger.open(directory, to_plain(config))
        metrics |= stage.run(Job(config, parts, run)) | {"status": "completed"}
    except (Interrupted, KeyboardInterrupt) as error:
        metrics["status"] = "interrupted"
        reason = str(error).partition(";")[0] or "interrupted"
        raise Interrupted(f"{reason}; {_go_on(directory)}") from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(f"{run.directory}: the disk is full; the last good checkpoint is {run.last}") from None
    finally:
        if run.tracker is not None:
            run.tracker.close()
        metrics |= {
            "wall_seconds": time.perf_counter() - started,
            "seed": config.seed,
            "overrides": overrides,
            "versions": checkpoint.versions(),
        }
        # On a full disk the reason above matters more than this file.
        with suppress(OSError) if metrics["status"] != "completed" else nullcontext():
            run.write_json("metrics.json", metrics)
    distributed.wait_for_all()  # nobody goes on to read what rank 0 is still writing
    log.info("%s", summary(metrics, run.directory))
    return metrics


def _go_on(directory: Path) -> str:
    return f"go on with the same command, resume=true and hydra.run.dir={directory}"


def _work(config: dict[str, Any], directory: Path, overrides: list[str] | None) -> dict[str, Any]:
    """One process of several on this machine: like the command line, without Hydra."""
    if distributed.local_rank() == 0:
        handlers: list[logging.Handler] = [
            logging.StreamHandler(sys.stdout),
            logging.FileHandler(directory / "micronet.log"),
        ]
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)
    try:
        return execute(DictConfig(config), directory, overrides)
    except (UserError, Interrupted) as error:
        if distributed.local_rank() == 0:  # all of them make the same mistake
            print(f"micronet: {error}", file=sys.stderr)
        raise SystemExit(130 if isinstance(error, Interrupted) else 2) from None


def summary(metrics: dict[str, Any], directory: Path) -> str:
    """What a run came to, in a line."""
    shown = [pattern.format(metrics[key]) for key, pattern in SUMMARY.items() if metrics.get(key) is not None]
    seconds = f"{metrics['wall_seconds']:.0f} s"
    return f"{metrics['stage']}: {', '.join([*shown, seconds])}; run: {directory}"


def inherited(config: DictConfig) -> DictConfig:
    """A copy in which ``model=auto`` and ``data=auto`` are what ``init_from`` was trained with, or the defaults.

    Keys given beside ``auto`` refine what is inherited.

    Raises:
        UserError: ``init_from`` is no checkpoint, or the model has weights of its own as well.
    """
    config = DictConfig(OmegaConf.to_container(config, resolve=True))
    OmegaConf.set_struct(config, False)
    defaults = {"model": DEFAULT_MODEL, "data": OmegaConf.load(CONF / "data" / "digits.yaml")}
    if config.init_from:
        if not isinstance(config.init_from, str):
            example = "" if OmegaConf.is_config(config.init_from) else f", as ./{config.init_from}"
            raise UserError(f"init_from={config.init_from}: a path is wanted{example}")
        header = checkpoint.read_header(checkpoint.resolve(config.init_from))
        defaults = {key: header[key] for key in defaults}
    for group, default in defaults.items():
        if "_target_" not in config[group]:
            config[group] = OmegaConf.merge(default, config[group])
    for key in ("weights", "pretrained"):
        if config.init_from and config.model.get(key):
            raise UserError(f"model.{key}={config.model[key]}: init_from brings its weights; take one of them")
    return config


def stage_module(config: DictConfig) -> ModuleType:
    """The module of ``config``'s stage.

    Raises:
        UserError: there is none, it is outside the allowed packages, or a key below ``stage`` is wrong.
    """
    module = build(config.stage, "stage", Stage).module
    if not module.startswith(ALLOWED_TARGETS):
        raise UserError(f"stage.module={module!r} is not allowed; it has to begin with {' or '.join(ALLOWED_TARGETS)}")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name != module:
            raise
        raise UserError(f"stage.module={module!r}: no such stage") from None
