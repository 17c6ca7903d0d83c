"""Guards what a stage gets: settings that exclude each other, the network, its classes, what is saved."""

import pytest

from tests.conftest import TINY

TRAIN = ("stage=train", *TINY, "trainer.max_steps=2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from micronet_cli.command.cli import main

    run = tmp_path_factory.mktemp("job") / "trained"
    main([*TRAIN, f"hydra.run.dir={run}"])
    return run


def test_state_of_another_optimiser_is_a_mistake(micronet, mistake):
    run = micronet(*TRAIN)
    (run / "config.yaml").unlink()
    assert "is of another network or optimiser" in mistake(*TRAIN, "optim=adamw", "resume=true", directory=run)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        pytest.param(
            ("init_from=RUN", "model.pretrained=true"),
            "model.pretrained=True: init_from brings its weights; take one",
            id="pretrained",
        ),
        pytest.param(
            ("init_from=RUN", "model.weights=x.pth"),
            "model.weights=x.pth: init_from brings its weights; take one",
            id="weights",
        ),
        pytest.param(
            ("init_from=RUN", "model.num_classes=7"),
            "model.num_classes=7: there are 10 classes; leave it null",
            id="classes of the run",
        ),
        pytest.param(
            (*TINY, "model.num_classes=7"),
            "model.num_classes=7: there are 10 classes; leave it null",
            id="classes of the data",
        ),
        pytest.param(("init_from=1",), "init_from=1: must be a path, as ./1", id="a number"),
        pytest.param(("init_from=[a,b]",), "init_from=['a', 'b']: must be a path", id="a list"),
    ],
)
def test_settings_that_exclude_each_other(trained, mistake, arguments, wanted):
    assert wanted in mistake("stage=eval", *(a.replace("RUN", str(trained)) for a in arguments))


def test_teacher_s_model_and_run_agree(trained, mistake):
    weights = f"distill.teacher.weights={trained}"
    said = mistake("stage=qat", *TINY, "distill=soft_targets", "distill.teacher.model=resnet20", weights)
    assert f"distill.teacher.model=resnet20: '{trained}' holds resnet8; give one of them" in said
