"""Every data set has every member of the protocol, and every stage that reads data runs on each of them."""

import sys
import types
from dataclasses import dataclass, replace

import pytest
import torch

from micronet_cli.data.datasets import Cifar, Digits, ImageFolder
from micronet_cli.data.protocol import Batches, DataSet, missing_members
from micronet_cli.data.streams import TimmStream
from tests.conftest import metrics_of
from tests.data.shard_files import write_digit_shards
from tests.data.test_loader import CPU, SPEC

IMAGES = 24


@dataclass
class Stripes:
    """Batches of one's own: images of class 1 are brighter than those of class 0."""

    spec: object
    device: torch.device
    batch_size: int
    images: int = IMAGES
    classes: int = 2

    def __post_init__(self):
        self.corrupt = []

    def __len__(self):
        return -(-self.images // self.batch_size)

    def some(self, images):
        return replace(self, images=min(images, self.images))

    def batches(self, epoch=0, first=0):
        for number in range(first, len(self)):
            indices = torch.arange(number * self.batch_size, min((number + 1) * self.batch_size, self.images))
            labels = indices % 2
            noise = torch.randn(len(labels), *self.spec.size, generator=torch.Generator().manual_seed(number))
            yield (noise + labels.view(-1, 1, 1, 1)).to(self.device), labels.to(self.device)


@dataclass
class Own:
    """A data set of one's own: nothing but the protocol."""

    batch_size: int = 8
    input_size: int | None = None

    @property
    def class_names(self):
        return ["dark", "bright"]

    def problems(self, splits):
        return []

    def loader(self, split, spec, device, seed=0, classes=None):
        return Stripes(spec, device, self.batch_size)

    def sample(self, split, images, spec, device, seed=0, classes=None):
        return Stripes(spec, device, self.batch_size, min(images, IMAGES))


@pytest.fixture
def own_set(tmp_path, monkeypatch):
    """The options that choose a data set of one's own."""
    module = types.ModuleType("micronet_cli.data.own")
    module.Own = Own
    monkeypatch.setitem(sys.modules, module.__name__, module)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "own.yaml").write_text("_target_: micronet_cli.data.own.Own\n")
    return [f"--config-dir={tmp_path / 'conf'}", "data=own"]


@pytest.fixture
def shards(tmp_path):
    """The options that choose WebDataset shards of digits."""
    pytest.importorskip("webdataset", reason="the extra data is not installed")
    write_digit_shards(tmp_path, images=IMAGES // 2)
    options = ["data=webdataset", f"data.root={tmp_path}", "data.num_classes=10", "data.workers=0"]
    options += [f"data.{split}='part-{{0..1}}.tar'" for split in ("train", "val", "test")]
    return [*options, "data.samples={train:24}", "data.batch_size=8"]


@pytest.fixture
def folder(image_folder):
    """The options that choose a directory of images."""
    options = [f"data.{split}={image_folder}" for split in ("train", "val", "test")]
    return ["data=imagefolder", *options, "data.workers=0", "data.batch_size=8"]


STAGES = {
    "train": ("stage=train",),
    "prune": ("stage=prune",),
    "second-order pruning": (
        "stage=prune", "prune=obc", "prune.at=0.5", "prune.calibration=0.5", "prune.rules.conv.match=layer1.*",
    ),
    "eval": ("stage=eval",),
    "ptq": ("stage=ptq", "ptq.images=10", "ptq.adaround.iterations=2", "ptq.rows=64"),
    "sensitivity": (
        "stage=sensitivity", "sensitivity.images=10", "sensitivity.sparsities=[0.9]", "sensitivity.weight_bits=[]",
        "sensitivity.activation_bits=[]",
    ),
    "search": ("stage=search", "search.trials=1"),
    "qat with remembered logits": (
        "stage=qat", "distill=soft_targets", "distill.teacher.model=resnet8", "distill.teacher.cache_mb=1",
    ),
    "batch statistics taken anew": ("stage=train", "trainer.reestimate_bn_batches=1"),
    "export": ("stage=export", "export.onnx=false", "export.images=4"),
    "shrink": ("stage=shrink",),
}  # fmt: skip
TRAINS = ("train", "prune", "qat", "search")


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES.keys())
@pytest.mark.parametrize("kind", ["own_set", "shards", "folder"])
def test_a_stage_runs(request, micronet, kind, stage):
    options = [*stage, *request.getfixturevalue(kind), "model=resnet8", "data.input_size=16"]
    if stage[0].removeprefix("stage=") in TRAINS:
        options.append("trainer.max_steps=2")
    run = micronet(*options)
    if "stage=search" in stage:
        assert (run / "summary.csv").is_file()
    else:
        assert metrics_of(run)["status"] == "completed"


SETS = {
    "digits": lambda folder, shards: Digits(),
    "a directory": lambda folder, shards: ImageFolder(train=str(folder), test=str(folder), workers=0),
    "webdataset": lambda folder, shards: TimmStream(
        dataset="wds/", root=str(shards), num_classes=10, samples={"train": 24}, workers=0,
        train="part-{0..1}.tar", val="part-{0..1}.tar", test="part-0.tar",
    ),
    "cifar": lambda folder, shards: Cifar(),
    "one's own": lambda folder, shards: Own(),
}  # fmt: skip


@pytest.mark.parametrize("kind", SETS)
def test_a_data_set_has_every_member(image_folder, tmp_path, kind):
    write_digit_shards(tmp_path, images=12)
    data = SETS[kind](image_folder, tmp_path)
    assert missing_members(data, DataSet) == []
    if kind == "cifar":
        return  # its archive is not here
    assert data.problems(["train", "val", "test"]) == []
    whole = data.loader("test", SPEC, CPU)
    for batches in (whole, whole.some(5), data.sample("train", 5, SPEC, CPU, seed=1), data.loader("train", SPEC, CPU)):
        assert missing_members(batches, Batches) == []
        images, labels = next(batches.batches())
        assert images.shape[1:] == SPEC.size
        assert labels.max() < batches.classes
        assert 1 <= len(labels) <= batches.batch_size
    assert whole.some(5).images == sum(len(labels) for _, labels in whole.some(5).batches()) == 5


def test_a_member_that_is_missing_is_named_before_the_heavy_work(mistake, own_set, monkeypatch):
    monkeypatch.delattr(Own, "sample")
    monkeypatch.delattr(Own, "problems")
    said = mistake("stage=eval", *own_set, "model=resnet8")
    assert "data._target_=micronet_cli.data.own.Own: a data set must have problems, sample; see docs/extending" in said


def test_members_that_batches_lack_are_found():
    assert missing_members(types.SimpleNamespace(), Batches) == [
        "__len__", "batch_size", "batches", "classes", "corrupt", "device", "images", "some",
    ]  # fmt: skip
