"""CIFAR-10 evidence: the reference recipe translated, and micronet's own, at equal epochs from the same networks.

    python benchmarks/cifar10.py --train TRAIN --test TEST --student FILE --teacher FILE [--epochs N] [--seeds 0 1 2]

TRAIN and TEST are ImageFolder directories or tars; FILE are weights of resnet20 and resnet56. Every step is a command
of ``micronet``, printed as it is run, in a directory of its own below ``--out``; a finished step is not run again.
Finished rows are kept in ``--rows`` with the commit that made them, so that seeds can be run on different days, and
``--finished`` writes the page of what there is. Scores take CIFAR-100's base.

With ``--hold-back 500`` in the place of ``--test``, so many images a class of TRAIN, a tar, are kept out of training
and judge the recipes. That is how the recipe was chosen; the networks that training starts from have seen these images.
"""

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from cifar10_recipes import RECIPES
from cifar10_steps import Files, Steps, dense_figures, hold_back
from finished_rows import ROOT, FinishedRows, Row, commit_of
from markdown_page import mean_and_deviation, write_page

# What a row depends on.
SOURCES = ("src", "conf", "benchmarks/cifar10_recipes.py", "benchmarks/cifar10_steps.py")
DENSE = "dense"
# Column -> its figure and format.
COLUMNS = {
    "top-1 %": ("top1", ".2f"),
    "sparsity": ("weight_sparsity", ".3f"),
    "weight bits": ("weight_bits_mean", ".2f"),
    "storage bytes": ("storage_bytes", ".0f"),
    "operations": ("math_ops", ".0f"),
    "score": ("micronet_score", ".5f"),
    "packed bytes": ("packed_bytes", ".0f"),
    "packed top-1": ("packed_top1", ".2f"),
    "ONNX top-1": ("onnx_top1", ".2f"),
    "ms": ("latency_ms", ".2f"),
    "dense ms": ("dense_latency_ms", ".2f"),
    "minutes": ("minutes", ".1f"),
}


@dataclass(frozen=True)
class Task:
    """A row.

    Attributes:
        recipe: its name, or ``dense``.
        seed, epochs: of every stage; 0 of the dense network.
        judged_by: ``test``, or how many training images a class.
        extra: further arguments of every stage that trains.
        source: the commit of what makes the row.
    """

    recipe: str
    seed: int
    epochs: int
    judged_by: str
    extra: str
    source: str

    @property
    def path(self) -> Path:
        """Of its steps; another commit, or other arguments, have others."""
        words = [self.source, self.judged_by, f"{self.epochs} epochs", self.extra]
        folder = " ".join(word for word in words if word)
        return Path(folder.replace("/", "_").replace(" ", "_"), self.recipe, str(self.seed))


def tasks(given: argparse.Namespace) -> Iterator[Task]:
    """All rows asked for: the first seed of every recipe, then the next seed."""
    judged_by = f"{given.hold_back} a class held back" if given.hold_back else "test"
    yield Task(DENSE, 0, 0, judged_by, "", given.source)
    for seed in given.seeds:
        for recipe in given.recipes:
            yield Task(recipe, seed, given.epochs, judged_by, " ".join(given.extra), given.source)


def row(task: Task, files: Files, out: Path) -> Row[Task]:
    """What the task gave."""
    directory = out / task.path
    if task.recipe == DENSE:
        return Row(task, dense_figures(files, directory))
    steps = Steps(files, directory, task.seed, task.epochs, task.extra.split())
    return Row(task, steps.figures(RECIPES[task.recipe]))


def table(rows: Sequence[Row[Task]]) -> list[list[str]]:
    """A line for each recipe, over its seeds."""
    lines = []
    for recipe, figures in by_recipe(rows).items():
        title = RECIPES[recipe].title if recipe in RECIPES else recipe
        cells = [_cell(figures, name, form) for name, form in COLUMNS.values()]
        lines.append([title, *cells])
    return lines


def by_recipe(rows: Sequence[Row[Task]]) -> dict[str, list[Mapping[str, float]]]:
    """Recipe -> the figures of its seeds."""
    found: dict[str, list[Mapping[str, float]]] = {}
    for each in rows:
        found.setdefault(each.task.recipe, []).append(each.figures)
    return found


