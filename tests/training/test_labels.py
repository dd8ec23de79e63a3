"""The order of classes: two of ImageNet's are about, and folders sort as text."""

import pytest

from training.libraries.labels import check_order, named

SORTED = ["tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark, white shark"]
SYNSETS = ["n01440764", "n01443537", "n01484850"]


def test_orders_that_agree_say_nothing():
    check_order("model", SORTED, SYNSETS, "data")
    check_order("model", ["Airplane", "auto_mobile"], ["airplane", "auto mobile"], "data")
    check_order("model", ["plane", "car"], ["airplane", "automobile"], "data")  # nothing in common
    check_order("model", None, SYNSETS, "data")
    check_order("model", SORTED, None, "data")
    check_order("model", ["crane", "tench", "crane"], ["crane", "tench", "crane"], "data")  # two classes of one name


def test_another_order_is_refused_by_name():
    kit = ["kit fox, Vulpes macrotis", *SORTED[:2]]
    with pytest.raises(ValueError, match=r"model has n01440764 \(tench\) as class 1, data as class 0: their orders"):
        check_order("model", kit, SYNSETS, "data")
    with pytest.raises(ValueError, match="model has dog as class 0, data as class 1"):
        check_order("model", ["Dog", "cat"], ["bird", "dog"], "data")


def test_numbered_folders_that_sort_as_text_are_refused():
    numbers = sorted(map(str, range(12)))
    assert numbers[2] == "10"
    with pytest.raises(ValueError, match="data has folder 10 as class 2, since names are sorted as text"):
        check_order("model", [f"class {chr(97 + k)}" for k in range(12)], numbers, "data")
    check_order("model", SORTED, ["00", "01", "02"], "data")


def test_the_synsets_that_are_known_are_those_of_wordnet():
    from timm.data import ImageNetInfo

    from training.libraries.labels import _SYNSETS

    info = ImageNetInfo("imagenet-1k")
    described = {info.index_to_label_name(k): info.index_to_description(k) for k in range(1000)}
    for synset, name in _SYNSETS.items():
        assert described[synset].split(", ")[0] == name


def test_labels_that_are_numbers_are_none():
    assert named(["LABEL_0", "LABEL_1"]) is None
    assert named(["0", "1"]) is None
    assert named(["cat", "1"]) == ("cat", "1")
