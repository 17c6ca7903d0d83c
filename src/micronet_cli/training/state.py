"""Everything that decides a training's next step, as tensors and plain values."""

from typing import Any, Protocol

import torch
from timm.utils import ModelEmaV3
from torch import nn

from micronet_cli import distributed


class Resumable(Protocol):
    """What a training is made of, as far as its next step depends on it.

    Attributes:
        total: steps of the whole training.
        step: steps done.
        best: figures of the best network so far.
        model: the network that is trained.
        ema: its average, or None.
        own: the objective's own parameters.
        scaler: of the loss, for half precision.
    """

    total: int
    step: int
    best: dict[str, Any] | None
    model: nn.Module
    ema: ModelEmaV3 | None
    own: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler


def state_of(fit: Resumable) -> dict[str, Any]:
    """The state between two steps; data order and schedules follow from the step, so they are not in it.

    All processes have to call it: each adds its random state.
    """
    rng = distributed.gather((torch.get_rng_state(), [s.cpu() for s in torch.cuda.get_rng_state_all()]))
    return {
        "total": fit.total,
        "step": fit.step,
        "best": fit.best,
        "model": fit.model.state_dict(),
        "ema": fit.ema.module.state_dict() if fit.ema else None,
        "objective": [parameter.detach() for parameter in fit.own],
        "optimizer": fit.optimizer.state_dict(),
        "scaler": fit.scaler.state_dict(),
        "rng": rng,
    }


def restore_state(fit: Resumable, state: dict[str, Any]) -> None:
    """Bring ``fit`` to a state.

    Raises:
        RuntimeError, ValueError, AttributeError, TypeError: it is of another network, objective or optimiser.
    """
    fit.model.load_state_dict(state["model"])
    if fit.ema:
        fit.ema.module.load_state_dict(state["ema"])
    for parameter, saved in zip(fit.own, state["objective"], strict=True):
        parameter.data.copy_(saved)
    fit.optimizer.load_state_dict(state["optimizer"])
    fit.scaler.load_state_dict(state["scaler"])
    if len(state["rng"]) == distributed.world_size():
        cpu, cuda = state["rng"][distributed.rank()]
        torch.set_rng_state(cpu)
        if len(cuda) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(cuda)
    fit.step, fit.best = state["step"], state["best"]
