"""The example of a web service, over HTTP."""

import importlib.util
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

import regions
from training import digits

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("service", ROOT / "examples/service.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def serving(app):
    """Give a client of an app that a server of its own answers for, on a free port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server has ended"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def make(finished, example):
    """Make the app of the finished run, with more in the environment."""
    folder, process = finished
    assert process.returncode == 0, process.stderr

    def make(**environment):
        environment |= {"SRS_RUN": str(folder / "run"), "SRS_CHECKPOINT": str(folder / "model.pt")}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            return example.create_app()

    return make


@pytest.fixture(scope="module")
def client(make):
    with serving(make()) as client:
        yield client


@pytest.fixture(scope="module")
def table(finished):
    return regions.RegionMap.load(finished[0] / "run/regions.npz")


@pytest.fixture(scope="module")
def images():
    return digits().test_images


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def picture(pixels, kind="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def answers(response):
    assert response.status_code == 200, response.text
    return response.json()["answers"]


def test_a_picture_and_an_array_are_answered_as_the_map_says(client, table, images):
    eight = np.rint(images[0, 0] * 255).astype(np.uint8)
    (one,) = answers(client.post("/predict", content=picture(eight)))
    where = table.locate(eight[None, None] / np.float32(255))
    assert (one["region"], one["sigma"], one["distance"]) == (where.region[0], where.sigma[0], where.margin[0])
    assert one["predict"] in (int(table.classes[where.region[0]]), -1)
    assert one["n"] == 1000
    many = answers(client.post("/certify", params={"n": 2000}, content=npy(images[[0, 3, 4]])))
    held = table.locate(images[[0, 3, 4]])
    assert [row["region"] for row in many] == held.region.tolist()
    assert many[2] == {"predict": -1, "region": -1, "sigma": None, "distance": 0, "radius": 0, "votes": 0, "n": 0}
    assert any(row["radius"] > 0 for row in many)
    for row in many:
        assert row["radius"] <= row["distance"]


def test_a_batch_is_answered_in_order_and_nobody_gets_noise_again(client, table, images):
    rows = answers(client.post("/predict", params={"n": 200}, content=npy(images[:100])))
    assert [row["region"] for row in rows] == table.locate(images[:100]).region.tolist()
    assert len(rows) == 100
    repeated = [answers(client.post("/predict", params={"n": 200}, content=npy(images[:30]))) for _ in range(3)]
    assert repeated[0] != repeated[1] or repeated[1] != repeated[2]


def test_many_clients_at_the_same_time(client, images):
    def ask(k):
        return answers(client.post("/predict", params={"n": 100}, content=npy(images[k])))[0]["region"]

    alone = [ask(k) for k in range(16)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(16))) == alone


def _claiming(shape):
    """An array file whose header promises more than follows."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(256)


GREY = np.zeros((8, 8), dtype=np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
HOSTILE = {
    "nothing": (b"", {}, 422, "the body: not a readable image"),
    "text": (b"hello\nthere", {}, 422, "the body: not a readable image"),
    "a torn picture": (picture(NOISE)[:90], {}, 422, "the body: not a readable image"),
    "a wide picture": (picture(np.zeros((8, 9), np.uint8)), {}, 422, "the body has 9x8 pixels"),
    "a huge picture": (picture(np.zeros((9000, 9000), np.uint8)), {}, 422, "at most 256 are read"),
    "transparent": (picture(np.zeros((8, 8, 4), np.uint8)), {}, 422, "transparent"),
    "several pictures": (
        picture(GREY, "GIF", save_all=True, append_images=[Image.fromarray(GREY + 9)]),
        {},
        422,
        "several pictures",
    ),
    "a small array": (npy(np.zeros((7, 8))), {}, 422, "expected one or many images, 1 x 8 x 8"),
    "NaN": (npy(np.full((1, 1, 8, 8), np.nan)), {}, 422, "pixels must be floats in [0, 1]"),
    "infinite": (npy(np.full((1, 1, 8, 8), np.inf)), {}, 422, "pixels must be floats in [0, 1]"),
    "to 255": (npy(np.full((1, 1, 8, 8), 200.0)), {}, 422, "divide by the largest grey level"),
    "complex": (npy(np.zeros((1, 8, 8), complex)), {}, 422, "holds complex128"),
    "objects": (npy(np.array([print], object), allow_pickle=True), {}, 422, "not a plain array file"),
    "a header that lies": (_claiming((10**15, 1, 8, 8)), {}, 422, "not a plain array file"),
    "an archive": (b"PK\x03\x04" + bytes(100), {}, 422, "not a readable image"),
    "a huge body": (bytes(2**24 + 1), {}, 413, "the body has more than 16,777,216 bytes"),
    "many images": (npy(np.zeros((129, 1, 8, 8), np.float32)), {}, 413, "129 images: at most 128"),
    "many votes": (npy(np.zeros((128, 1, 8, 8), np.float32)), {"n": 50_000}, 413, "6,400,000 votes"),
    "no votes": (npy(np.zeros((1, 8, 8))), {"n": 0}, 422, "n: Input should be greater than or equal to 10"),
    "too many votes": (npy(np.zeros((1, 8, 8))), {"n": 10**9}, 422, "n: Input should be less than"),
    "no number": (npy(np.zeros((1, 8, 8))), {"n": "x"}, 422, "n: Input should be a valid integer"),
}


@pytest.mark.parametrize(("body", "params", "status", "message"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("asked", ["/predict", "/certify"])
def test_hostile_input_is_refused_in_one_line(client, asked, body, params, status, message):
    response = client.post(asked, content=body, params=params)
    assert response.status_code == status
    assert message in response.text
    assert response.text.count("\n") == 1
    assert response.text.endswith("\n")
    assert response.headers["content-type"].startswith("text/plain")


def test_a_body_that_does_not_say_its_length_is_refused_as_well(client):
    response = client.post("/predict", content=(bytes(2**20) for _ in range(20)))
    assert (response.status_code, response.text) == (413, "the body has more than 16,777,216 bytes\n")


def test_other_addresses_and_methods_are_refused(client):
    assert client.get("/predict").status_code == 405
    response = client.post("/register", content=b"")
    assert (response.status_code, response.text) == (404, "Not Found\n")


def test_health_and_counters(client, images, table):
    health = client.get("/health").json()
    assert health["identity"]["regions"] == table.content_hash
    assert "seed" not in json.dumps(health)

    def counted():
        lines = client.get("/metrics").text.splitlines()
        return {k: float(v) for k, v in (line.rsplit(" ", 1) for line in lines if line.startswith("srs_"))}

    before = counted()
    answers(client.post("/predict", params={"n": 100}, content=npy(images[[0, 3, 4]])))
    more = {name: value - before.get(name, 0) for name, value in counted().items()}
    outside = 'srs_answers_total{asked="predict",outcome="outside"}'
    assert more[outside] == 1
    assert sum(v for k, v in more.items() if k.startswith('srs_answers_total{asked="predict"')) == 3
    assert more["srs_distance_count"] == 2
    assert more['srs_seconds_count{asked="predict"}'] == 1


def test_who_comes_when_too_many_wait_is_told_to_come_again(example, make, images, monkeypatch):
    monkeypatch.setattr(example, "MOST_WAITING", 0)
    with serving(make()) as client:
        response = client.post("/predict", content=npy(images[0]))
    assert (response.status_code, response.text) == (503, "too many requests are waiting\n")
    assert response.headers["retry-after"] == "1"


def test_only_who_knows_the_token_registers_and_services_share_a_store(make, images, table, tmp_path):
    with pytest.raises(SystemExit, match="give SRS_TOKEN as well"):
        make(SRS_STORE=str(tmp_path / "s.db"))
    environment = {"SRS_STORE": str(tmp_path / "s.db"), "SRS_TOKEN": "secret"}
    new = [k for k in range(40) if table.locate(images[[k]]).region[0] < 0][:4]
    body = npy(images[new])
    with serving(make(**environment)) as first, serving(make(**environment)) as second:
        for headers in ({}, {"Authorization": "Bearer guess"}, {"Authorization": "Bearer"}, {"Authorization": "é"}):
            headers = {name: value.encode() for name, value in headers.items()}
            assert first.post("/register", content=body, headers=headers).status_code == 401
        assert not list(tmp_path.iterdir())
        known = {"headers": {"Authorization": "Bearer secret"}, "content": body, "params": {"n": 2000}}
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda one: answers(one.post("/register", **known)), (first, second)))
    created = [row["created"] for rows in found for row in rows]
    with regions.OnlineAllocator(tmp_path / "s.db", read_only=True) as state:
        now = state.region_map()
    assert len(now) == np.count_nonzero(table.radii) + sum(created)
    assert sum(created) >= 1
    assert regions.verify(now.centres, now.radii)
    for rows in found:
        for row in rows:
            assert row["region"] < 0 or row["sigma"] == now.sigma[row["region"]]
