"""`srs-certify`: choose sigma per image, certify, allocate regions, report."""

import sys
from decimal import ROUND_CEILING, ROUND_FLOOR
from pathlib import Path
from typing import Any

from srs.commands._config import find_own_code, parse_over_file
from srs.commands._errors import one_line_errors
from srs.settings import CertifySettings

_DESCRIPTION = """Certify a classifier with a noise level chosen per image.

Chooses every test image's sigma, certifies its prediction by Monte Carlo with fresh noise, sizes the regions of
constant sigma, and compares the result with every constant sigma. --checkpoint takes what srs-train wrote, with no
further flags; without one, a small network is trained on scikit-learn's 8x8 digits.

Writes a folder of rows (selection.tsv, estimation.tsv) and what follows from them: certificates.tsv, comparison.tsv,
regions.npz, curves.png, curves.pdf, summary.json. A run that was stopped, in whatever way, goes on with the same
command and --resume. srs-report makes a page of it."""


def main() -> None:
    """Run the command; exit code 2 and one line on stderr where the settings cannot be honoured."""
    settings = parse_over_file(CertifySettings, "srs-certify", _DESCRIPTION)
    with one_line_errors("srs-certify", "what was certified is kept: go on with --resume"):
        certify(settings)


def certify(settings: CertifySettings) -> None:
    """Run the pipeline in its folder and print its table."""
    settings.check()

    from srs.base_classifiers import save_own
    from srs.inputs import completed, load  # after the check: PyTorch takes seconds to import
    from srs.modes import main_mode
    from srs.pipeline import points_of, record_files, record_run
    from srs.report import write
    from srs.results import evaluate
    from srs.run_folder import CONFIG, SUMMARY, check_free, check_same, claimed, describe, read_description

    find_own_code(settings.model, settings.arch)
    settings = completed(settings)
    out = Path(str(settings.out))
    check_free(out, resume=settings.resume, overwrite=settings.overwrite)
    begun = settings.resume and (out / CONFIG).exists()
    if begun:
        read_description(out)  # before anything is done with it
    progress = sys.stderr.isatty()
    inputs = load(settings, progress=progress)
    classifier = inputs.classifier
    config, manifest = settings.to_dict(), inputs.manifest(classifier.identity)
    if begun and (out / SUMMARY).exists():
        check_same(out, config, manifest)
        _show(out)
        return
    with claimed(out, config, manifest, overwrite=settings.overwrite) as new:
        if new:
            save_own(out, settings, inputs.models)
            describe(out, config, manifest)
        config, manifest = read_description(out)  # of the start, which may have been another one
        record_run(out, inputs, classifier, progress=progress)
        record = record_files(out, inputs).read()
        results = evaluate(record, points_of(inputs), main_mode(settings), settings.alpha)
        summary = write(results, config, manifest, out)
    print_results(summary, out)
    sys.stdout.write(f"written to {out}\n")


def _show(out: Path) -> None:
    """Print a finished run again, from its rows; nothing in its folder is touched."""
    from srs.report import summarize
    from srs.run_map import check_certificates
    from srs.stored import load_run

    run = load_run(out)
    results = run.evaluate()
    check_certificates(out, results.record)
    warning = run.disagreement(results)
    if warning:
        sys.stderr.write(f"srs-certify: warning: {warning}\n")
    print_results(summarize(results, run.config, run.manifest), out)
    sys.stdout.write(f"finished before, in {out}: nothing was written\n")


def print_results(summary: dict[str, Any], folder: Path) -> None:
    """Print the results of the run in a folder."""
    from srs.commands._console import console
    from srs.numbers import significant
    from srs.report import results_table

    screen = console()
    screen.print(results_table(summary, str(folder)))
    main, settings = summary["allocations"][summary["main"]], summary["settings"]
    screen.print(
        f"{summary['data']['images']} images, clean accuracy {100 * summary['clean_accuracy']:.1f}%, "
        f"n = {settings['n']}, alpha = {summary['alpha']:g}, seed {summary['seed']}, device {summary['device']}"
    )
    screen.print(f"{summary['guarantee']}", soft_wrap=True)
    bound = (
        "no bound known"
        if main["upper_bound"] is None
        else f"at most {significant(main['upper_bound'], ROUND_CEILING)}"
    )
    total = significant(main["objective"], ROUND_FLOOR)
    screen.print(f"regions: {main['edges']} overlaps, sum of radii {total} ({bound}); {main['status']}")
    screen.print("seconds: " + ", ".join(f"{stage} {value:.1f}" for stage, value in summary["seconds"].items()))
