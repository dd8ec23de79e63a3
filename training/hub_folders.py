"""Folders of Hugging Face data sets: Arrow files of `save_to_disk`, or Parquet files. Nothing is run or fetched.

The files are read by pyarrow. The library `datasets` is not needed: it would copy Parquet files into a cache, and
follow addresses that a folder may hold in place of images.
"""

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from smoothing.reading import read_json
from training.data import ImageData, StreamedImages
from training.own_datasets import IMAGE_COLUMNS, LABEL_COLUMNS, check_label, column, values
from training.pictures import PictureBytes, read_picture, with_channels

#: Parts that may be the test set; one in which every label is -1 has none, and the next is taken.
_TEST = ("test", "validation", "valid", "val")

#: Most pixels of a picture, and bytes that the rows of a Parquet file which are unpacked together may take.
_MOST_PIXELS, _MOST_BYTES = 10**8, 2**31

#: Files that say of what kind a folder is.
_DICT, _STATE = "dataset_dict.json", "state.json"


def hub_folder(name: str, *, image_size: int | None = None, train: bool = True) -> ImageData:
    """Find the images of a folder that `datasets.save_to_disk` wrote, or of Parquet files. Read when they are used.

    Parameters
    ----------
    name : str
        `hf:PATH`, or `hf:PATH#IMAGE,LABEL` with the names of two columns, where they are not among `IMAGE_COLUMNS` and
        `LABEL_COLUMNS`. PATH is a folder of parts `train` and `test`, or `validation` in its place, or of Parquet files
        that begin with these names or lie in folders of these names. Files of one part alone are test images.
    image_size : int, optional
        Scale the shorter side of pictures to this and take the middle square. Otherwise all must be as large as the
        first.
    train : bool, default=True
        Whether training images are wanted; without, there are none, and they need not be there.

    Raises
    ------
    ValueError
        Where there is no such folder, where a file is damaged, where columns are missing, where images differ in size,
        and where labels are no classes; where pyarrow is not installed.
    """
    where, _, columns = name.removeprefix("hf:").partition("#")
    named = tuple(columns.split(",")) if columns else ()
    if not where or len(named) not in (0, 2) or not all(named):
        raise ValueError(f"dataset {name!r}: expected hf:PATH, or hf:PATH#IMAGE,LABEL with the names of two columns")
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError(f"{name} needs pyarrow, which is not installed: pip install 'srs-certify[parquet]'")
    folder = Path(where)
    if not folder.is_dir():
        raise ValueError(f"{name}: there is no such folder; name one that save_to_disk wrote, or one of Parquet files")
    found = _parts(folder, name)
    tables = {part: _Rows(files, f"{name} {part}".strip(), named) for part, files in found.items()}
    raw = {part: table.labels() for part, table in tables.items()}
    test = next((part for part in (*_TEST, "") if part in raw and (raw[part] != -1).any()), None)
    if test is None:
        raise ValueError(f"{name}: has no test images with labels, only {', '.join(found)}; name a part test")
    if train and "train" not in raw:
        raise ValueError(f"{name}: has no part train; its files hold {', '.join(filter(None, found)) or 'one part'}")
    wanted = {part: raw[part] for part in ("train", test) if part in raw}
    class_names = tables[test].class_names
    if "train" in raw and tables["train"].class_names != class_names:
        raise ValueError(f"{name}: the classes of train are not those of {test}: give both the same, in the same order")
    num_classes = len(class_names) if class_names else 1 + max(int(labels.max()) for labels in wanted.values())
    for part, labels in wanted.items():
        if (wrong := np.flatnonzero((labels < 0) | (labels >= num_classes))).size:
            check_label(int(labels[wrong[0]]), f"{name} {part} item {wrong[0]}".replace("  ", " "), num_classes)
    images = {part: HubImages(tables[part], image_size) for part in (("train", test) if train else (test,))}
    if train and images["train"].shape[1:] != images[test].shape[1:]:
        large, small = ("x".join(map(str, images[part].shape[1:])) for part in ("train", test))
        raise ValueError(f"{name}: training images of {large} and test images of {small}: give an image size")
    return ImageData(
        f"hf:{folder.name}",
        num_classes,
        train_images=images["train"] if train else np.empty((0, *images[test].shape[1:]), np.float32),
        train_labels=raw["train"] if train else raw[test][:0],
        test_images=images[test],
        test_labels=raw[test],
        class_names=class_names,
    )


