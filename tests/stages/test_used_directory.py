"""Guards a used directory: a run sets aside nothing that it reads, and resumes only its own kind."""

from typing import Any, NamedTuple

import pytest
from omegaconf import OmegaConf

from micronet_cli.errors import UserError
from micronet_cli.runs.directory import Run
from micronet_cli.stages.used_directory import IDENTITY, check_directory, settings
from tests.conftest import TINY

TRAIN = ("stage=train", *TINY, "trainer.max_steps=2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from micronet_cli.command.cli import main

    run = tmp_path_factory.mktemp("used") / "trained"
    main([*TRAIN, f"hydra.run.dir={run}"])
    return run


def everything(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and ".hydra" not in path.parts}


# Key that names a file -> the arguments of a run that reads it.
READERS = {
    "init_from": ("stage=eval",),
    "distill.teacher.weights": ("stage=qat", *TINY, "distill=soft_targets"),
    "model.weights": ("stage=eval", *TINY),
}


@pytest.mark.parametrize("key", READERS)
def test_a_run_does_not_set_aside_what_it_reads(trained, mistake, key):
    before = everything(trained)
    said = mistake(f"{key}={trained / 'checkpoints' / 'best.safetensors'}", *READERS[key], directory=trained)
    assert f"{key}='{trained}/checkpoints/best.safetensors': lies in this run's own directory" in said
    assert everything(trained) == before


# What differs -> the arguments of a run in which it does.
OTHER_KINDS = {
    "stage.name": ("stage=prune", *TINY),
    "optim.name": (*TRAIN, "optim=adamw"),
    "model": ("stage=train", "data=digits", "model=resnet20"),
    "quantize": (*TRAIN, "quantize=w8a8"),
}


@pytest.mark.parametrize("key", OTHER_KINDS)
def test_resume_takes_the_run_s_own_kind(trained, mistake, key):
    before = everything(trained)
    said = mistake(*OTHER_KINDS[key], "resume=true", directory=trained)
    assert f"resume=true: the run in '{trained}' has another {key}; use its own config" in said
    assert everything(trained) == before


def test_resume_goes_on_for_longer(micronet):
    run = micronet(*TRAIN)
    micronet(*TRAIN[:-1], "trainer.max_steps=4", "resume=true", directory=run)
    assert not (run / "previous").exists()
    assert '"step": 4' in (run / "history.jsonl").read_text()


@pytest.fixture
def made(tmp_path):
    """A directory with the config of a run that trained with a teacher; the config."""
    config = OmegaConf.create(
        {
            "resume": True,
            "init_from": None,
            "stage": {"name": "qat"},
            "model": {"name": "resnet8", "weights": "a.pth"},
            "prune": None,
            "quantize": {"bits": 4},
            "distill": {"weight": 0.5, "teacher": {"model": "resnet20", "weights": "runs/a"}},
            "optim": {"name": "sgd", "lr": 0.1},
        }
    )
    run = Run(tmp_path / "run")
    run.write_text("config.yaml", OmegaConf.to_yaml(config))
    return config, run.directory


class Change(NamedTuple):
    key: str
    value: Any


CHANGES = {
    "another learning rate": Change("optim.lr", 0.2),
    "moved weights": Change("model.weights", "b.pth"),
    "a moved teacher": Change("distill.teacher.weights", "elsewhere/a"),
    "another start": Change("init_from", "runs/b"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_resume_goes_on_where_the_identity_is_the_same(made, change):
    config, directory = made
    OmegaConf.update(config, change.key, change.value)
    check_directory(config, directory)


OTHERS = {
    "stage.name": Change("stage.name", "train"),
    "model": Change("model.name", "resnet20"),
    "prune": Change("prune", {"sparsity": 0.5}),
    "quantize": Change("quantize.bits", 8),
    "distill": Change("distill.teacher.model", "resnet56"),
    "optim.name": Change("optim.name", "adamw"),
}


@pytest.mark.parametrize("named", IDENTITY)
def test_resume_names_what_is_another(made, named):
    config, directory = made
    change = OTHERS[named]
    OmegaConf.update(config, change.key, change.value, merge=False)
    with pytest.raises(UserError) as caught:
        check_directory(config, directory)
    assert str(caught.value).startswith(f"resume=true: the run in {str(directory)!r} has another {named}; ")
    config.resume = False
    check_directory(config, directory)


def test_resume_reads_the_names_of_an_earlier_version(made):
    config, directory = made
    config.prune = {"_target_": "micronet_cli.compression.pruning.pruner.Pruner"}
    text = OmegaConf.to_yaml(config).replace("compression.pruning.pruner", "compression.pruner")
    (directory / "config.yaml").write_text(text)
    check_directory(config, directory)
    assert settings(OmegaConf.load(directory / "config.yaml")) == settings(config)


def test_resume_without_a_recorded_config_begins(made):
    config, directory = made
    (directory / "config.yaml").unlink()
    config.optim.name = "adamw"
    check_directory(config, directory)
    check_directory(config, directory / "new")


OWN = {
    "the directory": "",
    "a file": "config.yaml",
    "what an earlier run left": "previous",
    "below it": "previous/checkpoints/best.safetensors",
}


@pytest.mark.parametrize("name", OWN.values(), ids=OWN.keys())
def test_a_fresh_run_reads_nothing_that_it_sets_aside(made, name):
    config, directory = made
    config.resume, config.init_from = False, str(directory / name)
    with pytest.raises(UserError) as caught:
        check_directory(config, directory)
    assert "lies in this run's own directory; give another hydra.run.dir" in str(caught.value)
    config.resume = True
    check_directory(config, directory)


def test_a_fresh_run_reads_a_user_s_own_file_in_the_directory(made):
    config, directory = made
    config.resume, config.init_from = False, str(directory / "mine.pth")
    check_directory(config, directory)


def test_settings_leave_out_how_a_run_is_started():
    config = {"seed": 0, "resume": True, "debug": True, "model": {"name": "resnet8"}}
    assert settings(OmegaConf.create(config)) == {"seed": 0, "model": {"name": "resnet8"}}
