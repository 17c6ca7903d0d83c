"""WebDataset shards made of real digits."""

import io
import tarfile

import pytest
import torch

from micronet_cli.data.datasets import Digits
from micronet_cli.data.streams import TimmStream
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec
from tests.conftest import metrics_of

pytest.importorskip("webdataset", reason="the extra data is not installed")
SPEC = InputSpec((3, 16, 16), (0.5,) * 3, (0.25,) * 3)
CPU = torch.device("cpu")


@pytest.fixture
def shards(tmp_path):
    """Two shards of 40 digits each."""
    source = Digits().source("train")
    for shard in range(2):
        with tarfile.open(tmp_path / f"part-{shard}.tar", "w") as tar:
            for index in range(shard * 40, shard * 40 + 40):
                image = io.BytesIO()
                source.read(index).save(image, "PNG")
                for suffix, content in (("png", image.getvalue()), ("cls", str(source.labels[index]).encode())):
                    info = tarfile.TarInfo(f"{index:05d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return tmp_path


def stream(root, **options):
    settings = {"train": "part-{0..1}.tar", "test": "part-{0..1}.tar", "samples": {"train": 80, "test": 80}}
    return TimmStream(dataset="wds/", root=str(root), num_classes=10, batch_size=16, **settings | options)


def test_evaluation_counts_every_image_once(shards):
    source = Digits().source("train")
    found = [labels for _, labels in stream(shards).loader("test", SPEC, CPU).batches()]
    assert sorted(torch.cat(found).tolist()) == sorted(source.labels[:80].tolist())


def test_training_batches_are_normalised_and_mixed(shards):
    loader = stream(shards, augment="none", mixup=0.5).loader("train", SPEC, CPU)
    batches = list(loader.batches())
    assert len(batches) == len(loader) == 5
    assert all(images.shape == (16, 3, 16, 16) and labels.shape == (16, 10) for images, labels in batches)


def test_stage_trains_on_shards(micronet, shards):
    run = micronet(
        "stage=train", "model=resnet8", "data=webdataset", f"data.root={shards}", "data.num_classes=10",
        "data.input_size=16", "data.batch_size=16", "trainer.max_steps=6", "data.samples={train:80,val:80,test:80}",
        *(f"data.{split}='part-{{0..1}}.tar'" for split in ("train", "val", "test")),
    )  # fmt: skip
    assert metrics_of(run)["images"] == 80


def test_shards_that_are_not_there_are_answered():
    with pytest.raises(UserError, match=r"data\.test: missing"):
        TimmStream(dataset="wds/", root="/nowhere", num_classes=10).loader("test", SPEC, CPU)
    with pytest.raises(UserError, match="hfds/nothing does not open it"):
        TimmStream(dataset="hfds/nothing", root="/nowhere", test="test", num_classes=10).loader("test", SPEC, CPU)
