"""Several processes that train one network: who writes, and what they add up. Alone, a process calls the same."""

import logging
import os
import signal
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from micronet_cli.errors import Interrupted, JobsFailed, UserError
from micronet_cli.torch_internals import BatchNorm

T = TypeVar("T")
STOPPING = (signal.SIGINT, signal.SIGTERM)


def started_by_launcher() -> bool:
    """Whether torchrun (or ``launch``) started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number; process 0 writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """This process's number on its own machine: the GPU that it uses."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that a launcher started, for the time of the block."""
    if not started_by_launcher() or dist.is_initialized():
        yield
        return
    cuda = torch.cuda.is_available() and torch.cuda.device_count() > local_rank()
    if cuda:
        torch.cuda.set_device(local_rank())
    # Processes that each take all cores slow one another down many times over.
    processes_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(max(1, torch.get_num_threads() // processes_here))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def sum_over_ranks(values: Tensor) -> Tensor:
    """``values`` added up over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def set_anywhere(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` is set in any process; every process has to ask. The answer is found on ``device``."""
    if world_size() == 1:
        return flag
    flags = torch.tensor(float(flag), device=device)
    return bool(sum_over_ranks(flags))


def range_over_ranks(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest ``low`` and largest ``high`` of all processes, 0-dim each."""
    if not dist.is_initialized():
        return low, high
    both = torch.stack([-low, high])
    dist.all_reduce(both, dist.ReduceOp.MAX)
    return -both[0], both[1]


def from_rank_zero(value: T) -> T:
    """Rank 0's ``value``, everywhere."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def wait_for_all() -> None:
    """Return once every process has called this."""
    if dist.is_initialized():
        dist.barrier()


def gather(value: T) -> list[T]:
    """Every process's ``value``, by rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def raise_anywhere(problem: str | None) -> None:
    """End every process with the problem that one of them met; every process has to ask.

    Raises:
        UserError: there was one.
    """
    for met in gather(problem):
        if met is not None:
            raise UserError(met)


def broadcast_model(model: nn.Module) -> None:
    """Give every process rank 0's parameters and buffers."""
    if dist.is_initialized():
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


def data_parallel(model: nn.Module) -> nn.Module:
    """The model whose backward pass averages gradients over all processes; itself where there is one.

    Buffers are not synchronised: masks and observers are equal by construction, BatchNorm's statistics are averaged by
    ``average_batch_norm``.
    """
    if not dist.is_initialized():
        return model
    with warnings.catch_warnings():
        # Newer torch has another name for the argument, older torch has not.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False)


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Average gradients over the processes."""
    for parameter in parameters:
        if dist.is_initialized() and parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad.div_(world_size())


def average_batch_norm(model: nn.Module) -> None:
    """Average BatchNorm's running statistics over the processes, each of which has seen its part of every batch."""
    if not dist.is_initialized():
        return
    for module in model.modules():
        if isinstance(module, BatchNorm) and module.running_mean is not None:
            for buffer in (module.running_mean, module.running_var):
                dist.all_reduce(buffer)
                buffer.div_(world_size())


def launch(processes: int, work: Callable[..., T], *arguments: Any, on_failure: str) -> T:
    """Run ``work(*arguments)`` in ``processes`` processes on this machine; rank 0's result.

    Raises:
        UserError: a user's mistake, which the processes have shown already.
        JobsFailed: a process died; the message names its rank and ends with ``on_failure``.
        Interrupted: SIGINT or SIGTERM came; the processes had time to save.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
    )
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # it would show its own stack
    in_main_thread = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in STOPPING} if in_main_thread else {}
    try:
        return elastic_launch(config, work)(*arguments)[0]
    except ChildFailedError as error:
        died, failure = error.get_first_failure()
        if failure.exitcode == UserError.exit_code:
            raise UserError(f"trainer.devices={processes}: the processes ended with this mistake") from None
        reason = f"rank {died} ended with exit code {failure.exitcode}; {on_failure}"
        raise JobsFailed(f"trainer.devices={processes}:", [reason], exit_code=1) from None
    except SignalException:
        raise Interrupted(f"interrupted; {on_failure}") from None
    finally:
        # The launcher leaves its own behind, which would end the next run in this process with its exception.
        for number, handler in handlers.items():
            signal.signal(number, handler)
