"""Whether a model numbers classes as a data set does. Two orders of ImageNet's classes are about, for one."""

import re
from collections.abc import Sequence

#: Names of some of ImageNet's synsets: enough to tell the order of WordNet's numbers, in which folders of images are,
#: from that of the challenge's development kit, and from one that was sorted by name.
_SYNSETS = {
    "n01440764": "tench",
    "n01443537": "goldfish",
    "n01484850": "great white shark",
    "n02099601": "golden retriever",
    "n02119789": "kit fox",
    "n02391049": "zebra",
    "n07753592": "banana",
    "n15075141": "toilet tissue",
}

#: What programs write where a model's classes have no names.
_NUMBERED = re.compile(r"(label|class|cls)?[ _-]?\d+", re.IGNORECASE)


def check_order(source: str, labels: Sequence[str] | None, classes: Sequence[str] | None, data: str) -> None:
    """Raise `ValueError` where a model and a data set give one class two numbers.

    Parameters
    ----------
    source : str
        What errors call the model.
    labels : sequence of str, or None
        The model's classes in order, synonyms separated by commas; None where it names none.
    classes : sequence of str, or None
        Those of the data set: names, or WordNet's numbers.
    data : str
        What errors call the data set.
    """
    if labels is None or classes is None:
        return
    places: dict[str, set[int]] = {}
    for k, label in enumerate(labels):
        for word in _words(label):
            places.setdefault(word, set()).add(k)
    for k, name in enumerate(classes):
        known = _SYNSETS.get(name, name)
        found = set.union(*(places.get(word, set()) for word in _words(known)))
        if found and k not in found:
            shown = f"{name} ({known})" if known != name else name
            raise ValueError(
                f"{source} has {shown} as class {min(found)}, {data} as class {k}: their orders differ; rename the "
                "data's folders so that they sort in the model's order"
            )
    numbers = [int(name) for name in classes if name.isdecimal()]
    if len(numbers) == len(classes) and numbers != sorted(numbers):
        k = next(k for k, (number, wanted) in enumerate(zip(numbers, sorted(numbers), strict=True)) if number != wanted)
        raise ValueError(
            f"{data} has folder {classes[k]} as class {k}, since names are sorted as text: fill its folders' names up "
            f"with zeros, for {source} numbers its classes"
        )


def named(labels: Sequence[str]) -> tuple[str, ...] | None:
    """Return a model's names of classes; None where they are numbers alone."""
    return None if all(_NUMBERED.fullmatch(label.strip()) for label in labels) else tuple(labels)


def _words(label: str) -> set[str]:
    return {" ".join(part.replace("_", " ").replace("-", " ").split()).casefold() for part in label.split(",")}
