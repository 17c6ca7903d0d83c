"""Everything that decides a training's next step, as tensors and plain values."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from micronet_cli import checkpoint, distributed
from micronet_cli.errors import UserError
from micronet_cli.torch_internals import tree_map

log = logging.getLogger(__name__)
# Of an optimiser's groups: what a resumed run takes from its config.
OBEYED_OPTIONS = ("initial_lr", "momentum", "weight_decay")


@dataclass(frozen=True)
class Stateful:
    """What a training changes from step to step.

    Attributes:
        model: the network that is trained.
        average: its moving average; None where there is none.
        objective_parameters: parameters of the objective itself.
        optimizer: of the model's and the objective's parameters.
        scaler: the loss scale of fp16.
    """

    model: nn.Module
    average: nn.Module | None
    objective_parameters: Sequence[nn.Parameter]
    optimizer: Optimizer
    scaler: torch.amp.GradScaler


@dataclass(frozen=True)
class Place:
    """How far a training has come.

    Attributes:
        step: optimiser steps done.
        total: optimiser steps of the whole run.
        best: val metrics of the best network so far.
    """

    step: int
    total: int
    best: dict[str, Any] | None


def state_of(parts: Stateful, place: Place) -> dict[str, Any]:
    """The state between two steps; data order and schedules follow from the step, so they are not in it.

    All processes have to call it: each adds its random state.
    """
    cuda_states = [state.cpu() for state in torch.cuda.get_rng_state_all()]
    random_states = distributed.gather((torch.get_rng_state(), cuda_states))
    return {
        "total": place.total,
        "step": place.step,
        "best": place.best,
        "model": parts.model.state_dict(),
        "ema": None if parts.average is None else parts.average.state_dict(),
        "objective": [parameter.detach() for parameter in parts.objective_parameters],
        "optimizer": parts.optimizer.state_dict(),
        "scaler": parts.scaler.state_dict(),
        "rng": random_states,
    }


def copied_state(parts: Stateful, place: Place) -> dict[str, Any]:
    """The state as it is now, in memory of its own on the devices where it is; see ``state_of``."""

    def copied(leaf: Any) -> Any:
        return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf

    state = state_of(parts, place)
    copy: dict[str, Any] = tree_map(copied, state)
    return copy


def restore_state(parts: Stateful, state: dict[str, Any]) -> Place:
    """Bring ``parts`` to a state; how far the training had come.

    Random states are left alone where the number of processes or GPUs has changed.

    Raises:
        RuntimeError, ValueError, AttributeError, TypeError, KeyError: it is of another network, objective or optimiser.
    """
    parts.model.load_state_dict(state["model"])
    if parts.average is not None:
        parts.average.load_state_dict(state["ema"])
    for parameter, saved in zip(parts.objective_parameters, state["objective"], strict=True):
        parameter.data.copy_(saved)
    _restore_optimizer(parts.optimizer, state["optimizer"])
    if state["scaler"]:  # one that was switched off has none
        parts.scaler.load_state_dict(state["scaler"])
    if len(state["rng"]) == distributed.world_size():
        cpu_state, cuda_states = state["rng"][distributed.rank()]
        torch.set_rng_state(cpu_state)
        if len(cuda_states) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(cuda_states)
    return Place(state["step"], state["total"], state["best"])


def _restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Bring an optimiser to its saved state, with the options that it was made with now.

    The rest of a group is the optimiser's own: some keep counters there. The schedule sets the learning rate.
    """
    own_options = []
    for group in optimizer.param_groups:
        options = {key: group[key] for key in OBEYED_OPTIONS if key in group}
        own_options.append(options)
    optimizer.load_state_dict(state)
    for group, options in zip(optimizer.param_groups, own_options, strict=True):
        group.update(options)


def read_state(parts: Stateful, path: Path, total: int) -> Place:
    """Bring ``parts`` to the state that was saved at ``path``; ``total`` is the run's length now.

    Raises:
        UserError: the file is damaged, of another network, objective or optimiser, or from beyond the run's end.
    """
    state = checkpoint.load_state(path)
    step = state["step"]
    if state["total"] != total:
        if step >= total:
            raise UserError(
                f"resume=true: {step} steps are done and the run is to have {total}; "
                "give more trainer.epochs or trainer.max_steps, or leave resume out to start afresh"
            )
        log.warning("the run was %d steps long and is %d now: schedules shift", state["total"], total)
    try:
        return restore_state(parts, state)
    except (RuntimeError, ValueError, AttributeError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"resume=true: the state in {str(path)!r} is of another network or optimiser ({reason}); "
            f"use the run's own config, or leave resume out to start afresh"
        ) from None
