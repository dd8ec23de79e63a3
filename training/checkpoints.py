"""Checkpoints: ours, and those of earlier work on certified models. Nothing from disk is run.

A file holds one or more state dicts, alone or under names. `training.weights` finds the network's tensors in them,
behind whatever prefix; here it is decided whether they are the architecture's, and which normaliser stood before it.
"""

import os
import re
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from smoothing.limits import MOST_CLASSES
from smoothing.storage import replacing
from training.checkpoint_files import disk_error, read_file, safetensors_of
from training.denoisers import DENOISERS
from training.libraries.names import kind_of
from training.models import ARCHITECTURES, NORMALIZERS, Normalize, is_factory, network, normalized
from training.settings import TrainSettings
from training.weights import DEVIATIONS, MEANS, Reading, is_counter, misfit, readings, same, state_dicts

#: The entries of a checkpoint that say what a router, or a denoiser, is for.
ROUTER, DENOISER = "router", "denoiser"

#: How files of that format end.
SAFETENSORS = ".safetensors"

#: Published moments are rounded to three or four digits.
_MOMENT_TOLERANCE = 1e-3

#: Names that show how weights are kept in another form, and what turns them into plain ones.
_FORMS = (
    (("_orig", "_mask"), "its weights are pruned: make that final by torch.nn.utils.prune.remove and save it anew"),
    (("_packed_params", "scale", "zero_point"), "it is quantised: save the model from before quantisation"),
    (("weight_g", "weight_v"), "its weights are parametrised: save it after torch.nn.utils.remove_weight_norm"),
    (
        ("original", "original0", "original1"),
        "its weights are parametrised: save it after torch.nn.utils.parametrize.remove_parametrizations",
    ),
)

#: What names end in where a checkpoint was split.
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.\w+$")


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    arch: str | None = None,
    normalizer: str | None = None,
    num_classes: int | None = None,
) -> nn.Module:
    """Read a checkpoint as a model that maps images in [0, 1] to logits, in evaluation mode, on the CPU.

    The state dict may stand alone or under any name, behind any prefix (`module.`, `_orig_mod.`, `model.`, `1.`), and
    is taken only where names and shapes are exactly the architecture's. Tensors that are left over are refused, for
    they may have been a part of the function, with two exceptions: counters of training steps (`num_batches_tracked`,
    `n_averaged`), which may be there or not; and mean and standard deviation of a normaliser before the network, which
    are used. Entries beside the state dicts (optimizer, epoch, ...) are not read.

    Parameters
    ----------
    path : path
        A file written by torch.save or safetensors.
    arch : str, optional
        One of `training.ARCHITECTURES`, `timm:NAME`, `torchvision:NAME` or `package.module:factory`; needed where the
        file does not say, and must agree with it where it names one of ours. A factory's module is imported, so a file
        alone never makes that happen.
    normalizer : str, optional
        One of `training.NORMALIZERS`. Needed where the network was a part of something else and the file does not say
        which normaliser that had, and for networks of timm and torchvision; another network alone has none unless
        named. Must agree with the file where it says.
    num_classes : int, optional
        Needed where the architecture is a factory and the file does not say; must agree with it where it does.

    Raises
    ------
    ValueError
        One line that names the file and the remedy: where it is damaged or holds objects, where architecture or
        normaliser are not known, where the weights are not exactly those of the architecture, or not finite, and where
        the file can be read as two different models.
    OSError
        Where it cannot be opened.
    """
    file = Path(path)
    content = read_file(file)
    if holds_router(content):
        raise ValueError(
            f"{file} is a router, which names noise levels and no classes: give the base classifier's checkpoint"
        )
    if holds_denoiser(content):
        raise ValueError(
            f"{file} is a denoiser, which returns images and no classes: give the base classifier's checkpoint, and "
            "this one as --denoiser"
        )
    if not any(state_dicts(content)):
        raise ValueError(f"{file} holds no weights: expected a state_dict, alone or under a name such as 'state_dict'")
    arch = named_arch(file, arch, content.get("arch"))
    classes = _classes(file, num_classes, content.get("num_classes"))
    with torch.random.fork_rng(devices=[]):
        reading, net = (_read_factory if is_factory(arch) else _read_ours)(file, content, arch, classes)
    _load(file, arch, net, reading.weights)
    return _behind_normalizer(file, content, normalizer, arch, reading, net).eval()


