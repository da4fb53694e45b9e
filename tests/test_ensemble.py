"""The ensemble of extractors: both consensus formulas, shares, agreement, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from _states import states
from cogit.extractors import angle, extract


@pytest.mark.parametrize("combine", ["mean", "svd"])
def test_an_ensemble_of_agreeing_members_is_them(combine: str) -> None:
    """Row P8: on states that differ along one axis alone all members agree."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((30, 8))
    push = np.eye(8)[2]
    found = extract(
        shared + push,
        shared - push,
        "ensemble",
        members=("mean_difference", "pca"),
        combine=combine,
    )
    np.testing.assert_allclose(found.direction, push, atol=1e-7)
    assert found.spectrum == pytest.approx([1.0])
    assert found.details["angles"] == {"mean_difference, pca": pytest.approx(0.0, abs=1e-5)}


def test_ensemble_mean_is_its_formula() -> None:
    """Row P8: shares .7 and .3 of the sign-aligned members."""
    positive, negative = states(15)
    one, other = (extract(positive, negative, m) for m in ("mean_difference", "probe"))
    found = extract(
        positive, negative, "ensemble", members=("mean_difference", "probe"), weights=(7, 3)
    )
    total = 0.7 * one.direction + 0.3 * other.direction
    np.testing.assert_allclose(found.direction, total / np.linalg.norm(total), atol=1e-12)
    assert found.spectrum == pytest.approx([np.linalg.norm(total)])
    assert found.details["shares"] == pytest.approx({"mean_difference": 0.7, "probe": 0.3})
    between = angle(one.direction, other.direction)
    assert found.details["angles"] == {"mean_difference, probe": pytest.approx(between)}
    assert between > 1


def test_ensemble_svd_is_the_eigenvector_of_the_weighted_projections() -> None:
    positive, negative = states(15)
    members = ("mean_difference", "probe", "pca")
    rows = [extract(positive, negative, m).direction for m in members]
    shares = np.array([0.5, 0.3, 0.2])
    found = extract(positive, negative, "ensemble", members=members, weights=shares, combine="svd")
    values, vectors = np.linalg.eigh(
        sum(w * np.outer(d, d) for w, d in zip(shares, rows, strict=True))
    )
    assert found.spectrum == pytest.approx(values[-1:])
    assert abs(found.direction @ vectors[:, -1]) == pytest.approx(1.0, abs=1e-12)
    assert len(found.details["angles"]) == 3


def test_ensemble_passes_options_on() -> None:
    positive, negative = states(15)
    found = extract(positive, negative, "ensemble", options={"contrastive_pca": {"alpha": 0.25}})
    assert found.details["members"]["contrastive_pca"] == {"alpha": 0.25}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": ("pca",)}, r"two or more different members, none of them ensemble, got pca"),
        ({"members": ("pca", "pca")}, "two or more different members"),
        ({"members": ("pca", "ensemble")}, "two or more different members"),
        ({"members": ("pca", "other")}, r"a method among contrastive_pca, .* got 'other'"),
        ({"weights": (1.0, 2.0)}, "expected 3 weights"),
        ({"weights": (1.0, 2.0, -1.0)}, "none negative"),
        ({"weights": (0.0, 0.0, 0.0)}, "not all zero"),
        ({"weights": (1.0, 2.0, np.nan)}, "none negative"),
        ({"combine": "vote"}, "expected combine mean or svd, got 'vote'"),
        ({"options": {"pca": {}}}, "got some of pca"),
    ],
)
def test_ensembles_that_are_none_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^\[(ensemble|extract)\] .*{message}"):
        extract(*states(10), "ensemble", **options)
