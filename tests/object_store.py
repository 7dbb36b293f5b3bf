"""S3 on this machine, by moto, in which requests fail; and what is in it."""

import contextlib
import itertools
import socket
import threading

import pytest

from audiotag.remote import Store


class ObjectStore:
    """A server of which every n-th request fails, in one of four ways in turn.

    Args:
        every: n; 0 for no failure.

    Attributes:
        num_requests, num_failed: So far.
        reads: [(path, bytes)] of each GET.
    """

    def __init__(self, every=0):
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *args):
                pass

        self.every, self.num_requests, self.num_failed, self.reads = every, 0, 0, []
        self._numbers, self._kinds = itertools.count(1), itertools.cycle(["refuse", "forget", "close", "cut"])
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Quiet)
        self.url = f"s3://bucket{self._server.server_port}"  # moto keeps buckets as long as the process runs
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, environ, start_response):
        self.num_requests = number = next(self._numbers)
        kind = next(self._kinds) if self.every and number % self.every == 0 else None
        self.num_failed += kind is not None
        if kind in ("close", "refuse"):  # nothing is done
            if kind == "close":
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return self._fail(start_response)
        answer = []
        content = b"".join(self._app(environ, lambda *words: answer.append(words)))
        if environ["REQUEST_METHOD"] == "GET":
            self.reads.append((environ["PATH_INFO"], len(content)))
        if kind == "forget":  # it is done, and the answer is an error
            return self._fail(start_response)
        start_response(*answer[0][:2])
        if kind == "cut":
            return self._half(environ, content)
        return [content]

    @staticmethod
    def _fail(start_response):
        start_response("503 Slow Down", [("Content-Type", "application/xml")])
        return [b"<Error><Code>SlowDown</Code></Error>"]

    @staticmethod
    def _half(environ, content):
        yield content[: len(content) // 2]
        with contextlib.suppress(OSError):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def served(cache, every=0):
    """An `ObjectStore` that s3:// means in this process, with a bucket and a cache folder of its own."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.moto_server.werkzeug_app", reason="moto is not installed")
    import fsspec

    store = ObjectStore()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    keys["AWS_MAX_ATTEMPTS"] = "1"  # botocore's repetitions pause for seconds
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**keys, "AWS_ENDPOINT_URL": store.endpoint, "AUDIOTAG_CACHE": str(cache)}.items():
            patch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        fsspec.filesystem("s3").mkdir(store.url)
        store.every = every
        yield store
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    store.close()


def objects(url):
    """{name: bytes} of everything below a URL."""
    import fsspec

    system, root = fsspec.core.url_to_fs(url)
    system.invalidate_cache()
    return {path.removeprefix(f"{root}/"): system.cat_file(path) for path in system.find(root)}


def cached_bytes(cache):
    """The size of all shards in a cache."""
    from audiotag.data.records import remote

    with remote._room:  # while none gets another name
        return sum(path.stat().st_size for path in cache.glob("records/*/*.tfrecord"))


@contextlib.contextmanager
def ended_after(num_requests, monkeypatch):
    """In it, the request after so many raises KeyboardInterrupt, which ends the block and goes no further."""
    left = iter(range(num_requests))

    def request_or_end(self, name, request):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return request()

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Store, "_request", request_or_end)
        yield
