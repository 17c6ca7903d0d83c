"""What was chosen on one split is reported on another: an evaluation of the kept network, as a run of its own."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from micronet_cli.config import to_plain
from micronet_cli.models.model import untrained
from micronet_cli.stages.execute import execute_missing
from micronet_cli.stages.pipeline_steps import named_stage

COMPRESSION = ("prune", "quantize", "ptq", "distill")


def evaluate_chosen(chosen: Path, split: str, directory: Path) -> dict[str, Any]:
    """The metrics of the network that the run ``chosen`` kept, on ``split``; one that is there already stays.

    Args:
        chosen: a run's directory.
        split: ``train``, ``val`` or ``test``.
        directory: where the evaluation's run goes.

    Raises:
        UserError: the data have no such split.
    """
    config = evaluation_config(chosen, split)
    config.resume = True
    return execute_missing(config, directory)


def evaluation_config(chosen: Path, split: str) -> DictConfig:
    """The config of ``chosen``'s run, as an evaluation of what it kept."""
    config = OmegaConf.load(chosen / "config.yaml")
    assert isinstance(config, DictConfig)
    config.stage = named_stage("eval")
    config.name = "eval"
    config.init_from = str(chosen)
    # The kept network brings its weights and its compression.
    config.model = untrained(to_plain(config.model))
    for group in COMPRESSION:
        config[group] = None
    config.eval.split = split
    return config
