"""A chat endpoint on this machine that answers as a test wants it to, well or badly."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Passes each request on to the endpoint's answers, in turn; the last one goes on."""

    protocol_version = "HTTP/1.1"
    server: Endpoint

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.body = json.loads(self.rfile.read(length))
        with self.server.lock:
            self.server.seen.append(
                {"path": self.path, "headers": dict(self.headers), "body": self.body}
            )
            answers = self.server.answers
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        with contextlib.suppress(OSError):  # the client may have given up
            answer(self)
        self.close_connection = True

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.seen.append(
                {"path": self.path, "headers": dict(self.headers), "body": None}
            )
        self.reply(200, completion("1"))

    def reply(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    @property
    def text(self) -> str:
        """What is to be judged."""
        content: str = self.body["messages"][1]["content"]
        return content.removeprefix("<text>\n").removesuffix("\n</text>")

    def log_message(self, *args: Any) -> None:
        pass


class Endpoint(ThreadingHTTPServer):
    """http://127.0.0.1:PORT/v1"""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *answers: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = list(answers)
        self.seen: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def __exit__(self, *args: object) -> None:
        self.shutdown()
        super().__exit__(*args)


def completion(content: Any) -> bytes:
    message = {"role": "assistant", "content": content}
    return json.dumps({"choices": [{"index": 0, "message": message}]}).encode()


def says(content: Any) -> Answer:
    """Every text is given this answer."""
    return lambda handler: handler.reply(200, completion(content))


def sends(status: int, data: bytes = b"", **headers: str) -> Answer:
    return lambda handler: handler.reply(status, data, **headers)
