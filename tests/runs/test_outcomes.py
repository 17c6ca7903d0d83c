"""Guards what becomes of many jobs: how each ends, the summary on disk, the table and the closing message."""

import csv
import json
from pathlib import Path

import pytest

from micronet_cli.errors import Interrupted, JobsFailed, UserError
from micronet_cli.runs.directory import NOTE
from micronet_cli.runs.outcomes import MOST_REASONS, Outcome, raise_for_failed, relative, table, varied, write_summary

DONE = {"top1": 91.234, "micronet_score": 0.0123456, "weight_sparsity": 0.5, "wall_seconds": 12.3456}


def ended(number=0, status="completed", overrides=("a=1",), **more):
    return Outcome(number, list(overrides), str(number), status=status, **more)


def failing(error):
    def work():
        raise error

    return work


def test_attempt_notes_what_completed(tmp_path):
    outcome = Outcome(0, ["a=1"], "0")
    assert outcome.status == "running"
    outcome.attempt(lambda: DONE, tmp_path)
    assert (outcome.status, outcome.reason, outcome.exit_code) == ("completed", "", 0)
    assert outcome.metrics == DONE
    assert outcome.seconds == 12.3456
    assert list(tmp_path.iterdir()) == []


def test_attempt_notes_a_mistake_on_one_line(tmp_path):
    outcome = Outcome(0, [], "0")
    outcome.attempt(failing(UserError("a=1: wrong\nb=2: wrong")), tmp_path)
    assert (outcome.status, outcome.reason, outcome.exit_code) == ("failed", "a=1: wrong; b=2: wrong", 2)
    assert outcome.seconds >= 0
    assert not (tmp_path / "traceback.txt").exists()


def test_attempt_keeps_the_exit_code_of_failed_jobs_within_it(tmp_path):
    outcome = Outcome(0, [], "0")
    outcome.attempt(failing(JobsFailed("1 of 2 trials failed:", ["trial 0: x"], 1)), tmp_path)
    assert outcome.exit_code == 1


def test_attempt_keeps_the_traceback_of_what_nobody_expected(tmp_path):
    outcome = Outcome(0, [], "0")
    outcome.attempt(failing(RuntimeError("\nout of memory\nat 0x1")), tmp_path / "new")
    assert (outcome.status, outcome.reason, outcome.exit_code) == ("failed", "RuntimeError: out of memory", 1)
    assert "Traceback" in (tmp_path / "new" / "traceback.txt").read_text()
    assert (tmp_path / "new" / NOTE).read_text() == "traceback.txt\n"


def test_attempt_leaves_the_files_of_a_run_that_crashed(tmp_path):
    (tmp_path / "config.yaml").touch()
    Outcome(0, [], "0").attempt(failing(KeyError("x")), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "traceback.txt", NOTE}


INTERRUPTIONS = {
    "with what to do next": (Interrupted("stopped at step 3; go on with it"), "stopped at step 3"),
    "without": (Interrupted("stopped"), "stopped"),
    "from the keyboard": (KeyboardInterrupt(), "interrupted"),
}


@pytest.mark.parametrize(("error", "reason"), INTERRUPTIONS.values(), ids=INTERRUPTIONS.keys())
def test_attempt_passes_an_interruption_on(tmp_path, error, reason):
    outcome = Outcome(0, [], "0")
    with pytest.raises(Interrupted) as caught:
        outcome.attempt(failing(error), tmp_path)
    assert (outcome.status, outcome.reason, str(caught.value)) == ("interrupted", reason, reason)
    assert outcome.exit_code == 0


def test_row_has_the_figures_under_their_names():
    row = ended(3, metrics=DONE | {"split": "test", "val_top1": 90.0}, seconds=12.34567).row()
    assert row == {
        "number": 3,
        "overrides": ["a=1"],
        "status": "completed",
        "reason": "",
        "top1": 91.234,
        "split": "test",
        "val_top1": 90.0,
        "micronet_score": 0.0123456,
        "sparsity": 0.5,
        "seconds": 12.346,
        "directory": "3",
    }


def test_row_of_a_failed_job_has_no_figures():
    row = ended(status="failed", reason="x: wrong").row()
    assert [row[key] for key in ("top1", "micronet_score", "sparsity", "reason")] == [None, None, None, "x: wrong"]


PLACES = {
    "inside": ("/a/b/3", "3"),
    "deep inside": ("/a/b/x/3", "x/3"),
    "itself": ("/a/b", "."),
    "elsewhere": ("/a/c/3", "/a/c/3"),
    "a name that begins alike": ("/a/bc", "/a/bc"),
}


@pytest.mark.parametrize(("directory", "expected"), PLACES.values(), ids=PLACES.keys())
def test_relative_is_seen_from_the_root(directory, expected):
    assert relative(Path(directory), Path("/a/b")) == expected


