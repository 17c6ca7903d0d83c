"""``stage=pipeline``: dense -> prune -> quantise with distillation, each step a run in a directory of its own."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from micronet_cli.config import check_config, to_plain
from micronet_cli.errors import UserError
from micronet_cli.models.classifier import OtherClasses
from micronet_cli.models.model import untrained
from micronet_cli.paths import CONF
from micronet_cli.runs.directory import Run
from micronet_cli.stages.compress import COMPRESSORS
from micronet_cli.stages.execute import execute
from micronet_cli.stages.inherit import trusted
from micronet_cli.stages.job import Job
from micronet_cli.tables import decimal, text_table

log = logging.getLogger(__name__)
GROUPS = ("prune", "quantize", "distill")
LABELS = {"train": "dense", "prune": "pruned", "qat": "quantised"}
NAMED_BY_STEP = ("train", "prune", "qat")  # before steps had a key `stage`, their names were the stages'


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


def steps(config: DictConfig, directory: Path) -> dict[str, DictConfig]:
    """Step name -> its whole config.

    A step keeps the compression groups it names and drops the others; its own settings fill what the pipeline leaves
    null. A network that brings its weights is evaluated where another one is trained, unless its classifier is of other
    data (that is found out where the step begins). A step that is null is left out, and so is one whose compressors are
    off.
    """
    found: dict[str, DictConfig] = {}
    previous = config.init_from
    dense = ""
    trust: tuple[str, ...] = ()
    for number, (name, step) in enumerate(_kept_steps(config).items(), 1):
        own = OmegaConf.create(to_plain(config))
        own.stage = _stage_of(name, step, config)
        own.name = name
        own.init_from = previous
        if previous:
            # The first step has taken them.
            own.model = untrained(to_plain(own.model))
        for group in GROUPS:
            if group not in step["groups"]:
                own[group] = None
        _fill_null(own, step.get("settings") or {})
        # What one step's config names stands in the file that the next begins with.
        trust = tuple(dict.fromkeys([*trust, *trusted(own)]))
        own.trust = list(trust)
        if _needs_teacher(own):
            own.distill.teacher.weights = dense or previous
        found[name] = own
        previous = str(step_directory(directory, number, name))
        dense = dense or previous
    return found


def packaged_stage(stage: str | None, step: str = "") -> dict[str, Any]:
    """The config node ``stage`` of a packaged stage; without one, of ``step``'s name, which train's module runs."""
    name = stage or step
    file = CONF / "stage" / f"{name}.yaml"
    if stage is None and name not in NAMED_BY_STEP:
        file = CONF / "stage" / "train.yaml"
    node = to_plain(OmegaConf.load(file).stage)
    return node | {"name": name}


def _kept_steps(config: DictConfig) -> dict[str, dict[str, Any]]:
    """Name -> settings, of the steps that are run."""
    kept = {}
    for name, step in to_plain(config.stage.steps).items():
        if step is None:
            continue
        step = {"groups": []} | step
        if _compresses(step, config):
            kept[name] = step
    return kept


def _compresses(step: Mapping[str, Any], config: DictConfig) -> bool:
    """Whether one of its compressors is on; true of a step that has none, as the dense one."""
    named = [group for group in COMPRESSORS if group in step["groups"]]
    if not named:
        return True
    return any(config[group] for group in named)


def _stage_of(name: str, step: Mapping[str, Any], config: DictConfig) -> dict[str, Any]:
    """The config node ``stage`` of a step."""
    dense = not step["groups"]
    model = config.model
    trained = config.init_from or model.get("weights") or model.get("pretrained")
    if dense and trained:
        return packaged_stage("eval")
    return packaged_stage(step.get("stage"), name)


def _needs_teacher(own: DictConfig) -> bool:
    """Whether a step distils from a teacher that its settings leave open."""
    if not own.distill:
        return False
    teacher = own.distill.teacher
    given = teacher.get("model") or teacher.get("weights")
    return not given


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
    """Run the steps that are not done yet; the final network's metrics."""
    directory = job.run.directory
    rows = []
    metrics: dict[str, Any] = {}
    for number, (name, own) in enumerate(steps(job.config, directory).items(), 1):
        where = job.run.claim(step_directory(directory, number, name))
        metrics = _done(job, where)
        if not metrics:
            log.info("step %d: %s", number, name)
            if own.stage.name == "eval" and _brings_other_classes(job, own):
                step = job.config.stage.steps[name]
                own.stage = packaged_stage(step.get("stage"), name)
            metrics = execute(own, where)
        row = {"network": LABELS.get(name, name)}
        for column in COLUMNS:
            row[column.title] = column.shown(metrics)
        rows.append(row)
        _take_over(job, where)
    job.run.write_csv("summary.csv", rows)
    log.info("\n%s\n\nrun: %s", text_table(rows), directory)
    return metrics | {"stage": "pipeline"}


def _brings_other_classes(job: Job, own: DictConfig) -> bool:
    """Whether a step would evaluate the classifier of other data: it has to train one of its own."""
    step = replace(job, config=own, checked=check_config(own))
    # The step itself says what it begins with, and what is wrong.
    logging.disable(logging.CRITICAL)
    try:
        step.network()
    except OtherClasses:
        return True
    except UserError:
        return False
    finally:
        logging.disable(logging.NOTSET)
    return False


def _done(job: Job, where: Path) -> dict[str, Any]:
    """The metrics of a step that an earlier attempt completed, else empty."""
    if not job.run.resume:
        return {}
    metrics = Run(where, resume=True).metrics()
    if metrics.get("status") != "completed":
        return {}
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


def _fill_null(node: Any, defaults: Mapping[str, Any]) -> None:
    """Give what the node leaves null its default, deep down too."""
    for key, value in defaults.items():
        given = node.get(key)
        if isinstance(value, dict) and isinstance(given, DictConfig):
            _fill_null(given, value)
        elif given is None:
            node[key] = value