def _cell(figures: Sequence[Mapping[str, float]], name: str, form: str) -> str:
    """Empty where the recipe has no such figure."""
    values = [each[name] for each in figures if name in each]
    return mean_and_deviation(values, form) if values else ""


def told(rows: Sequence[Row[Task]], given: argparse.Namespace) -> str:
    """What stands above the table."""
    seeds = ", ".join(map(str, given.seeds))
    judge = f"--hold-back {given.hold_back}" if given.hold_back else "--test TEST"
    command = f"python benchmarks/cifar10.py --train TRAIN {judge} --student FILE --teacher FILE"
    lines = [
        f"Seeds {seeds}; {given.epochs} epochs a stage; {platform.machine()}, torch {version('torch')}; the code at "
        f"{given.source}. Means ± standard deviations over the seeds.",
        f"`{' '.join([command, f'--epochs {given.epochs}', *given.extra])}`",
        "",
    ]
    if given.hold_back:
        lines += [
            f"Top-1 is of {given.hold_back} training images a class, held back from training here; the networks that "
            "training starts from have seen them, so that it compares only with itself.",
            "",
        ]
    lines += [
        "Packed: the file of `stage=export`, evaluated by `stage=eval`; ONNX: its `model.onnx` in onnxruntime. ms: one "
        "image on one thread in the fastest engine of `stage=latency`, beside the dense network in its own fastest.",
        "",
        "[How micronet's recipe was chosen](cifar10_choices.md).",
    ]
    return "\n".join([*lines, *_ratio(rows)])


def _ratio(rows: Sequence[Row[Task]]) -> list[str]:
    """The line on both scores, where both recipes were run."""
    scores = {}
    for recipe, figures in by_recipe(rows).items():
        scores[recipe] = statistics.mean(each["micronet_score"] for each in figures)
    if not set(RECIPES) <= set(scores):
        return []
    ratio = scores["micronet"] / scores["reference"]
    return ["", f"The score of micronet's recipe is {ratio:.3f} of the reference's."]


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "student", "teacher"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    judge = parser.add_mutually_exclusive_group(required=True)
    judge.add_argument("--test", type=Path)
    judge.add_argument("--hold-back", type=int, metavar="N", help="training images a class that judge in its place")
    parser.add_argument("--epochs", type=int, default=5, help="of each stage")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--finished", action="store_true", help="only write the page of the rows that are finished")
    parser.add_argument("--source", default=commit_of(SOURCES), help="with --finished: rows of an earlier commit")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "cifar10")
    parser.add_argument("--rows", type=Path, default=ROOT / "benchmarks" / "cifar10.jsonl")
    parser.add_argument("--table", type=Path, default=ROOT / "outputs" / "cifar10" / "table.md")
    parser.add_argument("extra", nargs="*", help="further arguments of every stage that trains")
    given = parser.parse_args()
    if given.source != commit_of(SOURCES) and not given.finished:
        parser.error(f"--source {given.source}: rows of another commit are only shown; give --finished too")
    return given


def files_of(given: argparse.Namespace) -> Files:
    """Absolute paths of what the rows read; images that are held back are written first."""
    train, test = given.train, given.test
    if given.hold_back:
        train, test = hold_back(train, given.hold_back, given.out / f"hold_back_{given.hold_back}")
    paths = (train, test, given.student, given.teacher)
    return Files(*(path.resolve() for path in paths))


def main() -> None:
    """Run what is not done, write the page."""
    given = arguments()
    finished = FinishedRows(given.rows, Task)
    planned = list(tasks(given))
    if not given.finished:
        files = files_of(given)
        for task in planned:
            if task not in finished.read():
                finished.add(row(task, files, given.out.resolve()))
    done = finished.read()
    rows = [done[task] for task in planned if task in done]
    write_page(given.table, "CIFAR-10, measured", told(rows, given), ["recipe", *COLUMNS], table(rows))


if __name__ == "__main__":
    # Minutes are those of one thread, unless the environment says otherwise.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on with the steps that are left")
