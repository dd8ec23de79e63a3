import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from training import load_data

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'srs-certify[parquet]'")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow has no Parquet here")

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)
EXPECTED = PIXELS.transpose(0, 3, 1, 2) / np.float32(255)
LABELS = np.arange(7) % 3
NAMES = ["ant", "bee", "cat"]


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def table_of(images, labels, *, image="image", label="label", names=NAMES):
    """Return a table as `datasets` makes it: pictures as bytes, and what the columns are in its metadata."""
    features = {image: {"_type": "Image"}, label: {"_type": "ClassLabel", "names": names}}
    described = {} if names is None else {"huggingface": json.dumps({"info": {"features": features}})}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        image: pa.array([{"bytes": one, "path": None} for one in images], kind) if isinstance(images, list) else images,
        label: pa.array(labels),
    }
    return pa.table(columns).replace_schema_metadata(described)


def save_arrow(folder, table, pieces=2):
    """Write the files that `Dataset.save_to_disk` writes."""
    folder.mkdir(parents=True)
    names = [f"data-{k:05}-of-{pieces:05}.arrow" for k in range(pieces)]
    cuts = np.linspace(0, len(table), pieces + 1).astype(int)
    for name, start, stop in zip(names, cuts, cuts[1:], strict=False):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(start, stop - start), max_chunksize=2)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return folder


def save_dict(root, **parts):
    for name, table in parts.items():
        save_arrow(root / name, table)
    (root / "dataset_dict.json").write_text(json.dumps({"splits": list(parts)}))
    return root


def pictures(rows=slice(None), **kwargs):
    return table_of([png(one) for one in PIXELS[rows]], LABELS[rows], **kwargs)


def written(tmp_path, how):
    train, test = pictures(slice(3)), pictures()
    if how == "arrow":
        return save_dict(tmp_path / "set", train=train, test=test)
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    (folder / "train").mkdir()
    where = {"names": ("data/train-00000-of-00001", "data/test-00000-of-00002", "data/test-00001-of-00002")}
    where["folders"] = ("train/0000", "test/0000", "test/0001")
    (folder / "test").mkdir()
    for name, part in zip(where[how], (train, test.slice(0, 5), test.slice(5)), strict=True):
        pq.write_table(part, folder / f"{name}.parquet", row_group_size=2)
    return folder


@pytest.mark.parametrize("how", ["arrow", "names", "folders"])
def test_a_folder_holds_the_images_that_were_written(tmp_path, how, rng):
    data = load_data(f"hf:{written(tmp_path, how)}", "data")
    assert (data.name, data.num_classes, data.class_names) == ("hf:set", 3, tuple(NAMES))
    assert data.train_labels.tolist() == LABELS[:3].tolist()
    assert data.test_labels.tolist() == LABELS.tolist()
    assert data.test_images.shape == (7, 3, 6, 5)
    np.testing.assert_array_equal(data.train_images[:], EXPECTED[:3])
    np.testing.assert_array_equal(data.test_images[:], EXPECTED)
    for _ in range(20):
        rows = rng.integers(0, 7, 4)
        np.testing.assert_array_equal(data.test_images[rows], EXPECTED[rows])
        np.testing.assert_array_equal(data.test_images.subset(rows)[np.array([2, 0])], EXPECTED[rows[[2, 0]]])


def test_one_part_alone_is_the_test_set(tmp_path):
    folder = save_arrow(tmp_path / "one", pictures())
    assert load_data(f"hf:{folder}", "data", train=False).test_labels.tolist() == LABELS.tolist()
    with pytest.raises(ValueError, match="has no part train"):
        load_data(f"hf:{folder}", "data")


def test_validation_stands_for_a_test_set_without_labels(tmp_path):
    hidden = table_of([png(one) for one in PIXELS[:2]], [-1, -1])
    folder = save_dict(tmp_path / "set", test=hidden, validation=pictures(slice(2, 6)))
    data = load_data(f"hf:{folder}", "data", train=False)
    np.testing.assert_array_equal(data.test_images[:], EXPECTED[2:6])
    only = save_dict(tmp_path / "other", test=hidden)
    with pytest.raises(ValueError, match="has no test images with labels, only test; name a part test"):
        load_data(f"hf:{only}", "data", train=False)


def test_labels_that_are_no_numbers_of_classes_are_refused_before_a_network_is_made_for_them(tmp_path):
    folder = save_dict(tmp_path / "set", test=table_of([png(one) for one in PIXELS[:2]], [0, 2**40], names=None))
    with pytest.raises(ValueError, match="set has 1,099,511,627,777 classes, of at most 100,000: number them 0, 1, 2"):
        load_data(f"hf:{folder}", "data", train=False)


