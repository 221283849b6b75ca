"""A Google Cloud Storage server in this process, for one bucket held in memory; not a test itself.

It answers the requests of the JSON API that gcsfs and tensorstore make, preconditions on generations
included. Both are sent here by the environment variables that `start` sets.
"""

import base64
import contextlib
import hashlib
import http.server
import itertools
import json
import os
import re
import threading
import urllib.parse

BUCKET = "bucket"
_OBJECT = re.compile(
    rf"/(?:download/)?storage/v1/b/{BUCKET}/o/([^/]+)(?:/(rewriteTo/b/{BUCKET}|moveTo)/o/([^/]+))?"
)


class Store:
    """The objects, and every request that changed one: (method, object)."""

    def __init__(self):
        self.objects = {}  # name -> (bytes, generation)
        self.changes = []
        self.refusal = 0  # the status that every upload is refused with, if any
        self.uploads = {}  # resumable ones: id -> (name, bytes so far)
        self.generations = itertools.count(1_700_000_000_000_001)
        self.lock = threading.RLock()

    def put(self, name, data):
        self.objects[name] = data, next(self.generations)
        self.changes.append(("PUT", name))

    def describe(self, name):
        data, generation = self.objects[name]
        return {
            "kind": "storage#object",
            "bucket": BUCKET,
            "name": name,
            "size": str(len(data)),
            "generation": str(generation),
            "metageneration": "1",
            "etag": str(generation),
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": f"2026-01-01T00:00:00.{generation % 1000:03d}Z",
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    store: Store

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, message):
        self.answer(status, {"error": {"code": status, "message": message}})

    def handle_any(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path, _, query = self.path.partition("?")
        self.query = {k: v[-1] for k, v in urllib.parse.parse_qs(query, keep_blank_values=True).items()}
        with self.store.lock:
            if path.startswith(f"/upload/storage/v1/b/{BUCKET}/o"):
                self.upload(body)
            elif path == f"/storage/v1/b/{BUCKET}":
                self.answer(200, {"kind": "storage#bucket", "name": BUCKET})
            elif path == f"/storage/v1/b/{BUCKET}/o":
                self.list()
            elif match := _OBJECT.fullmatch(path):
                name, action, target = (urllib.parse.unquote(part or "") for part in match.groups())
                self.object(name, action, target)
            else:
                self.refuse(404, f"{self.command} {path} is not known here")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def fails_precondition(self, name):
        wanted = self.query.get("ifGenerationMatch")
        generation = self.store.objects[name][1] if name in self.store.objects else 0
        return wanted is not None and int(wanted) != generation

    def upload(self, body):
        store, name = self.store, self.query.get("name", "")
        kind = self.query.get("uploadType")
        if store.refusal:
            self.refuse(store.refusal, "the quota is used up")
            return
        if "upload_id" in self.query:
            identifier = self.query["upload_id"]
            name, data = store.uploads[identifier]
            data += body
            store.uploads[identifier] = name, data
            if self.headers["Content-Range"].endswith("/*"):
                self.answer(308, Range=f"bytes=0-{len(data) - 1}")
                return
        elif kind == "resumable":
            identifier = str(next(store.generations))
            store.uploads[identifier] = name or json.loads(body)["name"], b""
            host = self.headers["Host"]
            self.answer(200, Location=f"http://{host}/upload/storage/v1/b/{BUCKET}/o?upload_id={identifier}")
            return
        elif kind == "multipart":
            boundary = self.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
            description, data = (
                re.split(rb"\r?\n\r?\n", part.lstrip(b"\r\n"), maxsplit=1)[1]
                for part in re.split(rb"(?:\r?\n)?--" + re.escape(boundary), body)[1:3]
            )
            name = json.loads(description)["name"]
        else:
            data = body
        if self.fails_precondition(name):
            self.refuse(412, f"{name} has another generation")
            return
        store.put(name, data)
        self.answer(200, store.describe(name))

    def list(self):
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
        names, prefixes = [], set()
        for name in sorted(self.store.objects):
            if not name.startswith(prefix) or name < self.query.get("startOffset", ""):
                continue
            if name >= (self.query.get("endOffset") or "\U0010ffff"):
                continue
            head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if found:
                prefixes.add(f"{prefix}{head}{delimiter}")
            else:
                names.append(name)
        items = [self.store.describe(name) for name in names]
        self.answer(200, {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)})

    def object(self, name, action, target):
        store = self.store
        if name not in store.objects:
            self.refuse(404, f"No such object: {BUCKET}/{name}")
        elif self.fails_precondition(name):
            self.refuse(412, f"{name} has another generation")
        elif action:
            store.put(target, store.objects[name][0])
            if action == "moveTo":
                del store.objects[name]
            self.answer(200, {"kind": "storage#rewriteResponse", "done": True})
        elif self.command == "DELETE":
            del store.objects[name]
            store.changes.append(("DELETE", name))
            self.answer(204)
        elif self.query.get("alt") == "media":
            self.read(name)
        else:
            self.answer(200, store.describe(name))

    def read(self, name):
        data, generation = self.store.objects[name]
        headers = {"x_goog_generation": str(generation), "Content_Type": "application/octet-stream"}
        if self.query.get("ifGenerationNotMatch") == str(generation):
            self.answer(304, **headers)
            return
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not match:
            self.answer(200, data, **headers)
            return
        first, last = match.groups()
        start = int(first) if first else max(len(data) - int(last), 0)
        end = min(int(last) + 1 if first and last else len(data), len(data))
        if start >= len(data):
            self.refuse(416, "the range begins after the end")
            return
        self.answer(206, data[start:end], Content_Range=f"bytes {start}-{end - 1}/{len(data)}", **headers)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_):
        pass  # gcsfs asks in two ways at once and hangs up on the slower answer


@contextlib.contextmanager
def start():
    """The store, served until the end, with gcsfs and tensorstore of this process sent to it."""
    store = Store()
    handler = type("Handler", (_Handler,), {"store": store})
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    settings = {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        # No credentials of this machine, and no search for them on the network.
        "CLOUDSDK_CONFIG": os.devnull,
        "GOOGLE_APPLICATION_CREDENTIALS": "",
        "GCE_METADATA_ROOT": "127.0.0.1:1",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield store
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        server.shutdown()
        server.server_close()
