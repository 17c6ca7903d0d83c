"""``stage=pipeline``: dense -> prune -> quantise with distillation, each step a run in a directory of its own."""

import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from micronet_cli.config import build, check_config, to_plain
from micronet_cli.errors import UserError
from micronet_cli.explore.budgets import FIGURES
from micronet_cli.models.classifier import OtherClasses
from micronet_cli.runs.directory import Run
from micronet_cli.stages.execute import execute
from micronet_cli.stages.job import Job
from micronet_cli.stages.node import stage_module, stage_node
from micronet_cli.stages.pipeline_steps import Step, stage_of_step, steps
from micronet_cli.stages.reached import Reached
from micronet_cli.stages.used_directory import WAY_OUT, first_difference
from micronet_cli.tables import decimal, text_table

log = logging.getLogger(__name__)
LATENCY_KEY = re.compile("(dense_)?latency_")
LABELS = {"train": "dense", "prune": "pruned", "shrink": "shrunk", "qat": "quantised"}


@dataclass(frozen=True)
class Column:
    """A column of the table that the pipeline prints.

    Attributes:
        title: its head.
        key: the figure in metrics.json.
        decimals: how many are shown at least.
        scale: figure -> what is shown.
    """

    title: str
    key: str
    decimals: int
    scale: float = 1

    def shown(self, metrics: Mapping[str, Any]) -> str:
        """The cell of a step with these metrics."""
        value = metrics.get(self.key)
        if value is None:
            return "-"
        return decimal(value * self.scale, self.decimals)


COLUMNS = (
    Column("top-1 %", "top1", 2),
    Column("sparsity", "weight_sparsity", 3),
    Column("weight bits", "weight_bits_mean", 2),
    Column("input bits", "activation_bits_mean", 2),
    Column("MB", "storage_bytes", 4, scale=1e-6),
    Column("math Mops", "math_ops", 2, scale=1e-6),
    Column("score", "micronet_score", 5),
)


def check(config: DictConfig) -> dict[str, Any]:
    """Check every step's config; all mistakes together.

    Raises:
        UserError: a line a mistake.
    """
    problems: dict[str, None] = {}
    for name, step in steps(config, Path()).items():
        settings = config.stage.steps[name].get("settings") or OmegaConf.create()
        own_check = getattr(stage_module(step.config), "check", check_config)
        try:
            own_check(step.config)
        except UserError as error:
            for line in str(error).splitlines():
                placed = _placed(line, name, settings, config)
                problems[placed] = None
    if problems:
        raise UserError("\n".join(problems))
    return {}


def _placed(problem: str, step: str, settings: DictConfig, config: DictConfig) -> str:
    """With the whole path where the mistake is in a step's own settings."""
    path = re.sub(r"[:= ].*", "", problem)
    in_step = OmegaConf.select(settings, path) is not None
    in_pipeline = OmegaConf.select(config, path) is not None
    if in_step and not in_pipeline:
        return f"stage.steps.{step}.settings.{problem}"
    return problem


def run(job: Job) -> dict[str, Any]:
    """Run the steps that are not done yet; the final network's metrics, and whether it keeps the budget.

    Raises:
        UserError: a step's mistake, before the first one where it can be known then.
    """
    directory = job.run.directory
    found = steps(job.config, directory)
    _foresee(job, found)
    started = time.perf_counter()
    networks: list[dict[str, Any]] = []
    rows = []
    left_out: dict[str, str | None] = {}  # directory of a step that had nothing to do -> what it would have begun from
    for number, (name, step) in enumerate(found.items(), 1):
        own = step.config
        own.init_from = left_out.get(own.init_from, own.init_from)
        if not step.take_rules():
            log.info("step %d of %d, %s: left out, no layer got a rule of its kind", number, len(found), name)
            left_out[str(step.directory)] = own.init_from
            continue
        metrics = _done(job, step)
        if not metrics:
            seconds = time.perf_counter() - started
            log.info("step %d of %d, %s: begins after %.0f s", number, len(found), name, seconds)
            metrics = _execute(job, name, step)
        if step.makes_network:
            networks.append(metrics)
            rows.append({"network": LABELS.get(name, name)} | _cells(metrics))
            _take_over(job, step.directory)
        elif own.stage.name == "latency" and networks:
            networks[-1] = networks[-1] | {key: metrics[key] for key in metrics if LATENCY_KEY.match(key)}
    job.run.write_csv("summary.csv", rows)
    log.info("\n%s\n\nrun: %s", text_table(rows), directory)
    final = networks[-1] if networks else {}
    return final | {"stage": "pipeline"} | _held_against_budget(job, found, networks)


