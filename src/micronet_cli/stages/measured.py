"""What ``stage=latency`` measures: the network of ``init_from`` or ``model``, live and as files, and the dense one."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from micronet_cli.artifact.engines.engine import Engine
from micronet_cli.config import build
from micronet_cli.errors import UserError
from micronet_cli.latency.slower import Nature, nature
from micronet_cli.latency.subjects import COMPRESSED, DENSE, Subject, onnx_shape, subjects, write_int8, write_onnx
from micronet_cli.models.model import InputSpec, Model, untrained
from micronet_cli.network import Network
from micronet_cli.stages.job import Job
from micronet_cli.training.batch_norm import reestimate_batch_norm

log = logging.getLogger(__name__)
ONNX = ".onnx"
EXPORTED = ("model*.onnx", "model*.xml")  # what stage=export wrote for engines
IMAGES = 8  # for ranges and running statistics: what they hold does not decide how fast a network is


@dataclass(frozen=True)
class Measured:
    """What is measured.

    Attributes:
        subjects: the network and the dense one in every engine.
        size: ``(C, H, W)`` of an image.
        nature: what is known of the network, to say why it is no faster.
    """

    subjects: list[Subject]
    size: Sequence[int]
    nature: Nature


def measured(job: Job, engines: Sequence[Engine], directory: Path) -> Measured:
    """The subjects; their files go to ``directory``.

    Raises:
        UserError: there is no such network, or no engine that can open it.
    """
    start = job.init_from
    if start is not None and start.endswith(ONNX):
        found = _of_file(job, Path(start).expanduser(), engines, directory)
    else:
        found = _of_network(job, engines, directory)
    if not found.subjects:
        names = ", ".join(engine.name for engine in engines)
        raise UserError(f"latency.engines={names}: none of them can open this network; latency.engines=auto takes all")
    return found


def _of_network(job: Job, engines: Sequence[Engine], directory: Path) -> Measured:
    network = job.network(with_data=False)
    is_dense = not network.compressors and network.packed is None
    dense = network if is_dense else _dense(network.config, len(network.classes), network.spec)
    found = _all_of(job, DENSE, dense, engines, directory, [])
    removes_channels = any("removal" in config.get("_target_", "").lower() for config in network.compressors)
    known = nature(network.model, network.packed is not None, removes_channels)
    if not is_dense:
        found += _all_of(job, COMPRESSED, network, engines, directory, _exported(job.init_from))
    if job.parts.export.int8 and network.packed is None:
        found += _int8(job, network, engines, directory)
    return Measured(found, network.spec.size, known)


def _of_file(job: Job, path: Path, engines: Sequence[Engine], directory: Path) -> Measured:
    """An ONNX file, and the dense network where ``model`` names one.

    Raises:
        UserError: no such file, or its input has no size.
    """
    if not path.is_file():
        raise UserError(f"init_from={job.init_from!r}: no such file")
    try:
        size, classes = onnx_shape(path)
    except ValueError as error:
        raise UserError(f"init_from={job.init_from!r}: {error}") from None
    found = subjects(COMPRESSED, None, [path], engines)
    config = job.group_config("model")
    if config:
        spec = InputSpec(size, mean=(0.5,) * size[0], std=(0.5,) * size[0])
        dense = _dense(config, classes, spec)
        found = _all_of(job, DENSE, dense, engines, directory, []) + found
    else:
        log.info("no model=<name>, so that there is no dense network to measure beside it")
    return Measured(found, size, Nature())


def _dense(config: dict[str, Any], classes: int, spec: InputSpec) -> Network:
    """The architecture with fresh weights, all its channels, and activations of the spread that training gives them."""
    config = untrained(config)
    architecture: nn.Module = build(config, "model", Model).build(classes or None)
    network = Network(architecture.eval(), config, [], spec)
    reestimate_batch_norm(network.model, [torch.randn(IMAGES, *spec.size)])
    return network


def _all_of(
    job: Job, kind: str, network: Network, engines: Sequence[Engine], directory: Path, files: list[Path]
) -> list[Subject]:
    """A network live and as its files; where it has none they are written."""
    read = {suffix for engine in engines for suffix in engine.suffixes}
    if ONNX in read and not files and network.packed is None:
        name = "dense" if kind == DENSE else "model"
        files = _written(lambda: write_onnx(network, directory, name))
    return subjects(kind, network.model, files, engines)


def _int8(job: Job, network: Network, engines: Sequence[Engine], directory: Path) -> list[Subject]:
    generator = torch.Generator().manual_seed(job.seed)
    images = torch.randn(IMAGES, *network.spec.size, generator=generator)
    files = _written(lambda: write_int8(network, directory, "model", images))
    return subjects(COMPRESSED, None, files, engines)


def _written(write: Callable[[], Path]) -> list[Path]:
    """The file, or none with a warning where the network cannot be written as one.

    Raises:
        UserError: the extra is not installed.
    """
    try:
        return [write()]
    except ImportError as error:
        raise UserError(
            f"latency.engines: {error.name} is not installed, which writes ONNX files; install the extra `export`, or "
            "give latency.engines=pytorch"
        ) from None
    except UserError as error:
        log.warning("no file for other engines than PyTorch: %s", error)
        return []


def _exported(init_from: str | None) -> list[Path]:
    """The files that an export wrote into the run directory ``init_from``."""
    directory = Path(init_from or "").expanduser()
    if init_from is None or not directory.is_dir():
        return []
    return sorted(path for pattern in EXPORTED for path in directory.glob(pattern))
