"""`srs-train`: train a base classifier by any of the methods, from a preset and overrides."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from srs.commands._cli import console, naming_flags, needing, one_line_errors, one_line_warnings, parse_preset, printing
from srs.commands._config import find_in_current_folder
from srs.commands._progress import Teller

if TYPE_CHECKING:
    from training import Epoch, TrainSettings

_DESCRIPTION = """Train a base classifier for certification: sample-wise (Algorithm 1), or a baseline at one sigma.

Choose a preset, then override what differs: srs-train mnist-quick --method smooth-adv --sigma 0.5 --out runs/adv-0.5

Writes checkpoint.pt after each epoch, config.yaml and log.tsv into --out; srs-certify --checkpoint takes it from there.
A run that was stopped, in whatever way, goes on with the same command and --resume."""


#: What the parts of training call the values of some flags.
_FLAGS = {
    "arch": "--model", "batch_size": "--batch", "steps": "--k", "lam": "--macer-lambda", "beta": "--macer-beta",
    "gamma": "--macer-gamma", "kind": "--router-kind",
}  # fmt: skip


@printing("srs-train")
@needing("certify", "srs-train")
def main() -> None:
    """Run the command; exit code 2 and one line on stderr where the settings cannot be honoured."""
    with one_line_errors("srs-train", "go on after the last whole epoch with --resume"), one_line_warnings("srs-train"):
        from smoothing.machine import processes
        from training import DENOISER_PRESETS, PRESETS, ROUTER_PRESETS, run
        from training.run_folder import CHECKPOINT
        from training.settings import TrainSettings

        with naming_flags(TrainSettings, **_FLAGS), Teller("srs-train") as teller:
            settings = parse_preset({**PRESETS, **ROUTER_PRESETS, **DENOISER_PRESETS}, "srs-train", _DESCRIPTION)
            _check_levels(settings, sys.argv[1:])
            find_in_current_folder(settings.model, settings.dataset)
            epochs = run(settings, progress=teller.progress)

        if processes(settings.device).is_main_process:
            _print(epochs)
            if settings.method == "router":
                _print_router(settings)
            if settings.choice == "margins":
                _print_choice(settings)
            console().print(f"written to {settings.out / CHECKPOINT}", soft_wrap=True)


def _check_levels(settings: "TrainSettings", args: Sequence[str]) -> None:
    """Refuse bounds of a grid beside the levels themselves: a preset has bounds too, so only the flags tell."""
    levels = next((name for name in ("sigmas", "sigma") if getattr(settings, name) is not None), None)
    given = {arg.partition("=")[0].replace("_", "-") for arg in args if arg.startswith("--")}
    for name in ("sigma-min", "sigma-max", "sigma-step") if levels else ():
        if f"--{name}" in given:
            raise ValueError(f"--{name}: the levels are those of --{levels}; leave one of them out")


def _print(epochs: Sequence["Epoch"]) -> None:
    from rich.table import Table

    from srs.report.numbers import percent

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("stage", "epoch", "loss", "accuracy", "lr", "seconds", "images/s"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for row in epochs:
        table.add_row(
            row.stage,
            str(row.epoch + 1),
            f"{row.loss:.4f}",
            f"{percent(row.accuracy)}%",
            f"{row.lr:.2g}",
            f"{row.seconds:.1f}",
            f"{row.images_per_second:.0f}",
        )
    console().print(table)


def _print_choice(settings: "TrainSettings") -> None:
    """Print what choosing the levels took, from the run's checkpoint."""
    from training.checkpoint_files import read_file
    from training.run_folder import CHECKPOINT

    saved = read_file(settings.out / CHECKPOINT)
    images, passes = len(saved["chosen"]), saved["chosen_passes"]
    console().print(
        f"levels of {images:,} images chosen by {passes:,} passes, {passes / images:g} an image; the grid has "
        f"{len(settings.levels) * settings.n0:,} samples for each",
        soft_wrap=True,
    )


def _print_router(settings: "TrainSettings") -> None:
    """Print what held-out training images say of a router, from its checkpoint."""
    from rich.table import Table

    from training import load_router
    from training.models import is_factory
    from training.run_folder import CHECKPOINT

    arch = settings.model if is_factory(settings.model) else None
    found = load_router(settings.out / CHECKPOINT, arch=arch).validation
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("held-out images", "radius"):
        table.add_column(name, justify="left" if name != "radius" else "right")
    for sigma, radius in zip(found.sigmas, found.constant, strict=True):
        table.add_row(f"sigma = {sigma:g} for all", f"{radius:.4f}")
    table.add_row("each its own best", f"{found.best:.4f}")
    table.add_row("router, min(R_S, R_c)", f"{found.min_radius:.4f}")
    table.add_row("router, levels that agree", f"{found.router:.4f}")
    screen = console()
    screen.print()
    screen.print(table)
    level = found.sigmas[found.level]
    verdict = "the router answers" if found.better else f"not clearly more, so sigma = {level:g} answers for all"
    screen.print(
        f"router - sigma = {level:g}: {found.difference:+.4f}, standard error {found.error:.4f}: {verdict}",
        soft_wrap=True,
    )
    screen.print(
        f"mean expected radii of {found.images} held-out training images, {found.unseen} of them new to the base "
        f"classifier; {found.passes:,} passes; labels were used",
        soft_wrap=True,
    )