def save_checkpoint(
    path: str | os.PathLike[str], net: nn.Module, *, arch: str, normalizer: str = "none", **extra: Any
) -> None:
    """Write a network's weights with the names that `load_checkpoint` needs; whole or not at all.

    Parameters
    ----------
    path : path
        Ending in .safetensors: in that format, which other programs read too. Else as torch.save writes it.
    net : torch.nn.Module
        The network without its normaliser.
    arch, normalizer : str
        As in `training.build`; of a denoiser, which an entry `denoiser` is about, one of `training.DENOISERS`.
    **extra
        Further entries: tensors, numbers, strings, and lists and dicts of them. In a .safetensors file none but
        `num_classes`, a whole number.

    Raises
    ------
    ValueError
        For a name that is not known, and where the network has state that could not be read again.
    OSError
        Where the disk is full, or the file cannot be written: what was there before stays.
    """
    known = DENOISERS if DENOISER in extra else ARCHITECTURES
    if arch not in known and (DENOISER in extra or not is_factory(arch)):
        own = "" if DENOISER in extra else ", or package.module:factory"
        raise ValueError(f"arch = {arch!r}: choose {', '.join(known)}{own}")
    if normalizer not in NORMALIZERS:
        raise ValueError(f"normalizer = {normalizer!r}: choose {', '.join(NORMALIZERS)}")
    check_savable(net, arch)
    file = Path(path)
    if file.suffix == SAFETENSORS:
        if not all(name == "num_classes" and isinstance(value, int) for name, value in extra.items()):
            raise ValueError(f"{file}: a {SAFETENSORS} file holds weights and num_classes alone; name a .pt file")
        about = {"arch": arch, "normalizer": normalizer, **extra}
        content = safetensors_of(net.state_dict(), about)
        with replacing(file) as stream:
            stream.write(content)
        return
    with replacing(file) as stream:
        try:
            torch.save({"arch": arch, "normalizer": normalizer, "state_dict": net.state_dict(), **extra}, stream)
        except RuntimeError as error:
            cause = disk_error(error)
            if cause is None:
                raise
            raise OSError(cause.errno, cause.strerror, str(file)) from error


def check_savable(net: nn.Module, name: str) -> None:
    """Raise `ValueError`, one line, where a network has state that a checkpoint cannot safely give back.

    That is anything but plain tensors. What `set_extra_state` makes of a file is not known: some libraries unpickle it.
    """
    for key, value in net.state_dict().items():
        wrong = misfit(value, value if isinstance(value, Tensor) else torch.empty(0))
        if wrong is not None or key.rpartition(".")[2] == "_extra_state":
            what = "is extra state" if wrong is None else wrong[0]
            raise ValueError(f"{name}: {_key(key)} of its state_dict {what}; checkpoints hold plain tensors")


def read_state(path: str | os.PathLike[str], net: nn.Module) -> dict[str, Any]:
    """Load the weights of a file that `save_checkpoint` wrote into its network, and return the other entries.

    Raises
    ------
    ValueError
        Where the file is damaged or belongs to another network.
    OSError
        Where it cannot be opened.
    """
    return take_state(Path(path), read_file(Path(path)), net)


