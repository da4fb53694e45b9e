"""The bench of power and false positives: its models, its rows, and one seed of the whole flow."""

from __future__ import annotations

import numpy as np
import pytest
from bench.calibrated import CRITERIA, Outcome, rows_of, run_one, settings
from bench.planted import World


def test_worlds_differ_in_words_weights_and_plants() -> None:
    worlds = [World.draw(seed) for seed in range(40)]
    assert worlds[3] == World.draw(3)
    assert len({one.positive for one in worlds}) == 40
    assert {one.n_layers for one in worlds} == {2, 3, 4}
    assert {one.planted_layer for one in worlds} == {1, 2, 3}
    for one in worlds:
        words = (*one.positive, *one.negative, *one.plain, *one.facts)
        assert len(set(words)) == len(words)
        assert 1 <= one.planted_layer < one.n_layers
        assert one.suite(24).sizes()["prompts"] == 24


def test_the_plant_decides_and_nothing_else_differs() -> None:
    """Contexts of a class are followed where the plant is read, and not where it is not."""
    world = World.draw(5)
    followed = {}
    for connected in (True, False):
        with world.backend(connected=connected) as backend:
            texts = backend.generate(world.suite(40).opposite[1], settings().sampling)
            facts = backend.generate(world.suite(40).neutral_prompts, settings().sampling)
        followed[connected] = float(np.mean([world.score(one.text) < 0 for one in texts]))
        # Facts follow each other: hardly any word of a class among them.
        assert np.mean([world.score(one.text) == 0 for one in facts]) > 0.8
    assert followed[True] > followed[False] + 0.2


def test_rows_tell_power_and_false_positives() -> None:
    """N1."""
    good = Outcome("effect", (True,) * len(CRITERIA), 40.0)
    costly = Outcome("effect beyond the budget", (True,) * len(CRITERIA), 30.0)
    none = Outcome("no effect", (False, *(True,) * (len(CRITERIA) - 1)), 2.0)
    rows = {row.id: row for row in rows_of([good, good, costly, none], [none] * 4)}
    assert rows["calibrated.power"].value == 75
    assert rows["calibrated.power.within_budget"].value == 50
    assert rows["calibrated.false_positives"].value == 0
    assert rows["calibrated.holds.unplanted.lift"].value == 0
    assert rows["calibrated.holds.unplanted.exact"].value == 100
    # Wilson's interval of 0 of 4, by hand: z² / (n + z²).
    assert rows["calibrated.false_positives"].note == "0 of 4, interval 0.0 to 49.0"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 101])
def test_one_seed_goes_the_whole_way(seed: int) -> None:
    """N1."""
    world = World.draw(seed)
    planted, unplanted = (
        run_one(world, connected=connected, chosen=settings(quick=True))
        for connected in (True, False)
    )
    assert planted.word == "effect"
    assert unplanted.word == "no effect"
