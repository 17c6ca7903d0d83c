"""What a run reads, what it writes over, and what it goes on with."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from micronet_cli.errors import UserError
from micronet_cli.runs.directory import set_aside
from micronet_cli.stages.node import stage_module
from micronet_cli.stages.pipeline import steps
from tests.conftest import TINY

TRAIN = ("stage=train", *TINY, "trainer.max_steps=2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from micronet_cli.command.cli import main

    run = tmp_path_factory.mktemp("job") / "trained"
    main([*TRAIN, f"hydra.run.dir={run}"])
    return run


def everything(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and ".hydra" not in path.parts}


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("init_from", ("stage=eval",)),
        ("distill.teacher.weights", ("stage=qat", *TINY, "distill=soft_targets")),
        ("model.weights", ("stage=eval", *TINY)),
    ],
)
def test_a_run_does_not_set_aside_what_it_reads(trained, mistake, key, more):
    before = everything(trained)
    said = mistake(f"{key}={trained / 'checkpoints' / 'best.safetensors'}", *more, directory=trained)
    assert f"{key}='{trained}/checkpoints/best.safetensors': lies in this run's own directory" in said
    assert everything(trained) == before


def test_resume_wants_the_run_s_own_kind(trained, mistake):
    before = everything(trained)
    for arguments, key in [
        (("stage=prune", *TINY), "stage.name"),
        ((*TRAIN, "optim=adamw"), "optim.name"),
        (("stage=train", "data=digits", "model=resnet20"), "model"),
        ((*TRAIN, "quantize=w8a8"), "quantize"),
    ]:
        said = mistake(*arguments, "resume=true", directory=trained)
        assert f"resume=true: the run in '{trained}' has another {key}; use its own config" in said
    assert everything(trained) == before


def test_resume_goes_on_for_longer(micronet):
    run = micronet(*TRAIN)
    micronet(*TRAIN[:-1], "trainer.max_steps=4", "resume=true", directory=run)
    assert not (run / "previous").exists()
    assert '"step": 4' in (run / "history.jsonl").read_text()


def test_state_of_another_optimiser_is_a_mistake(micronet, mistake):
    run = micronet(*TRAIN)
    (run / "config.yaml").unlink()
    assert "is of another network or optimiser" in mistake(*TRAIN, "optim=adamw", "resume=true", directory=run)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("init_from=RUN", "model.pretrained=true"), "model.pretrained=True: init_from brings its weights; take one"),
        (("init_from=RUN", "model.weights=x.pth"), "model.weights=x.pth: init_from brings its weights; take one"),
        (("init_from=RUN", "model.num_classes=7"), "model.num_classes=7: there are 10 classes; leave it null"),
        ((*TINY, "model.num_classes=7"), "model.num_classes=7: there are 10 classes; leave it null"),
        (("init_from=1",), "init_from=1: must be a path, as ./1"),
        (("init_from=[a,b]",), "init_from=['a', 'b']: must be a path"),
    ],
)
def test_settings_that_exclude_each_other(trained, mistake, arguments, wanted):
    assert wanted in mistake("stage=eval", *(a.replace("RUN", str(trained)) for a in arguments))


def test_teacher_s_model_and_run_agree(trained, mistake):
    weights = f"distill.teacher.weights={trained}"
    said = mistake("stage=qat", *TINY, "distill=soft_targets", "distill.teacher.model=resnet20", weights)
    assert f"distill.teacher.model=resnet20: '{trained}' holds resnet8; give one of them" in said


def test_pipeline_takes_weights_once(composed):
    found = steps(composed("model=resnet8", "model.weights=x.pth"), Path())
    assert [own.model.weights for own in found.values()] == ["x.pth", None, None]


def test_pipeline_leaves_out_what_is_off(composed):
    found = steps(composed("quantize=none", "model=resnet8"), Path())
    assert list(found) == ["train", "prune"]
    assert list(steps(composed("stage.steps.train=null", "model=resnet8"), Path())) == ["prune", "qat"]


def test_only_a_run_s_own_directories_are_set_aside(tmp_path):
    for name in ("7", "2_prune", "2026-05-01", "3dmodels", "2026-05-01_12"):
        (tmp_path / name).mkdir()
    for name in ("report.html", "config.yaml"):
        (tmp_path / name).touch()
    set_aside(tmp_path)
    assert {path.name for path in (tmp_path / "previous").iterdir()} == {"7", "2_prune", "report.html", "config.yaml"}


def test_a_stage_has_its_own_keys_and_no_others():
    module = "micronet_cli.stages.{}"
    shrink = OmegaConf.create({"stage": {"name": "shrink", "module": module.format("shrink"), "multiple": 16}})
    assert stage_module(shrink).__name__ == module.format("shrink")
    shrink.stage.module = module.format("score")
    with pytest.raises(UserError, match=r"stage\.multiple: unknown key"):
        stage_module(shrink)
