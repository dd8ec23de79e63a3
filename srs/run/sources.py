"""Which base classifier and data set flags name, and a run's settings: files, or code of one's own. Light to import."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Files by noise level; under None that of all levels.
Files = Mapping[float | None, Path]


def own_code(name: str | None) -> bool:
    """Whether a model or an architecture is `package.module:factory` or `KIND:NAME`, which no file may ask for."""
    if name is None:
        return False
    from training.models import is_factory  # PyTorch takes seconds to import: only who names something pays

    return is_factory(name)


def own_data(name: str | None) -> bool:
    """Whether a data set is `package.module:factory`, which no file may ask for."""
    if name is None or ":" not in name:
        return False
    from training.own_datasets import is_own_dataset  # PyTorch takes seconds to import: only who names something pays

    return is_own_dataset(name)


def check_data(folder: Path, given: str | None, stored: str) -> None:
    """Raise `ValueError` where `--dataset` is not that of a run, and where a folder alone would have code run."""
    if given is not None and given != stored:
        raise ValueError(f"--dataset {given}: the run in {folder} has {stored}; give that, or leave it out")
    if given is None and own_data(stored):
        raise ValueError(
            f"{folder}: its data set is code of your own, which a folder alone never runs: "
            f"{asked_again(f'--dataset {stored}', stored)}"
        )


def asked_again(flag: str, name: str | None) -> str:
    """Return what the user has to do for code of a run that a folder alone never runs; `flag` holds its name."""
    return f"add {flag}" if library(name) else f"add {flag} if you trust that module"


def library(name: str | None) -> bool:
    """Whether a model or an architecture is that of a library or a format, `KIND:NAME`."""
    if not own_code(name):
        return False
    from training.libraries.names import kind_of

    return kind_of(name) is not None


def check_one(**named: object) -> None:
    """Raise `ValueError` where several flags name a base classifier: `checkpoint`, `model`, `expert`."""
    given = [name for name, value in named.items() if value]
    if len(given) > 1:
        raise ValueError(f"--{given[0]} and --{given[1]} both name a base classifier: give one of them")


def check_factory(model: str, **about: str | None) -> None:
    """Raise `ValueError` where `--model` names none, or comes with flags that would have no effect."""
    if not own_code(model):
        from training.libraries.names import KINDS, meant

        kinds = ", ".join(f"{kind}:" for kind in KINDS)
        raise ValueError(
            f"--model {model}: expected package.module:factory, or a name that begins with {kinds}"
            f"{meant(model) or '; for weights use --checkpoint'}"
        )
    for name, value in about.items():
        if value is not None and not (name == "normalizer" and library(model)):
            raise ValueError(f"--{name}: describes a --checkpoint; what --model returns is taken as it is")


def files_of(checkpoint: Path | None, expert: Sequence[str]) -> Files:
    """Return the checkpoints that are named, if any are."""
    return dict(experts(expert).items()) if checkpoint is None else {None: checkpoint}


def experts(pairs: Sequence[str]) -> dict[float, Path]:
    """Return the file of every noise level, levels increasing, from SIGMA=FILE."""
    files: dict[float, Path] = {}
    for pair in pairs:
        level, equals, file = pair.partition("=")
        try:
            sigma = float(level)
        except ValueError:
            sigma = 0.0
        if not equals or not file or not 0 < sigma < math.inf:
            raise ValueError(f"--expert {pair}: expected SIGMA=FILE with SIGMA > 0, such as 0.25=model.pt")
        if sigma in files:
            raise ValueError(f"--expert {pair}: sigma {sigma:g} has {files[sigma]} already; give each level once")
        files[sigma] = Path(file)
    return dict(sorted(files.items()))
