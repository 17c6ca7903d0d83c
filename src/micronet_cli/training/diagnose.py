"""What to say of numbers that are not finite: where they were seen first, and the ways out."""

from pathlib import Path

from torch import Tensor, nn

from micronet_cli.layers.finite import is_finite, non_finite_source, plain_name
from micronet_cli.training.batch_norm import batch_norms


def explain_loss(loss: float, step: int, source: str, last: Path) -> str:
    """The message for a training loss that is not finite."""
    return (
        f"trainer: the loss is {loss} at step {step}, first seen in {source}; "
        f"lower optim.lr, or set trainer.clip_grad_norm; the last checkpoint is {last}"
    )


def explain_interval(first: int, last: int, checkpoint: Path) -> str:
    """The message for a loss that was not finite in some steps, and was when they were repeated."""
    return (
        f"trainer: a loss between step {first} and step {last} is not finite, and was finite when the steps were "
        "repeated, so that its layer is not known; lower optim.lr, or set trainer.clip_grad_norm; "
        f"the last checkpoint is {checkpoint}"
    )


def explain_values(what: str, layer: str, step: int, last: Path) -> str:
    """The message for what a compressor has gathered and cannot rank by."""
    return (
        f"trainer: the {what} of layer {layer} are not finite at step {step}; "
        f"lower optim.lr, or set trainer.clip_grad_norm; the last checkpoint is {last}"
    )


def explain_output(group: str, amp: str, source: str) -> str:
    """The message for an evaluation whose output is not finite.

    Args:
        group: the config group whose ``amp`` it is.
        amp: reduced precision of the evaluation.
        source: where it was seen first.
    """
    if amp == "fp16":
        ways_out = "use bf16 or none, or a network that is finite without it"
        return f"{group}.amp=fp16: the output is not finite, first in {source}; {ways_out}"
    ways_out = "train with a lower optim.lr, or give another checkpoint"
    return f"{group}: the output is not finite, first in {source}; {ways_out}"


def source_in_training(model: nn.Module, images: Tensor) -> str:
    """The first parameter that is not finite, else the first layer whose output is not, as in training mode.

    The network is spent afterwards.
    """
    for name, parameter in model.named_parameters():
        if not is_finite(parameter):
            return f"parameter {plain_name(name)}"
    # Evaluation mode keeps the observers still: in training mode they would wait for processes that are not here.
    model.eval()
    for norm in batch_norms(model):
        norm.train()
    return non_finite_source(model, images)
