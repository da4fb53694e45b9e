"""Layer ranges: half-open, 0-based, validated against the model, printed as people read them."""

from __future__ import annotations

from fractions import Fraction

import pytest

from cogit.layers import PROFILES, LayerRange, describe_blocks


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


# ---- shares of the depth ----


@pytest.mark.parametrize(
    ("text", "n_layers", "blocks"),
    [
        ("75%-100%", 32, "24-32"),
        ("75%-100%", 24, "18-24"),
        ("75%-100%", 36, "27-36"),
        ("50%-75%", 32, "16-24"),
        ("50%-75%", 24, "12-18"),
        ("50%-75%", 36, "18-27"),
        ("0%-100%", 36, "0-36"),
        ("33.3%-66.7%", 24, "8-16"),  # 7.992 and 16.008
        ("early", 32, "0-13"),
        ("middle", 32, "13-22"),
        ("late", 32, "22-32"),
        ("early", 24, "0-10"),
        ("middle", 24, "10-17"),
        ("late", 24, "17-24"),
        ("early", 36, "0-14"),
        ("middle", 36, "14-25"),
        ("late", 36, "25-36"),
        ("middle", 1, "0"),
        ("12.5%-13%", 4, "0"),
        ("0%-50%", 3, "0"),
        ("50%-100%", 3, "1-3"),
        ("early", 4, "0-2"),
        ("middle", 4, "2"),
        ("late", 3, "2"),
        ("late", 4, "3"),
        ("0, 50%-75%, 31", 32, "0,16-24,31"),
        ("early,late", 24, "0-10,17-24"),
        ("10%-30%,20%-50%", 20, "2-10"),
    ],
)
def test_shares_of_the_depth(text: str, n_layers: int, blocks: str) -> None:
    """Row P11: block i of n lies in a-b where a <= (i + 1/2)/n < b."""
    found = LayerRange.parse(text).resolve(n_layers)
    assert found == LayerRange.parse(blocks).resolve(n_layers)
    for start, stop in LayerRange.parse(text).shares:
        held = {i for i in range(n_layers) if start <= Fraction(2 * i + 1, 2 * n_layers) < stop}
        assert held <= set(found)


@pytest.mark.parametrize("n_layers", [3, 4, 24, 32, 36, 61])
def test_profiles_are_every_block_once(n_layers: int) -> None:
    """Row P11: early, middle and late leave nothing out and share nothing."""
    parts = [LayerRange.parse(name).resolve(n_layers) for name in PROFILES]
    assert [block for part in parts for block in part] == list(range(n_layers))


@pytest.mark.parametrize(
    "text", ["50%-75%", "0,4-6,12.5%-37.25%,90%-100%", "early", "0%-0.000001%"]
)
def test_shares_round_trip_as_text(text: str) -> None:
    parsed = LayerRange.parse(text)
    assert LayerRange.parse(str(parsed)) == parsed
    assert str(LayerRange.parse("late")) == "70%-100%"
    assert str(LayerRange.parse("3,50%-75%")) == "3,50%-75%"


@pytest.mark.parametrize(
    ("text", "n_layers"), [("0%-50%", 1), ("40%-60%", 4), ("late", 1), ("0,14%-20%", 4)]
)
def test_a_share_that_holds_no_block_is_an_error(text: str, n_layers: int) -> None:
    """Row P11: silently steering nothing is not an option."""
    with pytest.raises(
        ValueError, match=rf"^\[layers\] expected a share .* of {n_layers} blocks, which holds none"
    ):
        LayerRange.parse(text).resolve(n_layers)


@pytest.mark.parametrize("text", ["75%-50%", "50%-50%", "50%-101%", "0%-100.5%"])
def test_backward_shares_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^\[layers\] expected a half-open share of the depth"):
        LayerRange.parse(text)


@pytest.mark.parametrize(
    "text", ["50%", "50%-", "0.5-0.75", "50-75%", "50%-75", "-5%-20%", "1e1%-20%", "Late", "mid"]
)
def test_unreadable_shares_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^\[layers\] expected a block such as 7, .*50%-75%"):
        LayerRange.parse(text)


def test_blocks_are_checked_beside_shares() -> None:
    with pytest.raises(ValueError, match=r"block 32 is not there$"):
        LayerRange.parse("32,0%-50%").resolve(32)


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
