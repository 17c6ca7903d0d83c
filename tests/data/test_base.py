"""What the packaged data sets share: checked settings, and loaders made of a subclass's images and class names."""

from dataclasses import dataclass

import numpy as np
import pytest

from micronet_cli.data.base import Data
from micronet_cli.data.protocol import DataSet, missing_members
from micronet_cli.data.sources import ArraySource
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec
from tests.data.test_loader import CPU, SPEC, batches


@dataclass(kw_only=True)
class Shades(Data):
    """A data set of one's own: ten grey images, each of its label's shade."""

    def source(self, split):
        labels = np.arange(10)
        shades = np.broadcast_to(labels[:, None, None] * 20, (10, 8, 8)).astype(np.uint8)
        return ArraySource(shades, labels)

    @property
    def own_class_names(self):
        return list("abcdefghij")


def test_a_subclass_of_two_members_is_a_data_set():
    data = Shades(augment="none")
    assert missing_members(data, DataSet) == []
    assert data.problems(["train", "test"]) == []
    ((images, labels),) = batches(data.loader("test", SPEC, CPU))
    assert labels.tolist() == list(range(10))
    assert (images[:, 0, 0, 0].diff() > 0).all()


def test_settings_reach_the_loader():
    data = Shades(batch_size=4, eval_batch_size=3, workers=0, cache_mb=7, max_corrupt=5, mixup=0.5)
    loader = data.loader("train", SPEC, CPU, seed=9)
    settings = loader.settings
    assert (settings.batch_size, settings.workers, settings.cache_mb, settings.max_corrupt) == (4, 0, 7, 5)
    assert (settings.seed, settings.augmentation.mixup) == (9, 0.5)
    assert (loader.training, loader.where) == (True, "data.train")
    assert data.loader("val", SPEC, CPU).batch_size == 3


LARGE = InputSpec((1, 512, 512), mean=(0.5,), std=(0.5,))


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_takes_as_many_images_as_their_size_allows_unless_told(split):
    assert Shades().loader(split, LARGE, CPU).batch_size == 4
    assert Shades().sample(split, 9, LARGE, CPU).batch_size == 4
    assert Shades(eval_batch_size=9).loader(split, LARGE, CPU).batch_size == 9
    assert Shades().loader("train", LARGE, CPU).batch_size == 128


def test_a_network_of_other_classes_counts_them():
    assert Shades().loader("test", SPEC, CPU, classes=list("abcdefghijkl")).classes == 12


def test_a_sample_has_at_most_what_is_there():
    assert Shades().sample("train", 4, SPEC, CPU).images == 4
    assert Shades().sample("train", 400, SPEC, CPU).images == 10


@pytest.mark.parametrize("member", ["source", "own_class_names"])
def test_the_two_members_are_left_to_the_subclass(member):
    data = Data()
    ask = {"source": lambda: data.source("train"), "own_class_names": lambda: data.own_class_names}[member]
    with pytest.raises(UserError, match=rf"^data: micronet_cli\.data\.base\.Data must have {member}.*extending\.md"):
        ask()
