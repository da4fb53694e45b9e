"""Requests to an OpenAI-compatible chat endpoint with a limit on everything: time, size, number."""

from __future__ import annotations

import http.client
import json
import queue
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
MAX_REPLY = 2**20  # bytes
MAX_WAIT = 30.0  # seconds between two attempts, whatever the endpoint asks for
_FIRST_WAIT = 0.5
_EXCERPT = 120
_WHERE = "judge api"


@dataclass(frozen=True)
class _Reply:
    status: int
    retry_after: str | None
    body: bytes


class ChatClient:
    """Asks one model at one address.

    Only 429, 5xx and timeouts are tried again, with growing waits of random length; a redirect is
    refused wherever it points, so that neither key nor texts go elsewhere. No more than
    ``max_requests`` are ever sent, attempts included. Safe to share among threads.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        key: str | None = None,
        timeout: float = 30.0,
        attempts: int = 4,
        max_requests: int = 20_000,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """url: the base, such as http://localhost:8000/v1. timeout: seconds of a whole request."""
        self.url = _checked_url(url)
        self.model = model
        checks = {
            "a model": (repr(model), bool(model.strip())),
            "a timeout within 0 and 600 seconds": (timeout, 0 < timeout <= 600),
            "1 to 10 attempts": (attempts, 1 <= attempts <= 10),
            "at least one request": (max_requests, max_requests >= 1),
            # Its value is not shown: it is a secret.
            "a key of printable ASCII": ("another", key is None or _is_token(key)),
        }
        for expected, (found, holds) in checks.items():
            if not holds:
                message = f"[{_WHERE}] expected {expected}, got {found}"
                raise ValueError(message)
        self._key, self._timeout, self._attempts = key, timeout, attempts
        self._left, self._lock = max_requests, threading.Lock()
        self._sleep = sleep
        self._opener = urllib.request.build_opener(_NoRedirect)

    @property
    def requests_left(self) -> int:
        return self._left

    def ask(self, instructions: str, text: str, where: str) -> str:
        """The content of the model's answer; ``where`` names the text in messages.

        Raises OSError when there is no answer and ValueError for one of another form.
        """
        request = self._request(instructions, text)
        for attempt in range(self._attempts):
            self._count(where)
            reply = self._send(request, where)
            if reply is not None and reply.status == 200:
                return self._content(reply.body, where)
            if reply is not None and reply.status != 429 and not 500 <= reply.status <= 599:
                raise self._failure(where, self._status(reply))
            if attempt + 1 < self._attempts:
                self._sleep(_wait(attempt, reply))
        last = "no reply in time" if reply is None else self._status(reply)
        attempts = f"{where} in {self._attempts} attempts"
        raise self._failure(attempts, last)

    def _request(self, instructions: str, text: str) -> urllib.request.Request:
        body = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": instructions},
                {"role": "user", "content": text},
            ],
            "temperature": 0,
            "max_tokens": 16,
        }
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "cogit",
        }
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        data = json.dumps(body).encode()
        return urllib.request.Request(f"{self.url}/chat/completions", data, headers, method="POST")

    def _count(self, where: str) -> None:
        with self._lock:
            if self._left == 0:
                message = (
                    f"[{_WHERE}] expected to stay within the limit of requests, got to it at "
                    f"{where}; raise max_requests"
                )
                raise OSError(message)
            self._left -= 1

    def _send(self, request: urllib.request.Request, where: str) -> _Reply | None:
        """The reply, whatever its status; None for none within the time."""
        try:
            return _within(self._timeout, lambda: self._exchange(request))
        except TimeoutError:
            return None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                return None
            reason: object = error.reason
        except (http.client.HTTPException, OSError, ValueError) as error:
            reason = f"{type(error).__name__} {error}"
        raise self._failure(where, str(reason))

    def _exchange(self, request: urllib.request.Request) -> _Reply:
        try:
            response = self._opener.open(request, timeout=self._timeout)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            body = response.read(MAX_REPLY + 1)
            return _Reply(int(response.status), response.headers.get("Retry-After"), body)

    def _status(self, reply: _Reply) -> str:
        if 300 <= reply.status <= 399:
            return f"status {reply.status}, a redirect; give the address that it points to"
        return f"status {reply.status}: {_shown(reply.body)}"

    def _content(self, body: bytes, where: str) -> str:
        if len(body) > MAX_REPLY:
            message = (
                f"[{_WHERE}] expected a reply of at most {MAX_REPLY} bytes for {where}, got more"
            )
            raise ValueError(message)
        try:
            content = json.loads(body.decode())["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            got = self.excerpt(_shown(body))
            message = f"[{_WHERE}] expected a chat completion for {where}, got {got!r}"
            raise ValueError(message) from error
        if not isinstance(content, str):
            kind = type(content).__name__
            message = f"[{_WHERE}] expected a text as the answer for {where}, got {kind}"
            raise ValueError(message)
        return content

    def _failure(self, where: str, got: str) -> OSError:
        shown = self.excerpt(got)
        return OSError(f"[{_WHERE}] expected an answer for {where} from {self.url}, got {shown}")

    def excerpt(self, text: str) -> str:
        """A short line of what an endpoint sent, for messages; one that echoes the key hides it."""
        if self._key:
            text = text.replace(self._key, "***")
        shown = "".join(c if c.isprintable() else " " for c in text)
        return " ".join(shown.split())[:_EXCERPT]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """None: the redirect becomes an error."""


def _shown(body: bytes) -> str:
    return body.decode(errors="replace")


def _within(seconds: float, work: Callable[[], T]) -> T:
    """The result of ``work``, or TimeoutError after so long.

    A socket's own timeout counts from its last byte: an endpoint that sends one now and then would
    hold us for good. The thread that is left behind ends with its socket.
    """
    results: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(1)

    def run() -> None:
        try:
            results.put((work(), None))
        except BaseException as error:  # raised again below, where someone waits for it
            results.put((None, error))

    threading.Thread(target=run, name="cogit-judge", daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def _wait(attempt: int, reply: _Reply | None) -> float:
    """Seconds before the next attempt: doubled each time, or as asked, and never all at once."""
    asked = reply.retry_after if reply is not None else None
    if asked is not None and asked.isascii() and asked.isdigit() and len(asked) < 6:
        seconds = float(asked)
    else:
        seconds = _FIRST_WAIT * 2**attempt
    return min(MAX_WAIT, seconds) * random.uniform(1.0, 1.5)


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        port_holds = parts.port is None or parts.port > 0
    except ValueError:
        port_holds = False
    holds = (
        port_holds
        and url.isascii()
        and url.isprintable()
        and " " not in url
        and parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and parts.username is None
        and not parts.query
        and not parts.fragment
    )
    if not holds:
        shown = url.rpartition("@")[2][:100]  # never a password
        message = (
            f"[{_WHERE}] expected an address such as http://localhost:8000/v1, without a user or "
            f"query, got {shown!r}"
        )
        raise ValueError(message)
    return url.rstrip("/")


def _is_token(key: str) -> bool:
    return bool(key) and key.isascii() and key.isprintable() and " " not in key
