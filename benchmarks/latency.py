"""Images a second of a network as it is, as 8-bit integers and with a third of its filters gone.

    python benchmarks/latency.py [--networks resnet18 ...] [--table FILE.md] [--json FILE.json]

Random weights and images, so no network access and no data; accuracy is not the subject here. All variants of a network
are measured in turns in one process; a ratio is the median of the ratios to fp32 in onnxruntime of the same round.

- torch: PyTorch, fp32, channels_last;
- fp32: onnxruntime, BatchNorm folded;
- int8: ``micronet_cli.artifact.onnx_int8``;
- int8_onnxruntime: what onnxruntime's own post-training quantiser makes of the fp32 file (QDQ, per channel, 7-bit
  weights);
- pruned: fp32 after 30 % of every layer's filters were dropped and the dead channels taken out, but for what fills
  multiples of 16.
"""

import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from torch import nn

from micronet_cli.artifact.engines.onnxruntime import session
from micronet_cli.artifact.onnx import INPUT, export_onnx
from micronet_cli.artifact.onnx_int8 import Batches, export_int8
from micronet_cli.artifact.onnx_operators import quiet
from micronet_cli.compression.pruning.dead_channels import find_dead_channels
from micronet_cli.compression.pruning.pruner import Pruner, SparsityRule
from micronet_cli.functional.granularity import Filter
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.network import Network
from micronet_cli.training.batch_norm import reestimate_batch_norm

NETWORKS = ("resnet18", "mobilenetv2_100", "tf_efficientnet_b1")
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
MULTIPLE = 16  # onnxruntime's blocked float kernels; depthwise layers of other widths fall back to slow ones
RULES = {"conv": SparsityRule("(?!({stem}|{classifier})$).*", 0.3)}


def random_network(name: str) -> Network:
    """A network whose activations have the spread that training gives them."""
    torch.manual_seed(0)
    model = Model(name).build()
    spec = InputSpec.of(model)
    reestimate_batch_norm(model, [torch.randn(8, *spec.size) for _ in range(2)])
    return Network(model.eval(), {"name": name}, [], spec)


def pruned(network: Network) -> Network:
    """A copy without 30 % of the filters of every layer but stem and classifier."""
    smaller = copy.copy(network)
    smaller.model = copy.deepcopy(network.model)
    pruner = Pruner(RULES, granularity=Filter())
    pruner.attach(smaller.model)
    pruner.update(1, 1)
    found = find_dead_channels(smaller.model, network.spec.size, MULTIPLE)
    found.removal.attach(smaller.model)
    return smaller


def files(network: Network, directory: Path) -> dict[str, Path]:
    """Variant -> ONNX file."""
    paths = {name: directory / f"{name}.onnx" for name in ("fp32", "int8", "int8_onnxruntime", "pruned")}
    images = torch.randn(8, *network.spec.size)
    export_onnx(network, paths["fp32"])
    export_int8(network, paths["int8"], images)
    with quiet():
        quantize_static(
            paths["fp32"], paths["int8_onnxruntime"], Batches(images, 8), quant_format=QuantFormat.QDQ,
            per_channel=True, reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
    export_onnx(pruned(network), paths["pruned"])
    return paths


def runners(model: nn.Module, paths: dict[str, Path], batch: int, threads: int) -> dict[str, Callable[[], object]]:
    """Variant -> one forward pass of a batch."""
    torch.set_num_threads(threads)
    images = torch.randn(batch, *InputSpec.of(model).size)
    channels_last = images.to(memory_format=torch.channels_last)

    def of(path: Path) -> Callable[[], object]:
        run, values = session(path, threads), images.numpy()
        return lambda: run.run(None, {INPUT: values})

    return {"torch": lambda: model(channels_last), **{name: of(path) for name, path in paths.items()}}


@torch.inference_mode()
def measure(
    calls: dict[str, Callable[[], object]], seconds: float, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Variant -> seconds of each round; as many rounds as fit, 5 at least, one more to warm up."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    names, started = list(calls), time.perf_counter()
    while time.perf_counter() - started < seconds or len(times[names[0]]) < 5:
        shift = len(times[names[0]]) % len(names)
        for name in names[shift:] + names[:shift]:
            start = clock()
            calls[name]()
            times[name].append(clock() - start)
    return times


def rows_of(network: Network, seconds: float, clock: Callable[[], float]) -> list[dict]:
    """One row for every batch size, thread count and variant."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        paths = files(network, Path(directory))
        model = network.model.to(memory_format=torch.channels_last)
        for batch in (1, 32):
            for threads in (1, 2):
                times = measure(runners(model, paths, batch, threads), seconds, clock)
                rows += [
                    {
                        "network": network.config["name"],
                        "batch": batch,
                        "threads": threads,
                        "variant": variant,
                        "images_per_second": batch / statistics.median(values),
                        "ratio": statistics.median(b / a for a, b in zip(values, times["fp32"], strict=True)),
                        "rounds": len(values),
                    }
                    for variant, values in times.items()
                ]
                print("\n".join(line(row) for row in rows[-len(times) :]), flush=True)
    return rows


def line(row: dict) -> str:
    """A row as Markdown."""
    where = " | ".join(str(row[key]) for key in ("network", "batch", "threads", "variant"))
    return f"| {where} | {row['images_per_second']:.1f} | {row['ratio']:.2f} |"


def table(rows: list[dict], clock: str) -> str:
    """The whole report as Markdown."""
    processor = platform.processor() or platform.machine()
    head = [
        "# Latency",
        "",
        f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {processor}, {clock} time; "
        "`benchmarks/latency.py` says what the variants are. Ratio: to fp32 in onnxruntime.",
        "",
        "| network | batch | threads | variant | images/s | ratio |",
        "|---|---:|---:|---|---:|---:|",
    ]
    return "\n".join([*head, *(line(row) for row in rows)]) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--seconds", type=float, default=8.0, help="time for each combination of batch and threads")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="processor: sum over threads, on a busy machine"
    )
    parser.add_argument("--table", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.networks:
        rows += rows_of(random_network(name), arguments.seconds, CLOCKS[arguments.clock])
    if arguments.table:
        arguments.table.write_text(table(rows, arguments.clock))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
