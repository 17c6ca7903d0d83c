"""Guards a used directory: a run sets aside nothing that it reads, and resumes only its own kind."""

import copy
from typing import Any, NamedTuple

import pytest
from omegaconf import OmegaConf

from micronet_cli.config import to_plain
from micronet_cli.errors import UserError
from micronet_cli.runs.directory import Run
from micronet_cli.stages.used_directory import SWITCHES, check_directory, refused, settings
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
    "model.name": ("stage=train", "data=digits", "model=resnet20"),
    "quantize": (*TRAIN, "quantize=w8a8"),
    "seed": (*TRAIN, "seed=1"),
    "optim.momentum": (*TRAIN, "optim.momentum=0"),
    "trainer.ema_decay": (*TRAIN, "trainer.ema_decay=0.9"),
}


@pytest.mark.parametrize("key", OTHER_KINDS)
def test_resume_takes_the_run_s_own_kind(trained, mistake, key):
    before = everything(trained)
    said = mistake(*OTHER_KINDS[key], "resume=true", directory=trained)
    assert f"resume=true: the run in '{trained}' has another {key}; use its own config" in said
    assert everything(trained) == before


def test_resume_does_not_shorten_what_is_done(trained, mistake):
    said = mistake("stage=train", *TINY, "trainer.max_steps=1", "resume=true", directory=trained)
    assert "resume=true: 2 steps are done and the run is to have 1; give more trainer.epochs" in said


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
            "seed": 0,
            "init_from": "runs/moved",
            "stage": {"name": "qat"},
            "model": {"name": "resnet8", "weights": "a.pth"},
            "prune": None,
            "quantize": {"bits": 4},
            "distill": {"weight": 0.5, "teacher": {"model": "resnet20", "weights": "runs/a"}},
            "optim": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "args": None},
            "trainer": {"ema_decay": None},
        }
    )
    run = Run(tmp_path / "run")
    run.write_text("config.yaml", OmegaConf.to_yaml(config))
    run.write_text("resume/state.pt", "")
    return config, run.directory


class Change(NamedTuple):
    key: str
    value: Any


CHANGES = {
    "another learning rate": Change("optim.lr", 0.2),
    "another momentum": Change("optim.momentum", 0.5),
    "moved weights": Change("model.weights", "b.pth"),
    "a moved teacher": Change("distill.teacher.weights", "elsewhere/a"),
    "a moved start": Change("init_from", "runs/b"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_resume_goes_on_where_the_identity_is_the_same(made, change):
    config, directory = made
    OmegaConf.update(config, change.key, change.value)
    check_directory(config, directory)


OTHERS = {
    "another stage": Change("stage.name", "train"),
    "another network": Change("model.name", "resnet20"),
    "pruning": Change("prune", {"sparsity": 0.5}),
    "other bits": Change("quantize.bits", 8),
    "another teacher": Change("distill.teacher.model", "resnet56"),
    "another optimiser": Change("optim.name", "adamw"),
    "other arguments": Change("optim.args", {"eps": 1e-3}),
    "other random numbers": Change("seed", 1),
    "momentum switched off": Change("optim.momentum", 0.0),
    "weight decay switched on": Change("optim.weight_decay", 1e-4),
    "an average": Change("trainer.ema_decay", 0.9),
    "no start": Change("init_from", None),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS.keys())
def test_resume_names_what_is_another(made, change):
    config, directory = made
    OmegaConf.update(config, change.key, change.value, merge=False)
    with pytest.raises(UserError) as caught:
        check_directory(config, directory)
    assert str(caught.value) == (
        f"resume=true: the run in {str(directory)!r} has another {change.key}; use its own config, or leave "
        "resume out to start afresh"
    )
    config.resume = False
    check_directory(config, directory)


def test_resume_refuses_another_start_while_the_first_is_there(made):
    config, directory = made
    recorded = OmegaConf.load(directory / "config.yaml")
    recorded.init_from = str(directory)
    (directory / "config.yaml").write_text(OmegaConf.to_yaml(recorded))
    with pytest.raises(UserError, match="has another init_from"):
        check_directory(config, directory)


def test_a_stage_without_a_saved_state_obeys_what_a_state_would_hold(made):
    config, directory = made
    (directory / "resume" / "state.pt").unlink()
    config.seed = 1
    config.init_from = None
    check_directory(config, directory)


# What becomes of every key of a training that is resumed: key, or what it begins with -> why it is as it is.
REFUSED = {
    "stage.name": "the saved state is that stage's",
    "model": "the saved tensors are its own",
    "prune": "masks and scores are in the state",
    "quantize": "ranges and steps are in the state",
    "distill": "what it trains is in the state",
    "optim.name": "the state is that optimiser's",
    "optim.args": "they decide what the optimiser keeps",
    "seed": "random states go on, and the order of images would not",
    "init_from": "the state has taken its place",
    "trainer.ema_decay": "only a run with an average has one in its state; another decay is obeyed",
    "optim.momentum": "only a run with momentum has it in its state; another one is obeyed",
    "optim.weight_decay": "switched on or off it groups parameters in another way; another one is obeyed",
}
OBEYED = {
    "stage": "the stage's own keys are read anew",
    "distill.teacher.weights": "the teacher is read anew",
    "data": "loaders are made anew",
    "optim": "the schedule is one of the step, and the optimiser gets its options again",
    "trainer": "settings are read at every step",
    "eval": "the evaluation comes after the training",
    "score": "the score comes after the training",
    "export": "another stage's",
    "latency": "another stage's",
    "logger": "it goes on in whatever tracker is named",
    "ptq": "another stage's",
    "search": "another stage's",
    "sensitivity": "another stage's",
    "budget": "another stage's",
    "runs": "another stage's",
    "name": "of the directory, which is given",
    "resume": "it is what is asked",
    "trust": "what its files may name is asked anew",
    "debug": "of messages alone",
}
TRAININGS = {
    "train": ("stage=train",),
    "prune": ("stage=prune", "trainer.ema_decay=null"),
    "qat": ("stage=qat", "distill=soft_targets", "distill.teacher.model=resnet8", "distill.teacher.weights=a"),
}


def leaves(node, where=""):
    """Dotted key -> value."""
    if not isinstance(node, dict):
        yield where, node
        return
    for key, value in node.items():
        yield from leaves(value, f"{where}.{key}" if where else str(key))


def another(value):
    """A value of the same kind where that can be."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [*value, 1]
    return f"{value}x"


def entry(key):
    """The longest entry of the tables that ``key`` is, or lies below."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        found = ".".join(parts[:length])
        if found in REFUSED or found in OBEYED:
            return found
    raise AssertionError(f"{key}: nothing says what becomes of it in a resumed run")


@pytest.mark.parametrize("arguments", TRAININGS.values(), ids=TRAININGS.keys())
def test_every_key_of_a_training_is_obeyed_or_refused_by_name(composed, arguments, tmp_path):
    config = composed(*arguments, "model=resnet8", "data=digits", "resume=true")
    Run(tmp_path, resume=True).write_text("resume/state.pt", "")
    then = copy.deepcopy(config)
    for key, value in leaves(to_plain(config)):
        new_value = another(value)
        if key in SWITCHES and value:
            new_value = None
        OmegaConf.update(config, key, new_value, merge=False)
        expected = [] if entry(key) in OBEYED else [key]
        assert list(refused(then, config, tmp_path)) == expected
        OmegaConf.update(config, key, value, merge=False)


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
