"""Files that are no checkpoints, or hostile ones, end in one line that says what they are; nothing of them is run."""

import argparse
import errno
import gzip
import io
import json
import os
import pickle
import resource
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from training import build, load_checkpoint, save_checkpoint, training_config
from training.checkpoints import read_state


@pytest.fixture(scope="module")
def net():
    return build("digits_cnn", 10, seed=2).eval()


def refusal(file, **options):
    with pytest.raises((ValueError, OSError)) as caught:
        load_checkpoint(file, arch="digits_cnn", **options)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def zipped(file, entries, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def rewritten(source, target, edit, method=zipfile.ZIP_STORED):
    """Copy what torch.save wrote, with its pickle changed."""
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    zipped(target, {name: edit(c) if name.endswith("data.pkl") else c for name, c in entries.items()}, method)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged: it is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n",
            "is a Git LFS pointer, .* git lfs pull",
        ),
        (b"<!DOCTYPE html><html><title>Quota exceeded</title>", "is an HTML page, not a checkpoint: download the file"),
        (b"\n  <html>no</html>", "is an HTML page"),
        (b'{"error": "not found"}', "is JSON, not a checkpoint"),
        (gzip.compress(b"weights", mtime=0), "is compressed by gzip: unpack it"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (b"\x93NUMPY\x01\x00", "is a NumPy array"),
        (b"PK\x03\x04 torn", "is damaged"),
        (b"\x80\x02}q\x00.", "is damaged"),
        (b"weights", "is damaged"),
        (b"\x00" * 4096, "is damaged"),
        ((2**63 - 1).to_bytes(8, "little") + b"{}", "is damaged"),
        ((10**8).to_bytes(8, "little") + b"{}", "is damaged"),
        ((5).to_bytes(8, "little") + b"{\xff\xff\xff}", "is damaged"),
    ],
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_what_a_file_is_instead(tmp_path, content, message, suffix):
    file = tmp_path / f"net.{suffix}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"net\.{suffix} {message}"):
        load_checkpoint(file, arch="digits_cnn")
    refusal(file)


def test_archives_that_torch_save_did_not_write(tmp_path, net):
    file = tmp_path / "net.pt"
    np.savez(tmp_path / "arrays.npz", weights=np.zeros(3))
    assert "holds NumPy arrays: torch.save a state_dict" in refusal(tmp_path / "arrays.npz")
    zipped(file, {"net.pt": b"inside"})
    assert "a zip archive that torch.save did not write" in refusal(file)
    with tarfile.open(file, "w") as archive:
        archive.addfile(tarfile.TarInfo("net.pt"), io.BytesIO())
    assert "is a tar archive: unpack it" in refusal(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(file))
    assert "is a TorchScript archive, which is code: torch.save the state_dict()" in refusal(file)


def test_an_archive_that_unpacks_to_more_than_it_is_is_not_unpacked(tmp_path, net, monkeypatch):
    torch.save({"state_dict": net.state_dict(), "zeros": torch.zeros(10**6)}, tmp_path / "net.pt")
    rewritten(tmp_path / "net.pt", tmp_path / "bomb.pt", bytes, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(torch, "load", None)
    assert "bytes and unpacks to 4," in refusal(tmp_path / "bomb.pt")


def test_an_archive_with_a_damaged_end(tmp_path, net):
    torch.save({"state_dict": net.state_dict()}, tmp_path / "net.pt")
    whole = (tmp_path / "net.pt").read_bytes()
    several_disks = whole.replace(b"PK\x06\x07\0\0\0\0", b"PK\x06\x07\7\0\0\0")
    assert several_disks != whole
    for content in (several_disks, whole.replace(b"PK\x01\x02", b"PK\x01\x00"), whole[:-1]):
        (tmp_path / "net.pt").write_bytes(content)
        assert "is damaged" in refusal(tmp_path / "net.pt")


def test_objects_are_named_with_what_to_do(tmp_path, net):
    file = tmp_path / "net.pt"
    for extra, name in (
        (argparse.Namespace(lr=0.1), "argparse.Namespace"),
        (np.float64(0.9), "numpy"),
        (np.zeros(3), "numpy"),
        (net, "training.models.DigitsCNN"),
    ):
        torch.save({"state_dict": net.state_dict(), "extra": extra}, file)
        text = refusal(file)
        assert f"holds more than tensors and plain values ({name}" in text
        assert text.endswith(
            "which is never unpickled: where you trust it, load it and torch.save its state_dict alone"
        )


def test_files_of_old_versions_are_read(tmp_path, net):
    torch.save({"state_dict": net.state_dict()}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(net.state_dict(), tmp_path / "net.safetensors", metadata={"format": "pt", "arch": "os:system"})
    (tmp_path / "net.bin").write_bytes((tmp_path / "net.safetensors").read_bytes())
    for name in ("old.pt", "net.safetensors", "net.bin"):
        loaded = load_checkpoint(tmp_path / name, arch="digits_cnn")
        assert all(torch.equal(value, net.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "net.pt")
    for file in (tmp_path / "net.pt", "/dev/zero"):
        for read in (load_checkpoint, training_config):
            with pytest.raises(ValueError, match="is a pipe or a device: name a file"):
                read(file)


def test_a_pickle_as_deep_as_can_be(tmp_path, net):
    torch.save({"state_dict": net.state_dict()}, tmp_path / "net.pt")
    deep = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    rewritten(tmp_path / "net.pt", tmp_path / "deep.pt", lambda _: deep)
    assert "holds a list: expected a state_dict" in refusal(tmp_path / "deep.pt")


def test_a_storage_that_claims_more_than_there_is(tmp_path):
    torch.save({"state_dict": {"w": torch.arange(4.0)}}, tmp_path / "net.pt")
    rewritten(tmp_path / "net.pt", tmp_path / "huge.pt", lambda c: c.replace(b"K\x04", b"J\x00\x00\x00\x10"))
    assert "is damaged" in refusal(tmp_path / "huge.pt")
    torch.save({"w": torch.arange(4.0)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "old.pt").read_bytes()
    (tmp_path / "old.pt").write_bytes(whole.replace(b"K\x04", b"\x8a\x06\x00\x00\x00\x00\x00\x10"))
    assert "is damaged" in refusal(tmp_path / "old.pt")


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory, net):
    folder = tmp_path_factory.mktemp("whole")
    save_checkpoint(folder / "ours.pt", net, arch="digits_cnn", num_classes=10, config={"dataset": "digits"})
    torch.save({"state_dict": net.state_dict()}, folder / "old.pt", _use_new_zipfile_serialization=False)
    save_file(net.state_dict(), folder / "net.safetensors")
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_one_line_or_harmless(tmp_path, whole_files, net, data):
    name = data.draw(st.sampled_from(sorted(whole_files)))
    content = bytearray(whole_files[name])
    # headers and pickles lie at either end
    places = st.one_of(st.integers(0, 1500), st.integers(len(content) - 1500, len(content) - 1))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(places)] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))]
    file = tmp_path / name
    file.write_bytes(content)
    for read in (load_checkpoint, training_config, lambda path: read_state(path, build("digits_cnn", 10))):
        try:
            read(file)
        except (ValueError, OSError) as error:
            assert "\n" not in str(error)  # noqa: PT017 - reading may also succeed


