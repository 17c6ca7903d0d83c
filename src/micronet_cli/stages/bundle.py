"""``export.bundle=true``: what was exported, as a directory that is ready to publish."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from micronet_cli import checkpoint
from micronet_cli.artifact import bundle, plain_weights
from micronet_cli.config import build
from micronet_cli.models.model import Model, untrained
from micronet_cli.network import Network
from micronet_cli.runs.directory import write_bytes
from micronet_cli.stages.job import Job
from micronet_cli.strict_json import json_text

log = logging.getLogger(__name__)
NAME = "bundle"


def write_bundle(job: Job, network: Network, report: Mapping[str, Any]) -> dict[str, int]:
    """Write the directory beside the files that were exported; name -> bytes.

    Args:
        job: the run.
        network: what was exported.
        report: of the export, with its accuracies.
    """
    directory = job.run.claim(NAME)
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    exported = [job.run.packed.name, "model.onnx", "model.int8.onnx", plain_weights.NAME]
    for name in exported:
        for file in (job.run.directory / name, job.run.directory / f"{name}.data"):
            if file.is_file():
                shutil.copyfile(file, directory / file.name)
    # The paths of the publisher's data tell others nothing.
    checkpoint.save(directory / bundle.CHECKPOINT, replace(network, data={}), network.metrics)
    _write(directory, bundle.LABELS, "".join(f"{name}\n" for name in network.classes))
    if (directory / "model.onnx").is_file():
        _write(directory, bundle.RUNNER, bundle.RUNNER_TEXT)
    if "name" in network.config:
        config = untrained(network.config)
        architecture = build(config, "model", Model).build(len(network.classes))
        _write(directory, "config.json", json_text(bundle.timm_config(network, architecture), indent=1))
    sizes = {file.name: file.stat().st_size for file in sorted(directory.iterdir())}
    card = bundle.model_card(network, job.parts.export.licence, sizes, _accuracies(report), _command(job))
    _write(directory, bundle.CARD, card)
    log.info("%s: %d files; read it back with init_from=local-dir:%s", directory, len(sizes) + 1, directory)
    return sizes


def _write(directory: Path, name: str, text: str) -> None:
    write_bytes(directory / name, text.encode())


def _accuracies(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each file and engine that was evaluated."""
    rows = []
    for file, by_engine in report.get("engines", {}).items():
        for engine, figures in by_engine.items():
            if "accuracy" in figures:
                rows.append({"file": file, "engine": engine} | figures["accuracy"])
    return rows


def _command(job: Job) -> str:
    """The command that wrote the directory; of paths the last part, since the rest is the publisher's."""
    given = ["micronet", "stage=export", "export.bundle=true"]
    if job.init_from:
        given.append(f"init_from={Path(job.init_from).name}")
    if job.parts.export.int8:
        given.append("export.int8=true")
    return " ".join(given)
