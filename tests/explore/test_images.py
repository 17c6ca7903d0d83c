"""Which images a figure was measured on."""

from micronet_cli.explore.images import data_set, held_back, same_images

FOLDER = {"data._target_": "micronet_cli.data.folder.ImageFolder", "data.test": "/a/birds", "data.train": "/a/train"}


def a_run(split="test", images=None, **data):
    return {"metrics": {"split": split, "images": images}, "config": {f"data.{key}": data[key] for key in data}}


def test_data_sets_of_a_class_are_told_apart_by_name_wherever_they_lie():
    assert data_set(FOLDER) == "ImageFolder birds"
    assert data_set({"data._target_": "a.Digits"}) == "Digits"


def test_test_needs_no_more_and_val_what_held_it_back():
    assert held_back(FOLDER, "test") == {}
    fractions = {"data.val_fraction": 0.1, "data.split_seed": 0}
    assert held_back(FOLDER | fractions, "val") == {"data.train": "train"} | fractions
    assert held_back(FOLDER | fractions | {"data.val": "/b/dev"}, "val") == {"data.val": "dev"}
    assert held_back(FOLDER | fractions | {"data.val": "/b/dev"}, "train") == {"data.train": "train"} | fractions


def test_same_images():
    assert same_images(a_run(images=10), a_run(images=10), "test")
    assert not same_images(a_run(images=10), a_run(images=11), "test")
    # How many val holds is said by the runs that are measured on it.
    assert same_images(a_run(images=10), a_run("val", images=3), "val")
    assert not same_images(a_run(split_seed=0), a_run(split_seed=1), "val")
    assert same_images(a_run(split_seed=0), a_run(split_seed=1), "test")
