"""Recorded states with a planted direction, made of Gaussians: no model is needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cogit.activations import Activations
from cogit.identity import ModelIdentity


@dataclass(frozen=True)
class Plant:
    """What is planted: width, half the class separation in units of the noise along it, seed."""

    d_model: int
    separation: float
    seed: int
    n_pairs: int = 60


# Wider states need more separation: the noise of a mean over n pairs has a norm of (d / 2n)^½ in
# units of the noise, and a direction that is mostly noise is no planted truth.
PLANTS = tuple(
    Plant(d_model, separation, seed)
    for seed, (d_model, separation) in enumerate(
        [
            (16, 1.5),
            (16, 3.0),
            (24, 2.0),
            (32, 2.5),
            (48, 2.0),
            (64, 2.5),
            (96, 3.0),
            (128, 3.0),
            (192, 3.5),
            (256, 4.0),
            (384, 5.0),
            (512, 6.0),
        ]
    )
)


def planted_states(plant: Plant) -> Activations:
    """Two blocks of states: a shared mean and shared variation much larger than the contrast.

    Block 1 holds the planted direction; block 0 has no contrast but chance.
    """
    rng = np.random.default_rng([plant.seed, plant.d_model])
    d, n = plant.d_model, plant.n_pairs
    mean = 3.0 * rng.standard_normal(d)
    mixing = rng.standard_normal((min(8, d), d))
    common = mean + rng.standard_normal((2, n, len(mixing))) @ mixing
    direction = rng.standard_normal(d)
    # Pairs share their variation, so that the contrast stands against the noise alone.
    half = plant.separation * direction / np.linalg.norm(direction)
    noise = rng.standard_normal((2, 2, n, d))
    shift = np.stack([np.zeros(d), half])[:, None]
    identity = ModelIdentity("planted states", "gaussian", 2, d, 0)
    positive, negative = common + shift + noise[0], common - shift + noise[1]
    # The shared variation is taken off the direction: it would count as noise along it.
    along = direction / np.linalg.norm(direction)
    spread = ((common - mean) @ along)[..., None] * along
    return Activations(
        (positive - spread).astype(np.float32),
        (negative - spread).astype(np.float32),
        (0, 1),
        4,
        identity,
    )