def test_columns_have_known_names_or_are_named(tmp_path):
    images = pa.array(PIXELS[:, :, :, 0].tolist(), pa.list_(pa.list_(pa.uint8())))
    table = table_of(images, LABELS, image="img", label="fine_label", names=None)
    table = table.append_column("rough", pa.array(LABELS // 2))
    folder = save_dict(tmp_path / "set", test=table)
    data = load_data(f"hf:{folder}", "data", train=False)
    assert (data.num_classes, data.class_names) == (3, None)
    np.testing.assert_array_equal(data.test_images[:], EXPECTED[:, :1])
    assert load_data(f"hf:{folder}#img,rough", "data", train=False).num_classes == 2
    with pytest.raises(ValueError, match="test: has no img and label; it holds img, fine_label, rough: name two"):
        load_data(f"hf:{folder}#img,label", "data", train=False)
    with pytest.raises(ValueError, match="expected hf:PATH, or hf:PATH#IMAGE,LABEL"):
        load_data(f"hf:{folder}#img", "data", train=False)


def test_sizes_are_made_equal_on_request_and_never_silently(tmp_path):
    table = table_of([png(PIXELS[0]), png(PIXELS[1][:4])], [0, 1])
    folder = save_dict(tmp_path / "set", test=table)
    data = load_data(f"hf:{folder}", "data", train=False)
    with pytest.raises(ValueError, match="test item 1 is an image of 3x4x5, item 0 of 3x6x5: give an image size"):
        data.test_images[:]
    assert load_data(f"hf:{folder}", "data", image_size=4, train=False).test_images[:].shape == (2, 3, 4, 4)


WRONG = {
    "label beyond": (lambda: table_of([png(PIXELS[0])] * 2, [0, 3]), "test item 1 has label 3, but there are 3"),
    "labels of text": (lambda: table_of([png(PIXELS[0])], ["ant"]), "column label holds string: expected whole"),
    "no label": (lambda: table_of([png(PIXELS[0])] * 2, [0, None]), "column label holds int64: expected whole"),
    "an address": (lambda: table_of([None], [0]), "test item 0 holds no picture, only where one was"),
    "no picture": (lambda: table_of([b"<html>"], [0]), "test item 0: not a readable image"),
    "other numbers": (
        lambda: table_of(pa.array([[[0, 300]]], pa.list_(pa.list_(pa.int64()))), [0]),
        "test item 0 holds int64: expected uint8",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("table", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_table_is_one_line(tmp_path, table, message):
    folder = save_dict(tmp_path / "set", test=table())
    with pytest.raises(ValueError, match=message) as caught:
        load_data(f"hf:{folder}", "data", train=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../../elsewhere.arrow", "/etc/passwd", "..", ""])
def test_a_folder_leads_to_no_file_outside(tmp_path, name):
    folder = save_arrow(tmp_path / "set", pictures())
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(ValueError, match="names no files of data"):
        load_data(f"hf:{folder}", "data", train=False)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": [name]}))
    with pytest.raises(ValueError, match="names no parts"):
        load_data(f"hf:{folder}", "data", train=False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_not_waited_for(tmp_path):
    folder = save_arrow(tmp_path / "set", pictures(), pieces=1)
    file = folder / "data-00000-of-00001.arrow"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match="is no plain file: write the data set anew with save_to_disk"):
        load_data(f"hf:{folder}", "data", train=False)


def test_a_description_nested_too_deeply_names_no_classes(tmp_path):
    table = pictures().replace_schema_metadata({"huggingface": "[" * 100_000})
    folder = save_arrow(tmp_path / "set", table)
    assert load_data(f"hf:{folder}", "data", train=False).class_names is None


def test_a_damaged_file_is_refused_in_one_line(tmp_path, rng):
    folder = save_arrow(tmp_path / "set", pictures(), pieces=1)
    file = folder / "data-00000-of-00001.arrow"
    content = bytearray(file.read_bytes())
    refused = []
    for _ in range(60):  # whatever bytes are changed: an answer, or one line
        changed = content.copy()
        for at in rng.integers(0, len(content), 8):
            changed[at] = int(rng.integers(0, 256))
        file.write_bytes(changed)
        try:
            load_data(f"hf:{folder}", "data", train=False).test_images[:]
        except ValueError as error:
            refused.append(str(error))
    assert refused
    assert not any("\n" in text for text in refused)
    file.write_bytes(content[:100])
    with pytest.raises(ValueError, match="cannot be read"):
        load_data(f"hf:{folder}", "data", train=False)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no such folder"):
        load_data(f"hf:{tmp_path / 'none'}", "data")
    with pytest.raises(ValueError, match=r"holds neither dataset_dict\.json nor state\.json"):
        load_data(f"hf:{tmp_path}", "data")


def test_what_the_library_itself_writes_is_read(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the library datasets is not installed: pip install datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    columns = {"image": list(map(Image.fromarray, PIXELS)), "label": LABELS.tolist()}
    part = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict({"test": part}).save_to_disk(tmp_path / "disk")
    (tmp_path / "files").mkdir()
    part.to_parquet(tmp_path / "files" / "test-00000-of-00001.parquet")
    for folder in ("disk", "files"):
        data = load_data(f"hf:{tmp_path / folder}", "data", train=False)
        assert data.class_names == tuple(NAMES)
        np.testing.assert_array_equal(data.test_images[:], EXPECTED)
