"""One-shot pruning with a weight update from calibration data (Optimal Brain Compression, arXiv 2208.11580)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from micronet_cli.compression.pruning.gradient_scores import averaged
from micronet_cli.compression.pruning.sparse_weight import sparse_weight
from micronet_cli.compression.pruning.sparsity_rules import SparsityRule, sparsity_table
from micronet_cli.errors import UserError
from micronet_cli.functional.granularity import NM, Element, Granularity
from micronet_cli.functional.masks import shrink_mask
from micronet_cli.functional.pruning import magnitude
from micronet_cli.functional.second_order import damped
from micronet_cli.layers.effective_weight import attach_mask, effective_weight, mask_of, original_weight
from micronet_cli.layers.layer_input import first_input
from micronet_cli.layers.padding import padded
from micronet_cli.layers.rules import match_layers
from micronet_cli.trace.layer_inputs import has_rows

HESSIAN = "hessian"


@dataclass(frozen=True)
class Target:
    """A layer that is pruned, and the fraction of its weights that goes."""

    name: str
    layer: nn.Module
    sparsity: float


@dataclass
class SecondOrderPruner:
    """Prunes each layer once, and lets the weights that stay make up for those that go.

    The inputs of the ruled layers are gathered over the training steps before, without labels: 2 X^T X per layer, in a
    buffer, so that a resumed run goes on alike.

    Attributes:
        rules: rule name -> layers and their sparsity.
        at: progress in (0, 1] at which it happens.
        calibration: progress before that over which inputs are gathered, in (0, at].
        dampening: part of the mean diagonal that is added to the Hessian's, above 0.
        max_inputs: longest sum of products of a layer, C_in / groups * kH * kW; memory grows with its square, time with
            its cube.
        granularity: single elements, or N:M.
        scope: without training, ``global``: the rules' sparsities give the total, and layers differ by what it does to
            the logits; ``layer``: each has its own. In training each has its own.
    """

    rules: Mapping[str, SparsityRule]
    at: float = 0.02
    calibration: float = 0.02
    dampening: float = 0.01
    max_inputs: int = 2304
    granularity: Granularity = field(default_factory=Element)
    scope: Literal["layer", "global"] = "layer"

    def __post_init__(self) -> None:
        if self.scope not in ("layer", "global"):
            raise ValueError(f"scope={self.scope}: must be layer or global")
        if not 0 < self.at <= 1:
            raise ValueError(f"at={self.at}: must be a fraction of the run in (0, 1]")
        if not 0 < self.calibration <= self.at:
            raise ValueError(f"calibration={self.calibration}: must be a fraction of the run in (0, at={self.at}]")
        if self.dampening <= 0:
            raise ValueError(f"dampening={self.dampening}: must be above 0")
        if self.max_inputs < 1:
            raise ValueError(f"max_inputs={self.max_inputs}: must be at least 1")
        if not isinstance(self.granularity, Element | NM):
            raise ValueError(f"granularity={self.granularity}: must be Element or NM")
        self._check_sparsities()
        self._targets: list[Target] = []
        self._watching: list[RemovableHandle] = []
        self._done = False
        self._step = 0

    def _check_sparsities(self) -> None:
        most = self.granularity.max_sparsity
        for name, rule in self.rules.items():
            if rule.sparsity and rule.sparsity > most:
                raise ValueError(
                    f"rules.{name}.sparsity={rule.sparsity}: must be at most {most} for {self.granularity}"
                )

    @property
    def reads_gradients(self) -> bool:
        """False: it reads the layers' inputs."""
        return False

    def attach(self, model: nn.Module) -> None:
        """Give every ruled layer a mask (an inherited one goes on) and a Hessian; structure only.

        Raises:
            ValueError: a rule is left with no layer, or a layer is of another kind or too large.
        """
        self._targets = self.targets(model)
        self._watching = []
        self._done = False
        self._step = 0
        for target in self._targets:
            _attach_hessian(target.layer)

    def targets(self, model: nn.Module) -> list[Target]:
        """The layers that are pruned, in the network's order.

        Raises:
            ValueError: a rule is left with no layer, or a layer is of another kind or too large.
        """
        targets = []
        matches = match_layers(model, self.rules, "prune")
        for name, (rule_name, rule) in matches.items():
            if not rule.sparsity:
                continue
            layer = model.get_submodule(name)
            problem = self._problem(layer)
            if problem is not None:
                raise ValueError(
                    f"prune.rules.{rule_name}: {name}: {problem}; a later rule with sparsity=null leaves it alone"
                )
            targets.append(Target(name, layer, rule.sparsity))
        return targets

    def _problem(self, layer: nn.Module) -> str | None:
        """Why the layer cannot be pruned by its inputs, None where it can."""
        if not has_rows(layer):
            return "must be a linear layer or a 2-d convolution"
        weight = original_weight(layer)
        multiple = self.granularity.input_multiple
        if weight.shape[1] % multiple != 0:
            return f"has an input dimension of {weight.shape[1]}, {self.granularity} needs a multiple of {multiple}"
        inputs = weight[0].numel()
        if inputs > self.max_inputs:
            return f"has {inputs} inputs, at most prune.max_inputs={self.max_inputs} are allowed"
        return None

    @torch.no_grad()
    def update(self, step: int, total_steps: int) -> bool:
        """Gather inputs, or prune, as is due at ``step`` of ``total_steps``; True when pruned.

        Raises:
            UserError: inputs were watched for, and none arrived.
        """
        if step < self._step:
            self._forget()
        self._step = step
        progress = step / total_steps
        if progress < self.at:
            # The small shift keeps rounding from putting the first step off.
            first = self.at - self.calibration - 1e-9
            if progress >= first and not self._watching:
                self._watch()
            return False
        if self._done:
            return True
        watched = bool(self._watching)
        self._forget()
        for target in self._targets:
            self._prune(target, watched)
        self._done = True
        return True

    def table(self, model: nn.Module) -> dict[str, dict[str, object]]:
        """Layer -> its rule and target, as the run's table shows them."""
        return sparsity_table(model, self.rules)

    def _forget(self) -> None:
        """Be as after ``attach``; what was gathered is in the layers' buffers."""
        for handle in self._watching:
            handle.remove()
        self._watching = []
        self._done = False

    def _watch(self) -> None:
        for target in self._targets:
            handle = target.layer.register_forward_pre_hook(gather_inputs, with_kwargs=True)
            self._watching.append(handle)

    def _prune(self, target: Target, watched: bool) -> None:
        mask = mask_of(target.layer)
        dropped = int((~mask).sum())
        wanted = round(mask.numel() * target.sparsity)
        if dropped >= wanted:
            return
        original = original_weight(target.layer)
        weight = original * mask
        hessians = averaged(target.layer, HESSIAN)
        if hessians.any():
            hessians = damped(hessians, self.dampening)
            updated, shrunk = sparse_weight(weight, mask, hessians, target.sparsity, self.granularity)
            original.copy_(updated)
        elif watched:
            raise UserError(f"prune: no input of {target.name} was seen; it needs trainer.compile=false")
        else:  # an untrained what-if
            importance = magnitude(weight)
            shrunk = shrink_mask(importance, mask, target.sparsity, self.granularity)
        mask.copy_(shrunk)