def _foresee(job: Job, found: Mapping[str, Step]) -> None:
    """Let steps say what is known to go wrong in them, whatever the steps before them find; of stages with ``foresee``.

    Raises:
        UserError: something is.
    """
    for step in found.values():
        module = stage_module(step.config)
        if not hasattr(module, "foresee") or _done(job, step):
            continue
        own = OmegaConf.create(to_plain(step.config))
        own.init_from = job.config.init_from
        own.model = job.config.model
        with _silence():
            module.foresee(Job(own, check_config(own), stage_node(own, module), job.run))


def _execute(job: Job, name: str, step: Step) -> dict[str, Any]:
    """Run a step; its metrics."""
    own = step.config
    where = job.run.claim(step.directory)
    if own.stage.name == "eval" and _brings_other_classes(job, own):
        own.stage = stage_of_step(job.config.stage.steps[name].get("stage"), name)
    return execute(own, where)


def _cells(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Title -> cell."""
    return {column.title: column.shown(metrics) for column in COLUMNS}


def _held_against_budget(job: Job, found: Mapping[str, Step], networks: list[dict[str, Any]]) -> dict[str, Any]:
    """Tell what was reached of the budget, where there is one; the metrics that say so."""
    budget = build(job.config.budget, "budget")
    if budget is None or budget.target is None or not networks:
        return {}
    name, asked = budget.target
    if FIGURES[name] not in networks[-1]:
        log.warning("budget.%s=%g: not known to be kept, for no step is stage=latency", name, asked)
        return {}
    reached = Reached(budget.target, dense=networks[0], final=networks[-1])
    directories = [step.directory for step in found.values()]
    log.info("\n%s\n\n%s", reached.table(), reached.files(job.run.directory, directories))
    if not reached.is_kept:
        log.warning("%s", reached.what_helps())
    return reached.metrics()


def _brings_other_classes(job: Job, own: DictConfig) -> bool:
    """Whether a step would evaluate the classifier of other data: it has to train one of its own."""
    step = replace(job, config=own, checked=check_config(own))
    # The step itself says what it begins with, and what is wrong.
    with _silence():
        try:
            step.network()
        except OtherClasses:
            return True
        except UserError:
            return False
    return False


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing is logged in the block."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _done(job: Job, step: Step) -> dict[str, Any]:
    """The metrics of a step that an earlier attempt completed, else empty.

    Raises:
        UserError: it was for another budget.
    """
    if not job.run.resume:
        return {}
    metrics = Run(step.directory, resume=True, writes=False).metrics()
    if metrics.get("status") != "completed":
        return {}
    now = to_plain(step.config.budget)
    recorded = to_plain(OmegaConf.load(step.directory / "config.yaml"))
    then = recorded.get("budget") or now  # version 0.1.0 had no budgets
    key = first_difference(then, now, "budget")
    if key is not None:
        raise UserError(f"resume=true: {str(step.directory)!r} was done with another {key}; {WAY_OUT}")
    return metrics


def _take_over(job: Job, where: Path) -> None:
    """Copy a step's network and layers to the pipeline's own directory: the last step's stay."""
    step = Run(where, resume=True)
    for file in (step.best, step.last):
        if job.run.writes and file.is_file():
            job.run.write_bytes(f"checkpoints/{file.name}", file.read_bytes())
    layers = where / "layers.csv"
    if layers.is_file():
        job.run.write_text(layers.name, layers.read_text())
