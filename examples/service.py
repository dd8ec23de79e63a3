"""The classifier of a finished run as a web service.

    SRS_RUN=runs/digits uvicorn --app-dir examples --factory service:create_app --limit-concurrency 64

    curl --data-binary @photo.png http://127.0.0.1:8000/predict
    curl --data-binary @many.npy 'http://127.0.0.1:8000/certify?n=10000'

The body is a picture file, or an array (n, C, H, W) in a .npy file. With SRS_STORE=regions.db and SRS_TOKEN=secret, who
knows the token may register images: `curl --oauth2-bearer secret --data-binary @photo.png .../register`. Counters for
Prometheus are under /metrics, and /health says which classifier answers.
"""

import hmac
import json
import logging
import math
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from starlette.exceptions import HTTPException

import srs

#: Bytes of a body, images in it, votes for all of them together, and requests that wait for their turn.
MOST_BYTES, MOST_IMAGES, MOST_VOTES, MOST_WAITING = 2**24, 128, 2_000_000, 32

ANSWERS = Counter("srs_answers", "Images, by what was asked and what came of it", ["asked", "outcome"])
DISTANCE = Histogram("srs_distance", "l2 distance to the region's boundary", buckets=np.geomspace(0.01, 5, 12).tolist())
SECONDS = Histogram("srs_seconds", "Time of a request, its turn waited for", ["asked"])

log = logging.getLogger("uvicorn.error")


def create_app() -> FastAPI:
    """Return the service of the run that SRS_RUN names, loaded once in each worker process."""
    store, token = os.environ.get("SRS_STORE"), os.environ.get("SRS_TOKEN", "")
    if store and not token:
        raise SystemExit("SRS_STORE: whoever may register shapes the regions of all; give SRS_TOKEN as well")
    G = srs.load_run(os.environ["SRS_RUN"], os.environ.get("SRS_MODEL"), checkpoint=os.environ.get("SRS_CHECKPOINT"))
    turns = threading.BoundedSemaphore(MOST_WAITING)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        log.info("answers of %s", json.dumps(G.identity))
        yield
        G.close()

    app = FastAPI(title="srs", lifespan=lifespan)

    @app.exception_handler(ValueError)
    @app.exception_handler(RequestValidationError)
    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: ValueError | RequestValidationError | HTTPException) -> Response:
        """Say in one line what is wrong; all else is an error of ours, status 500, and goes into the log."""
        if isinstance(error, RequestValidationError):
            about = error.errors()[0]
            return PlainTextResponse(f"{about['loc'][-1]}: {about['msg']}\n", 422)
        if isinstance(error, ValueError):
            return PlainTextResponse(f"{error}\n", 422)
        return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)

    async def images(request: Request) -> np.ndarray:
        """Read the body, of which no more is kept than there may be."""
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                raise HTTPException(413, f"the body has more than {MOST_BYTES:,} bytes")
        found = await run_in_threadpool(G.decode, bytes(body), source="the body")
        if len(found) > MOST_IMAGES:
            raise HTTPException(413, f"{len(found)} images: at most {MOST_IMAGES} in a request")
        return found

    Images = Annotated[np.ndarray, Depends(images)]
    Votes = Annotated[int, Query(ge=10, le=100_000)]

    @contextmanager
    def turn(asked: str, votes: int) -> Iterator[None]:
        if votes > MOST_VOTES:
            raise HTTPException(413, f"{votes:,} votes: at most {MOST_VOTES:,} in a request")
        if not turns.acquire(blocking=False):
            raise HTTPException(503, "too many requests are waiting", {"Retry-After": "1"})
        try:
            with SECONDS.labels(asked).time():
                yield
        finally:
            turns.release()

    @app.post("/predict")
    def predict(images: Images, n: Votes = 1000) -> JSONResponse:
        with turn("predict", n * len(images)):
            return answer("predict", G.predict(images, n=n))

    @app.post("/certify")
    def certify(images: Images, n: Votes = 10_000) -> JSONResponse:
        with turn("certify", n * len(images)):
            return answer("certify", G.certify(images, n=n))

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"identity": G.identity, "alpha": G.alpha, "shape": G.shape}

    if store:

        def allowed(authorization: Annotated[str, Header()] = "") -> None:
            if not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
                raise HTTPException(401, "who may register shows a token", {"WWW-Authenticate": "Bearer"})

        @app.post("/register", dependencies=[Depends(allowed)])
        def register(images: Images, n: Votes = 10_000) -> JSONResponse:
            with turn("register", n * len(images)):
                found = G.register(images, store, n=n)
                return answer("register", found.answers, created=found.created.tolist())

    def answer(asked: str, found: srs.Answers, **more: list[Any]) -> JSONResponse:
        """Count the answers and write them; `null` where there is nothing to say."""
        held = found.region >= 0
        outcome = np.where(held, np.where(found.predict >= 0, "class", "abstains"), "outside")
        for one in outcome.tolist():
            ANSWERS.labels(asked, one).inc()
        for distance in found.margin[held].tolist():
            DISTANCE.observe(distance)
        columns = {
            "predict": found.predict.tolist(),
            "region": found.region.tolist(),
            "sigma": [None if math.isnan(sigma) else sigma for sigma in found.sigma.tolist()],
            "distance": found.margin.tolist(),
            "radius": found.radius.tolist(),
            "votes": found.count.tolist(),
            "n": found.n.tolist(),
            **more,
        }
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return JSONResponse({"answers": rows, "alpha": G.alpha, "regions": G.identity["regions"]})

    return app
