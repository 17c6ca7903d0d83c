"""One-shot pruning with a weight update from calibration data (Optimal Brain Compression, arXiv 2208.11580)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from micronet_cli.compression.pruning.gradient_scores import averaged
from micronet_cli.compression.pruning.sparsity_rules import SparsityRule, sparsity_table
from micronet_cli.errors import UserError
from micronet_cli.functional.masks import shrink_mask
from micronet_cli.functional.pruning import magnitude
from micronet_cli.functional.second_order import damped, obs_importance, obs_update
from micronet_cli.layers.effective_weight import attach_mask, effective_weight, original_weight
from micronet_cli.layers.rules import match_layers
from micronet_cli.torch_internals import reversed_padding
from micronet_cli.trace.layer_inputs import has_rows

HESSIAN = "hessian"


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
    """

    rules: Mapping[str, SparsityRule]
    at: float = 0.02
    calibration: float = 0.02
    dampening: float = 0.01
    max_inputs: int = 2304

    def __post_init__(self) -> None:
        if not 0 < self.at <= 1:
            raise ValueError(f"at={self.at}: must be a fraction of the run in (0, 1]")
        if not 0 < self.calibration <= self.at:
            raise ValueError(f"calibration={self.calibration}: must be a fraction of the run in (0, at={self.at}]")
        if self.dampening <= 0:
            raise ValueError(f"dampening={self.dampening}: must be above 0")
        if self.max_inputs < 1:
            raise ValueError(f"max_inputs={self.max_inputs}: must be at least 1")
        self._targets: list[tuple[str, nn.Module, float]] = []
        self._watching: list[RemovableHandle] = []
        self._done = False

    @property
    def reads_gradients(self) -> bool:
        """False: it reads the layers' inputs."""
        return False

    def attach(self, model: nn.Module) -> None:
        """Give every ruled layer a mask (an inherited one goes on) and a Hessian; structure only.

        Raises:
            ValueError: a rule is left with no layer, or a layer is of another kind or too large.
        """
        self._targets = []
        self._watching = []
        self._done = False
        for name, (rule_name, rule) in match_layers(model, self.rules, "prune").items():
            if not rule.sparsity:
                continue
            layer = model.get_submodule(name)
            problem = self._problem(layer)
            if problem is not None:
                raise ValueError(
                    f"prune.rules.{rule_name}: {name}: {problem}; a later rule with sparsity=null leaves it alone"
                )
            weight = original_weight(layer)
            groups = getattr(layer, "groups", 1)
            inputs = weight[0].numel()
            hessian = weight.new_zeros((groups, inputs, inputs))
            attach_mask(layer).register_buffer(HESSIAN, hessian)
            self._targets.append((name, layer, rule.sparsity))

    def _problem(self, layer: nn.Module) -> str | None:
        """Why the layer cannot be pruned by its inputs, None where it can."""
        if not has_rows(layer):
            return "must be a linear layer or a 2-d convolution padded with zeros"
        inputs = original_weight(layer)[0].numel()
        if inputs > self.max_inputs:
            return f"has {inputs} inputs, at most prune.max_inputs={self.max_inputs} are allowed"
        return None

    @torch.no_grad()
    def update(self, step: int, total_steps: int) -> bool:
        """Gather inputs, or prune, as is due at ``step`` of ``total_steps``; True when pruned.

        Raises:
            UserError: inputs were watched for, and none arrived.
        """
        progress = step / total_steps
        if progress < self.at:
            # The small shift keeps rounding from putting the first step off.
            gathering = progress >= self.at - self.calibration - 1e-9
            if gathering and not self._watching:
                self._watch()
            return False
        if self._done:
            return True
        watched = bool(self._watching)
        for handle in self._watching:
            handle.remove()
        self._watching = []
        for name, layer, sparsity in self._targets:
            self._prune(name, layer, sparsity, watched)
        self._done = True
        return True

    def table(self, model: nn.Module) -> dict[str, dict[str, object]]:
        """Layer -> its rule and target, as the run's table shows them."""
        return sparsity_table(model, self.rules)

    def _watch(self) -> None:
        for _, layer, _ in self._targets:
            handle = layer.register_forward_pre_hook(gather_inputs)
            self._watching.append(handle)

    def _prune(self, name: str, layer: nn.Module, sparsity: float, watched: bool) -> None:
        parts = effective_weight(layer)
        assert parts is not None
        assert parts.mask is not None
        dropped = int((~parts.mask).sum())
        if dropped >= round(parts.mask.numel() * sparsity):
            return
        original = original_weight(layer)
        weight = (original * parts.mask).flatten(1)
        mask = parts.mask.flatten(1)
        hessians = averaged(layer, HESSIAN)
        if hessians.any():
            weight, mask = _pruned(weight, mask, hessians, sparsity, self.dampening)
            original.copy_(weight.view(original.shape))
        elif watched:
            raise UserError(f"prune: no input of {name} was seen; it needs trainer.compile=false")
        else:  # an untrained what-if
            mask = shrink_mask(magnitude(weight), mask, sparsity)
        parts.mask.copy_(mask.view(original.shape))


def _pruned(weight: Tensor, mask: Tensor, hessians: Tensor, sparsity: float, dampening: float) -> tuple[Tensor, Tensor]:
    """Weight and mask ``[C_out, d]`` at ``sparsity``; ``hessians`` are ``[groups, d, d]``."""
    rows = len(weight) // len(hessians)
    damped_hessians = [damped(hessian, dampening) for hessian in hessians]
    group_weights = weight.split(rows)
    # Which weights go is decided over the whole layer, not group by group.
    importances = []
    for part, hessian, kept in zip(group_weights, damped_hessians, mask.split(rows), strict=True):
        importances.append(obs_importance(part, hessian, kept))
    mask = shrink_mask(torch.cat(importances), mask, sparsity)
    updated = []
    for part, hessian, kept in zip(group_weights, damped_hessians, mask.split(rows), strict=True):
        updated.append(obs_update(part, hessian, kept))
    return torch.cat(updated), mask


def gather_inputs(layer: nn.Module, inputs: tuple) -> None:
    """Forward pre-hook: add 2 X^T X / n of a training batch to the layer's Hessian (a function: copies stay apart)."""
    parts = effective_weight(layer)
    if not layer.training or not torch.is_grad_enabled() or parts is None:
        return
    with torch.no_grad(), torch.autocast(inputs[0].device.type, enabled=False):
        x = columns(layer, inputs[0].detach().float())
        rows = x.shape[1]
        products = x.transpose(1, 2) @ x
        parts.get_buffer(HESSIAN).add_(products, alpha=2 / rows)


def columns(layer: nn.Module, images: Tensor) -> Tensor:
    """The inputs of a layer's sums of products: ``[groups, n, d]``.

    Args:
        layer: a linear layer or a 2-d convolution padded with zeros.
        images: its input, ``[..., d]`` or ``[N, C, H, W]``; n is the number of its output positions in all images.
    """
    if isinstance(layer, nn.Linear):
        return images.reshape(1, -1, images.shape[-1])
    assert isinstance(layer, nn.Conv2d)
    padding = (0, 0)
    if isinstance(layer.padding, tuple):
        padding = layer.padding
    elif layer.padding == "same":
        # It may be uneven, which unfold does not know.
        images = F.pad(images, reversed_padding(layer))
    patches = F.unfold(images, layer.kernel_size, layer.dilation, padding, layer.stride)
    split = patches.unflatten(1, (layer.groups, -1))
    return split.permute(1, 0, 3, 2).flatten(1, 2)
