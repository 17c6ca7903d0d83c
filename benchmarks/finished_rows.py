"""What a benchmark's tasks gave, kept in a file of JSON lines with the commit that made each, so that it goes on."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

ROOT = Path(__file__).parents[1]
Task = TypeVar("Task")


@dataclass(frozen=True)
class Row(Generic[Task]):
    """What a task gave.

    Attributes:
        task: a frozen dataclass of plain values; the commit of what makes the row is one of them.
        figures: by name; empty where it failed.
        failed: the reason, else empty.
    """

    task: Task
    figures: dict[str, float]
    failed: str = ""


class FinishedRows(Generic[Task]):
    """Rows in a file, so that an interrupted benchmark goes on.

    Args:
        path: of the file; it is made with the first row.
        task_type: the class of the tasks.
    """

    def __init__(self, path: Path, task_type: type[Task]) -> None:
        self._path = path
        self._task_type = task_type

    def read(self) -> dict[Task, Row[Task]]:
        """By task; of one that was done twice, the later. A line that was cut off is left out."""
        if not self._path.is_file():
            return {}
        rows = {}
        for line in self._path.read_text().splitlines():
            try:
                values: dict[str, Any] = json.loads(line)
            except json.JSONDecodeError:
                continue
            task = self._task_type(**values.pop("task"))
            rows[task] = Row(task, **values)
        return rows

    def add(self, row: Row[Task]) -> None:
        """Write one more."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            # The line break comes first: the line before may be cut off.
            file.write("\n" + json.dumps(asdict(row)))


def commit_of(paths: Sequence[str]) -> str:
    """The last commit that touched these, relative to the repository; with a mark where they differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words, "--", *paths], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    commit = git("log", "-1", "--format=%h")
    changed = git("status", "--porcelain")
    return f"{commit} with changes" if changed else commit
