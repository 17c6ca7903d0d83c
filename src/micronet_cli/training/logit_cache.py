"""A teacher's logits, remembered by the image's content: one that comes again unchanged is not computed again."""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


class LogitCache:
    """Logits of images seen before.

    Args:
        teach: images ``[N, C, H, W] -> logits [N, classes]``; what it says of an image must not depend on the batch.
        limit_bytes: memory for logits; once it is full nothing new is remembered.

    Attributes:
        hits, misses: images that were and were not known.
    """

    def __init__(self, teach: Callable[[Tensor], Tensor], limit_bytes: int) -> None:
        self.teach = teach
        self.limit_bytes = limit_bytes
        self.hits = 0
        self.misses = 0
        self._known: dict[bytes, Tensor] = {}
        self._bytes = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``[N, classes]`` of a batch; ``teach`` sees the unknown images alone."""
        keys = [content_key(image) for image in images.cpu().float().numpy()]
        unknown = [number for number, key in enumerate(keys) if key not in self._known]
        self.hits += len(keys) - len(unknown)
        self.misses += len(unknown)
        if len(unknown) == len(keys):
            logits = self.teach(images)
            self._remember(keys, logits)
            return logits
        fresh: dict[int, Tensor] = {}
        if unknown:
            fresh = dict(zip(unknown, self.teach(images[unknown]), strict=True))
        rows = []
        for number, key in enumerate(keys):
            if number in fresh:
                rows.append(fresh[number])
            else:
                rows.append(self._known[key].to(images.device))
        fresh_keys = [keys[number] for number in fresh]
        self._remember(fresh_keys, list(fresh.values()))
        return torch.stack(rows)

    def _remember(self, keys: list[bytes], logits: Tensor | list[Tensor]) -> None:
        for key, row in zip(keys, logits, strict=True):
            if self._bytes + row.nbytes > self.limit_bytes:
                return
            self._known[key] = row.detach().cpu().clone()
            self._bytes += row.nbytes


def content_key(image: np.ndarray) -> bytes:
    """16 bytes that two images share only where all their values are the same."""
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()