def _attach_hessian(layer: nn.Module) -> None:
    """A buffer ``[groups, d, d]`` of zeros beside the layer's mask."""
    weight = original_weight(layer)
    groups = getattr(layer, "groups", 1)
    inputs = weight[0].numel()
    hessian = weight.new_zeros((groups, inputs, inputs))
    parts = attach_mask(layer)
    parts.register_buffer(HESSIAN, hessian)


def gather_inputs(layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
    """Forward pre-hook: add 2 X^T X / n of a training batch to the layer's Hessian (a function: copies stay apart)."""
    parts = effective_weight(layer)
    if parts is None:
        return
    trains = layer.training and torch.is_grad_enabled()
    if not trains:
        return
    images = first_input(args, kwargs).detach()
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        x = columns(layer, images.float())
        rows = x.shape[1]
        products = x.transpose(1, 2) @ x
        hessian = parts.get_buffer(HESSIAN)
        hessian.add_(products, alpha=2 / rows)


def columns(layer: nn.Module, images: Tensor) -> Tensor:
    """The inputs of a layer's sums of products: ``[groups, n, d]``.

    Args:
        layer: a linear layer or a 2-d convolution.
        images: its input, ``[..., d]`` or ``[N, C, H, W]``; n is the number of its output positions in all images.
    """
    if isinstance(layer, nn.Linear):
        features = images.shape[-1]
        return images.reshape(1, -1, features)
    assert isinstance(layer, nn.Conv2d)
    images = padded(layer, images)
    patches = F.unfold(images, layer.kernel_size, layer.dilation, 0, layer.stride)
    split = patches.unflatten(1, (layer.groups, -1))
    return split.permute(1, 0, 3, 2).flatten(1, 2)