class HubImages(StreamedImages):
    """The images of a table, decoded when they are asked for.

    Parameters
    ----------
    rows : _Rows
    image_size : int, optional
        As in `hub_folder`.
    """

    def __init__(self, table: "_Rows", image_size: int | None) -> None:
        self._table, self._size = table, image_size
        first = self._decoded(0, table.images(np.array([0]))[0], None)
        super().__init__(np.arange(len(table)), first.shape)

    def read(self, rows: Int64[np.ndarray, " b"]) -> list[Float32[np.ndarray, "c h w"]]:
        """Return the images of these rows; several are decoded at once."""
        stored = self._table.images(rows)
        with ThreadPoolExecutor() as pool:
            return list(pool.map(lambda row, one: self._decoded(row, one, self._image_shape), rows.tolist(), stored))

    def _decoded(self, row: int, stored: Any, shape: tuple[int, ...] | None) -> Float32[np.ndarray, "c h w"]:
        where = f"{self._table.name} item {row}"
        if isinstance(stored, Mapping):
            stored = stored.get("bytes")
        if isinstance(stored, bytes):
            image = read_picture(PictureBytes(stored, where, _MOST_PIXELS), size=self._size)
        elif isinstance(stored, np.ndarray):
            image = values(stored, where, self._size)
        else:
            raise ValueError(
                f"{where} holds no picture, only where one was: write the data set with its images in it, by "
                "save_to_disk or to_parquet"
            )
        if shape is None:
            return image
        image = with_channels(image, shape[0], where)
        if image.shape != shape:
            theirs, ours = ("x".join(map(str, one)) for one in (image.shape, shape))
            raise ValueError(
                f"{where} is an image of {theirs}, item 0 of {ours}: give an image size that all are scaled to"
            )
        return image


def _parts(folder: Path, name: str) -> dict[str, list[Path]]:
    """Return the files of every part, in their order; one without a name has the name ""."""
    if (folder / _DICT).is_file():
        splits = read_json(folder / _DICT, "write the data set anew").get("splits")
        if not isinstance(splits, list) or not all(isinstance(one, str) and _plain(one) for one in splits):
            raise ValueError(f"{folder / _DICT} names no parts: write the data set anew with save_to_disk")
        return {part: _saved(folder / part) for part in splits}
    if (folder / _STATE).is_file():
        return {"": _saved(folder)}
    files = sorted(file for file in folder.rglob("*.parquet") if file.is_file())
    if not files:
        raise ValueError(f"{name}: holds neither {_DICT} nor {_STATE} of save_to_disk, nor Parquet files")
    parts: dict[str, list[Path]] = {}
    for file in files:
        parts.setdefault(_part_of(file, folder), []).append(file)
    return parts


def _part_of(file: Path, folder: Path) -> str:
    """Return the part that a Parquet file belongs to: by how its name begins, or by the folder that it lies in."""
    inner = file.relative_to(folder).parts
    for text in (inner[-1], *reversed(inner[:-1])):
        word = text.partition(".")[0].replace("_", "-").partition("-")[0]
        if word in ("train", *_TEST):
            return word
    return ""


def _saved(folder: Path) -> list[Path]:
    """Return the Arrow files that `save_to_disk` wrote into a folder."""
    remedy = "write the data set anew with save_to_disk"
    state = read_json(folder / _STATE, remedy) if (folder / _STATE).is_file() else {}
    files = state.get("_data_files")
    entries = files if isinstance(files, list) else []
    names = [str(one.get("filename")) if isinstance(one, dict) else "" for one in entries]
    if not names or not all(map(_plain, names)):
        raise ValueError(f"{folder / _STATE} names no files of data: {remedy}")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise ValueError(f"{folder / _STATE} names rows that were chosen, by an old version of datasets: {remedy}")
    return [folder / one for one in names]


def _plain(name: str) -> bool:
    """Whether a name leads to nothing outside the folder in which it stands."""
    return bool(name) and "/" not in name and "\\" not in name and name not in (".", "..") and "\0" not in name


@dataclass(frozen=True, eq=False)
class _Piece:
    """Rows that are read together: how many they are, and how a column of them is read."""

    rows: int
    read: Callable[[str], Any]


