"""CIFAR-10 evidence: the reference recipe translated, and micronet's own, at equal epochs from the same networks.

    python benchmarks/cifar10.py --train TRAIN --test TEST --student FILE --teacher FILE [--epochs N] [--seeds 0 1 2]

TRAIN and TEST are ImageFolder directories or tars; FILE are weights of resnet20 and resnet56. Every step is a command
of ``micronet``, printed as it is run, in a directory of its own below ``--out``; a finished step is not run again. The
table goes to ``--table`` and to the terminal. Scores take CIFAR-100's base.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Recipe:
    """What the two stages and the scorer are told.

    Attributes:
        title: first column of the table.
        prune, qat, score: arguments of ``micronet``.
    """

    title: str
    prune: tuple[str, ...]
    qat: tuple[str, ...]
    score: tuple[str, ...] = ()


TEACHER = ("distill=soft_targets", "distill.teacher.model=resnet56")
# Of both recipes: BatchNorm's averages do not follow a network whose ranges still move.
PRUNE = ("data.val_fraction=0.02", "trainer.amp=bf16")
QAT = ("distill.teacher.amp=bf16", "trainer.reestimate_bn_batches=100")
RECIPES = {
    "reference": Recipe(
        "reference: AGP to 61 %, range-linear w4a4, classifier w2.5 with a float input",
        prune=("prune.rules.conv.sparsity=0.613", "optim.lr=0.03"),
        qat=("quantize=micronet2019", "optim.lr=0.03", *TEACHER),
    ),
    "micronet": Recipe(
        "micronet: AGP to 74 % with the teacher, w3a5 (first stage w4, stem w4a8, last w8a8), 8-bit adds, adder tree",
        prune=("prune.rules.conv.sparsity=0.74", "prune.schedule.end=0.4", "optim.lr=0.03", *TEACHER),
        qat=(
            "quantize=w4a4",
            "quantize.weight_bits=3",
            "quantize.activation_bits=5",
            "quantize.rules.early.match=layer1.*",
            "quantize.rules.early.weight_bits=4",
            "quantize.rules.stem.match={stem}",
            "quantize.rules.stem.weight_bits=4",
            "quantize.rules.stem.activation_bits=8",
            "quantize.rules.last.match={classifier}",
            "quantize.rules.last.weight_bits=8",
            "quantize.rules.last.activation_bits=8",
            r"quantize.outputs.adds.match=(.*\.)?bn\d|layer\d\.\d",
            "quantize.outputs.adds.activation_bits=8",
            "optim.lr=0.03",
            *TEACHER,
        ),
        score=("score.accumulator=adder_tree",),
    ),
}
COLUMNS = ("top1", "weight_sparsity", "weight_bits_mean", "storage_bytes", "math_ops", "micronet_score")


def micronet(directory: Path, *arguments: str) -> dict:
    """Run a stage in ``directory`` unless it is done; its metrics."""
    metrics = directory / "metrics.json"
    if not metrics.is_file() or json.loads(metrics.read_text())["status"] != "completed":
        command = ["micronet", *arguments, f"hydra.run.dir={directory}", "resume=true"]
        print("$", *command, flush=True)
        subprocess.run([sys.executable, "-m", "micronet_cli.command.cli", *command[1:]], check=True)
    return json.loads(metrics.read_text())


def run(recipe: Recipe, directory: Path, seed: int, given: argparse.Namespace) -> dict:
    """Prune, quantise and score; the final figures and the minutes of both trainings."""
    epochs = f"trainer.epochs={given.epochs}"
    data = ("data=imagefolder", f"data.train={given.train}", f"data.test={given.test}")
    start = ("model=resnet20", f"model.weights={given.student}", *data)
    common = (epochs, f"seed={seed}", *given.extra)

    def arguments(own: tuple[str, ...]) -> tuple[str, ...]:
        return (*own, f"distill.teacher.weights={given.teacher}", *common) if set(TEACHER) <= set(own) else own + common

    pruned = micronet(directory / "prune", "stage=prune", *start, *PRUNE, *arguments(recipe.prune))
    quantised = micronet(
        directory / "qat", "stage=qat", f"init_from={directory / 'prune'}", *QAT, *arguments(recipe.qat)
    )
    scored = micronet(directory / "score", "stage=score", f"init_from={directory / 'qat'}", *recipe.score)
    minutes = (pruned["wall_seconds"] + quantised["wall_seconds"]) / 60
    return quantised | scored | {"top1": quantised["top1"], "minutes": minutes}


def cell(values: list[float], pattern: str) -> str:
    """Mean and, of several seeds, standard deviation."""
    mean = pattern.format(statistics.mean(values))
    return mean if len(values) == 1 else f"{mean} +- {pattern.format(statistics.stdev(values))}"


def table(dense: dict, results: dict[str, list[dict]], given: argparse.Namespace) -> str:
    """The Markdown table."""
    patterns = ("{:.2f}", "{:.3f}", "{:.2f}", "{:.0f}", "{:.0f}", "{:.5f}")
    lines = [
        "# CIFAR-10, measured",
        "",
        f"Seeds {', '.join(map(str, given.seeds))}; {given.epochs} epochs of each stage; {hardware()}.",
        "`python benchmarks/cifar10.py --train TRAIN --test TEST --student FILE --teacher FILE "
        f"--epochs {given.epochs}`",
        "",
        "| recipe | top-1 % | sparsity | weight bits | storage bytes | operations | score | minutes |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        f"| dense | {' | '.join(p.format(dense[c]) for c, p in zip(COLUMNS, patterns, strict=True))} | |",
    ]
    for name, runs in results.items():
        cells = [cell([r[c] for r in runs], p) for c, p in zip(COLUMNS, patterns, strict=True)]
        lines.append(
            f"| {RECIPES[name].title} | {' | '.join(cells)} | {cell([r['minutes'] for r in runs], '{:.1f}')} |"
        )
    if set(results) == set(RECIPES):
        ours, theirs = (statistics.mean(r["micronet_score"] for r in results[n]) for n in ("micronet", "reference"))
        lines += ["", f"The score of micronet's recipe is {ours / theirs:.3f} of the reference's."]
    return "\n".join(lines) + "\n"


def hardware() -> str:
    """What it ran on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} CPU cores ({platform.machine()}), torch {torch.__version__}"


def main() -> None:
    """Run what is not done, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "test", "student", "teacher"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--out", type=Path, default=Path("outputs/cifar10"))
    parser.add_argument("--table", type=Path, default=Path("outputs/cifar10/table.md"))
    parser.add_argument("extra", nargs="*", help="further arguments of both trainings")
    given = parser.parse_args()
    out = given.out.resolve()
    dense = micronet(
        out / "dense", "stage=eval", "model=resnet20", f"model.weights={given.student}", "data=imagefolder",
        f"data.test={given.test}",
    )  # fmt: skip
    results = {
        name: [run(RECIPES[name], out / name / str(seed), seed, given) for seed in given.seeds]
        for name in given.recipes
    }
    text = table(dense, results, given)
    given.table.parent.mkdir(parents=True, exist_ok=True)
    given.table.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
