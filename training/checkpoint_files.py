"""Files of weights as plain values, and what a file is that holds none. Nothing from disk is run.

Files of `torch.save` go through PyTorch's restricted reader, which makes tensors and plain values and calls nothing.
"""

import json
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

#: How files begin that are often taken for checkpoints: what they are, and the remedy.
_FOREIGN = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself: run git lfs pull"),
    (b"\x1f\x8b", "is compressed by gzip: unpack it"),
    (b"\xfd7zXZ", "is compressed by xz: unpack it"),
    (b"BZh", "is compressed by bzip2: unpack it"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd: unpack it"),
    (b"7z\xbc\xaf", "is a 7z archive: unpack it"),
    (b"Rar!", "is a RAR archive: unpack it"),
    (b"\x89HDF", "is an HDF5 file: turn its weights into a PyTorch state_dict and torch.save that"),
    (b"\x93NUMPY", "is a NumPy array: torch.save a state_dict"),
    (b"GGUF", "is a GGUF file: torch.save a state_dict"),
)

#: What our metadata of a safetensors file stand under, and most characters of them.
ABOUT, _MOST_ABOUT = "srs-certify", 4096

_ANEW = "save its state_dict anew with torch.save"


def read_file(file: Path) -> Mapping[Any, Any]:
    """Return what `torch.save` or safetensors wrote into a file: tensors on the CPU and plain values.

    Raises
    ------
    ValueError
        One line that says what the file is instead, or what it holds that is never unpickled, and the remedy.
    OSError
        Where it cannot be opened.
    """
    check_regular(file)
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(512)
    foreign = _foreign(head)
    if foreign is not None:
        raise ValueError(f"{file} {foreign}")
    if head.startswith(b"PK\x03\x04"):  # by which torch.load knows an archive
        _check_archive(file, size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sparse tensors and of old formats: what matters is refused below
            content = _safetensors(file) if _is_safetensors(head) else _torch(file)
    except MemoryError as error:
        raise ValueError(f"{file} needs more memory than there is, or is damaged; {_ANEW}") from error
    except Exception as error:  # the readers raise whatever a damaged file leads them to
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(f"{file} {_refusal(error)}") from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{file} holds a {type(content).__name__}: expected a state_dict, or a dict that holds one; {_ANEW}"
        )
    return content


def check_regular(file: Path, what: str = "a checkpoint") -> None:
    """Refuse what is no file before it is opened: reading a pipe would wait for ever. `what` is what is to be named."""
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{file}: no such file; name {what}") from None
    if stat.S_ISDIR(mode):
        inside = file / "checkpoint.pt"
        beside = what == "a checkpoint" and inside.is_file()
        raise IsADirectoryError(f"{file} is a folder: name {inside if beside else what}")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{file} is a pipe or a device: name a file")


def _foreign(head: bytes) -> str | None:
    if not head:
        return f"is damaged: it is empty; {_ANEW}"
    for start, what in _FOREIGN:
        if head.startswith(start):
            return what
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is an HTML page, not a checkpoint: download the file itself"
    if text.startswith((b"{", b"[")):
        return (
            "is JSON, not a checkpoint: name the file of its weights; put the parts that an index lists into one file"
        )
    if head[257:262] == b"ustar":
        return f"is a tar archive: unpack it, or {_ANEW}"
    return None


def _check_archive(file: Path, size: int) -> None:
    """Refuse archives that `torch.save` did not write, those among them that unpack to more than they are."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except Exception as error:  # zipfile raises more than BadZipFile
        raise ValueError(f"{file} is damaged; {_ANEW}") from error
    names = {entry.filename.rpartition("/")[2] for entry in entries}
    if "constants.pkl" in names:
        raise ValueError(f"{file} is a TorchScript archive, which is code: torch.save the state_dict() of the module")
    if "archive_format" in names or "serialized_exported_program.json" in names:
        raise ValueError(f"{file} is an exported program, which is code: torch.save the state_dict() of the module")
    if any(name.endswith(".npy") for name in names):
        raise ValueError(f"{file} holds NumPy arrays: torch.save a state_dict")
    if "data.pkl" not in names:
        raise ValueError(f"{file} is a zip archive that torch.save did not write, or damaged: unpack it, or {_ANEW}")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > size:
        raise ValueError(
            f"{file} has {size:,} bytes and unpacks to {unpacked:,}, which torch.save never writes; {_ANEW}"
        )


def _is_safetensors(head: bytes) -> bool:
    """Whether it begins with the length of a JSON header and the header."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 10**9


def _safetensors(file: Path) -> Any:
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(file, "pt") as opened:
        metadata = opened.metadata() or {}
    return _about(metadata.get(ABOUT, "{}")) | {"state_dict": load_file(file)}


def _about(text: str) -> dict[str, Any]:
    """Return what `safetensors_of` wrote beside the weights; other programs' metadata say nothing here."""
    about = json.loads(text) if len(text) <= _MOST_ABOUT else None
    if not isinstance(about, dict) or not all(isinstance(value, str | int) for value in about.values()):
        raise ValueError(f"its metadata {ABOUT} are not ours")
    return {name: about[name] for name in ("arch", "normalizer", "num_classes") if name in about}


def safetensors_of(weights: Mapping[str, torch.Tensor], about: Mapping[str, str | int]) -> bytes:
    """Return the content of a file of weights, the same bytes for the same weights.

    Raises
    ------
    ValueError
        Where a tensor is of a type that the format does not have.
    """
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    try:
        # one entry, since the format keeps entries in no order
        return save(plain, metadata={ABOUT: json.dumps(dict(about), sort_keys=True)})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"weights that safetensors cannot hold ({str(error).strip()[:120]}): save a .pt file"
        ) from error


def _torch(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)


def _refusal(error: BaseException) -> str:
    """Say what of a file cannot be read: objects by their class, anything else as damage."""
    for link in _chain(error):
        found = re.search(r"\bGLOBAL ([\w.]+)|Unsupported class ([\w.]+)", str(link))
        if found is not None:
            name = next(filter(None, found.groups()))
            return (
                f"holds more than tensors and plain values ({name}), which is never unpickled: where you trust it, "
                "load it and torch.save its state_dict alone"
            )
    return f"is damaged, or holds more than tensors and plain values, which is never unpickled; {_ANEW}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def disk_error(error: BaseException) -> OSError | None:
    """Return the error of the disk behind one of `torch.save`, which reports it as one of its own."""
    return next((link for link in _chain(error) if isinstance(link, OSError)), None)
