"""Guards how many classes a network has and who says so: the data, a list of names, timm, or the file it comes from."""

from types import SimpleNamespace

import pytest

from micronet_cli.errors import UserError
from micronet_cli.models.model import Model
from micronet_cli.stages.head import Head, fresh_head, inherited_head

MODEL = Model("resnet8")


class Silent:
    """A data set that cannot tell its classes."""

    @property
    def class_names(self):
        raise UserError("data.train='x': no such file; give another (or none)")


def data_of(*names):
    return SimpleNamespace(class_names=list(names))


def network_of(*classes, **data):
    return SimpleNamespace(classes=list(classes), data=data, model=SimpleNamespace(num_classes=2))


def test_a_fresh_network_has_the_data_s_classes():
    assert fresh_head(MODEL, data_of("cat", "dog"), {}, needs_data=True) == Head(["cat", "dog"], "data")
    listed = fresh_head(MODEL, data_of("cat", "dog"), {"classes": "names.txt"}, needs_data=True)
    assert listed == Head(["cat", "dog"], "data.classes=names.txt")


def test_data_that_does_not_tell_its_classes_leaves_them_to_timm_where_it_is_not_needed():
    assert fresh_head(MODEL, Silent(), {}, needs_data=False) == Head([], "timm; data.train='x': no such file")
    assert fresh_head(MODEL, data_of(), {}, needs_data=False) == Head([], "timm")
    own = Model("resnet8", num_classes=7)
    assert fresh_head(own, data_of(), {}, needs_data=False) == Head([], "model.num_classes")
    assert fresh_head(own, data_of("cat", "dog"), {}, needs_data=False) == Head([], "model.num_classes")


@pytest.mark.parametrize(("config", "needs_data"), [({}, True), ({"classes": "names.txt"}, False)], ids=repr)
def test_classes_that_are_needed_or_listed_must_be_told(config, needs_data):
    with pytest.raises(UserError, match="no such file"):
        fresh_head(MODEL, Silent(), config, needs_data)


def test_another_number_of_classes_is_a_mistake_with_a_way_out():
    model = Model("resnet8", num_classes=1000)
    with pytest.raises(UserError, match=r"the data has 2 classes; .* name all 1000 .* data\.classes=imagenet or"):
        fresh_head(model, data_of("cat", "dog"), {}, needs_data=True)
    with pytest.raises(UserError, match=r"^model\.num_classes=1000: data\.classes=x lists 2 classes; leave it null$"):
        fresh_head(model, data_of("cat", "dog"), {"classes": "x"}, needs_data=True)


def test_a_read_network_has_its_own_classes():
    head = inherited_head(network_of("cat", "dog"), MODEL, Silent(), {}, needs_data=True)
    assert head == Head(["cat", "dog"], "init_from")


def test_a_list_that_the_run_was_given_is_not_read_again():
    network = network_of("cat", "dog", classes="gone.txt")
    head = inherited_head(network, MODEL, Silent(), {"classes": "gone.txt"}, needs_data=True)
    assert head.classes == ["cat", "dog"]


NAMED = {
    "the same list": (network_of("cat", "dog"), True),
    "outputs that had numbers": (network_of("0", "1"), True),
    "a file without names": (network_of(), False),
}


@pytest.mark.parametrize(("network", "needs_data"), NAMED.values(), ids=NAMED.keys())
def test_a_list_names_the_outputs_of_a_read_network(network, needs_data):
    head = inherited_head(network, MODEL, data_of("cat", "dog"), {"classes": "names.txt"}, needs_data)
    assert head == Head(["cat", "dog"], "data.classes=names.txt")


def test_a_read_network_without_names_has_the_data_s_where_it_needs_them():
    assert inherited_head(network_of(), MODEL, data_of("cat", "dog"), {}, needs_data=True).classes == ["cat", "dog"]
    assert inherited_head(network_of(), MODEL, data_of("cat", "dog"), {}, needs_data=False).classes == []


OTHERS = {
    "another order": (["dog", "cat"], "data.classes=x: class 1 is 'dog'; the network of init_from has 'cat' there"),
    "another number": (["cat"], "data.classes=x: there are 1; the network of init_from has 2"),
}


@pytest.mark.parametrize(("names", "said"), OTHERS.values(), ids=OTHERS.keys())
def test_a_list_of_another_network_is_a_mistake(names, said):
    with pytest.raises(UserError) as caught:
        inherited_head(network_of("cat", "dog"), MODEL, data_of(*names), {"classes": "x"}, needs_data=True)
    assert str(caught.value) == said
