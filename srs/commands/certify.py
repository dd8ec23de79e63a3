"""`srs-certify`: choose sigma per image, certify, allocate regions, report."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srs.commands._cli import console, naming_flags, needing, one_line_errors, one_line_warnings, printing
from srs.commands._config import find_in_current_folder, parse_over_file
from srs.commands._progress import Teller, loading
from srs.run.settings import GROUPS, CertifySettings
from srs.text import visible

if TYPE_CHECKING:
    from srs.run.inputs import ChosenImages, Inputs
    from srs.run.run_settings import Start

_FINISHING = "sizing regions and comparing rules"

_DESCRIPTION = """Certify a classifier with a noise level chosen per image.

Chooses every test image's sigma, certifies its prediction by Monte Carlo with fresh noise, sizes the regions of
constant sigma, and compares the result with every constant sigma. --checkpoint takes what srs-train wrote, with no
further flags; without one, a small network is trained on scikit-learn's 8x8 digits.

Writes a folder of rows (selection.tsv, estimation.tsv) and what follows from them: certificates.tsv, comparison.tsv,
regions.npz, curves.png, curves.pdf, summary.json. A run that was stopped, in whatever way, goes on with the same
command and --resume. srs-report makes a page of it."""


@printing("srs-certify")
@needing("certify", "srs-certify")
def main() -> None:
    """Run the command; exit code 2 and one line on stderr where the settings cannot be honoured."""
    settings = parse_over_file(CertifySettings, "srs-certify", _DESCRIPTION, GROUPS)
    kept = "what was certified is kept: go on with --resume"
    with (
        one_line_errors("srs-certify", kept),
        one_line_warnings("srs-certify"),
        naming_flags(CertifySettings, batch_size="--batch"),
        Teller("srs-certify") as teller,
    ):
        certify(settings, teller)


def certify(settings: CertifySettings, teller: Teller | None = None) -> None:
    """Run the pipeline in its folder, or a share of it, and print its table; what it does meanwhile is for `teller`."""
    settings.check()
    teller = teller or Teller("srs-certify")
    loading("srs-certify")

    from smoothing.drawing.draw import owned
    from srs.run.base_classifiers import warn_of_scaling
    from srs.run.draw import draw_run
    from srs.run.folder import SUMMARY, check_begun, check_free
    from srs.run.inputs import choose_images, completed  # after the check: PyTorch takes seconds to import
    from srs.run.team import team_of

    find_in_current_folder(settings.model, settings.arch, settings.dataset)
    start = completed(settings)
    out, team = start.out, team_of(start)
    if start.resume and not team.apart:
        check_begun(out)
    chosen = choose_images(start)
    if team.leads:
        check_free(out, resume=start.resume or team.apart, overwrite=start.overwrite)
        run = _begin(start, chosen, teller, wait=team.apart)
        team.meet()
    else:
        team.meet()
        run = _join(replace(start, resume=True, overwrite=False), chosen)
    if run.finished:
        if team.leads:
            _show(out, teller)
        return
    progress = team.leads and teller.progress
    with owned(out, team.share):
        run.check(out)  # another start may have replaced it before the share was this one's
        missing = draw_run(out, run.inputs, run.inputs.classifier, team.share, wait=team.launched, progress=progress)
    if not team.leads:
        return
    if missing is not None:
        sys.stdout.write(f"{team.lacking(missing)}\n")
    elif (out / SUMMARY).exists():  # another share came last
        _show(out, teller)
    else:
        with teller.phase(_FINISHING):
            summary = _finish(out, run)
            inputs = run.inputs
            warn_of_scaling(inputs.base, inputs.images, inputs.labels, device=inputs.device)
        _print(summary, out, f"written to {out}")


@dataclass(frozen=True, eq=False)
class _Run:
    """What this process certifies, how the folder describes that, and whether it was finished before."""

    inputs: Inputs
    config: dict[str, Any]
    manifest: dict[str, Any]
    finished: bool = False

    def check(self, out: Path) -> None:
        """Raise where the folder holds another run."""
        from srs.run.folder import check_same

        check_same(out, self.config, self.manifest)


def _begin(start: Start, chosen: ChosenImages, teller: Teller, *, wait: bool) -> _Run:
    """Load what is certified and begin the run, or go on with the one that is there."""
    from srs.run.base_classifiers import save_own
    from srs.run.folder import claimed, describe, read_description
    from srs.run.inputs import load

    with claimed(start.out, overwrite=start.overwrite, wait=wait) as begun:
        if begun:
            read_description(start.out)  # before anything is done with it
            return _join(replace(start, resume=True), chosen)
        run = _described(load(start, chosen, progress=teller.progress))
        if run.inputs.loaded is not None:
            sys.stderr.write(f"srs-certify: {visible(str(run.inputs.loaded))}\n")
        save_own(start.out, run.inputs.settings, run.inputs.base)
        describe(start.out, run.config, run.manifest)
        return run


def _join(start: Start, chosen: ChosenImages) -> _Run:
    """Load what is certified, and see that it is the run that the folder holds."""
    from srs.run.folder import SUMMARY
    from srs.run.inputs import load

    run = _described(load(start, chosen))
    run.check(start.out)
    return replace(run, finished=(start.out / SUMMARY).exists())


def _described(inputs: Inputs) -> _Run:
    """Describe a run as its folder does."""
    from smoothing.confidence import shared_alpha
    from srs.run.votes import ROUTER_SHARES, ladder_of, split_between

    settings = inputs.settings
    parts = [shared_alpha(settings.alpha, len(inputs.images))]  # the report's modes ask for it
    if inputs.routed is not None:
        parts += [split_between(settings.alpha, share)[0] for share in ROUTER_SHARES]
    for part in parts:
        ladder_of(settings).alphas(part)  # refused before the work
    classifier = inputs.classifier
    check = classifier.check_logits(inputs.images.shape[1:])
    return _Run(inputs, settings.to_dict(), inputs.manifest(classifier.identity, check))


def _finish(out: Path, run: _Run) -> dict[str, Any]:
    """Evaluate the votes of a run that has them all, and write what follows from them."""
    from srs.evaluation.evaluate import evaluate
    from srs.report.summary import write
    from srs.run.draw import record_of
    from srs.run.folder import claimed, read_description

    inputs, settings = run.inputs, run.inputs.settings
    with claimed(out, wait=True):
        run.check(out)
        described = read_description(out)  # of the start, which may have been another one
        record = record_of(out, inputs)
        results = evaluate(record, inputs.points, settings.mode, settings.alpha, settings.sampler)
        return write(results, described.config, described.manifest, out)


def _show(out: Path, teller: Teller) -> None:
    """Print a finished run again, from its rows; nothing in its folder is touched."""
    from srs.report.finished_run import load_run
    from srs.report.summary import summarize
    from srs.run.map import check_certificates

    with teller.phase(_FINISHING):
        run = load_run(out)
        results = run.evaluate()
    check_certificates(out, results.record, results.level)
    warning = run.disagreement(results)
    if warning:
        sys.stderr.write(f"srs-certify: warning: {visible(warning)}\n")
    _print(summarize(results, run.config, run.manifest), out, f"finished before, in {out}: nothing was written")


def _print(summary: dict[str, Any], out: Path, written: str) -> None:
    """Print the results of a run, what was written, and what can be done next."""
    from srs.commands._results import print_next, print_results

    print_results(summary, out)
    console().print(written, soft_wrap=True)
    print_next(out, summary["settings"])