class _Rows:
    """The rows of a part, over all of its files.

    Attributes
    ----------
    name : str
        What errors call the part.
    class_names : tuple of str or None
        As the files say it.
    """

    def __init__(self, files: Sequence[Path], name: str, named: tuple[str, ...]) -> None:
        self.name = name
        self._pieces: list[_Piece] = []
        schema = None
        for file in files:
            with _readable(file):
                theirs, pieces = (_parquet if file.suffix == ".parquet" else _arrow)(file)
            if schema is not None and theirs.names != schema.names:
                raise ValueError(f"{file} has other columns than {files[0]}: need files of one data set")
            schema = schema or theirs
            self._pieces += [piece for piece in pieces if piece.rows]
        if schema is None or not self._pieces:
            raise ValueError(f"{name}: holds no row")
        self._ends = np.cumsum([piece.rows for piece in self._pieces])
        self._image, self._label = _columns(schema, name, named)
        self.class_names = _names(schema, self._label)
        self._held: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def labels(self) -> Int64[np.ndarray, " n"]:
        """Return the labels of all rows, whole numbers."""
        import pyarrow as pa

        parts = []
        for piece in self._pieces:
            with _readable(self.name):
                values = piece.read(self._label)
            if not pa.types.is_integer(values.type) or values.null_count:
                raise ValueError(
                    f"{self.name}: column {self._label} holds {values.type}: expected whole numbers, classes"
                )
            parts.append(np.asarray(values.to_numpy(zero_copy_only=False)).astype(np.int64))
        return np.concatenate(parts)

    def images(self, rows: Int64[np.ndarray, " b"]) -> list[Any]:
        """Return what the rows hold of images: bytes, a mapping with them, or an array."""
        found: list[Any] = []
        for row in rows.tolist():
            number = int(np.searchsorted(self._ends, row, side="right"))
            held = self._held
            if held is None or held[0] != number:
                with _readable(self.name):
                    held = self._held = number, self._pieces[number].read(self._image)
            values = held[1]
            at = row - int(self._ends[number]) + self._pieces[number].rows
            with _readable(f"{self.name} item {row}"):
                one = values[at].as_py()
                found.append(np.array(one, dtype=_kind(values.type)) if isinstance(one, list) else one)
        return found


@contextmanager
def _readable(what: Any) -> Iterator[None]:
    """Turn what pyarrow raises at a damaged file into one line."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"{what}: cannot be read ({text}); write the data set anew") from error


def _arrow(file: Path) -> tuple[Any, list[_Piece]]:
    """Return columns and rows of an Arrow file, which stays on the disk until rows are used."""
    import pyarrow as pa

    if file.exists() and not file.is_file():  # a named pipe would be waited for
        raise ValueError(f"{file} is no plain file: write the data set anew with save_to_disk")
    source = pa.memory_map(str(file))
    table = pa.ipc.open_stream(source).read_all()
    table.validate(full=True)  # or wrong offsets would be followed

    def piece(batch: Any) -> _Piece:
        return _Piece(batch.num_rows, lambda name: _stored(batch.column(name)))

    return table.schema, [piece(batch) for batch in table.to_batches()]


def _parquet(file: Path) -> tuple[Any, list[_Piece]]:
    """Return columns and rows of a Parquet file; a group of rows is unpacked when one of them is used."""
    import pyarrow.parquet

    opened = pyarrow.parquet.ParquetFile(file, memory_map=True)

    def piece(group: int) -> _Piece:
        about = opened.metadata.row_group(group)
        if about.total_byte_size > _MOST_BYTES:
            raise ValueError(f"a group of rows takes more than {_MOST_BYTES:,} bytes: write smaller row groups")

        def read(name: str) -> Any:
            table = opened.read_row_group(group, columns=[name])
            table.validate(full=True)
            return _stored(table.column(name).combine_chunks())

        return _Piece(about.num_rows, read)

    return opened.schema_arrow, [piece(group) for group in range(opened.num_row_groups)]


def _stored(values: Any) -> Any:
    """Return a column without what `datasets` calls its type, if that is imported."""
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks)
    return values.storage if isinstance(values, pa.ExtensionArray) else values


def _kind(stored: Any) -> Any:
    """Return NumPy's type of the numbers in a column of lists."""
    while hasattr(stored, "value_type"):
        stored = stored.value_type
    return np.dtype(stored.to_pandas_dtype())


def _columns(schema: Any, name: str, named: tuple[str, ...]) -> tuple[str, str]:
    """Return the names of the columns of images and labels."""
    image, label = named or (column(IMAGE_COLUMNS, schema.names), column(LABEL_COLUMNS, schema.names))
    if image not in schema.names or label not in schema.names:
        asked = f"{named[0]} and {named[1]}" if named else "columns of images and labels that are known by name"
        held = ", ".join(map(str, schema.names[:8]))
        raise ValueError(f"{name}: has no {asked}; it holds {held}: name two of them, as in hf:PATH#IMAGE,LABEL")
    return str(image), str(label)


def _names(schema: Any, label: str) -> tuple[str, ...] | None:
    """Return what the classes are called, where the file's own description of its columns says it."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = features[label]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if isinstance(names, list) and names and all(isinstance(one, str) for one in names):
        return tuple(names)
    return None
