"""Files of the Hugging Face hub, from its cache on this machine; fetched only where that is asked for."""

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from smoothing.forward import FAILURES, reason

#: What of a model's repository is read: no code, no pickles.
_READ = ("config.json", "preprocessor_config.json", "*.safetensors", "model.safetensors.index.json")

_SHA256 = re.compile("[0-9a-f]{64}")

#: Bytes that are hashed at once.
_CHUNK = 2**20


def hub_file(name: str, repository: str, file: str, *, download: bool) -> Path:
    """Return one file of a repository.

    Parameters
    ----------
    name : str
        What errors call the model.
    repository, file : str
    download : bool
        Fetch it where the cache lacks it.

    Raises
    ------
    ValueError
        One line with the remedy, where it is not in the cache, cannot be fetched, or is not what the hub's hash says.
    """
    from huggingface_hub import hf_hub_download

    path = _asked(
        lambda: hf_hub_download(repository, file, local_files_only=not download),
        name,
        f"{repository} {file}",
        download,
    )
    check_hash(path)
    return path


def hub_folder(name: str, repository: str, revision: str | None, *, download: bool) -> Path:
    """Return the folder of a repository's configuration and weights; arguments and errors as in `hub_file`."""
    from huggingface_hub import snapshot_download

    path = _asked(
        lambda: snapshot_download(
            repository, revision=revision, local_files_only=not download, allow_patterns=list(_READ)
        ),
        name,
        f"{repository}{f' --revision {revision}' if revision else ''}",
        download,
    )
    for file in sorted(path.glob("*.safetensors")):
        check_hash(file)
    return path


def _asked(ask: Callable[[], str], name: str, what: str, download: bool) -> Path:
    try:
        with _quiet():
            return Path(ask())
    except MemoryError:
        raise
    except FAILURES as error:  # of the hub, of the network, of names that are none
        if download:
            raise ValueError(f"{name} cannot be fetched ({reason(error)}): see to the network and the name") from error
        raise ValueError(
            f"{name} is not in the hub's cache, and nothing is fetched unasked: add --download, or run hf download "
            f"{what}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the hub's library from warning of each try before the error that sums them up."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    if logger.getEffectiveLevel() == logging.WARNING:  # and nobody asked for more, or for less
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def check_hash(file: Path) -> None:
    """Raise `ValueError` where a file of the hub's cache is not the one that its name, the hash of its content, says.

    The cache names a large file by its SHA-256, and a link leads there. Small files are named otherwise.
    """
    stored = file.resolve().name
    if _SHA256.fullmatch(stored) and sha256_of(file) != stored:
        raise ValueError(f"{file} is damaged: its content has another hash than the hub gave; remove it, fetch it anew")


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
