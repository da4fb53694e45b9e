"""Groups of pairs that share a text: connected components of equal recorded states."""

from __future__ import annotations

import numpy as np
import pytest

from cogit.pair_groups import count_groups, group_pairs, members


def numbered(positive: list[int], negative: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """A state for each number: equal numbers are equal texts."""
    table = np.random.default_rng(0).standard_normal((32, 4)).astype(np.float32)
    return table[positive], table[negative]


def test_pairs_of_their_own_keep_their_numbers() -> None:
    groups = group_pairs([numbered([0, 1, 2, 3], [4, 5, 6, 7])])
    np.testing.assert_array_equal(groups, [0, 1, 2, 3])
    assert groups.dtype == np.int64


def test_chains_are_one_group_numbered_by_their_first_pair() -> None:
    """0-3 by a negative, 3-1 by a positive, 2 alone, 4-5 by a text of the other class."""
    groups = group_pairs([numbered([0, 1, 2, 1, 3, 9], [10, 11, 12, 10, 13, 3])])
    np.testing.assert_array_equal(groups, [0, 0, 1, 0, 2, 2])
    assert count_groups(groups) == 3
    assert [list(rows) for rows in members(groups)] == [[0, 1, 3], [2], [4, 5]]


def test_a_text_is_shared_only_where_it_is_equal_at_every_block() -> None:
    """Last tokens can coincide at an early block, where nothing of the text has been read yet."""
    early = numbered([0, 0, 0], [0, 0, 0])
    late = numbered([1, 2, 3], [4, 5, 4])
    np.testing.assert_array_equal(group_pairs([early]), [0, 0, 0])
    np.testing.assert_array_equal(group_pairs([early, late]), [0, 1, 0])


def test_states_that_do_not_match_are_refused() -> None:
    three, two = numbered([1, 2, 3], [4, 5, 6]), numbered([1, 2], [4, 5])
    with pytest.raises(ValueError, match="3 matched pairs at every block, got 2"):
        group_pairs([three, two])
    with pytest.raises(ValueError, match="at least one pair"):
        group_pairs([])
