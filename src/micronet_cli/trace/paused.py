"""A run of a network that pauses where a layer is called, and goes on from there: nothing is computed twice.

What it has computed and still needs waits on the stack of a thread of its own, as the network's code holds it. So any
network can pause, whatever lies between its modules, and what waits is what is alive there and nothing more.
"""

import threading

import torch
from torch import Tensor, nn

from micronet_cli.layers.layer_input import watch_input
from micronet_cli.trace.held_memory import HeldMemory


class _ClosedError(BaseException):
    """Ends a run that is not needed any more; no ``except Exception`` of a network takes it for its own."""


class PausedRun:
    """One run of a network on a batch of images, without gradients.

    Attributes:
        held: the memory of what it has computed and still needs.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.held = HeldMemory(model)
        self._model = model
        self._images = images
        self._go_on = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._input: Tensor | None = None
        self._error: BaseException | None = None
        self._closed = False
        # A daemon: a second Ctrl-C must end the program.
        self._thread = threading.Thread(target=self._run, name="paused run", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the network's end was reached."""
        return not self._thread.is_alive()

    def advance(self, layer: nn.Module) -> Tensor | None:
        """Go on to the layer's next call and pause there: what it reads; None where the network ends before.

        A quantised layer pauses in front of its input's quantiser: what that gives would wait beside what it reads.
        """
        self._input = None
        quantizer = getattr(layer, "input_fake_quantize", None)
        paused_at = layer if quantizer is None else quantizer
        handle = watch_input(paused_at, self._pause)
        try:
            self._go_on.release()
            self._stopped.acquire()
        finally:
            handle.remove()
        if self._error is not None:
            raise self._error
        read, self._input = self._input, None
        if read is None:
            self._thread.join()
            return None
        if quantizer is None:
            return read
        with torch.no_grad():
            return quantizer(read)

    def close(self) -> None:
        """End it where it is."""
        self._closed = True
        self._go_on.release()
        self._thread.join()

    def _run(self) -> None:
        self._go_on.acquire()
        try:
            if not self._closed:
                with torch.no_grad(), self.held:
                    self._model(self._images)
        except _ClosedError:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._stopped.release()

    def _pause(self, x: Tensor) -> None:
        self._input = x
        del x  # only the network's code decides how long it lives
        self._stopped.release()
        self._go_on.acquire()
        if self._closed:
            raise _ClosedError
