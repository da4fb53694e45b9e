"""Positions: windows per sequence, and the first token left alone."""

from __future__ import annotations

from typing import Any

import pytest

from cogit.positions import Positions


@pytest.mark.parametrize(
    ("text", "window", "with_first"),
    [
        ("all", (1, None), (0, None)),
        ("prompt", (1, 5), (0, 5)),
        ("generated", (5, None), (5, None)),
        ("0-4", (1, 4), (0, 4)),
        ("2-4", (2, 4), (2, 4)),
        ("3-", (3, None), (3, None)),
        (" 7-9 ", (7, 9), (7, 9)),
    ],
)
def test_windows(
    text: str, window: tuple[int, int | None], with_first: tuple[int, int | None]
) -> None:
    assert Positions.parse(text).window(5) == window
    assert Positions.parse(text, first_token=True).window(5) == with_first


def test_a_prompt_of_one_token_has_nothing_to_steer() -> None:
    assert Positions("prompt").window(1) == (1, 1)
    assert Positions("generated").window(1) == (1, None)


@pytest.mark.parametrize("text", ["all", "prompt", "generated", "4-12", "4-"])
def test_text_round_trips(text: str) -> None:
    assert str(Positions.parse(text)) == text
    assert str(Positions.parse(text, first_token=True)) == f"{text}, first token included"


@pytest.mark.parametrize("text", ["", "some", "last", "-3", "4", "1-2-3", "All", "1.5-2"])
def test_unknown_kinds_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^\[positions\] expected all, prompt, [^\n]+$"):
        Positions.parse(text)


@pytest.mark.parametrize(
    "options",
    [
        {"start": -1},
        {"start": 3, "stop": 3},
        {"start": 5, "stop": 2},
        {"stop": 0},
        {"start": 1.5},
        {"start": "1"},
        {"stop": 2.5},
        {"first_token": "no"},
    ],
)
def test_impossible_ranges_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^\[positions\] expected [^\n]+, got "):
        Positions("range", **options)


def test_a_range_of_the_first_token_needs_the_first_token() -> None:
    """Otherwise its window is empty, and an intervention there would change nothing."""
    with pytest.raises(ValueError, match=r"^\[positions\] expected .* first_token"):
        Positions("range", 0, 1)
    assert Positions("range", 0, 1, first_token=True).window(9) == (0, 1)
