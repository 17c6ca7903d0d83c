"""The export settings refuse what no comparison can be made with."""

import pytest

from micronet_cli.artifact.settings import Export


@pytest.mark.parametrize("images", [0, -1])
def test_export_without_images_is_refused(images):
    with pytest.raises(ValueError, match=f"images={images}: must be at least 1"):
        Export(images=images)


def test_one_image_is_enough():
    assert Export(images=1).images == 1
