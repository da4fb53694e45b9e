"""Layer ranges: half-open, 0-based, validated against the model, printed as people read them."""

from __future__ import annotations

import pytest

from cogit.layers import LayerRange, describe_blocks


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("24-32", tuple(range(24, 32))),
        ("7", (7,)),
        ("0", (0,)),
        ("0,4,8-12", (0, 4, 8, 9, 10, 11)),
        (" 3 - 5 , 1 ", (1, 3, 4)),
        ("2,2,1-3", (1, 2)),
        ("007", (7,)),
    ],
)
def test_parse(text: str, blocks: tuple[int, ...]) -> None:
    assert LayerRange.parse(text).blocks == blocks
    assert LayerRange.parse(text).resolve(32) == blocks


def test_the_last_eight_blocks() -> None:
    assert LayerRange.parse("24-32").resolve(32) == (24, 25, 26, 27, 28, 29, 30, 31)


def test_all_is_whatever_the_model_has() -> None:
    everything = LayerRange.parse("all")
    assert everything.resolve(3) == (0, 1, 2)
    assert everything.resolve(32) == tuple(range(32))
    assert str(everything) == "all"


@pytest.mark.parametrize("text", ["24-32", "7", "0,4,8-12", "0-2,3", "all"])
def test_text_round_trips(text: str) -> None:
    parsed = LayerRange.parse(text)
    assert LayerRange.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "a", "-1", "1-", "-", "1-2-3", "1.5", "١", "1 000000", "ALL", "1;2"]
)
def test_unreadable_ranges_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^\[layers\] expected a block such as 7, [^\n]+$"):
        LayerRange.parse(text)


@pytest.mark.parametrize(("text", "meant"), [("8-4", "4..8 are written 4-9"), ("5-5", "5-6")])
def test_a_backward_range_says_how_to_write_it(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match=r"^\[layers\] expected a half-open range") as caught:
        LayerRange.parse(text)
    assert meant in str(caught.value)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("24-33", "block 32 is not there"),
        ("32", "block 32 is not there"),
        ("30-40", "blocks 32..39 are not there"),
        ("0,50,99", "blocks 50, 99 are not there"),
    ],
)
def test_blocks_that_the_model_lacks_are_named(text: str, missing: str) -> None:
    with pytest.raises(
        ValueError, match=r"^\[layers\] expected blocks of this model, 0\.\.31 "
    ) as caught:
        LayerRange.parse(text).resolve(32)
    assert str(caught.value).endswith(f"got {text}; {missing}")


def test_of() -> None:
    assert LayerRange.of([5, 1, 5]).blocks == (1, 5)
    with pytest.raises(ValueError, match=r"block -1 is not there$"):
        LayerRange.of([-1]).resolve(4)


@pytest.mark.parametrize(
    ("blocks", "text"),
    [
        ((24, 25, 26), "blocks 24..26"),
        ((3,), "block 3"),
        ((0, 2), "blocks 0, 2"),
        ((4, 0, 1, 2), "blocks 0..2, 4"),
    ],
)
def test_describe_blocks(blocks: tuple[int, ...], text: str) -> None:
    assert describe_blocks(blocks) == text
