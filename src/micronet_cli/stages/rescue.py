"""``ptq.rescue`` and ``ptq.max_drop``: the layers that hurt most get a bit more, and post-training begins anew."""

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from micronet_cli import checkpoint
from micronet_cli.compression.quantization.post_training import PostTraining
from micronet_cli.compression.quantization.quantizer import Quantizer
from micronet_cli.config import build
from micronet_cli.errors import UserError
from micronet_cli.explore.diagnosis import Row
from micronet_cli.explore.rescue import Bits, layers_needed, raised, rules_with
from micronet_cli.functional.logit_distance import LogitDistance
from micronet_cli.layers.copies import computed_tensors
from micronet_cli.network import Network
from micronet_cli.scoring import score_with
from micronet_cli.stages.diagnosis import Findings
from micronet_cli.stages.job import Job
from micronet_cli.tables import decimal

log = logging.getLogger(__name__)
SHOWN = 5
FIGURES = ("float_agreement", "logits_snr_db", "micronet_score")


class Rescue:
    """Rounds of post-training, each from the network in float, with more bits for some layers from the second one on.

    Attributes:
        round: number of the round at work, 0 for the first.
        bits: layer -> its bits, of layers that have been given more.
    """

    def __init__(self, job: Job, settings: PostTraining, network: Network) -> None:
        """Keep what a second round begins from; a resumed run goes on in its round.

        Raises:
            UserError: there are not so many layers that could have more bits.
        """
        self.round = 0
        self.bits: dict[str, Bits] = {}
        self._job = job
        self._settings = settings
        self._network = network
        self._own: dict[str, tuple[str, Bits]] = {}
        self._before: dict[str, Any] = {}
        self._taken = 0  # layers of the last round
        if self.is_on:
            self._own = _own_bits(job, network)
            self._check()
            self._restore()

    @property
    def is_on(self) -> bool:
        """Whether there may be a second round."""
        return self._settings.rescue is not None or self._settings.max_drop is not None

    def begin(self) -> tuple[Job, Network]:
        """What a round begins with: the job with its rules, and the network in float."""
        if not self.is_on:
            return self._job, self._network
        network = copy.deepcopy(self._network, computed_tensors(self._network.model))
        if not self.bits:
            return self._job, network
        config = self._job.group_config("quantize")
        config["rules"] = rules_with(config["rules"], self._own, self.bits)
        self._job.run.write_text("rules/quantize/rescue.yaml", OmegaConf.to_yaml(config))
        whole = DictConfig(OmegaConf.to_container(self._job.config))
        whole.quantize = config
        checked = {**self._job.checked, "quantize": build(config, "quantize")}
        return replace(self._job, config=whole, checked=checked), network

    def goes_on(self, network: Network, findings: Findings) -> bool:
        """Whether there is another round, for which ``bits`` are raised; ``network`` is as the round has left it."""
        if not self.is_on or not findings.rows:
            return False
        rows = [row for row in findings.rows if self._can_have_more(row.layer)]
        number = self._number_wanted(findings.distance, rows)
        if number == 0:
            return False
        if not self._before:
            self._before = self._figures(network, findings)
        names = [row.layer for row in rows[:number]]
        for name in names:
            self.bits[name] = raised(self._bits_of(name))
        self.round += 1
        self._taken = number
        log.info(
            "a bit more for %s; the post-training begins anew from the network in float, and takes as long again",
            _listed(names),
        )
        return True

    def metrics(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """What goes beside the figures ``metrics`` of the network that is reported; they are told, before and after."""
        if not self.bits:
            return {}
        told = [f"{_shown(self._before[key])} -> {_shown(metrics[key])}" for key in FIGURES]
        log.info(
            "rescued %d of %d layers: agreement with float %s %%, logits' signal over error %s dB, score %s",
            len(self.bits),
            len(self._own),
            *told,
        )
        before = {f"{key}_before": figure for key, figure in self._before.items()}
        return {"rescued_layers": len(self.bits)} | before

    def state(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {"round": self.round, "bits": dict(self.bits), "before": self._before, "taken": self._taken}

    def _restore(self) -> None:
        run = self._job.run
        if not run.resume or not run.state.is_file():
            return
        state = checkpoint.load_state(run.state).get("rescue") or {}
        self.round = state.get("round", 0)
        self.bits = {name: tuple(bits) for name, bits in state.get("bits", {}).items()}
        self._before = state.get("before", {})
        self._taken = state.get("taken", 0)

    def _check(self) -> None:
        wanted = self._settings.rescue
        possible = sum(self._can_have_more(name) for name in self._own)
        if wanted is None or wanted <= possible:
            return
        if not possible:
            raise UserError(f"ptq.rescue={wanted}: every quantised layer has 8 bits already; leave it out")
        raise UserError(f"ptq.rescue={wanted}: must be at most {possible}, the layers of fewer than 8 bits")

    def _bits_of(self, layer: str) -> Bits:
        _, own = self._own[layer]
        return self.bits.get(layer, own)

    def _can_have_more(self, layer: str) -> bool:
        return raised(self._bits_of(layer)) != self._bits_of(layer)

    def _number_wanted(self, distance: LogitDistance, rows: Sequence[Row]) -> int:
        """How many of these layers, the worst first, get more; at least twice as many as in the round before."""
        if self._settings.rescue is not None:
            return 0 if self.round else self._settings.rescue
        wanted = self._settings.max_drop
        assert wanted is not None
        changed = distance.share_changed
        said = f"ptq.max_drop={wanted:g}: {100 * changed:.2f} % of {distance.images} predictions change"
        if changed <= wanted:
            log.info("%s", said)
            return 0
        if not rows:
            log.warning("%s: not reached, every quantised layer has 8 bits", said)
            return 0
        log.info("%s", said)
        needed = layers_needed([row.part for row in rows], changed, wanted)
        return min(len(rows), max(needed, 2 * self._taken))

    def _figures(self, network: Network, findings: Findings) -> dict[str, Any]:
        """Before anything was raised."""
        try:
            report = score_with(network.model, self._job.parts.score, network.spec.size)
        except ValueError as error:
            raise UserError(f"score: {error}") from None
        found = findings.metrics() | report.metrics()
        return {key: found[key] for key in FIGURES}


def _own_bits(job: Job, network: Network) -> dict[str, tuple[str, Bits]]:
    """Layer -> the rule of the config's quantiser for it, and its bits.

    Raises:
        UserError: a quantiser of one's own.
    """
    quantizer = job.parts.quantize
    if not isinstance(quantizer, Quantizer):
        kind = job.group_config("quantize")["_target_"]
        raise UserError(f"quantize._target_={kind}: ptq.rescue and ptq.max_drop need the rules of micronet's Quantizer")
    trial = copy.deepcopy(network.model, computed_tensors(network.model))
    try:
        resolved = quantizer.resolve(trial)
    except ValueError as error:
        raise UserError(str(error)) from None
    own = {}
    for layer, (rule, weight_bits, activation_bits) in resolved.items():
        own[layer] = (rule, (weight_bits, activation_bits))
    return own


def _listed(names: Sequence[str]) -> str:
    """The first few, and how many others there are."""
    shown = ", ".join(names[:SHOWN])
    others = len(names) - SHOWN
    if others <= 0:
        return shown
    return f"{shown} and {others} others"


def _shown(figure: float | None) -> str:
    if figure is None or not math.isfinite(figure):
        return "-"
    return decimal(figure, 2)
