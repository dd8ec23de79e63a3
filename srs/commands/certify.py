"""`srs-certify`: choose sigma per image, certify, allocate regions, report."""

import sys
from decimal import ROUND_CEILING, ROUND_FLOOR
from pathlib import Path
from typing import Any

from srs.commands._cli import one_line_errors, one_line_warnings, printing
from srs.commands._config import find_in_current_folder, parse_over_file
from srs.run.settings import CertifySettings

_DESCRIPTION = """Certify a classifier with a noise level chosen per image.

Chooses every test image's sigma, certifies its prediction by Monte Carlo with fresh noise, sizes the regions of
constant sigma, and compares the result with every constant sigma. --checkpoint takes what srs-train wrote, with no
further flags; without one, a small network is trained on scikit-learn's 8x8 digits.

Writes a folder of rows (selection.tsv, estimation.tsv) and what follows from them: certificates.tsv, comparison.tsv,
regions.npz, curves.png, curves.pdf, summary.json. A run that was stopped, in whatever way, goes on with the same
command and --resume. srs-report makes a page of it."""


@printing("srs-certify")
def main() -> None:
    """Run the command; exit code 2 and one line on stderr where the settings cannot be honoured."""
    settings = parse_over_file(CertifySettings, "srs-certify", _DESCRIPTION)
    kept = "what was certified is kept: go on with --resume"
    with one_line_errors("srs-certify", kept), one_line_warnings("srs-certify"):
        certify(settings)


def certify(settings: CertifySettings) -> None:
    """Run the pipeline in its folder and print its table."""
    settings.check()

    from smoothing.confidence import shared_alpha
    from srs.commands._cli import console
    from srs.evaluation.evaluate import evaluate
    from srs.report.summary import write
    from srs.run.base_classifiers import save_own
    from srs.run.draw import points_of, record_files, record_run
    from srs.run.folder import CONFIG, SUMMARY, check_free, check_same, claimed, describe, read_description
    from srs.run.inputs import completed, load  # after the check: PyTorch takes seconds to import

    find_in_current_folder(settings.model, settings.arch)
    settings = completed(settings)
    out = Path(str(settings.out))
    check_free(out, resume=settings.resume, overwrite=settings.overwrite)
    begun = settings.resume and (out / CONFIG).exists()
    if begun:
        read_description(out)  # before anything is done with it
    progress = sys.stderr.isatty()
    inputs = load(settings, progress=progress)
    shared_alpha(settings.alpha, len(inputs.images))  # the report's modes ask for it: refused before the work
    classifier = inputs.classifier
    check = classifier.check_logits(inputs.images.shape[1:])
    config, manifest = settings.to_dict(), inputs.manifest(classifier.identity, check)
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
        results = evaluate(record, points_of(inputs), settings.mode, settings.alpha, settings.sampler)
        summary = write(results, config, manifest, out)
    print_results(summary, out)
    console().print(f"written to {out}", soft_wrap=True)


def _show(out: Path) -> None:
    """Print a finished run again, from its rows; nothing in its folder is touched."""
    from srs.report.finished_run import load_run
    from srs.report.summary import summarize
    from srs.run.map import check_certificates

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
    from srs.commands._cli import console
    from srs.report.numbers import percent, significant
    from srs.report.summary import results_table

    screen = console()
    screen.print(results_table(summary, str(folder)))
    main, settings = summary["allocations"][summary["main"]], summary["settings"]
    screen.print(
        f"{summary['data']['images']} images, clean accuracy {percent(summary['clean_accuracy'])}%, "
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
