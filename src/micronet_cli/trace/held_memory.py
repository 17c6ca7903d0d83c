"""The memory that a run of a network has taken and still uses, and where it goes when there is not enough of it."""

import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.weak import TensorWeakRef

from micronet_cli.torch_internals import TorchDispatchMode, memory_of, tree_leaves

WRITTEN_AT_ONCE = 1 << 24  # bytes


class HeldMemory(TorchDispatchMode):
    """Notes every tensor that an operation makes inside the block, and keeps none of them alive.

    Args:
        model: the network that runs; what its modules hold is not the run's alone.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._made: list[TensorWeakRef] = []
        self._file: IO[bytes] | None = None
        self._spilled: list[tuple[Tensor, int]] = []  # bytes that are on disk, in order, and how many

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the operation, and note what it made."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                note = TensorWeakRef(leaf)
                self._made.append(note)
        return made

    @property
    def in_use(self) -> int:
        """Bytes that are in memory now."""
        return sum(len(content) for content in self._contents().values())

    def spill(self, directory: Path | None = None) -> None:
        """Move what is in use into a file without a name in ``directory`` (None: the system's), until ``restore``."""
        if self._file is not None:
            return
        kept_by_modules = _memory_of_modules(self._model)
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115  closed by restore
        for memory, content in self._contents().items():
            storage = content.untyped_storage()
            if memory in kept_by_modules or not storage.resizable():
                continue
            for part in content.split(WRITTEN_AT_ONCE):
                # A clone: memory that numpy has seen cannot be given back.
                part.cpu().clone().numpy().tofile(self._file)
            self._spilled.append((content, len(content)))
            # All tensors that look at this memory go on to do so: it is only empty.
            storage.resize_(0)

    def restore(self) -> None:
        """Bring back what was spilled, where it was."""
        if self._file is None:
            return
        self._file.seek(0)
        for content, size in self._spilled:
            content.untyped_storage().resize_(size)
            for part in content.split(WRITTEN_AT_ONCE):
                saved = np.fromfile(self._file, dtype=np.uint8, count=len(part))
                part.copy_(torch.from_numpy(saved))
        self._spilled = []
        self._file.close()
        self._file = None

    def _contents(self) -> dict[int, Tensor]:
        """The memory of the tensors that are alive, as bytes."""
        alive = []
        contents: dict[int, Tensor] = {}
        for note in self._made:
            tensor = note()
            if tensor is None:
                continue
            alive.append(note)
            memory = memory_of(tensor)
            if memory not in contents:
                contents[memory] = _bytes_of(tensor)
        self._made = alive
        return contents


def _bytes_of(tensor: Tensor) -> Tensor:
    """A view of all of the memory that a tensor is a part of, uint8."""
    view = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    return view.set_(tensor.untyped_storage())


def _memory_of_modules(model: nn.Module) -> set[int]:
    """What the modules hold: parameters, buffers, and what they have cached."""
    held = set()
    for module in model.modules():
        for leaf in tree_leaves(vars(module)):
            if isinstance(leaf, Tensor):
                held.add(memory_of(leaf))
    return held
