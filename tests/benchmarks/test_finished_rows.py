"""Guards the file of finished rows: what is found again, what is not, and a line that was cut off."""

from dataclasses import dataclass, replace

from finished_rows import FinishedRows, Row


@dataclass(frozen=True)
class Task:
    """As benchmarks have one."""

    seed: int
    source: str
    images: int | None = None


TASK = Task(seed=0, source="abc1234")
FIGURES = {"top1": 80.0}


def test_finished_rows_are_found_again_and_those_of_another_commit_are_not(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    rows = [Row(TASK, FIGURES), Row(replace(TASK, seed=1), {}, "RuntimeError: no")]
    for row in rows:
        FinishedRows(path, Task).add(row)
    found = FinishedRows(path, Task).read()
    assert list(found.values()) == rows
    assert replace(TASK, source="def5678") not in found
    assert replace(TASK, images=8) not in found


def test_line_cut_off_by_an_interruption_is_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    finished = FinishedRows(path, Task)
    finished.add(Row(TASK, FIGURES))
    with path.open("a") as file:
        file.write('\n{"task": {"netw')
    assert list(finished.read()) == [TASK]
    finished.add(Row(replace(TASK, seed=1), FIGURES))
    assert len(finished.read()) == 2