def take_state(file: Path, found: Mapping[Any, Any], net: nn.Module) -> dict[str, Any]:
    """Load the weights among what `read_file` found into their network, and return the other entries; see `read_state`.

    Raises
    ------
    ValueError
        Where the file is not ours, or belongs to another network.
    """
    content = {key: value for key, value in found.items() if isinstance(key, str)}
    state = content.pop("state_dict", None)
    if not isinstance(state, Mapping) or "normalizer" not in content:
        raise ValueError(f"{file} was not written by srs-train: restore it, or begin in another folder")
    weights = {key: Tensor.detach(v) if isinstance(v, Tensor) else v for key, v in state.items()}
    expected = net.state_dict()
    wrong = [text for text, _ in _wrong(Reading(weights), expected)]
    wrong += [f"unknown {_key(key)}" for key in weights if key not in expected]
    wrong += [f"no {_key(key)}" for key in expected if key not in weights and is_counter(key)]
    if wrong:
        raise ValueError(f"{file} belongs to another network: {_first(wrong)}; restore it, or begin in another folder")
    _load(file, "the network", net, weights)
    return content


def holds_router(content: Mapping[Any, Any]) -> bool:
    """Whether what a file holds is a router's checkpoint, whatever else may be wrong with it."""
    about = content.get(ROUTER)
    return isinstance(about, Mapping) and "router_sigma" in about


def holds_denoiser(content: Mapping[Any, Any]) -> bool:
    """Whether what a file holds is a denoiser's checkpoint, whatever else may be wrong with it."""
    about = content.get(DENOISER)
    return isinstance(about, Mapping) and "sigma_max" in about


def training_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings that `srs-train` wrote into a checkpoint; empty where another program wrote it.

    Raises
    ------
    ValueError
        Where the file is damaged, or holds values that no setting can have.
    OSError
        Where it cannot be opened.
    """
    content = read_file(Path(path))
    config = content.get("config")
    kinds = get_type_hints(TrainSettings)
    ours = "normalizer" in content and isinstance(config, Mapping) and set(config) <= set(kinds)
    if not ours or not isinstance(config, Mapping):
        return {}
    for name, value in config.items():
        if not _is(value, kinds[name]):
            raise ValueError(
                f"{path}: its config has {name} = {_shown(value)}, which srs-train never writes: load the checkpoint, "
                "remove 'config', save it anew and give the settings as flags"
            )
    return dict(config)


def _read_ours(file: Path, content: Mapping[Any, Any], arch: str, classes: int | None) -> tuple[Reading, nn.Module]:
    """Find the weights of one of our architectures; until they are found, nothing is allocated for it."""

    def expected(count: int) -> dict[str, Tensor]:
        with torch.device("meta"):
            return dict(ARCHITECTURES[arch](count).state_dict())

    names = expected(2)
    last = list(names)[-1]  # the bias of the last layer

    def counted(reading: Reading) -> int:
        bias = reading.weights.get(last)
        length = bias.numel() if isinstance(bias, Tensor) and not bias.is_nested else 2
        return min(max(1, length), MOST_CLASSES)

    reading = _fitting(file, content, arch, names, lambda reading: expected(counted(reading)))
    found = counted(reading)
    if classes is not None and classes != found:
        raise ValueError(f"{file} is for {found} classes by its last layer, not {classes}: correct num_classes")
    return reading, network(arch, found)


def _read_factory(file: Path, content: Mapping[Any, Any], arch: str, classes: int | None) -> tuple[Reading, nn.Module]:
    if classes is None:
        raise ValueError(
            f"{file} does not say how many classes {arch} is for: give num_classes, or save "
            "{'state_dict': ..., 'num_classes': ...} with torch.save"
        )
    net = network(arch, classes)
    check_savable(net, arch)
    names = net.state_dict()
    return _fitting(file, content, arch, names, lambda _: names), net


def _fitting(
    file: Path,
    content: Mapping[Any, Any],
    arch: str,
    names: Mapping[str, Tensor],
    expected: Callable[[Reading], Mapping[str, Tensor]],
) -> Reading:
    """Return the one reading of the file that is exactly the architecture's."""
    tried = [(reading, _wrong(reading, expected(reading))) for reading in readings(content, names)]
    fits = [reading for reading, wrong in tried if not wrong and not reading.unknown]
    if not fits:
        shard = _SHARD.search(file.name)
        if shard:
            raise ValueError(f"{file} is one of {int(shard[1])} parts of a checkpoint: put them into one file")
        reading, wrong = min(tried, key=lambda pair: len(pair[1]) + len(pair[0].unknown))
        raise ValueError(f"{file} is no {arch}: {_complaint(reading, wrong)}")
    if not all(same(fits[0], other) for other in fits[1:]):
        raise ValueError(
            f"{file} holds {arch} more than once, with different weights or normalisers: save the state_dict that you "
            "mean alone"
        )
    return fits[0]


