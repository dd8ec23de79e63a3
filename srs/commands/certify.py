"""`srs-certify`: choose sigma per image, certify, allocate regions, report."""

import sys
from decimal import ROUND_CEILING, ROUND_FLOOR
from pathlib import Path

from srs.commands._errors import one_line_errors, parse
from srs.settings import CertifySettings

_DESCRIPTION = """Certify a classifier with a noise level chosen per image.

Chooses every test image's sigma, certifies its prediction by Monte Carlo with fresh noise, sizes the regions of
constant sigma by linear programming, and compares the result with every constant sigma. --checkpoint takes what
srs-train wrote, with no further flags; without one, a small network is trained on scikit-learn's 8x8 digits.

Writes certificates.tsv, comparison.tsv, summary.json, regions.npz and curves.png."""


def main() -> None:
    """Run the command; exit code 2 and one line on stderr where the settings cannot be honoured."""
    settings = parse(CertifySettings, "srs-certify", _DESCRIPTION)
    with one_line_errors("srs-certify"):
        certify(settings)


def certify(settings: CertifySettings) -> None:
    """Run the pipeline, write its folder and print its table."""
    settings.check()

    from rich.console import Console  # after the check: PyTorch takes seconds to import

    from srs.inputs import completed
    from srs.numbers import significant
    from srs.pipeline import run
    from srs.report import results_table, write
    from srs.run_folder import check_free, whole_folder

    settings = completed(settings)
    out = Path(str(settings.out))
    check_free(out, settings.overwrite)
    result = run(settings, progress=sys.stderr.isatty())
    with whole_folder(out, settings.overwrite) as folder:
        summary = write(result, folder)

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120  # a pipe has no width: do not fold the table
    console.print(results_table(summary))
    main = summary["allocations"][summary["main"]]
    console.print(
        f"{summary['data']['images']} images, clean accuracy {100 * summary['clean_accuracy']:.1f}%, "
        f"n = {settings.n}, alpha = {settings.alpha:g} per image, seed {settings.seed}, device {summary['device']}"
    )
    bound = (
        "no bound known"
        if main["upper_bound"] is None
        else f"at most {significant(main['upper_bound'], ROUND_CEILING)}"
    )
    total = significant(main["objective"], ROUND_FLOOR)
    console.print(f"regions: {main['edges']} overlaps, sum of radii {total} ({bound}); {main['status']}")
    console.print("seconds: " + ", ".join(f"{stage} {value:.1f}" for stage, value in summary["seconds"].items()))
    console.print(f"written to {out}", soft_wrap=True)
