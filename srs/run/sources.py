"""Which base classifier flags name, and a run's settings: checkpoints, or code of the user's own. Light to import."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Files by noise level; under None that of all levels.
Files = Mapping[float | None, Path]


def own_code(name: str | None) -> bool:
    """Whether a model or an architecture is `package.module:factory`: building it runs the user's own code."""
    if name is None:
        return False
    from training.models import is_factory  # PyTorch takes seconds to import: only who names something pays

    return is_factory(name)


def check_one(**named: object) -> None:
    """Raise `ValueError` where several flags name a base classifier: `checkpoint`, `model`, `expert`."""
    given = [name for name, value in named.items() if value]
    if len(given) > 1:
        raise ValueError(f"--{given[0]} and --{given[1]} both name a base classifier: give one of them")


def check_factory(model: str, **about: str | None) -> None:
    """Raise `ValueError` where `--model` names no factory, or comes with flags that would have no effect."""
    if not own_code(model):
        raise ValueError(f"--model {model}: expected package.module:factory; for weights use --checkpoint")
    for name, value in about.items():
        if value is not None:
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
