"""A teacher's logits, remembered: what is computed again and what is not."""

import torch

from micronet_cli.training.logit_cache import LogitCache


class Teach:
    """Sums, and how many images were asked for."""

    def __init__(self) -> None:
        self.asked = []

    def __call__(self, images):
        self.asked.append(len(images))
        return torch.stack([images.flatten(1).sum(1), -images.flatten(1).sum(1)], 1)


def test_only_unknown_images_are_computed_and_rows_stay_in_order():
    teach = Teach()
    cache, images = LogitCache(teach, 1 << 20), torch.randn(6, 3, 4, 4)
    first = cache(images[:4])
    mixed = cache(images[[5, 1, 4, 0]])
    again = cache(images[:4])
    assert teach.asked == [4, 2]
    assert torch.equal(mixed, Teach()(images[[5, 1, 4, 0]]))
    assert torch.equal(again, first)
    assert (cache.hits, cache.misses) == (6, 6)


def test_an_image_changed_in_one_bit_is_another():
    teach = Teach()
    cache, images = LogitCache(teach, 1 << 20), torch.ones(1, 3, 4, 4)
    cache(images)
    images[0, 2, 3, 3] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    cache(images)
    assert teach.asked == [1, 1]


def test_a_full_cache_remembers_nothing_new():
    teach = Teach()
    cache, images = LogitCache(teach, 2 * 8), torch.randn(3, 3, 4, 4)  # two rows of two floats
    cache(images)
    cache(images)
    assert teach.asked == [3, 1]


def test_all_known_images_ask_the_teacher_nothing():
    teach = Teach()
    cache, images = LogitCache(teach, 1 << 20), torch.randn(2, 3, 4, 4)
    cache(images)
    assert torch.equal(cache(images.flip(0)), Teach()(images.flip(0)))
    assert teach.asked == [2]


def test_remembered_logits_are_copies():
    logits = torch.zeros(1, 2)
    cache, images = LogitCache(lambda _: logits, 1 << 20), torch.ones(1, 3, 4, 4)
    cache(images)
    logits.fill_(9)
    assert cache(images).tolist() == [[0, 0]]


def test_the_same_image_twice_in_a_batch_is_answered_twice():
    cache = LogitCache(Teach(), 1 << 20)
    images = torch.ones(2, 3, 4, 4)
    assert cache(images).tolist() == cache(images).tolist() == [[48, -48], [48, -48]]
