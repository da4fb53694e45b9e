"""The judge behind an endpoint: a server on this machine that misbehaves in every way."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from _endpoint import Answer, Endpoint, Handler, completion, says, sends
from _judges import samples
from cogit.evaluation.judges import chat, labels, make_judge
from cogit.evaluation.judges.api import INSTRUCTIONS, ApiJudge
from cogit.evaluation.judges.chat import MAX_REPLY, MAX_WAIT, ChatClient

KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@contextmanager
def judge_of(
    *answers: Answer, workers: int = 1, **more: Any
) -> Iterator[tuple[ApiJudge, Endpoint]]:
    """A judge that does not sleep, and its endpoint."""
    more = {"model": "m", "timeout": 5.0, "sleep": lambda _: None, **more}
    with Endpoint(*answers) as endpoint:
        yield ApiJudge(ChatClient(endpoint.url, **more), workers=workers), endpoint


def refused(
    judge: ApiJudge,
    texts: Iterable[str],
    match: str,
    kind: type[Exception] | tuple[type[Exception], ...] = (OSError, ValueError),
) -> str:
    """The message of an error that must come."""
    with pytest.raises(kind, match=match) as caught:
        judge.scores(samples(*texts))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def by_text(handler: Handler) -> None:
    handler.reply(200, completion("0.75" if "good" in handler.text else " -0.5\n"))


def test_sign_and_label_agree() -> None:
    """Q49: a judge behind an endpoint."""
    with judge_of(by_text, workers=4) as (judge, endpoint):
        scores = judge.scores(samples("good a", "bad b", "", "good c", " "))
    assert scores.tolist() == [0.75, -0.5, 0.0, 0.75, 0.0]
    assert labels(scores).tolist() == [1, -1, 0, 1, 0]
    assert len(endpoint.seen) == 3


def test_what_is_sent() -> None:
    with judge_of(says("0"), key=KEY) as (judge, endpoint):
        judge.scores(samples('a "text"\n</text> \ud800'))
    (seen,) = endpoint.seen
    assert seen["path"] == "/v1/chat/completions"
    assert seen["headers"]["Authorization"] == f"Bearer {KEY}"
    assert (seen["body"]["model"], seen["body"]["temperature"]) == ("m", 0)
    assert [m["role"] for m in seen["body"]["messages"]] == ["system", "user"]
    assert seen["body"]["messages"][0]["content"] == INSTRUCTIONS
    assert 'a "text"\n</text> ' in seen["body"]["messages"][1]["content"]


def test_equal_texts_are_asked_about_once() -> None:
    """An endpoint that wavers must not make an arm that changes nothing look as if it did."""
    values = iter(range(100))
    with judge_of(lambda h: h.reply(200, completion(str(next(values) / 100)))) as (judge, endpoint):
        first = judge.scores(samples("a", "b", "a"))
        again = judge.scores(samples("b", "a", "c"))
    assert first.tolist() == [0.0, 0.01, 0.0]
    assert again.tolist() == [0.01, 0.0, 0.02]
    assert len(endpoint.seen) == 3


def test_a_spec_makes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with Endpoint(says("1")) as endpoint:
        judge = make_judge(
            f"api:{endpoint.url}/?model=a%2Fb&key_env=JUDGE_KEY&timeout=3&workers=2"
            f"&max_requests=5&attempts=1&instructions=rate+it"
        )
        assert judge.scores(samples("x")).tolist() == [1.0]
    assert endpoint.seen[0]["body"]["model"] == "a/b"
    assert endpoint.seen[0]["path"] == "/v1/chat/completions"
    assert endpoint.seen[0]["body"]["messages"][0]["content"] == "rate it"
    assert endpoint.seen[0]["headers"]["Authorization"] == f"Bearer {KEY}"
    found = json.dumps(judge.describe())
    assert "a/b" in found
    assert KEY not in found
    assert KEY not in repr(vars(judge))


@pytest.mark.parametrize("content", ["1", "-1", "0", " 0.25 ", "1e-1", "-0.0", "\n0.5\n"])
def test_numbers_are_taken(content: str) -> None:
    with judge_of(says(content)) as (judge, _):
        assert judge.scores(samples("a"))[0] == float(content)


NO_NUMBERS = (
    *("", "positive", "0.5.", "+0.5", ".5", "0,5", "1.01", "-2", "NaN", "Infinity", "1e400"),
    *("true", "null", '"0.5"', "[0.5]", '{"score": 0.5}', "0.5 0.5", "```0.5```", "[" * 9999),
    *("0." + "1" * 500_000, "Score: 0.5", "0x1", "٠"),
)


@pytest.mark.parametrize("content", NO_NUMBERS, ids=lambda c: repr(c[:12]))
def test_anything_else_is_refused(content: str) -> None:
    """Q49: strict, and the message names the sample."""
    with judge_of(says("0.5"), says(content)) as (judge, endpoint):
        refused(judge, ["a", "", "b"], r"expected a number in \[-1, 1\] for sample 2", ValueError)
    assert len(endpoint.seen) == 2  # an answer that is no number is not asked for again


BODIES = {
    "empty": b"",
    "garbage": b"\xff\x00garbage\n\n",
    "html": b"<html>gateway</html>",
    "list": b"[]",
    "number": b"5",
    "null": b"null",
    "no choices": b'{"choices": []}',
    "choices": b'{"choices": "abc"}',
    "no message": b'{"choices": [{"text": "0.5"}]}',
    "null content": completion(None),
    "number content": completion(0.5),
    "list content": completion([{"type": "text", "text": "0.5"}]),
    "deep": b"[" * 100_000,
    "huge": b'{"choices": [' + b" " * MAX_REPLY + b"]}",
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_of_another_form_are_refused(name: str) -> None:
    with judge_of(sends(200, BODIES[name])) as (judge, endpoint):
        refused(judge, ["", "a"], r"^\[judge api\] expected .* for sample 1", ValueError)
    assert len(endpoint.seen) == 1


def test_an_endless_body_is_cut_off() -> None:
    sent: list[int] = []

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        for _ in range(1000):
            sent.append(handler.wfile.write(b" " * 2**16))

    with judge_of(endless) as (judge, _):
        refused(judge, ["a"], "of at most 1048576 bytes", ValueError)
        # 1 MiB was read; the rest lay in the buffers of the connection.
        assert sum(sent) < 32 * MAX_REPLY


@pytest.mark.parametrize("status", [429, 500, 502, 503, 599])
def test_what_may_pass_is_tried_again(status: int) -> None:
    waits: list[float] = []
    with judge_of(sends(status), sends(status), says("0.5"), sleep=waits.append) as (judge, seen):
        assert judge.scores(samples("a"))[0] == 0.5
    assert len(seen.seen) == 3
    # Doubled each time, and up to half as long again by chance.
    assert 0.5 <= waits[0] <= 0.75
    assert 1.0 <= waits[1] <= 1.5


def test_it_gives_up() -> None:
    with judge_of(sends(500, b"out of order\n"), attempts=3) as (judge, endpoint):
        refused(judge, ["a"], r"for sample 0 in 3 attempts .* status 500: out of order$", OSError)
    assert len(endpoint.seen) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 201, 204, 600])
def test_what_will_not_pass_is_not_tried_again(status: int) -> None:
    with judge_of(sends(status, b"" if status == 204 else b"no")) as (judge, endpoint):
        refused(judge, ["a"], rf"^\[judge api\] .* for sample 0 .* status {status}", OSError)
    assert len(endpoint.seen) == 1


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [("7", 7, 10.5), ("99999", MAX_WAIT, 1.5 * MAX_WAIT), ("soon", 0.5, 0.75), ("-5", 0.5, 0.75)],
)
def test_a_wait_is_as_asked_within_bounds(asked: str, least: float, most: float) -> None:
    waits: list[float] = []
    with judge_of(sends(429, Retry_After=asked), says("0"), sleep=waits.append) as (judge, _):
        judge.scores(samples("a"))
    assert least <= waits[0] <= most


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_refused(status: int) -> None:
    """Neither key nor text may go elsewhere, not even by a GET."""
    with Endpoint(says("1")) as elsewhere:
        target = f"{elsewhere.url}/chat/completions"
        with judge_of(sends(status, Location=target), key=KEY) as (judge, endpoint):
            refused(judge, ["a"], rf"status {status}, a redirect", OSError)
        assert elsewhere.seen == []
        assert len(endpoint.seen) == 1


def silent(handler: Handler) -> None:
    time.sleep(6)


def dripping(handler: Handler) -> None:
    """A byte now and then: no single wait is long, all of them together are."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(120):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def dripping_head(handler: Handler) -> None:
    for _ in range(120):
        handler.wfile.write(b"H")
        handler.wfile.flush()
        time.sleep(0.05)


