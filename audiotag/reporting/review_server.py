"""The server of `audiotag review`: a page on which labels are corrected.

It listens on the loopback interface only. The address that it prints has a random token, which becomes a cookie. Every
request needs it, and the right Host; a request that changes something needs the right Origin, too. The page loads
nothing from elsewhere.
"""

import contextlib
import datetime
import errno
import hmac
import json
import secrets
import shlex
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from audiotag import files
from audiotag.data.clips import TEST, read_clips
from audiotag.data.corrections import corrected, read_corrections
from audiotag.data.corrections_file import DECISIONS, Conflict, CorrectionsFile, Row, version_of
from audiotag.data.labels import parse_labels
from audiotag.errors import DataError
from audiotag.reporting.review_clips import ReviewClips, clips_of_records, played_rate, test_queue, training_queue
from audiotag.runs.directory import Run, find_records

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # by which a browser may call it
MAX_BYTES = 1 << 16  # of a request
STATIC = Path(__file__).parent / "static"
STATIC_FILES = {
    "review.html": "text/html",
    "review.css": "text/css",
    "review.js": "text/javascript",
    "review.svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
FORBIDDEN = "Open the address that audiotag review printed when it started."


class Review:
    """What the page reads and writes, without HTTP.

    Args:
        clips: The clips to review.
        corrections: Where decisions are written.
        examples: The clips that are shown for comparison; None shows none.
        who: The name of the reviewer.
        title: What is reviewed, for the page.
        single_label: Whether a clip has one label.
        unlabeled: Whether the clips have no labels before their review.
        editable: Whether decisions are accepted.
        next_command: What to do with the decisions, shown at the end.
        note: A sentence about the file of decisions.
    """

    def __init__(
        self,
        clips: ReviewClips,
        corrections: CorrectionsFile,
        *,
        examples: ReviewClips | None,
        who: str,
        title: str,
        single_label: bool,
        unlabeled: bool = False,
        editable: bool = True,
        next_command: str = "",
        note: str = "",
    ) -> None:
        self.clips, self.corrections, self.examples = clips, corrections, examples
        self.who, self.title, self.single_label, self.unlabeled = who, title, single_label, unlabeled
        self.editable, self.next_command, self.note = editable, next_command, note

    def session(self) -> dict[str, Any]:
        """All clips and what is decided about them."""
        rows = self.corrections.rows()
        return {
            "title": self.title,
            "file": str(self.corrections.path),
            "editable": self.editable,
            "next_command": self.next_command,
            "single_label": self.single_label,
            "unlabeled": self.unlabeled,
            "classes": list(self.clips.vocabulary),
            "rate": played_rate(self.clips.sample_rate),
            "clips": self.clips.summary(),
            "rows": {name: shown(row) for name, row in rows.items() if name in self.clips.index_of},
        }

    def ending(self) -> str:
        """The numbers of decisions, and the command that trains with them."""
        decided = [row for row in self.corrections.rows().values() if row.get("why")]
        counts = [(why, sum(row["why"] == why for row in decided)) for why in DECISIONS]
        said = ", ".join(f"{count} {why}" for why, count in counts if count)
        command = f" Train with them:\n{self.next_command}" if self.next_command and decided else ""
        return f"{self.corrections.path}: {said or 'no decisions'}.{command}"

    def sounds(self, kind: str) -> ReviewClips:
        """The clips whose sounds and images the page loads from /clips or /examples."""
        return self.examples if kind == "examples" and self.examples else self.clips

    def clip(self, index: int) -> dict[str, Any]:
        """A clip for the page; `problem` says why it cannot be played."""
        if not 0 <= index < len(self.clips.names):
            raise DataError(f"there is no clip number {index}. Load the page again.")
        predictions = self.clips.predictions(index)
        labels = self.clips.labels_of(index)
        top = [name for name, _ in predictions if name not in labels][: 3 if self.unlabeled else 1]
        try:
            details = self.clips.details(index) | {"problem": ""}
        except DataError as error:
            details = {"problem": str(error)}
        return details | {
            "row": shown(self.corrections.rows().get(self.clips.names[index])),
            "predictions": predictions,
            "examples": [{"class": name, "clips": self._examples(name, index)} for name in [*labels, *top]],
        }

    def _examples(self, name, index):
        """Where the examples of a class are, and their names."""
        if self.examples is None:
            return []
        kind, but = ("clips", index) if self.examples is self.clips else ("examples", -1)
        return [
            {"path": f"/{kind}/{number}", "name": self.examples.names[number]}
            for number in self.examples.examples(name, but=but)
        ]

    def decide(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Writes a decision: {clip, version, labels, why}.

        The row, which `CorrectionsFile.decided` makes, is on the disk when it returns.
        """
        name, version = self._checked_clip(content)
        why, labels = content.get("why"), content.get("labels")
        if why not in DECISIONS:
            raise DataError(f"the decision is {why!r}. Expected one of {', '.join(DECISIONS)}.")
        if not isinstance(labels, list) or not all(isinstance(label, str) and "," not in label for label in labels):
            raise DataError("the labels are not a list of names. Load the page again.")
        row = self.corrections.decided(
            self.corrections.rows().get(name),
            labels=",".join(labels),
            why=why,
            reason=self.clips.reason(self.clips.index_of[name]),
            source=self.clips.queue.about,
            who=self.who,
            when=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        return self._write(name, row, version)

    def undo(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the row that a clip had before: {clip, version, row}.

        `row` is null if it had none.
        """
        name, version = self._checked_clip(content)
        row = content.get("row")
        return self._write(name, None if row is None else self.corrections.checked(row), version)

    def _checked_clip(self, content):
        """(name, version) of a request."""
        if not self.editable:
            raise DataError("these clips are read-only. Start audiotag review with --edit-test to change test labels.")
        name, version = content.get("clip"), content.get("version")
        if not isinstance(name, str) or name not in self.clips.index_of or not isinstance(version, str):
            raise DataError(f"there is no clip {name!r}. Load the page again.")
        return name, version

    def _write(self, name, row, version):
        if row is not None:
            labels = parse_labels(row["labels"], self.clips.vocabulary)
            needs_label = self.clips.labels_of(self.clips.index_of[name]) and row["weight"]
            needs_label = needs_label or row.get("why") == "labeled" and self.single_label
            if not labels and needs_label:
                raise DataError("a clip needs a label. Choose one, or remove the clip.")
            if len(labels) > 1 and self.single_label:
                raise DataError("this run has one label per clip. Choose one.")
        previous = self.corrections.replace(name, row, version=version)
        return {"row": shown(row), "previous": previous}


def open_review(
    run: Run,
    corrections: str | Path | None = None,
    *,
    stage: str | None = None,
    worst_test: bool = False,
    edit_test: bool = False,
    who: str = "",
    order: Literal["suspicion", "usefulness"] = "suspicion",
    by: Literal["margin", "cleanlab"] = "margin",
) -> Review:
    """The review of a run's training clips, or of its test clips.

    Args:
        run: A `Run` with trained folds.
        corrections: The file of corrections, which is continued if it exists. None is the experiment's own, else
            corrections.csv; for test clips test_corrections.csv, which `fit` does not read.
        stage: The stage whose models predict; None is the last.
        worst_test: Review test clips.
        edit_test: Accept decisions about test clips, too.
        who: The name of the reviewer.
        order: In which order training clips are shown, as for `rank_label_issues`.
        by: As for `rank_label_issues`.

    Raises:
        DataError: The run is not trained, or the file has a row of a clip that is not reviewed here.
    """
    default = "test_corrections.csv" if worst_test else run.experiment.corrections or "corrections.csv"
    path = Path(default if corrections is None else corrections)
    queue = test_queue(run, stage=stage) if worst_test else training_queue(run, stage=stage, order=order, by=by)
    reviewed = clips_of_records(run, queue)
    start = None if worst_test or not run.corrections_file.is_file() else run.corrections_file
    if path.is_file() and path.stat().st_size:
        clips = read_clips(find_records(run).directory / "clips.csv")
        clips = clips[(clips["subset"] == TEST) == worst_test]
        corrected(clips, read_corrections(path, run.vocabulary), source=path)  # which refuses other clips
    name = run.folder.resolve().name
    words = ["audiotag", "fit", run.folder / "experiment.json", "--run", run.folder.with_name(f"{name}-corrected")]
    command = shlex.join(map(str, [*words, "--set", f"corrections={path}"]))
    return Review(
        reviewed,
        CorrectionsFile(path, run.vocabulary, start=start),
        examples=reviewed,
        who=who,
        title=f"{name}, test clips" if worst_test else name,
        single_label=run.experiment.task == "single_label",
        editable=edit_test or not worst_test,
        next_command="" if worst_test else command,
    )


def shown(row: Row | None) -> dict[str, Any] | None:
    """A row for the page, with its version."""
    return None if row is None else dict(row) | {"version": version_of(row)}


def make_app(review: Review, *, port: int, token: str) -> Starlette:
    """The application.

    Args:
        review: What it shows.
        port: The port of its address.
        token: What a browser must know.
    """
    hosts = {f"{name}:{port}" for name in NAMES}
    cookie = f"audiotag-review-{port}"  # cookies are shared by all ports

    def refusal(request):
        """Why a request is refused; None if it is not."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        is_link = request.method == "GET" and request.url.path == "/"
        known = (request.query_params.get("token") if is_link else None) or request.cookies.get(cookie) or ""
        if host not in hosts:
            return f"Host is {host!r}. {FORBIDDEN}"
        foreign = origin not in (None, f"http://{host}")
        foreign |= request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if foreign and not is_link:
            return f"This request is from {origin or 'another page'}."
        if not hmac.compare_digest(known.encode(), token.encode()):
            return FORBIDDEN
        if request.method != "GET" and origin is None:
            return "This request does not say which page it is from."
        return None

    async def guard(request: Request, call_next: Callable) -> Response:
        said = refusal(request)
        response = await call_next(request) if said is None else JSONResponse({"error": said}, 403)
        response.headers.update(HEADERS)
        return response

    async def page(request):
        if "token" in request.query_params:
            response: Response = RedirectResponse("/", 303)
            response.set_cookie(cookie, token, httponly=True, samesite="strict")
            return response
        return static("review.html")

    def static(name):
        return Response((STATIC / name).read_bytes(), media_type=STATIC_FILES[name])

    async def file(request):
        name = request.path_params["name"]
        return static(name) if name in STATIC_FILES else JSONResponse({"error": f"there is no file {name}."}, 404)

    async def session(request):
        return JSONResponse(await run_in_threadpool(review.session))

    async def clip(request):
        return JSONResponse(await run_in_threadpool(review.clip, request.path_params["index"]))

    async def image(request):
        clips, index = _asked(review, request)
        return Response(await run_in_threadpool(clips.image, index), media_type="image/png")

    async def sound(request):
        clips, index = _asked(review, request)
        return Response(await run_in_threadpool(clips.sound, index), media_type="application/octet-stream")

    def change(function):
        async def endpoint(request):
            return JSONResponse(await run_in_threadpool(function, await _content(request)))

        return endpoint

    routes = [
        Route("/", page),
        Route("/static/{name}", file),
        Route("/session", session),
        Route("/clips/{index:int}", clip),
        Route("/{kind}/{index:int}/image", image),
        Route("/{kind}/{index:int}/sound", sound),
        Route("/decisions", change(review.decide), methods=["POST"]),
        Route("/undo", change(review.undo), methods=["POST"]),
    ]
    handlers = {Conflict: _conflict, DataError: _error, OSError: _error}
    return Starlette(
        routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)], exception_handlers=handlers
    )


async def _conflict(request, conflict):
    return JSONResponse({"error": str(conflict), "row": shown(conflict.row)}, 409)


async def _error(request, error):
    return JSONResponse({"error": str(error)}, 422)


def _asked(review, request):
    """The clips, and the number of the one, that a path such as /examples/3/image names."""
    clips, index = review.sounds(request.path_params["kind"]), request.path_params["index"]
    if not 0 <= index < len(clips.names):
        raise DataError(f"there is no clip number {index}. Load the page again.")
    return clips, index


async def _content(request):
    """The JSON object in the body of a request."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BYTES:
            raise DataError(f"the request has more than {MAX_BYTES} bytes.")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise DataError("the request is not a JSON object. Load the page again.")
    return content


def open_socket(port: int) -> socket.socket:
    """A socket on the loopback interface.

    Args:
        port: Its port; 0 takes a free one.

    Raises:
        DataError: The port is in use, or reserved.
    """
    opened = socket.socket()
    try:
        if not files.WINDOWS:  # where it would share the port with another program
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((HOST, port))
        opened.listen()
    except OSError as error:
        opened.close()
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        what = "is in use" if error.errno == errno.EADDRINUSE else "needs administrator rights"
        raise DataError(f"--port {port}: the port {what}. Give another, or leave it out for a free one.") from None
    return opened


def serve(review: Review, listening: socket.socket, *, show: Callable[[str], Any] = print) -> None:
    """Serves the page until Ctrl-C.

    Args:
        review: What it shows.
        listening: What `open_socket` returns.
        show: Called with the address of the page.
    """
    port, token = listening.getsockname()[1], secrets.token_urlsafe(32)
    app = make_app(review, port=port, token=token)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        ws="none",
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    show(f"http://{HOST}:{port}/?token={token}")
    with contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises again after its end
        uvicorn.Server(config).run(sockets=[listening])
