"""The tensors that a file holds of a network, by name."""

from torch import Tensor, nn


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """The network's state, every tensor once: a module that several others hold goes by its first name."""
    first_names = {name for name, _ in model.named_modules()}
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        owner, _, _ = name.rpartition(".")
        if owner in first_names:
            state[name] = tensor
    return state