def _wrong(reading: Reading, expected: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Say which of the expected tensors are missing or other ones, each with its remedy."""
    missing = [name for name in expected if name not in reading.weights and not is_counter(name)]
    wrong = [(f"no {_key(name)}", "name another arch") for name in missing]
    for name, value in reading.weights.items():
        found = misfit(value, expected[name]) if name in expected and not is_counter(name) else None
        if found is not None:
            wrong.append((f"{_key(name)} {found[0]}", found[1]))
    return wrong


def _complaint(reading: Reading, wrong: list[tuple[str, str]]) -> str:
    found = _first([*(text for text, _ in wrong), *(f"unknown {_key(key)}" for key in reading.unknown)])
    ends = {key.rpartition(".")[2] for key in reading.unknown}
    for endings, remedy in _FORMS:
        if any(end == ending or (ending[0] == "_" and end.endswith(ending)) for end in ends for ending in endings):
            return f"{found}; {remedy}"
    if wrong:
        return f"{found}; {wrong[0][1]}"
    return (
        f"{found}; all else fits, but what is left over may have been a part of the model: if only training used it, "
        "remove it from the state_dict and save that anew"
    )


def _load(file: Path, arch: str, net: nn.Module, weights: Mapping[str, Any]) -> None:
    """Put weights into the network, and see that they are there and finite."""
    own = {name: value.clone() for name, value in net.state_dict().items()}
    chosen = {
        name: value.to(own[name])
        for name, value in weights.items()
        if not is_counter(name) or misfit(value, own[name]) is None
    }
    for name, value in chosen.items():
        broken = ~torch.isfinite(value)
        if bool(broken.any()) and not torch.equal(value[broken], own[name][broken]):  # a mask of infinities may stay
            raise ValueError(f"{file}: {name} holds NaN or infinity; training diverged, take an earlier checkpoint")
    try:
        net.load_state_dict(own | chosen)
    except Exception as error:  # a network of the user's may do anything here
        text = " ".join(str(error).split())
        raise ValueError(f"{file}: {arch} does not take its weights: {type(error).__name__}: {text}") from error
    for name, value in net.state_dict().items():
        if name in chosen and not torch.equal(value, chosen[name]):
            raise ValueError(f"{file}: {arch} has other numbers in {name} after loading: two of its names share memory")


def _behind_normalizer(
    file: Path, content: Mapping[Any, Any], given: str | None, arch: str, reading: Reading, net: nn.Module
) -> nn.Module:
    """Return the network behind the normaliser that the caller or the file names, or whose numbers the file holds."""
    stored = content.get("normalizer")
    elsewhere = kind_of(arch) is not None  # whose models were mostly trained behind a normaliser that no file holds
    open_question = reading.wrapped or elsewhere or any(name in content for name in MEANS | DEVIATIONS)
    if given is None and stored is None and reading.moments is None and not open_question:
        stored = "none"
    if reading.moments is None or given is not None or stored is not None:
        named = _named(file, "normalizer", given, stored, NORMALIZERS)
        if reading.moments is None:
            return normalized(net, named)
        _check_moments(file, named, reading.moments)
    mean, deviation = (tuple(value.flatten().tolist()) for value in reading.moments)
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in deviation):
        raise ValueError(
            f"{file}: its normaliser has mean {_numbers(mean)} and standard deviation {_numbers(deviation)}, which are "
            "not for pixels in [0, 1]: divide them by the range of its pixels, and save it anew"
        )
    return nn.Sequential(Normalize(mean, deviation), net)


def _check_moments(file: Path, named: str, moments: tuple[Tensor, Tensor]) -> None:
    """Refuse a name whose normaliser is another one than that in the file."""
    for value, wanted in zip(moments, NORMALIZERS[named] or ((0.0,), (1.0,)), strict=True):
        found = value.flatten().double()
        if not torch.allclose(found, torch.tensor(wanted).double(), rtol=0, atol=_MOMENT_TOLERANCE):
            mean, deviation = (_numbers(part.flatten().tolist()) for part in moments)
            raise ValueError(
                f"normalizer = {named!r}, but that in {file} has mean {mean} and standard deviation {deviation}: leave "
                "normalizer out to use these"
            )


def _named(file: Path, what: str, given: str | None, stored: Any, known: Mapping[str, Any]) -> str:
    if given is not None and stored is not None and given != stored:
        raise ValueError(f"{what} = {given!r}, but {file} is for {_shown(stored)}: leave {what} out")
    name = stored if given is None else given
    if name is None:
        raise ValueError(f"{file} does not name its {what}: give {what}, one of {', '.join(known)}")
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"{what} = {_shown(name)}: choose {', '.join(known)}")
    return name


def named_arch(file: Path, given: str | None, stored: Any) -> str:
    """Return the architecture's name; a factory only where the caller names it, since naming it runs its module.

    A name in the file that is none of ours binds nobody: the weights decide whether what the caller names fits.
    """
    if is_factory(stored):
        if given != stored:
            whose, trust = ("another library", "") if kind_of(stored) else ("your own", " if you trust that module")
            raise ValueError(f"{file} is for a model of {whose}: give arch {_shown(stored)}{trust}")
        return stored
    if is_factory(given):
        return given
    ours = isinstance(stored, str) and stored in ARCHITECTURES
    if not ours and given is None and stored is not None:
        raise ValueError(
            f"{file} has arch = {_shown(stored)}: choose {', '.join(ARCHITECTURES)}, or package.module:factory"
        )
    return _named(file, "arch", given, stored if ours else None, ARCHITECTURES)


def _classes(file: Path, given: int | None, stored: Any) -> int | None:
    if isinstance(stored, Tensor) and stored.numel() == 1 and misfit(stored, torch.zeros_like(stored).long()) is None:
        stored = stored.item()
    for name, value in (("num_classes", given), (f"{file}: num_classes", stored)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and 1 <= value <= MOST_CLASSES):
            raise ValueError(f"{name} = {_shown(value)}: must be an integer from 1 to {MOST_CLASSES:,}")
    if given is not None and stored is not None and given != stored:
        raise ValueError(f"{file} is for {stored} classes, not {given}: they do not belong together")
    return stored if given is None else given


def _is(value: Any, kind: Any) -> bool:
    """Whether a value from a file is what a setting of this type is written as."""
    if get_origin(kind) is tuple:
        return isinstance(value, list) and len(value) <= 4096 and all(_is(one, get_args(kind)[0]) for one in value)
    if get_origin(kind) in (UnionType, Union):
        return any(_is(value, part) for part in get_args(kind))
    if not isinstance(value, bool | int | float | str | None):
        return False
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and -1e100 < value < 1e100
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if kind in (str, Path):
        return isinstance(value, str) and len(value) <= 4096 and value.isprintable()
    return isinstance(value, kind)


def _first(wrong: list[str]) -> str:
    return ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")


def _numbers(values: tuple[float, ...] | list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _key(name: Any) -> str:
    """Return a name of a state dict as one reads it, unless it is long, or a terminal would obey it."""
    plain = isinstance(name, str) and name.isprintable() and " " not in name and len(name) <= 200
    return str(name) if plain else reprlib.repr(name) if isinstance(name, str) else _shown(name)


def _shown(value: Any) -> str:
    """Return a short text of whatever a file holds, on one line."""
    if isinstance(value, str) and len(value) <= 200:
        return repr(value)
    if isinstance(value, int) and abs(value) >= 2**63:  # Python may refuse to write it out
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, bool | int | float | str | None):
        return reprlib.repr(value)
    return f"a {type(value).__name__}"
