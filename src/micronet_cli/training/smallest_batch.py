"""Whether a network can train on the smallest batch that a process gets."""

from functools import partial

import torch
from torch import Tensor, nn

from micronet_cli.data.protocol import Batches
from micronet_cli.distributed import world_size
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec
from micronet_cli.torch_internals import BatchNorm


def check_smallest_batch(model: nn.Module, train: Batches, spec: InputSpec, always_frozen: bool = False) -> None:
    """Answer what would end in the middle of the first batch: no image, or one value for a BatchNorm.

    Args:
        model: the network, which is left as it is.
        train: its training batches.
        spec: its input.
        always_frozen: BatchNorm never takes statistics of these batches.

    Raises:
        UserError: a process would get no image, or one whose statistics are not defined.
    """
    processes = world_size()
    images = min(train.batch_size, train.images)
    if images < processes:
        raise UserError(f"data: {images} training images cannot be shared by {processes} processes")
    gets_one_image = images // processes == 1
    if always_frozen or not gets_one_image:
        return
    lone_image = torch.zeros(1, *spec.size, device=train.device)
    norm = norm_of_single_values(model, lone_image)
    if norm is not None:
        raise UserError(
            f"data.batch_size={train.batch_size}: of {train.images} training images a process gets one at a time; "
            f"BatchNorm {norm} needs at least 2, for one value has no deviation"
        )


@torch.no_grad()
def norm_of_single_values(model: nn.Module, images: Tensor) -> str | None:
    """The first BatchNorm that gets one value a channel of ``images``; None: none does.

    The model is in evaluation mode meanwhile and returns to the mode it had afterwards.
    """
    found: list[str] = []
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, BatchNorm):
            hook = partial(_note_single_values, name, found)
            handles.append(module.register_forward_pre_hook(hook))
    was_training = model.training
    model.eval()
    model(images)
    model.train(was_training)
    for handle in handles:
        handle.remove()
    return found[0] if found else None


def _note_single_values(name: str, found: list[str], _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    (values,) = inputs
    channels = values.shape[1]
    if values.numel() == channels:
        found.append(name)
