"""A run's directory: what a run wrote is set aside, everything else stays, and a write is whole or absent."""

from pathlib import Path

import pytest

from micronet_cli.runs.directory import NOTE, Run, own_paths, put_back, set_aside, write_bytes


def names(directory):
    return {path.name for path in directory.iterdir()}


def test_what_is_set_aside_is_exactly_what_the_run_wrote(tmp_path):
    run = Run(tmp_path)
    run.write_text("rules/prune/budget.yaml", "")
    run.write_csv("mine.csv", [{"a": 1}])
    run.write_bytes("mine.png", b"")
    run.record({"kind": "step", "step": 1})
    run.claim(run.best).parent.mkdir()
    run.claim("2_prune").mkdir()
    run.claim("model.onnx")  # noted, and never written
    for name in ("report.html", "metrics.json", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "7").mkdir()
    Run(tmp_path)
    assert names(tmp_path) == {"report.html", "metrics.json", "notes.txt", "7", "previous"}
    own = {"rules", "mine.csv", "mine.png", "history.jsonl", "checkpoints", "2_prune", NOTE}
    assert names(tmp_path / "previous") == own


def test_a_name_is_noted_before_the_thing_is_there(tmp_path):
    run = Run(tmp_path)
    (tmp_path / "half").mkdir()
    with pytest.raises(IsADirectoryError):
        run.write_text("half", "a directory is in its place")
    assert (tmp_path / NOTE).read_text() == "half\n"


def test_what_previous_held_goes_one_level_deeper(tmp_path):
    for text in "abc":
        Run(tmp_path).write_text("metrics.json", text)
    assert (tmp_path / "metrics.json").read_text() == "c"
    assert (tmp_path / "previous" / "metrics.json").read_text() == "b"
    assert (tmp_path / "previous" / "previous" / "metrics.json").read_text() == "a"


def test_a_resumed_directory_of_version_0_1_0_keeps_its_names(tmp_path):
    for name in ("config.yaml", "model.mnet", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "2_prune").mkdir()
    Run(tmp_path, resume=True).write_text("count.json", "{}")
    assert (tmp_path / NOTE).read_text().split() == ["2_prune", "config.yaml", "count.json", "model.mnet"]
    Run(tmp_path)
    assert names(tmp_path) == {"notes.txt", "previous"}


def test_a_directory_that_no_run_used_is_left_alone(tmp_path):
    (tmp_path / "report.html").touch()
    (tmp_path / "7").mkdir()
    assert own_paths(tmp_path) == []
    Run(tmp_path)
    assert names(tmp_path) == {"report.html", "7"}


def test_two_writers_of_one_directory_keep_each_other_s_names(tmp_path):
    first, second = Run(tmp_path), Run(tmp_path, resume=True)
    first.write_text("a", "")
    second.write_text("b", "")
    first.write_text("c", "")
    assert (tmp_path / NOTE).read_text().split() == ["a", "b", "c"]


def test_a_process_that_does_not_write_leaves_nothing(tmp_path):
    run = Run(tmp_path / "run", writes=False)
    run.write_text("a", "")
    run.record({"kind": "step", "step": 1})
    assert run.claim("b") == tmp_path / "run" / "b"
    assert not (tmp_path / "run").exists()


