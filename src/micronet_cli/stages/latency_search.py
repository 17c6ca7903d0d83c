"""``budget.latency_ms``: how many whole filters go, and whether in 8 bits, found by measuring engines.

Engines are made quicker by fewer channels and by 8-bit products alone. No step of the search trains: how long a network
takes depends on its shape and not on what its weights are.
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from micronet_cli.artifact.engines.engine import Engine
from micronet_cli.artifact.engines.known import installed_engines
from micronet_cli.compression.pruning.dead_channels import find_dead_channels
from micronet_cli.config import build, to_plain
from micronet_cli.errors import UserError
from micronet_cli.explore.budget_rules import match_of
from micronet_cli.latency.measurement import Measurement
from micronet_cli.latency.slower import NOISE
from micronet_cli.latency.subjects import COMPRESSED, Subject, subjects, write_int8, write_onnx
from micronet_cli.layers.copies import copied
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.network import Network
from micronet_cli.paths import CONF
from micronet_cli.stages.job import Job

log = logging.getLogger(__name__)
FLOAT, INT8 = "float", "int8"
PARTS = 16  # shares of filters that are tried are multiples of 1 / PARTS
MOST_SECONDS = 3.0  # of one measurement; the engines take turns in it
IMAGES = 8  # for ranges: what they are does not decide how fast a network is
FILTER = "micronet_cli.functional.granularity.Filter"
Groups = Mapping[str, Mapping[str, Any]]  # name -> config
Milliseconds = Mapping[str, float]  # by kind of numbers


@dataclass(frozen=True)
class Choice:
    """What meets the target.

    Attributes:
        parts: of the filters, in 1 / PARTS.
        numbers: ``float`` or ``int8``.
        milliseconds: that it took.
    """

    parts: int
    numbers: str
    milliseconds: float


def allocate_latency(job: Job, network: Network, target: float) -> tuple[Groups, dict[str, Any]]:
    """The config's prune and quantize groups with whole filters and 8 bits, those that the target needs; figures.

    Raises:
        UserError: the target cannot be reached, or the network is as quick as it is.
    """
    threads_before = torch.get_num_threads()
    try:
        with tempfile.TemporaryDirectory() as directory:
            trials = Trials(job, network, Path(directory))
            choice = trials.search(target)
    finally:
        torch.set_num_threads(threads_before)
    found = {}
    if choice.parts:
        found["prune"] = trials.prune_config(choice.parts)
    if choice.numbers == INT8:
        found["quantize"] = trials.quantize_config()
    log.info("chosen: %.3f of the filters go, %s; %.4g ms", choice.parts / PARTS, choice.numbers, choice.milliseconds)
    return found, {"filter_sparsity": choice.parts / PARTS, "latency_ms": choice.milliseconds}


@dataclass
class Trials:
    """Networks with fewer filters, measured.

    Attributes:
        job: its groups and its measurement.
        network: with all its filters; it stays as it is.
        directory: for the engines' files.
        layers: those whose filters can be taken out.
    """

    job: Job
    network: Network
    directory: Path
    layers: Sequence[str] = field(init=False)
    _margin: float = field(init=False)
    _engines: Sequence[Engine] = field(init=False)

    def __post_init__(self) -> None:
        self._margin = max(NOISE, self.job.parts.budget.margin)
        self._engines = installed_engines(self.job.parts.latency.engine_names)
        self.layers = []
        if self.job.group_config("prune"):
            self.layers = self._removable()

    def search(self, target: float) -> Choice:
        """The fewest filters that have to go, by bisection; below the target by the margin, at least the noise.

        Raises:
            UserError: the target cannot be reached, or the network is as quick as it is.
        """
        aim = (1 - self._margin) * target
        whole = self.measure(0, [FLOAT, INT8])
        if target >= whole[FLOAT]:
            raise UserError(f"budget.latency_ms={target:g}: the network takes {whole[FLOAT]:.4g} as it is; give less")
        numbers = min(whole, key=lambda each: whole[each])
        if whole[numbers] <= aim:
            return Choice(0, numbers, whole[numbers])
        least = whole[numbers]
        best = Choice(0, numbers, least)
        if self.layers:
            least = self.measure(PARTS - 1, [numbers])[numbers]
            best = Choice(PARTS - 1, numbers, least)
        if least > aim:
            raise UserError(
                f"budget.latency_ms={target:g}: must be at least {least / (1 - self._margin):.4g}, with {numbers} "
                f"numbers and {best.parts / PARTS:.3f} of the filters of {len(self.layers)} layers gone; "
                "other engines: latency.engines"
            )
        too_few = 0
        while best.parts - too_few > 1:
            middle = (too_few + best.parts) // 2
            milliseconds = self.measure(middle, [numbers])[numbers]
            if milliseconds <= aim:
                best = Choice(middle, numbers, milliseconds)
            else:
                too_few = middle
        return best

    def measure(self, parts: int, numbers: Sequence[str]) -> Milliseconds:
        """Milliseconds of the network without so many filters, in the engine that is fastest for each kind of numbers.

        Raises:
            UserError: no engine runs it.
        """
        smaller = self._without_filters(parts)
        found: dict[str, list[Subject]] = {}
        if FLOAT in numbers:
            found[FLOAT] = self._in_float(smaller)
        if INT8 in numbers and self.job.group_config("quantize"):
            found[INT8] = self._in_int8(smaller)
        together = [subject for those in found.values() for subject in those]
        taken = self._taken(together, smaller.spec.size)
        milliseconds = {}
        for kind, those in found.items():
            names = {(each.file, each.engine.name) for each in those}
            own = [amount for name, amount in taken.items() if name in names]
            if own:
                milliseconds[kind] = min(own)
        if FLOAT in numbers and FLOAT not in milliseconds:
            raise UserError("budget.latency_ms: no engine runs this network; the warnings above say why")
        told = ", ".join(f"{kind} {value:.4g} ms" for kind, value in milliseconds.items())
        log.info("without %.3f of the filters: %s", parts / PARTS, told)
        return milliseconds

    def _taken(self, measured: Sequence[Subject], size: Sequence[int]) -> dict[tuple[str, str], float]:
        """(file, engine) -> milliseconds, of those that run; the subjects take turns at images of ``size``."""
        latency = self.job.parts.latency
        random = np.random.default_rng(self.job.seed)
        shape = (latency.batch_sizes[0], *size)
        images = random.standard_normal(shape, dtype=np.float32)
        measurement = Measurement(measured, images, latency.threads[0])
        measurement.prepare()
        measurement.run(min(latency.seconds, MOST_SECONDS))
        return {(row["file"], row["engine"]): row["latency_ms"] for row in measurement.rows()}

    def prune_config(self, parts: int) -> dict[str, Any]:
        """The config's own group, by whole filters."""
        rules = {"filters": {"match": match_of(self.layers), "sparsity": parts / PARTS}}
        return self._by_filters(rules)

    def quantize_config(self) -> dict[str, Any]:
        """The config's own group, at 8 bits in all layers.

        A group that names no scheme gets weights without zero points, which engines have fast kernels for.
        """
        symmetric = to_plain(OmegaConf.load(CONF / "quantize" / "symmetric.yaml"))
        own = {"weight": symmetric["weight"]} | self.job.group_config("quantize")
        return own | {"weight_bits": 8, "activation_bits": 8, "rules": {"all": {"match": ".*"}}}

    def _by_filters(self, rules: Mapping[str, Any]) -> dict[str, Any]:
        return self.job.group_config("prune") | {"granularity": {"_target_": FILTER}, "rules": rules}

    def _removable(self) -> list[str]:
        """Layers whose dropped filters go: those of residual sums stay, and would be dropped for nothing."""
        rules = to_plain(OmegaConf.load(CONF / "prune" / "filter.yaml"))["rules"]
        every = self._by_filters(rules)
        trial, outputs = self._pruned(every)
        pruner = build(every, "prune")
        pruner.attach(trial.model)
        return [layer for layer in pruner.table(trial.model) if layer in outputs]

    def _without_filters(self, parts: int) -> Network:
        if not parts:
            return replace(self.network, model=copied(self.network.model))
        smaller, _ = self._pruned(self.prune_config(parts))
        return smaller

    def _pruned(self, config: Mapping[str, Any]) -> tuple[Network, Mapping[str, Any]]:
        """The network pruned at once and shrunk; the layers whose channels went."""
        smaller = replace(self.network, model=copied(self.network.model))
        pruner = build(config, "prune")
        pruner.attach(smaller.model)
        pruner.update(1, 1)
        removal = find_dead_channels(smaller.model, smaller.spec.size).removal
        if removal.outputs:
            removal.attach(smaller.model)
        return smaller, removal.outputs

    def _in_float(self, network: Network) -> list[Subject]:
        files = []
        if self._reads_onnx():
            files.append(write_onnx(network, self.directory, FLOAT))
        return subjects(COMPRESSED, network.model, files, self._engines)

    def _in_int8(self, network: Network) -> list[Subject]:
        """As ``stage=export`` writes what ``stage=qat`` trains at 8 bits."""
        if not self._reads_onnx():
            return []
        quantized = replace(network, model=copied(network.model))
        quantizer = build(self.quantize_config(), "quantize")
        quantizer.attach(quantized.model)
        quantizer.update(1, 1)
        generator = torch.Generator().manual_seed(self.job.seed)
        images = torch.randn(IMAGES, *network.spec.size, generator=generator)
        _watch_ranges(quantized, images)
        file = write_int8(quantized, self.directory, INT8, images)
        return subjects(COMPRESSED, None, [file], self._engines)

    def _reads_onnx(self) -> bool:
        return any(".onnx" in engine.suffixes for engine in self._engines)


def _watch_ranges(network: Network, images: torch.Tensor) -> None:
    """Let activation quantisers see images, all else in evaluation mode."""
    network.model.eval()
    observers = [module for module in network.model.modules() if isinstance(module, ActivationFakeQuantize)]
    for observer in observers:
        observer.train()
    with torch.no_grad():
        network.model(images)
    network.model.eval()
