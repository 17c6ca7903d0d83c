"""Guards that a refused command leaves nothing behind, and that a run which began keeps everything."""

import pytest

from micronet_cli.command.refused import FreshPaths
from tests.conftest import TINY, metrics_of

MISTAKES = {
    "in the config": ("stage=eval", *TINY, "trainer.epoch=1"),
    "in a file's name": ("stage=eval", "init_from=/nowhere"),
    "in a rule": ("stage=prune", *TINY, "prune.rules.a.match=nothing", "prune.rules.a.sparsity=0.5"),
    "in a teacher": ("stage=qat", *TINY, "distill=soft_targets", "distill.teacher.weights=/nowhere"),
    "in a pipeline's step": (
        *TINY,
        "stage.steps.train=null",
        "prune.rules.a.match=nothing",
        "prune.rules.a.sparsity=0.5",
    ),
}


@pytest.mark.parametrize("arguments", MISTAKES.values(), ids=MISTAKES.keys())
def test_refused_command_leaves_no_directory(mistake, tmp_path, arguments):
    mistake(*arguments, directory=tmp_path / "outputs" / "a" / "run")
    assert list(tmp_path.iterdir()) == []


def test_directory_that_was_there_stays(mistake, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    mistake(*MISTAKES["in a teacher"], directory=tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_earlier_run_is_as_it_was(micronet, mistake):
    run = micronet("stage=score", *TINY)
    micronet("stage=score", *TINY, "seed=1", directory=run)
    before = {path.relative_to(run): path.read_bytes() for path in run.rglob("*.*") if path.suffix in (".json", ".csv")}
    mistake(*MISTAKES["in a rule"], directory=run)
    after = {path.relative_to(run): path.read_bytes() for path in run.rglob("*.*") if path.suffix in (".json", ".csv")}
    assert after == before
    assert metrics_of(run)["seed"] == 1
    assert metrics_of(run / "previous")["seed"] == 0


def test_run_that_began_is_kept(mistake, tmp_path, monkeypatch):
    from micronet_cli.errors import UserError
    from micronet_cli.stages import score

    def begin_and_fail(job):
        job.run.write_text("work.txt", "some")
        raise UserError("x: it went wrong")

    monkeypatch.setattr(score, "run", begin_and_fail)
    mistake("stage=score", *TINY, directory=tmp_path / "run")
    assert metrics_of(tmp_path / "run")["status"] == "failed"
    assert (tmp_path / "run" / ".hydra").is_dir()


def test_refused_resume_leaves_the_run_s_figures(micronet, mistake):
    run = micronet("stage=train", *TINY, "trainer.max_steps=2")
    mistake("stage=train", *TINY, "trainer.max_steps=2", "data.batch_size=0", "resume=true", directory=run)
    assert metrics_of(run)["status"] == "completed"


def test_paths_that_were_there_are_no_fresh_ones(composed, tmp_path):
    from hydra import compose

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "micronet.log").touch()
    config = compose("config", [f"hydra.run.dir={tmp_path}/a"], return_hydra_config=True)
    FreshPaths().on_run_start(config)
    assert FreshPaths.files == [tmp_path / "a" / ".hydra"]
    assert FreshPaths.directories == []
