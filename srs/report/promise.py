"""Which classifier a run's certificates are about, in words: for the page and for the model card."""

from dataclasses import dataclass

from srs.modes import ROUTED, ROUTER


@dataclass(frozen=True)
class Promise:
    """What is promised of which classifier.

    Attributes
    ----------
    classifier : str
        Which one: "the classifier that ...".
    images : str
        Whether the images had to be known, a sentence.
    unclaimed : str
        What nothing is claimed of, beside the base classifier alone: empty, or beginning with a comma.
    """

    classifier: str
    images: str
    unclaimed: str

    @classmethod
    def of(cls, main: str, outside: float | str | None) -> "Promise":
        """Return what a main rule promises, with that which decides outside every region."""
        if main == ROUTED.name:
            return cls(
                "the classifier that votes with the sigma which a router names",
                "The images need not have been known before.",
                "",
            )
        around, unclaimed = "", ""
        if outside == ROUTER:
            around = ", or outside every region with the sigma that a router names,"
        elif outside is not None:
            around = f", or with sigma = {outside:g} outside every region,"
        else:
            unclaimed = ", or of inputs outside every region"
        return cls(
            f"the classifier that looks up the region of its input and votes with that region's sigma{around}",
            "The images were known, without labels, when the regions were made.",
            unclaimed,
        )
