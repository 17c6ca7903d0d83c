"""``stage=pipeline``: dense -> prune -> quantise with distillation, each step a run in a directory of its own."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from micronet_cli.config import check_config, to_plain
from micronet_cli.errors import UserError
from micronet_cli.paths import CONF
from micronet_cli.runs.directory import Run
from micronet_cli.stages.compress import COMPRESSORS
from micronet_cli.stages.execute import execute
from micronet_cli.stages.job import Job
from micronet_cli.tables import text_table

log = logging.getLogger(__name__)
GROUPS = ("prune", "quantize", "distill")
NAMED_BY_STEP = ("train", "prune", "qat")  # before steps had a key `stage`, their names were the stages'
COLUMNS = {
    "top-1 %": ("top1", "{:.2f}"),
    "sparsity": ("weight_sparsity", "{:.3f}"),
    "weight bits": ("weight_bits_mean", "{:.2f}"),
    "input bits": ("activation_bits_mean", "{:.2f}"),
    "MB": ("storage_bytes", "{:.4f}"),
    "math Mops": ("math_ops", "{:.2f}"),
    "score": ("micronet_score", "{:.5f}"),
}
SCALE = {"storage_bytes": 1e-6, "math_ops": 1e-6}


def steps(config: DictConfig, directory: Path) -> dict[str, DictConfig]:
    """Step name -> its whole config.

    A step keeps the compression groups it names and drops the others; its own settings fill what the pipeline leaves
    null. A network that brings its weights is evaluated where another one is trained. A step that is null is left out,
    and so is one whose compressors are off.
    """
    found: dict[str, DictConfig] = {}
    trained = config.init_from or config.model.get("weights") or config.model.get("pretrained")
    previous = config.init_from
    given = {name: {"groups": [], **step} for name, step in to_plain(config.stage.steps).items() if step is not None}
    kept = {name: step for name, step in given.items() if _compresses(step, config)}
    for number, (name, step) in enumerate(kept.items(), 1):
        dense = not step["groups"]
        own = OmegaConf.create(to_plain(config))
        own.stage = packaged_stage("eval") if dense and trained else packaged_stage(step.get("stage"), name)
        own.name = name
        own.init_from = previous
        if previous:
            own.model.update({"weights": None, "pretrained": False})  # the first step has taken them
        for group in set(GROUPS) - set(step["groups"]):
            own[group] = None
        _fill_null(own, step.get("settings") or {})
        if own.distill and not own.distill.teacher.get("model") and not own.distill.teacher.get("weights"):
            own.distill.teacher.weights = str(step_directory(directory, 1, next(iter(found)))) if found else previous
        found[name] = own
        previous = str(step_directory(directory, number, name))
    return found


def packaged_stage(stage: str | None, step: str = "") -> dict[str, Any]:
    """The config node ``stage`` of a packaged stage; without one, of ``step``'s name, which train's module runs."""
    name = stage or step
    file = CONF / "stage" / f"{name}.yaml"
    if stage is None and name not in NAMED_BY_STEP:
        file = CONF / "stage" / "train.yaml"
    return to_plain(OmegaConf.load(file).stage) | {"name": name}


def _compresses(step: Mapping[str, Any], config: DictConfig) -> bool:
    """Whether one of its compressors is on; true of a step that has none, as the dense one."""
    named = [group for group in COMPRESSORS if group in step["groups"]]
    return not named or any(config[group] for group in named)


def step_directory(directory: Path, number: int, name: str) -> Path:
    """Where a step's run lies."""
    return directory / f"{number}_{name}"


def check(config: DictConfig) -> dict[str, Any]:
    """Check every step's config; all mistakes together.

    Raises:
        UserError: a line a mistake.
    """
    problems: dict[str, None] = {}
    for name, own in steps(config, Path()).items():
        settings = config.stage.steps[name].get("settings") or OmegaConf.create()
        try:
            check_config(own)
        except UserError as error:
            problems |= dict.fromkeys(_placed(line, name, settings, config) for line in str(error).splitlines())
    if problems:
        raise UserError("\n".join(problems))
    return {}


def _placed(problem: str, step: str, settings: DictConfig, config: DictConfig) -> str:
    """With the whole path where the mistake is in a step's own settings."""
    path = re.sub(r"[:= ].*", "", problem)
    own = OmegaConf.select(settings, path) is not None and OmegaConf.select(config, path) is None
    return f"stage.steps.{step}.settings.{problem}" if own else problem


def run(job: Job) -> dict[str, Any]:
    """Run the steps that are not done yet; the final network's metrics."""
    directory = job.run.directory
    rows, metrics = [], {}
    for number, (name, own) in enumerate(steps(job.config, directory).items(), 1):
        where = job.run.claim(step_directory(directory, number, name))
        done = Run(where, resume=True).metrics() if job.run.resume else {}
        if done.get("status") == "completed":
            metrics = done
        else:
            log.info("step %d: %s", number, name)
            metrics = execute(own, where)
        label = {"train": "dense", "prune": "pruned", "qat": "quantised"}.get(name, name)
        rows.append({"network": label} | {title: _shown(metrics, *column) for title, column in COLUMNS.items()})
        for file in (Run(where, resume=True).best, Run(where, resume=True).last):
            if job.run.writes and file.is_file():
                job.run.write_bytes(f"checkpoints/{file.name}", file.read_bytes())
        if (layers := where / "layers.csv").is_file():
            job.run.write_text(layers.name, layers.read_text())
    job.run.write_csv("summary.csv", rows)
    log.info("\n%s\n\nrun: %s", text_table(rows), directory)
    return metrics | {"stage": "pipeline"}


def _shown(metrics: dict[str, Any], key: str, pattern: str) -> str:
    value = metrics.get(key)
    return "-" if value is None else pattern.format(value * SCALE.get(key, 1))


def _fill_null(node: Any, defaults: dict[str, Any]) -> None:
    for key, value in defaults.items():
        if isinstance(value, dict) and isinstance(node.get(key), DictConfig):
            _fill_null(node[key], value)
        elif node.get(key) is None:
            node[key] = value
