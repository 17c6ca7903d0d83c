"""Guards the split of the post-training benchmark: no image is in both parts, and a seed always draws the same."""

import io
import tarfile

import pytest
from image_split import class_of, drawn, image_names, split, write_tar

NAMES = [f"n{number:02}/{image}.jpg" for number in range(20) for image in "ab"]


def test_parts_share_no_image_and_have_one_of_a_class():
    parts = split(NAMES, calibrate=8, evaluate=12, seed=0)
    classes = [class_of(name) for name in parts.calibrate + parts.evaluate]
    assert (len(parts.calibrate), len(parts.evaluate)) == (8, 12)
    assert sorted(classes) == [f"n{number:02}" for number in range(20)]


def test_seed_draws_what_calibrates_and_never_what_evaluates():
    zero, one = (split(NAMES, calibrate=5, evaluate=10, seed=seed) for seed in (0, 1))
    assert zero.evaluate == one.evaluate
    assert set(zero.calibrate) != set(one.calibrate)
    assert not set(one.calibrate) & set(one.evaluate)


def test_split_is_the_same_in_every_order_of_the_names():
    by_class = split(NAMES, 5, 10, seed=1)
    turned = [name for number in range(19, -1, -1) for name in NAMES[2 * number : 2 * number + 2]]
    assert split(turned, 5, 10, seed=1) == by_class
    assert drawn(["a/1", "b/1", "c/1", "d/1"], 2, seed=0) == [
        "c/1",
        "d/1",
    ]  # sha256 of "0 c/1": 03ea, d: 5f4e


def test_too_few_classes_are_an_error():
    with pytest.raises(ValueError, match=r"20 classes; 15 \+ 6 images"):
        split(NAMES, calibrate=15, evaluate=6, seed=0)


def test_tar_holds_the_images_of_these_names_and_stays_as_it_is(tmp_path):
    source = tmp_path / "all.tar"
    with tarfile.open(source, "w") as archive:
        for name in NAMES:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    target = tmp_path / "new" / "part.tar"
    write_tar(source, NAMES[3:5], target)
    write_tar(source, NAMES[:9], target)
    assert image_names(target) == NAMES[3:5]
    with tarfile.open(target) as archive:
        assert archive.extractfile(NAMES[4]).read() == NAMES[4].encode()