def test_rewind_drops_lines_of_work_to_be_done_again_and_a_cut_line(tmp_path):
    run = Run(tmp_path)
    (tmp_path / "history.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    run.rewind_history(lambda line: line["step"] <= 2)
    assert (tmp_path / "history.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(TypeError):
        write_bytes(path, "text")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


def test_csv_has_the_union_of_the_keys(tmp_path):
    Run(tmp_path).write_csv("x.csv", [{"a": 1}, {"b": 2, "a": None}])
    assert (tmp_path / "x.csv").read_text() == "a,b\n1,\n,2\n"


def test_claim_takes_names_and_whole_paths_below_a_relative_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run(Path("7"))
    assert run.claim("7") == Path("7/7")
    assert run.claim(run.best) == Path("7/checkpoints/best.safetensors")
    assert (tmp_path / "7" / NOTE).read_text().split() == ["7", "checkpoints"]


def test_only_a_run_s_own_directories_are_set_aside(tmp_path):
    for name in ("7", "2_prune", "2026-05-01", "3dmodels", "2026-05-01_12"):
        (tmp_path / name).mkdir()
    for name in ("report.html", "config.yaml"):
        (tmp_path / name).touch()
    set_aside(tmp_path)
    assert {path.name for path in (tmp_path / "previous").iterdir()} == {"7", "2_prune", "report.html", "config.yaml"}


@pytest.mark.parametrize("emptied", [True, False], ids=["previous made anew", "previous parked only"])
def test_setting_aside_goes_on_after_a_crash_in_the_middle(tmp_path, emptied):
    Run(tmp_path).write_text("a.txt", "first")
    Run(tmp_path).write_text("a.txt", "second")  # the first is in previous/ now
    (tmp_path / "previous").rename(tmp_path / ".previous")
    if emptied:
        (tmp_path / "previous").mkdir()
    Run(tmp_path).write_text("a.txt", "third")
    assert (tmp_path / "a.txt").read_text() == "third"
    assert (tmp_path / "previous" / "a.txt").read_text() == "second"
    assert (tmp_path / "previous" / "previous" / "a.txt").read_text() == "first"
    assert not (tmp_path / ".previous").exists()


def test_metrics_are_what_was_written_or_nothing(tmp_path):
    run = Run(tmp_path)
    assert run.metrics() == {}
    run.write_json("metrics.json", {"top1": 91.5, "path": Path("x")})
    assert run.metrics() == {"top1": 91.5, "path": "x"}
    assert (tmp_path / "metrics.json").read_text().endswith("}\n")


def test_places_of_a_run_are_the_contract_s(tmp_path):
    run = Run(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in (run.best, run.last, run.packed, run.state)]
    assert found == ["checkpoints/best.safetensors", "checkpoints/last.safetensors", "model.mnet", "resume/state.pt"]


def test_a_tracker_gets_the_numbers_of_a_line_and_its_step(tmp_path):
    calls = []

    class Recorder:
        def log(self, values, step):
            calls.append((values, step))

    run = Run(tmp_path)
    run.tracker = Recorder()
    run.record({"kind": "epoch", "step": 7, "loss": 0.5, "layer": "conv1", "images": 3})
    assert calls == [({"epoch/loss": 0.5}, 7)]
    assert (tmp_path / "history.jsonl").read_text() == (
        '{"kind": "epoch", "step": 7, "loss": 0.5, "layer": "conv1", "images": 3}\n'
    )


def test_rewinding_without_a_history_writes_none(tmp_path):
    Run(tmp_path).rewind_history(lambda line: True)
    assert not (tmp_path / "history.jsonl").exists()


def contents(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_put_back_undoes_setting_aside(tmp_path):
    for text in "abc":
        Run(tmp_path).write_text("metrics.json", text)
    before = contents(tmp_path)
    assert set_aside(tmp_path)
    put_back(tmp_path)
    assert contents(tmp_path) == before
    assert not set_aside(tmp_path / "previous" / "previous" / "previous")


def test_withdrawn_run_leaves_what_was_there(tmp_path):
    Run(tmp_path).write_text("metrics.json", "earlier")
    (tmp_path / "notes.txt").touch()
    before = contents(tmp_path)
    run = Run(tmp_path)
    run.write_text("config.yaml", "")
    run.write_text("rules/prune.yaml", "")
    run.withdraw()
    assert contents(tmp_path) == before


def test_withdrawn_run_takes_the_directory_that_it_made(tmp_path):
    run = Run(tmp_path / "new")
    run.write_text("config.yaml", "")
    run.withdraw()
    assert not run.directory.exists()


def test_withdrawn_run_that_resumes_leaves_everything(tmp_path):
    Run(tmp_path).write_text("metrics.json", "earlier")
    run = Run(tmp_path, resume=True)
    run.write_text("config.yaml", "")
    run.withdraw()
    assert names(tmp_path) == {"metrics.json", "config.yaml", NOTE}


def test_run_is_only_prepared_until_it_writes_of_its_work(tmp_path):
    run = Run(tmp_path)
    run.write_text("config.yaml", "")
    run.claim("study.db")
    assert run.is_prepared_only()
    run.write_text("curves/a", "")
    assert run.is_prepared_only(["curves"])
    assert not run.is_prepared_only()


def test_columns_of_a_table_stand_before_those_of_its_rows(tmp_path):
    run = Run(tmp_path)
    run.write_csv("a.csv", [{"z": 1, "x": 2}], columns=["x", "y"])
    assert (tmp_path / "a.csv").read_text() == "x,y,z\n2,,1\n"
    run.write_csv("b.csv", [], columns=["x"])
    assert (tmp_path / "b.csv").read_text() == "x\n"
