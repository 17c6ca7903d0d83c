"""One training step of a compressed network against the plain fp32 step of the same network.

    python benchmarks/step_time.py [--rounds N] [--compile] [--clock processor --threads 1] [--json FILE]

A step is forward, cross-entropy, backward and SGD of ResNet-20 at batch 128, channels_last. Steps of all variants are
interleaved in one process, in an order that rotates; a ratio is the median of the ratios to the fp32 step of the same
round (of the compiled fp32 step for ``<name>_compile``). Brevitas and torch.ao take part where they are installed.
"""

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

import micronet_cli.models.cifar_resnet  # noqa: F401  registers the networks
from micronet_cli.allocator import keep_freed_memory, use_huge_pages
from micronet_cli.config import build

CONF = Path(__file__).parents[1] / "conf"
OURS = {"fp32": None, "prune": "prune/agp", "w4a4": "quantize/w4a4", "lsq": "quantize/lsq"}
TARGETS = {"prune": 1.03, "w4a4": 1.20, "lsq": 1.30}
COMPILED_TARGET = 1.05
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def network() -> nn.Module:
    """The same float network for every variant."""
    import timm

    torch.manual_seed(0)
    return timm.create_model("resnet20", num_classes=10)


def compressed(option: str | None) -> nn.Module:
    """The network with a config group's option attached, at its final target."""
    model = network()
    if option is not None:
        compressor = build(OmegaConf.load(CONF / f"{option}.yaml"), option)
        compressor.attach(model)
        compressor.update(1, 1)
    return model


def brevitas() -> nn.Module:
    """Brevitas: 4-bit per-channel weights and 4-bit inputs of every layer but the stem."""
    from brevitas import nn as qnn
    from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat

    quantizers = {"weight_quant": Int8WeightPerChannelFloat, "weight_bit_width": 4}
    quantizers |= {"input_quant": Int8ActPerTensorFloat, "input_bit_width": 4}

    def convert(layer: nn.Module) -> nn.Module:
        bias = layer.bias is not None
        if isinstance(layer, nn.Linear):
            return qnn.QuantLinear(layer.in_features, layer.out_features, bias, **quantizers)
        sizes = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
        return qnn.QuantConv2d(*sizes, bias=bias, **quantizers)

    return replaced(network(), convert)


def torch_ao() -> nn.Module:
    """torch.ao's eager QAT modules with its FakeQuantize at 4 bits, on every layer but the stem."""
    from torch.ao import quantization as tq
    from torch.ao.nn import qat

    averaged, by_channel = tq.MovingAverageMinMaxObserver, tq.MovingAveragePerChannelMinMaxObserver
    inputs = tq.FakeQuantize.with_args(observer=averaged, quant_min=0, quant_max=15, dtype=torch.quint8)
    weights = tq.FakeQuantize.with_args(
        observer=by_channel, quant_min=-8, quant_max=7, dtype=torch.qint8, qscheme=torch.per_channel_symmetric
    )

    def convert(layer: nn.Module) -> nn.Module:
        layer.qconfig = tq.QConfig(activation=inputs, weight=weights)
        kind = qat.Linear if isinstance(layer, nn.Linear) else qat.Conv2d
        return nn.Sequential(inputs(), kind.from_float(layer))

    return replaced(network(), convert)


def replaced(model: nn.Module, convert: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Every convolution and linear layer but the first, converted."""
    layers = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for name in layers[1:]:
        model.set_submodule(name, convert(model.get_submodule(name)))
    return model


def training_step(model: nn.Module, device: str, compiled: bool) -> Callable[[], None]:
    """A function that does one step."""
    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    forward = torch.compile(model) if compiled else model
    generator = torch.Generator().manual_seed(0)
    # Batches differ, so that ranges move as they do in training.
    batches = torch.randn(16, 128, 3, 32, 32, generator=generator).to(device)
    images = cycle([batch.contiguous(memory_format=torch.channels_last) for batch in batches])
    labels = torch.randint(10, (128,), generator=generator).to(device)

    def step() -> None:
        loss = nn.functional.cross_entropy(forward(next(images)), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def variants(compile_too: bool, device: str) -> dict[str, Callable[[], None]]:
    """Name -> step, of all that can run here."""
    steps = {name: training_step(compressed(option), device, False) for name, option in OURS.items()}
    for name, make in {"torch_ao": torch_ao, "brevitas": brevitas}.items():
        try:
            steps[name] = training_step(make(), device, False)
        except ImportError as error:
            print(f"{name} is left out: {error}")
    if compile_too:
        for name, option in OURS.items():
            steps[f"{name}_compile"] = training_step(compressed(option), device, True)
    return steps


def measure(
    steps: dict[str, Callable[[], None]], rounds: int, warmup: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Name -> milliseconds of each round."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for number in range(-warmup, rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            start = clock()
            steps[name]()
            if number >= 0:
                found[name].append((clock() - start) * 1000)
    return found


def ratios(times: dict[str, list[float]]) -> dict[str, float]:
    """Name -> median of the paired ratios to the fp32 step, compiled for compiled variants."""
    return {
        name: statistics.median(
            a / b for a, b in zip(values, times["fp32_compile" if name.endswith("_compile") else "fp32"], strict=True)
        )
        for name, values in times.items()
        if name not in ("fp32", "fp32_compile")
    }


def report(times: dict[str, list[float]], found: dict[str, float], device: str, clock: str = "wall") -> str:
    """The table as Markdown."""
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    lines = [
        "# Time of a training step",
        "",
        f"ResNet-20, batch 128, channels_last, forward + backward + SGD; torch {torch.__version__}, Python "
        f"{platform.python_version()}, {where}; {len(times['fp32'])} interleaved rounds, {clock} time. "
        "A ratio is the median of the ratios to the fp32 step of the same round, a `_compile` one "
        "to the compiled fp32 step.",
        "",
        "| variant | ms | ratio | quartiles | target |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, values in times.items():
        base = times["fp32_compile" if name.endswith("_compile") else "fp32"]
        low, _, high = statistics.quantiles([a / b for a, b in zip(values, base, strict=True)], n=4)
        ratio = found.get(name, 1.0)
        target: Any = COMPILED_TARGET if name.endswith("_compile") and name in found else TARGETS.get(name, "")
        lines.append(f"| {name} | {statistics.median(values):.1f} | {ratio:.3f} | {low:.3f} to {high:.3f} | {target} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: torch's own choice)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true", help="compiled variants too (minutes of compiling)")
    parser.add_argument("--default-malloc", action="store_true", help="neither huge pages nor memory kept")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="processor: time of all threads, for a machine with other work"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if not arguments.default_malloc:
        use_huge_pages()
        keep_freed_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    steps = variants(arguments.compile, arguments.device)
    times = measure(steps, arguments.rounds, arguments.warmup, CLOCKS[arguments.clock])
    found = ratios(times)
    text = report(times, found, arguments.device, arguments.clock)
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.markdown:
        arguments.markdown.write_text(text)


if __name__ == "__main__":
    main()