class Spread:
    """An object that unpickling would call for."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "call",
    [
        (os.system, "true"),
        (eval, "1"),
        (getattr, "", "upper"),
        (torch.load, "other.pt"),
        (torch.hub.load, "a/b", "c"),
        (io.open, "other.pt"),
        (np.zeros, 3),
    ],
)
@pytest.mark.parametrize("new", [True, False])
def test_no_function_is_called(tmp_path, net, call, new):
    file = tmp_path / "net.pt"
    torch.save({"state_dict": net.state_dict(), "x": Spread(*call)}, file, _use_new_zipfile_serialization=new)
    assert "which is never unpickled" in refusal(file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sigma", float("nan")),
        ("sigma_min", "0.1"),
        ("sigma_max", float("inf")),
        ("sigma_step", 10**400),
        ("sigma_step", None),
        ("sigma_min", True),
        ("sigma_min", torch.tensor(0.1)),
        ("dataset", None),
        ("dataset", ["digits"]),
        ("dataset", "digits\nhere"),
        ("dataset", "x" * 10_000),
        ("data_dir", 7),
        ("data_dir", "\x00"),
        ("image_size", 8.5),
        ("image_size", 10**30),
        ("precision", "float16"),
        ("precision", ["float32"]),
        ("download", "yes"),
    ],
)
def test_settings_of_odd_types_are_one_line(tmp_path, net, name, value):
    config = {"dataset": "digits", "sigma_min": 0.1, "data_dir": "data", name: value}
    save_checkpoint(tmp_path / "net.pt", net, arch="digits_cnn", config=config)
    with pytest.raises(ValueError, match=f"its config has {name} = .*, which srs-train never writes: load") as caught:
        training_config(tmp_path / "net.pt")
    assert "\n" not in str(caught.value)
    load_checkpoint(tmp_path / "net.pt")  # which has no use for it


@pytest.mark.parametrize("config", [None, 3, [("dataset", "digits")], {"lr": 0.1, "net": "x"}, {0: "digits"}, {}])
def test_settings_of_other_programs_are_none(tmp_path, net, config):
    save_checkpoint(tmp_path / "net.pt", net, arch="digits_cnn", config=config)
    assert training_config(tmp_path / "net.pt") == {}
    torch.save({"state_dict": net.state_dict(), "config": {"dataset": "digits"}}, tmp_path / "other.pt")
    assert training_config(tmp_path / "other.pt") == {}


@pytest.mark.parametrize("limit", [0, 1000, 60_000])
def test_a_full_disk_is_an_error_of_the_disk_and_leaves_the_old_file(tmp_path, net, limit, monkeypatch):
    monkeypatch.setattr("sys.dont_write_bytecode", True)  # a cut .pyc file would break all later imports
    file = tmp_path / "net.pt"
    save_checkpoint(file, net, arch="digits_cnn", epoch=1)
    before = file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save_checkpoint(file, net, arch="digits_cnn", epoch=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


class Remembering(nn.Module):
    """Has a state that is no tensor."""

    def __init__(self, state):
        super().__init__()
        self.state = state

    def get_extra_state(self):
        return self.state


def test_state_that_could_not_be_read_again_is_not_written(tmp_path):
    for state in (pickle.dumps(3), json.dumps({}), torch.eye(3).to_sparse(), torch.ones(3)):
        with pytest.raises(ValueError, match=r"mine:net: _extra_state of its state_dict .*; checkpoints hold plain"):
            save_checkpoint(tmp_path / "net.pt", Remembering(state), arch="mine:net")
    assert not list(tmp_path.iterdir())