def test_summary_is_written_twice_and_claims_what_lies_inside(tmp_path):
    outside = tmp_path.parent / "elsewhere"
    rows = [ended(0, overrides=["a=1", "b=[1,2]"]).row(), ended(1).row() | {"directory": str(outside)}]
    write_summary(tmp_path, rows)
    assert json.loads((tmp_path / "summary.json").read_text()) == rows
    with (tmp_path / "summary.csv").open(newline="") as file:
        flat = list(csv.DictReader(file))
    assert [row["overrides"] for row in flat] == ["a=1 b=[1,2]", "a=1"]
    assert flat[0]["top1"] == ""
    assert (tmp_path / NOTE).read_text().split() == ["0", "summary.csv", "summary.json"]
    assert rows[0]["overrides"] == ["a=1", "b=[1,2]"]


def test_summary_may_be_written_again(tmp_path):
    write_summary(tmp_path, [ended(0).row()])
    write_summary(tmp_path, [ended(0).row(), ended(1).row()])
    assert len(json.loads((tmp_path / "summary.json").read_text())) == 2
    assert not (tmp_path / "previous").exists()


VARIED = {
    "none": ([], []),
    "one job shows all": ([["a=1", "b=0"]], ["a=1 b=0"]),
    "what all share is left out": ([["a=1", "b=0"], ["a=2", "b=0"]], ["a=1", "a=2"]),
    "what some share stays": ([["a=1"], ["a=1", "b=0"], ["b=0"]], ["a=1", "a=1 b=0", "b=0"]),
    "equal jobs": ([["a=1"], ["a=1"]], ["", ""]),
}


@pytest.mark.parametrize(("overrides", "expected"), VARIED.values(), ids=VARIED.keys())
def test_varied_leaves_out_what_all_share(overrides, expected):
    assert varied([ended(number, overrides=own) for number, own in enumerate(overrides)]) == expected


def test_table_shows_figures_and_dashes():
    outcomes = [
        ended(0, overrides=["a=1"], metrics=DONE | {"split": "test"}, seconds=12.6),
        ended(1, "failed", ["a=2"]),
    ]
    first, *rows = table(outcomes).splitlines()
    assert first.split() == ["job", "status", "top1", "split", "val_top1", "micronet_score", "sparsity", "seconds"]
    assert [row.split() for row in rows] == [
        ["0", "a=1", "completed", "91.23", "test", "-", "0.01235", "0.500", "13"],
        ["1", "a=2", "failed", "-", "-", "-", "-", "-", "0"],
    ]


def test_table_of_some_numbers_keeps_their_order():
    outcomes = [ended(number, overrides=[f"a={number}"]) for number in (0, 1, 2)]
    rows = table(outcomes, [2, 0]).splitlines()[1:]
    assert [row.split()[:2] for row in rows] == [["2", "a=2"], ["0", "a=0"]]
    assert len(table(outcomes, []).splitlines()) <= 1


def test_nothing_is_raised_where_nothing_failed():
    raise_for_failed([], "job")
    raise_for_failed([ended(0), ended(1, "interrupted")], "job")


def test_failed_jobs_are_named_with_what_is_their_own():
    mistaken = ended(1, "failed", ["a=2", "b=0"], reason="a=2: wrong", exit_code=2)
    with pytest.raises(JobsFailed) as caught:
        raise_for_failed([ended(0, overrides=["a=1", "b=0"]), mistaken], "trial")
    assert caught.value.heading == "1 of 2 trials failed:"
    assert str(caught.value) == "trial 1 (a=2): a=2: wrong"
    assert caught.value.exit_code == 2


def test_job_without_anything_of_its_own_has_no_brackets():
    with pytest.raises(JobsFailed, match=r"^job 0: x$"):
        raise_for_failed([ended(0, "failed", [], reason="x")], "job")


def test_many_reasons_are_cut():
    outcomes = [ended(n, "failed", [f"a={n}"], reason="x", exit_code=2) for n in range(MOST_REASONS + 2)]
    with pytest.raises(JobsFailed) as caught:
        raise_for_failed(outcomes, "job")
    lines = str(caught.value).splitlines()
    assert len(lines) == MOST_REASONS + 1
    assert lines[-1] == "and 2 more, in the summary"
    with pytest.raises(JobsFailed) as caught:
        raise_for_failed(outcomes[:MOST_REASONS], "job")
    assert "more" not in str(caught.value)


def test_one_crash_among_mistakes_decides_the_exit_code():
    mistaken = ended(0, "failed", ["a=0"], exit_code=2)
    crashed = ended(1, "failed", ["a=1"], exit_code=1)
    with pytest.raises(JobsFailed) as caught:
        raise_for_failed([mistaken, crashed], "job")
    assert caught.value.exit_code == 1


def test_a_job_that_was_measured_on_val_is_compared_by_that():
    row = ended(metrics={"top1": 80.0, "split": "val", "val_top1": 79.0}).row()
    assert (row["top1"], row["val_top1"]) == (80.0, 80.0)
    assert ended(metrics={"top1": 80.0, "split": "test"}).row()["val_top1"] is None
