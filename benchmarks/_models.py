"""Models trained and certified by the project's commands, and the page that compares them.

A study is a list of models, each with the flags that train it and those that certify it. What is finished is not done
again, and what was interrupted goes on, so a study may be stopped and started.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml
from _common import DOCS, RESULTS, Row, data_folder, markdown_table, write_markdown, write_rows

from srs.evaluation.intervals import mean_interval
from srs.evaluation.metrics import average_certified_radius, certified_accuracy
from srs.report.numbers import floored, percent, raised
from training import PRESETS

EPSILONS = np.arange(10) * 0.25

#: Settings that say where something lies.
PLACES = ("checkpoint", "data_dir", "dataset")

#: What ends the names of a rule's rows in comparison.tsv, by bound.
BOUNDS = {"full": "", "one_sided": ":one-sided"}


@dataclass(frozen=True)
class Certified:
    """One certification of a model: its folder beside the checkpoint, its flags, and the rules of it that are shown."""

    name: str
    flags: tuple[str, ...]
    rules: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Trained:
    """One model: its folder, what the table calls it, what overrides the preset, and how it is certified."""

    name: str
    title: str
    flags: tuple[str, ...]
    certified: tuple[Certified, ...]


@dataclass(frozen=True)
class Study:
    """Models of one data set, ours first, with what their commands have in common.

    `rules` are those of our model that are compared with the best constant level.
    """

    name: str
    data: tuple[str, ...]
    preset: str
    train: tuple[str, ...]
    certify: tuple[str, ...]
    models: tuple[Trained, ...]
    rules: tuple[str, ...]
    folder: str

    def training(self, model: Trained) -> list[str]:
        """The command that trains a model; $SRS_DATA is left for the shell."""
        out = f"{self.folder}/{model.name}"
        return ["srs-train", self.preset, *self.data, *self.train, *model.flags, "--out", out]

    def certification(self, model: Trained, certified: Certified) -> list[str]:
        """The command that certifies a model."""
        folder = f"{self.folder}/{model.name}"
        flags = [*self.certify, *certified.flags, "--out", f"{folder}/{certified.name}"]
        return ["srs-certify", "--checkpoint", f"{folder}/checkpoint.pt", *flags]

    def commands(self) -> str:
        """All commands, as a person would type them."""
        there = f"runs/{self.name}"
        shown = replace(self, folder=there, data=tuple(word.replace(self.folder, there) for word in self.data))
        lines = []
        for model in self.models:
            lines.append(shown.training(model))
            lines.extend(shown.certification(model, certified) for certified in model.certified)
        text = "\n".join(shlex.join(line).replace("'$SRS_DATA", '"$SRS_DATA"').replace("\"'", '"') for line in lines)
        return f"## The commands\n\n```sh\n{text}\n```\n"


def same(sigma: float) -> Certified:
    """All images at one noise level: nothing conflicts."""
    level = f"{sigma:g}"
    return Certified("same", ("--sigmas", level), ((f"sigma={level}", f"sigma = {level}"),))


def each_its_own() -> tuple[Certified, ...]:
    """A level for each image, and regions. Those of paper and sigma come from one run: images take the same levels."""
    apart = (
        ("sigma-lp", "sigma"),
        ("paper-lp", "paper"),
        ("overlapping", "*all overlap, proves nothing*"),
    )
    joint = (("joint-lp", "joint"),)
    return Certified("joint", ("--overlap", "joint"), joint), Certified("apart", ("--overlap", "paper"), apart)


def epochs(preset: str, flags: Sequence[str], passes: int) -> tuple[str, ...]:
    """The flags that spend `passes` passes forward and backward on every image, whatever an epoch takes.

    Two thirds of Algorithm 1's epochs pretrain, and the others finetune. What grows over the first epochs does so in
    the first ninth of them.
    """
    said = dict(zip(flags[::2], flags[1::2], strict=True))
    known = {"--method": str, "--loss": str, "--sigma": float, "--m": int, "--k": int}
    given = {name.removeprefix("--"): kind(said[name]) for name, kind in known.items() if name in said}
    stage = replace(PRESETS[preset][1], **given).stage()
    total, rest = divmod(passes, stage.passes)
    if rest or total < 3:
        raise SystemExit(f"--passes {passes}: {' '.join(flags)} takes {stage.passes} an epoch; give a multiple of 24")
    found = ("--warmup", str(math.ceil(total / 9)))
    if "--sigma" in said:
        return ("--epochs", str(total), *found)
    finetune = total // 3
    return ("--epochs", str(total - finetune), "--finetune-epochs", str(finetune), *found)


def carry_out(study: Study, data: Path) -> None:
    """Run every command that has not finished yet."""
    for model in study.models:
        folder = Path(study.folder) / model.name
        _finish(study.training(model), folder, data)
        for certified in model.certified:
            out = folder / certified.name
            if not (out / "summary.json").exists():
                _finish(study.certification(model, certified), out, data)


def _finish(command: list[str], folder: Path, data: Path) -> None:
    """Run a command, or go on with what it began in a folder."""
    resume = ["--resume"] if (folder / "config.yaml").exists() else []
    subprocess.run([word.replace("$SRS_DATA", str(data)) for word in command] + resume, check=True)


def rows(study: Study) -> Iterator[Row]:
    """What the table shows: one row for each rule of each certification that is finished, with both bounds."""
    for model in study.models:
        for certified in model.certified:
            out = Path(study.folder) / model.name / certified.name
            if not (out / "summary.json").exists():
                continue
            summary = json.loads((out / "summary.json").read_text())
            scores = _scores(out / "comparison.tsv")
            for rule, title in certified.rules:
                row: Row = {"model": model.title, "certified": title, "folder": f"{model.name}/{certified.name}"}
                for bound, end in BOUNDS.items():
                    radius, right = scores[rule + end]
                    interval = mean_interval(radius * right)
                    abstentions = summary["rules"][rule]["abstentions" + ("_one_sided" if end else "")]
                    row[bound] = {
                        "acr": average_certified_radius(radius, right),
                        "acr_interval": [interval.low, interval.high],
                        "certified_accuracy": certified_accuracy(radius, right, EPSILONS).tolist(),
                        "abstentions": abstentions,
                    }
                samples = {name: _samples(out / f"{name}.tsv") for name in ("selection", "estimation")}
                row["images"], row["samples"] = len(radius), samples
                row["settings"] = {k: v for k, v in summary["settings"].items() if k not in PLACES}
                row["config"] = _config(Path(study.folder) / model.name / "config.yaml")
                yield row


def _samples(file: Path) -> int:
    """How many samples a table of votes counts, up to the last look at each of them."""
    with file.open(newline="") as stream:
        return sum(int(row["n"].split(",")[-1]) for row in csv.DictReader(stream, delimiter="\t"))


def _config(file: Path) -> Row:
    """What a model was trained with, without the place of its data."""
    found = yaml.safe_load(file.read_text())
    return {name: value for name, value in found.items() if name not in PLACES}


def _scores(file: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read radius and correctness of every image by rule."""
    found: dict[str, tuple[list[float], list[bool]]] = {}
    with file.open(newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            radius, right = found.setdefault(row["rule"], ([], []))
            radius.append(float(row["radius"]))
            right.append(row["correct"] == "1")
    return {rule: (np.array(radius), np.array(right)) for rule, (radius, right) in found.items()}


def table(found: Sequence[Row]) -> str:
    """ACR with both bounds, and abstentions and certified accuracy in percent with the full one."""
    header = ["trained by", "certified", "ACR", "+-", "one-sided", "+-", "abstain", *(f"{e:.2f}" for e in EPSILONS)]
    lines = []
    for row in found:
        acr = []
        for bound in BOUNDS:
            low, high = row[bound]["acr_interval"]
            acr += [floored(row[bound]["acr"], 3), raised((high - low) / 2, 3)]
        accuracy = (percent(value) if value else "0" for value in row["full"]["certified_accuracy"])
        lines.append([row["model"], row["certified"], *acr, str(row["full"]["abstentions"]), *accuracy])
    return markdown_table(header, lines, words=2)


@dataclass(frozen=True)
class Ratio:
    """How many times the average certified radius of one row is that of another, over the same images."""

    value: float
    error: float
    difference: float
    difference_error: float


def ratio(ours: np.ndarray, other: np.ndarray) -> Ratio:
    """Divide two means over the same images; the standard error is that of the delta method, for paired values."""
    value = float(ours.mean() / other.mean())
    n = len(ours)
    error = float((ours - value * other).std(ddof=1) / math.sqrt(n) / other.mean())
    apart = ours - other
    return Ratio(value, error, float(apart.mean()), float(apart.std(ddof=1) / math.sqrt(n)))


def ratios(study: Study) -> Iterator[Row]:
    """Our model's rows over the best model at one constant level, for both bounds.

    The best is picked by its average certified radius on these very images, which favours it.
    """
    ours = study.models[0].name
    constant, chosen = {}, {}
    for model in study.models:
        for certified in model.certified:
            file = Path(study.folder) / model.name / certified.name / "comparison.tsv"
            if not file.exists():
                continue
            scores = {rule: radius * right for rule, (radius, right) in _scores(file).items()}
            for bound, end in BOUNDS.items():
                for rule, title in certified.rules:
                    if rule.startswith("sigma=") and model.name != ours:
                        constant[bound, f"{model.title}, {title}"] = scores[rule + end]
                    elif model.name == ours and rule in study.rules:
                        chosen[bound, title] = scores[rule + end]
    for bound in BOUNDS:
        others = {title: values for (kind, title), values in constant.items() if kind == bound}
        if not others:
            return
        best = max(others, key=lambda title: float(others[title].mean()))
        for (kind, title), values in chosen.items():
            if kind == bound:
                found = ratio(values, others[best])
                yield {"bound": bound, "certified": title, "best_constant": best, **found.__dict__}


def ratio_table(found: Sequence[Row]) -> str:
    """One line for each rule and bound."""
    header = ["bound", "certified", "best constant level", "ratio", "SE", "difference", "SE"]
    lines = [
        [
            row["bound"].replace("_", "-"),
            row["certified"],
            row["best_constant"],
            floored(row["value"], 3),
            raised(row["error"], 3),
            f"{row['difference']:+.3f}",
            raised(row["difference_error"], 3),
        ]
        for row in found
    ]
    return markdown_table(header, lines, words=3)


def with_earlier(study: Study, found: list[Row], compared: list[Row]) -> tuple[list[Row], list[Row]]:
    """Add what an earlier run wrote of the study's models and comparisons, where the folders are gone by now."""
    order = [
        (f"{model.name}/{certified.name}", title)
        for model in study.models
        for certified in model.certified
        for _, title in certified.rules
    ]
    file = RESULTS / f"{study.name}.jsonl"
    earlier = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    known = {(row["folder"], row["certified"]): row for row in [*earlier, *found] if "folder" in row}
    ratios_known = {(row["bound"], row["certified"]): row for row in [*earlier, *compared] if "bound" in row}
    return [known[key] for key in order if key in known], list(ratios_known.values())


def write_page(study: Study, title: str, about: str) -> None:
    """Write the rows of what is finished, and the page: what was done, the two tables and the commands."""
    found, compared = with_earlier(study, list(rows(study)), list(ratios(study)))
    if not found:
        raise SystemExit(f"{study.folder}: no model is certified there")
    write_rows(study.name, [*found, *compared])
    parts = [about, table(found), ratio_table(compared), study.commands()]
    write_markdown(study.name, title, parts, DOCS)


def main(
    description: str,
    study: Callable[[Path, int], Study],
    *,
    passes: int,
    title: str,
    about: str,
    prepare: Callable[[Path], None] | None = None,
) -> None:
    """Read the command line, do what is left to do, then write rows and page.

    `study` takes the folder of runs and the passes; `prepare` is called with that folder before anything is trained.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder for checkpoints and certificates")
    parser.add_argument("--passes", type=int, default=passes, help="passes of each image and model, a multiple of 24")
    parser.add_argument("--table-only", action="store_true", help="write the table of what is there")
    options = parser.parse_args()
    found = study(options.runs, options.passes)
    if not options.table_only:
        if prepare is not None:
            prepare(options.runs)
        carry_out(found, data_folder())
    write_page(found, title, about.format(passes=options.passes))