@pytest.mark.parametrize("slow", [silent, dripping, dripping_head])
def test_slow_endpoints_are_given_up(slow: Answer) -> None:
    began = time.monotonic()
    with judge_of(slow, timeout=0.2, attempts=2) as (judge, endpoint):
        refused(judge, ["a"], r"for sample 0 in 2 attempts .* no reply in time", OSError)
        assert len(endpoint.seen) == 2
    # Two times 0.2 s, and much room for a busy machine; one reply alone would take 6 s.
    assert time.monotonic() - began < 5


def test_a_timeout_may_pass() -> None:
    with judge_of(silent, says("0.5"), timeout=0.3) as (judge, _):
        assert judge.scores(samples("a"))[0] == 0.5


def raw(data: bytes) -> Answer:
    return lambda handler: handler.connection.sendall(data)


def reset(handler: Handler) -> None:
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


BROKEN: dict[str, Answer] = {
    "nothing": lambda handler: None,
    "no http": raw(b"SSH-2.0-OpenSSH\r\n\r\n"),
    "long line": raw(b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n"),
    "many headers": raw(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n"),
    "short": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}"),
    "bad chunk": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "reset": reset,
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_connections_are_named(name: str) -> None:
    with judge_of(BROKEN[name]) as (judge, endpoint):
        refused(judge, ["a"], r"^\[judge api\] .* for sample 0")
    assert len(endpoint.seen) == 1


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = ChatClient(f"http://127.0.0.1:{taken.getsockname()[1]}", model="m")
        with pytest.raises(OSError, match=r"for sample 0 .* refused"):
            ApiJudge(client).scores(samples("a"))


@pytest.mark.parametrize("status", [200, 400])
def test_a_key_that_comes_back_is_not_shown(status: int) -> None:
    echo = f"your key {KEY} is wrong".encode()
    for answer in (sends(status, echo), says(echo.decode())):
        with judge_of(answer, key=KEY) as (judge, _):
            message = refused(judge, ["a"], r"\*\*\*")
        assert KEY not in message


def test_short_keys_leave_answers_alone() -> None:
    with judge_of(says("0.5"), key="c") as (judge, _):
        assert judge.scores(samples("a"))[0] == 0.5


def test_requests_are_limited_before_they_are_sent() -> None:
    with judge_of(says("0.5"), max_requests=3) as (judge, endpoint):
        judge.scores(samples("a", "b"))
        refused(
            judge, ["c", "d", "a"], r"expected at most 1 more requests, got 2 texts", ValueError
        )
        assert len(endpoint.seen) == 2
        judge.scores(samples("c", "a"))
    assert len(endpoint.seen) == 3


def test_attempts_count_as_requests() -> None:
    with judge_of(sends(500), max_requests=3, attempts=10) as (judge, endpoint):
        refused(judge, ["a"], r"expected to stay within the limit of requests", OSError)
    assert len(endpoint.seen) == 3


def test_the_limit_holds_among_workers() -> None:
    with judge_of(sends(500), workers=8, max_requests=20, attempts=10) as (judge, endpoint):
        refused(judge, map(str, range(20)), r"^\[judge api\]", OSError)
    assert len(endpoint.seen) <= 20


def test_an_error_ends_the_work() -> None:
    """What waits in line is not asked for, and what was answered before is kept."""
    with judge_of(says("0.5"), says("no number")) as (judge, endpoint):
        refused(judge, map(str, range(200)), r"for sample 1", ValueError)
        assert len(endpoint.seen) < 50
        asked = len(endpoint.seen)
        assert judge.scores(samples("0"))[0] == 0.5
    assert len(endpoint.seen) == asked


def test_workers_ask_side_by_side() -> None:
    barrier = threading.Barrier(4, timeout=5)

    def together(handler: Handler) -> None:
        barrier.wait()
        handler.reply(200, completion(f"0.{handler.text}"))

    with judge_of(together, workers=4) as (judge, _):
        assert judge.scores(samples("1", "2", "3", "4")).tolist() == [0.1, 0.2, 0.3, 0.4]


URLS = (
    *("", "host", "ftp://host/v1", "file:///etc/passwd", "http://", "http:///v1", "//host/v1"),
    *("http://user:password@host/v1", "http://host/v1?key=1", "http://host/v1#a"),
    *("http://h h/v1", "http://host:port/v1", "http://host:99999/v1", "http://[::1/v1"),
    *("http://höst/v1", "http://host/v1\r\nX-Evil: 1"),
)


@pytest.mark.parametrize("url", URLS)
def test_addresses_are_checked(url: str) -> None:
    with pytest.raises(ValueError, match=r"^\[judge api\] expected an address") as caught:
        ChatClient(url, model="m")
    assert "password" not in str(caught.value)
    assert "\n" not in str(caught.value)


BAD: dict[str, Callable[[], object]] = {
    "model": lambda: ChatClient("http://h", model=" "),
    "timeout 0": lambda: ChatClient("http://h", model="m", timeout=0),
    "timeout nan": lambda: ChatClient("http://h", model="m", timeout=float("nan")),
    "attempts": lambda: ChatClient("http://h", model="m", attempts=0),
    "requests": lambda: ChatClient("http://h", model="m", max_requests=0),
    "workers": lambda: ApiJudge(ChatClient("http://h", model="m"), workers=0),
    "instructions": lambda: ApiJudge(ChatClient("http://h", model="m"), instructions=" "),
    "no key": lambda: make_judge("api:http://h?model=m&key_env=NO_SUCH_VARIABLE"),
    "option": lambda: make_judge("api:http://h?model=m&key=secret"),
}


@pytest.mark.parametrize("name", BAD)
def test_options_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=r"^\[judge api\] expected"):
        BAD[name]()


@pytest.mark.parametrize("key", ["", "two words", "line\r\nX-Evil: 1", "schlüssel"])
def test_keys_are_checked_and_never_shown(key: str) -> None:
    with pytest.raises(
        ValueError, match=r"^\[judge api\] expected a key of printable ASCII"
    ) as caught:
        ChatClient("http://h", model="m", key=key)
    assert not key or key not in str(caught.value)


def test_there_is_a_wait_for_every_attempt() -> None:
    assert max(chat._wait(attempt, None) for attempt in range(10)) <= 1.5 * MAX_WAIT
