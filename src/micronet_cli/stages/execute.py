"""One run of a stage: inherit, check, seed, run, write metrics.json."""

import errno
import logging
import random
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from micronet_cli import distributed
from micronet_cli.allocator import keep_freed_memory
from micronet_cli.config import check_config, to_plain
from micronet_cli.console import go_on_unread
from micronet_cli.dotted_path import make_working_directory_importable
from micronet_cli.errors import Interrupted, UserError
from micronet_cli.housekeeping import collect_from_here
from micronet_cli.network import versions
from micronet_cli.paths import CONFIG_DIRECTORIES
from micronet_cli.runs.directory import Run
from micronet_cli.stages.inherit import inherited
from micronet_cli.stages.job import Job
from micronet_cli.stages.kinds import check_kinds
from micronet_cli.stages.node import stage_module, stage_node
from micronet_cli.stages.used_directory import check_directory, settings
from micronet_cli.tables import decimal

log = logging.getLogger(__name__)

REFUSED = "refused"  # a mistake was found before the work began; never in a file
SUMMARY: dict[str, Callable[[Any], str]] = {
    "top1": "top-1 {:.2f} %".format,
    "images": "{} images".format,
    "split": "on {}".format,
    "weight_sparsity": "sparsity {:.3f}".format,
    "micronet_score": lambda score: f"score {decimal(score, 5)}",
}


def execute(config: DictConfig, directory: Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """Run ``config``'s stage in ``directory``, in as many processes as it asks for; what metrics.json holds.

    Raises:
        UserError: a mistake in the config (nothing of an earlier run was touched), a file or the data, or a process
            that died.
        Interrupted: SIGINT or SIGTERM.
    """
    stage = stage_module(config)
    config = inherited(config)
    checked = getattr(stage, "check", check_config)(config)
    check_kinds(checked, config)
    alone = distributed.started_by_launcher() or getattr(stage, "ONE_PROCESS", False)
    if config.trainer.devices > 1 and not alone:
        # The processes check for themselves again; here a mistake is answered before any is started.
        return distributed.launch(
            config.trainer.devices,
            _work,
            OmegaConf.to_container(config),
            directory,
            overrides,
            list(CONFIG_DIRECTORIES),
            on_failure=_go_on(directory),
        )
    with distributed.process_group():
        return _run_stage(stage, config, checked, distributed.from_rank_zero(directory), overrides or [])


def execute_missing(config: DictConfig, directory: Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """As ``execute``; with ``resume`` a completed run of the same config stays, and one of another config is set aside.

    For the jobs of a sweep, whose numbers may mean something else the second time.

    Raises:
        UserError, Interrupted: as ``execute``.
    """
    config = inherited(config)
    if config.resume:
        recorded = directory / "config.yaml"
        config.resume = recorded.is_file() and settings(OmegaConf.load(recorded)) == settings(config)
        if config.resume and (metrics := Run(directory, resume=True).metrics()).get("status") == "completed":
            log.info("already there: %s", summary(metrics, directory))
            return metrics
    return execute(config, directory, overrides)


def _run_stage(
    stage: ModuleType, config: DictConfig, checked: Mapping[str, Any], directory: Path, overrides: list[str]
) -> dict[str, Any]:
    started = time.perf_counter()
    keep_freed_memory()
    node = stage_node(config, stage)
    check_directory(config, directory)
    run = Run(directory, config.resume, writes=distributed.rank() == 0)
    distributed.wait_for_all()  # nobody reads what rank 0 is still moving
    run.write_text("config.yaml", OmegaConf.to_yaml(config, resolve=True))
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)
    torch.manual_seed(config.seed)
    metrics: dict[str, Any] = {"stage": config.stage.name, "status": "failed"}
    logger = checked.get("logger")
    trackers_files = logger.writes if logger else ()
    try:
        if logger and run.writes:
            _open_tracker(run, logger, config)
        collect_from_here()
        metrics |= stage.run(Job(config, checked, node, run)) | {"status": "completed"}
    except UserError as error:
        metrics["reason"] = "; ".join(str(error).splitlines())
        if run.is_prepared_only(trackers_files):
            metrics["status"] = REFUSED
        raise
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
            "versions": versions(),
        }
        if metrics["status"] == REFUSED:
            run.withdraw()
        else:
            _write_metrics(run, metrics)
    distributed.wait_for_all()  # nobody goes on to read what rank 0 is still writing
    log.info("%s", summary(metrics, run.directory))
    return metrics


def _open_tracker(run: Run, logger: Any, config: DictConfig) -> None:
    for name in logger.writes:
        run.claim(name)
    run.tracker = logger.open(run.directory, to_plain(config))


def _write_metrics(run: Run, metrics: dict[str, Any]) -> None:
    # On a full disk the reason why the run ended matters more than this file.
    may_fail = metrics["status"] != "completed"
    with suppress(OSError) if may_fail else nullcontext():
        run.write_json("metrics.json", metrics)


def _go_on(directory: Path) -> str:
    return f"go on with the same command, resume=true and hydra.run.dir={directory}"


def _work(
    config: dict[str, Any], directory: Path, overrides: list[str] | None, config_directories: list[Path]
) -> dict[str, Any]:
    """One process of several on this machine: like the command line, without Hydra."""
    CONFIG_DIRECTORIES[:] = config_directories
    make_working_directory_importable()
    go_on_unread()
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
    shown = []
    for key, in_words in SUMMARY.items():
        figure = metrics.get(key)
        if figure is not None:
            shown.append(in_words(figure))
    shown.append(f"{metrics['wall_seconds']:.0f} s")
    return f"{metrics['stage']}: {', '.join(shown)}; run: {directory}"
