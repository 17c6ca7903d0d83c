"""A reader's streams give digits and numbers in order, and must be read to their end."""

import numpy as np
import pytest

from micronet_cli.artifact.format import Damaged
from micronet_cli.artifact.streams import Streams
from micronet_cli.functional.packing import pack_digits


@pytest.mark.parametrize("coded", [{}, {"codes": 2}], ids=["mixed radix", "whole bytes"])
def test_digits_come_one_layer_after_the_other(coded):
    parts = [pack_digits(np.array(digits), 5, "codes" in coded) for digits in ([1, 2, 4], [3])]
    streams = Streams.of({"codes": b"".join(parts)}, coded)
    assert streams.digits("codes", 3, 5).tolist() == [1, 2, 4]
    assert streams.digits("codes", 1, 5).tolist() == [3]
    streams.close()


def test_numbers_are_little_endian_and_writable():
    streams = Streams.of({"scales": bytes.fromhex("0000803ffeffffff")}, {})
    ones = streams.array("scales", 1, "<f4")
    ones += 1
    assert ones.tolist() == [2.0]
    assert streams.array("scales", 1, "<i4").tolist() == [-2]
    assert streams.array("scales", 0, "<f4").tolist() == []


def test_stream_that_ends_too_early_or_too_late_is_refused():
    streams = Streams.of({"scales": bytes(5)}, {})
    with pytest.raises(Damaged, match="stream scales ends too early"):
        streams.array("scales", 2, "<f4")
    streams.array("scales", 1, "<f4")
    with pytest.raises(Damaged, match="stream scales is 1 bytes too long"):
        streams.close()
