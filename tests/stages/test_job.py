"""Guards what a stage gets: settings that exclude each other, the network, its classes, what is saved."""

import os
from typing import NamedTuple

import pytest
import torch

from micronet_cli import checkpoint
from micronet_cli.command.cli import main
from micronet_cli.config import check_config
from micronet_cli.data.datasets import Digits
from micronet_cli.errors import UserError
from micronet_cli.models.model import Model
from micronet_cli.runs.directory import Run
from micronet_cli.stages import score
from micronet_cli.stages.inherit import inherited
from micronet_cli.stages.job import Job
from micronet_cli.stages.node import stage_node
from tests.conftest import TINY

TRAIN = ("stage=train", *TINY, "trainer.max_steps=2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = tmp_path_factory.mktemp("job") / "trained"
    main([*TRAIN, f"hydra.run.dir={run}"])
    return run


@pytest.fixture
def job(composed, tmp_path):
    """Overrides as typed -> the job of ``stage=score``; ``writes=False``: in a process that writes nothing."""

    def make(*overrides, writes=True):
        config = inherited(composed("stage=score", *overrides))
        return Job(config, check_config(config), stage_node(config, score), Run(tmp_path / "run", writes=writes))

    return make


def test_parts_are_the_groups_built(job):
    made = job(*TINY, "quantize=w4a4", "trainer.epochs=3")
    assert isinstance(made.parts.data, Digits)
    assert made.parts.trainer.epochs == 3
    assert made.parts.prune is None
    assert made.parts.quantize is made.checked["quantize"]
    assert made.parts is made.parts


def test_settings_are_the_config_s(job, trained):
    made = job(f"init_from={trained}", "seed=7", "runs=outputs/**")
    assert (made.seed, made.init_from, made.runs) == (7, str(trained), "outputs/**")


def test_group_config_is_plain_and_empty_where_the_group_is_off(job):
    made = job(*TINY, "quantize=w4a4")
    assert made.group_config("data")["input_size"] == 16
    assert type(made.group_config("quantize")["rules"]) is dict
    assert made.group_config("prune") == {}


def test_network_has_the_data_s_classes_and_size(job):
    network = job(*TINY).network()
    assert network.classes == [str(digit) for digit in range(10)]
    assert network.spec.size == (3, 16, 16)
    assert network.config["name"] == "resnet8"
    assert network.data["_target_"].endswith("Digits")
    assert network.model(torch.zeros(1, 3, 16, 16)).shape == (1, 10)


def test_network_without_data_has_as_many_classes_as_the_model_says(job):
    network = job(*TINY, "model.num_classes=7").network(with_data=False)
    assert network.classes == []
    assert network.model(torch.zeros(1, 3, 16, 16)).shape == (1, 7)


def test_network_of_a_run_takes_its_weights_and_the_given_size(job, trained):
    network = job(f"init_from={trained}", "data.input_size=24").network()
    saved = checkpoint.load(str(trained)).model.state_dict()
    assert network.spec.size == (3, 24, 24)
    assert network.data["input_size"] == 24
    assert all(torch.equal(tensor, saved[name]) for name, tensor in network.model.state_dict().items())


def test_splits_that_are_missing_are_named_line_by_line(job, image_folder):
    made = job("model=resnet8", "data=imagefolder", f"data.val={image_folder}")
    with pytest.raises(UserError) as caught:
        made.require_splits("train", "val", "test")
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["data.train", "data.test"]
    made.require_splits("val")


def test_saved_network_is_the_run_s_best_with_its_metrics(job):
    made = job(*TINY)
    network = made.network()
    made.save(network, {"top1": 12.5})
    again = checkpoint.load(str(made.run.directory))
    assert again.metrics["top1"] == 12.5
    assert again.classes == network.classes
    assert torch.equal(again.model.conv1.weight, network.model.conv1.weight)


def test_packed_network_is_saved_as_its_file(job, tmp_path):
    made = job(*TINY)
    network = made.network()
    network.packed = tmp_path / "given.mnet"
    network.packed.write_bytes(b"packed")
    made.save(network, {})
    assert made.run.packed.read_bytes() == b"packed"
    assert not made.run.best.exists()


def test_one_process_of_several_saves_nothing(job):
    made = job(*TINY, writes=False)
    made.save(made.network(), {})
    assert not made.run.directory.exists()


def test_loader_gives_the_network_s_size_and_every_image(job):
    made = job(*TINY)
    loader = made.loader(made.network(), "test", torch.device("cpu"))
    shapes = [images.shape for images, _ in loader.batches()]
    assert {shape[1:] for shape in shapes} == {(3, 16, 16)}
    assert sum(shape[0] for shape in shapes) == 359


def test_state_of_another_optimiser_is_a_mistake(micronet, mistake):
    run = micronet(*TRAIN)
    (run / "config.yaml").unlink()
    assert "is of another network or optimiser" in mistake(*TRAIN, "optim=adamw", "resume=true", directory=run)


class Excluded(NamedTuple):
    arguments: tuple[str, ...]
    said: str


EXCLUDED = {
    "pretrained": Excluded(
        ("init_from=RUN", "model.pretrained=true"), "model.pretrained=True: init_from brings its weights; take one"
    ),
    "weights": Excluded(
        ("init_from=RUN", "model.weights=x.pth"), "model.weights=x.pth: init_from brings its weights; take one"
    ),
    "classes of the run": Excluded(
        ("init_from=RUN", "model.num_classes=7"), "model.num_classes=7: there are 10 classes; leave it null"
    ),
    "classes of the data": Excluded(
        (*TINY, "model.num_classes=7"), "model.num_classes=7: there are 10 classes; leave it null"
    ),
    "a number": Excluded(("init_from=1",), "init_from=1: must be a path, as ./1"),
    "a list": Excluded(("init_from=[a,b]",), "init_from=['a', 'b']: must be a path"),
}


@pytest.mark.parametrize("case", EXCLUDED.values(), ids=EXCLUDED.keys())
def test_settings_that_exclude_each_other(trained, mistake, case):
    arguments = [argument.replace("RUN", str(trained)) for argument in case.arguments]
    assert case.said in mistake("stage=eval", *arguments)


def test_teacher_s_model_and_run_agree(trained, mistake):
    weights = f"distill.teacher.weights={trained}"
    said = mistake("stage=qat", *TINY, "distill=soft_targets", "distill.teacher.model=resnet20", weights)
    assert f"distill.teacher.model=resnet20: '{trained}' holds resnet8; give one of them" in said


DATA_S = (
    "the classifier has 7 classes, the data 10; stage=train, prune or qat trains a new one; data.classes=FILE keeps"
)
NETWORK_S = "the classifier has 7 classes, the network 10; model.num_classes=7 keeps the head"
UNTRAINED = {
    "eval": DATA_S, "ptq": DATA_S, "shrink": DATA_S, "sensitivity": DATA_S, "score": NETWORK_S, "export": NETWORK_S,
}  # fmt: skip


@pytest.mark.parametrize(("stage", "said"), UNTRAINED.items(), ids=UNTRAINED.keys())
def test_stages_that_do_not_train_refuse_weights_of_other_classes(mistake, tmp_path, stage, said):
    path = tmp_path / "w.pth"
    torch.save(Model("resnet8").build(7).state_dict(), path)
    answer = mistake(f"stage={stage}", *TINY, f"model.weights={path}")
    assert f"model.weights={str(path)!r}: {said}" in answer
    assert not list(tmp_path.glob("run*"))


def test_weights_of_other_classes_are_scored_where_their_number_is_given(micronet, tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"state_dict_ema": Model("resnet8").build(7).state_dict()}, path)
    run = micronet("stage=score", *TINY, f"model.weights={path}", "model.ema=true", "model.num_classes=7")
    assert (run / "layers.csv").is_file()


def test_code_in_weights_is_one_line_and_is_not_run(mistake, tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'touched'}",))

    torch.save({"state_dict": {"x": torch.eye(2)}, "args": Evil()}, tmp_path / "evil.pth")
    for arguments in (("stage=eval",), ("stage=qat",), ()):
        said = mistake(*arguments, *TINY, f"model.weights={tmp_path / 'evil.pth'}")
        assert len(said.splitlines()) == 1
        assert ".system), so it is not read" in said
    assert not (tmp_path / "touched").exists()


def test_an_average_has_no_place_beside_a_run(mistake, trained):
    said = mistake("stage=eval", f"init_from={trained}", "model.ema=true")
    assert "model.ema=True: averaged weights come from a file" in said
