"""The complex projection: encoding, decoding and its file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _models import rows
from cogit import artefact
from cogit.errors import ArtefactError
from cogit.projection import DECODES, LINEAR_DECODES, Projection

D, Q = 24, 40


@pytest.fixture(scope="module")
def projection() -> Projection:
    return Projection.draw(D, quantum_dim=Q, seed=7)


def test_columns_and_states_have_unit_norm(projection: Projection) -> None:
    """Q5."""
    norms = np.linalg.norm(projection.matrix, axis=0)
    np.testing.assert_allclose(norms, 1.0, atol=1e-5)
    states, lengths = projection.encode(rows(50, D))
    np.testing.assert_allclose(np.linalg.norm(states, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(lengths, np.linalg.norm(rows(50, D), axis=1), rtol=1e-6)


def test_a_seed_gives_the_same_bits_everywhere(projection: Projection) -> None:
    """Q5: drawn on the host in a fixed order, so a digest from one machine holds on all."""
    again = Projection.draw(D, quantum_dim=Q, seed=7)
    assert again.matrix.tobytes() == projection.matrix.tobytes()
    assert not np.array_equal(Projection.draw(D, quantum_dim=Q, seed=8).matrix, again.matrix)
    digest = hashlib.sha256(projection.matrix.tobytes()).hexdigest()
    assert digest[:16] == "63a7cc201094d57c"


def test_width_is_the_ratio_or_as_given() -> None:
    assert Projection.draw(100).quantum_dim == 260
    assert Projection.draw(100, ratio=1.5).quantum_dim == 150
    wide = Projection.draw(100, quantum_dim=120)
    assert (wide.input_dim, wide.quantum_dim, wide.ratio, wide.lost_range) == (100, 120, 1.2, 0)
    assert Projection.draw(100, quantum_dim=60).lost_range == 40


@pytest.mark.parametrize("q", [D, D + 1, Q, 100])
@pytest.mark.parametrize("method", LINEAR_DECODES)
def test_decode_undoes_encode_with_the_norm(method: str, q: int) -> None:
    """Q7."""
    projection = Projection.draw(D, quantum_dim=q, seed=3)
    h = 7.0 * rows(50, D).astype(np.float64) + 3.0
    got = projection.decode(*projection.encode(h), method)
    assert np.linalg.norm(got - h, axis=1).max() <= 1e-4 * np.linalg.norm(h, axis=1).max()
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), np.linalg.norm(h, axis=1), rtol=1e-9)


def test_the_default_decode_is_the_real_component(projection: Projection) -> None:
    """Q7, against a pseudo-inverse written out."""
    states = np.linalg.qr(np.random.default_rng(0).standard_normal((Q, 5)) + 1j)[0].T
    z = states @ np.linalg.pinv(projection.matrix.astype(np.complex128))
    norms = np.arange(1.0, 6.0)
    expected = {
        "real_component": z.real,
        "real_imag_avg": (z.real + z.imag) / 2,
        "absolute": np.abs(z),
        "magnitude": np.abs(z),
        "born_rule": np.abs(z) ** 2,
    }
    assert set(expected) == set(DECODES)
    for method, value in expected.items():
        scaled = value * (norms / np.linalg.norm(value, axis=1))[:, None]
        np.testing.assert_allclose(projection.decode(states, norms, method), scaled, atol=1e-9)
    np.testing.assert_array_equal(
        projection.decode(states, norms), projection.decode(states, norms, "real_component")
    )


def test_decodes_that_lose_signs(projection: Projection) -> None:
    """Q7: they are no inverse; both are known functions of the row, at its norm."""
    h = rows(20, D).astype(np.float64)
    encoded = projection.encode(h)
    np.testing.assert_allclose(projection.decode(*encoded, "magnitude"), np.abs(h), atol=1e-8)
    squares = h**2 * (np.linalg.norm(h, axis=1) / np.linalg.norm(h**2, axis=1))[:, None]
    np.testing.assert_allclose(projection.decode(*encoded, "born_rule"), squares, atol=1e-8)


def test_an_unknown_decode_names_the_valid_ones(projection: Projection) -> None:
    """Q7."""
    with pytest.raises(ValueError, match=r"expected a method among real_component.*born_rule, got"):
        projection.decode(*projection.encode(rows(2, D)), "phase")


def test_a_narrow_projection_loses_range_only_when_asked() -> None:
    """Q7: q < d."""
    narrow = Projection.draw(D, quantum_dim=16, seed=3)
    h = rows(20, D).astype(np.float64)
    encoded = narrow.encode(h)
    with pytest.raises(ValueError, match="8 dimensions are lost"):
        narrow.decode(*encoded)
    got = narrow.decode(*encoded, lossy=True)
    shape = narrow.matrix.astype(np.complex128)
    kept = (h @ shape @ np.linalg.pinv(shape)).real
    cosine = (got * kept).sum(axis=1) / np.linalg.norm(got, axis=1) / np.linalg.norm(kept, axis=1)
    np.testing.assert_allclose(cosine, 1.0, atol=1e-9)


def test_positions_and_batches_do_not_mix(projection: Projection) -> None:
    """Q8: (batch, position, d) as it is; a perturbed position changes itself alone."""
    h = rows(2 * 7, D).reshape(2, 7, D).astype(np.float64)
    together = projection.decode(*projection.encode(h))
    assert together.shape == h.shape
    for i in range(2):
        alone = projection.decode(*projection.encode(h[i]))
        np.testing.assert_allclose(together[i], alone, atol=1e-12)
    other = h.copy()
    other[1, 3] += 5.0
    changed = np.abs(projection.encode(other)[0] - projection.encode(h)[0]).max(axis=-1) > 1e-9
    assert np.argwhere(changed).tolist() == [[1, 3]]


def test_zeros_stay_zeros(projection: Projection) -> None:
    states, norms = projection.encode(np.zeros((2, D)))
    assert not states.any()
    assert not projection.decode(states, norms).any()


# ---- file ----


def test_file_round_trip(projection: Projection, tmp_path: Path) -> None:
    """Q6: fidelity of states through a saved projection; here it is exact."""
    loaded = Projection.load(projection.save(tmp_path / "p.safetensors"))
    assert loaded.facts() == projection.facts()
    assert set(loaded.facts()) == {"input_dim", "quantum_dim", "seed", "ratio"}
    assert loaded.matrix.tobytes() == projection.matrix.tobytes()
    before, after = (p.encode(rows(20, D))[0] for p in (projection, loaded))
    fidelity = np.abs((before.conj() * after).sum(axis=1)) ** 2
    assert (fidelity > 0.9999).all()
    unseeded = Projection(projection.matrix).save(tmp_path / "u.safetensors")
    assert Projection.load(unseeded).seed is None


@pytest.mark.parametrize(
    "broken",
    [
        {"input_dim": D + 1},
        {"quantum_dim": Q - 1},
        {"quantum_dim": "40"},
        {"seed": "7"},
        {"input_dim": None},
    ],
)
def test_files_of_other_dimensions_are_refused(
    projection: Projection, tmp_path: Path, broken: dict[str, Any]
) -> None:
    """Q6."""
    file = tmp_path / "p.safetensors"
    artefact.write(file, "projection", projection.tensors(), {**projection.facts(), **broken})
    with pytest.raises(ArtefactError, match=r"^\[load\] expected a projection in"):
        Projection.load(file)


def test_files_with_missing_or_other_parts_are_refused(
    projection: Projection, tmp_path: Path
) -> None:
    parts, facts = projection.tensors(), projection.facts()
    file = tmp_path / "p.safetensors"
    for tensors in (
        {"projection_real": parts["projection_real"]},
        {**parts, "projection_imag": parts["projection_imag"][:-1]},
        {**parts, "projection_real": 2 * parts["projection_real"]},
    ):
        artefact.write(file, "projection", tensors, facts)
        with pytest.raises(ArtefactError, match="expected a projection in"):
            Projection.load(file)
    artefact.write(file, "subspace", parts, facts)
    with pytest.raises(ArtefactError, match="expected a file of kind projection"):
        Projection.load(file)
    short = {name: value for name, value in facts.items() if name != "seed"}
    artefact.write(file, "projection", parts, short)
    with pytest.raises(ArtefactError, match="seed"):
        Projection.load(file)


def test_wrong_dimensions_are_refused(projection: Projection) -> None:
    """Q6."""
    with pytest.raises(ValueError, match=f"expected rows of width {D} for {D} x {Q}"):
        projection.encode(np.zeros((3, D + 1)))
    with pytest.raises(ValueError, match=f"expected states of width {Q} for {D} x {Q}"):
        projection.decode(np.zeros((3, D)), np.ones(3))
    with pytest.raises(ValueError, match="expected rows of width"):
        projection.encode(np.float64(1.0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Projection(np.ones((4, 5))),
        lambda: Projection(np.full((4, 5), np.nan)),
        lambda: Projection(np.ones(4)),
        lambda: Projection(np.zeros((0, 4))),
        lambda: Projection.draw(0),
        lambda: Projection.draw(4, quantum_dim=0),
        lambda: Projection.draw(2**20, quantum_dim=2**20),
        lambda: Projection(np.full((2, 2), 0.5**0.5)).pseudo_inverse,
    ],
)
def test_what_is_no_projection(make: Any) -> None:
    with pytest.raises(ValueError, match=r"^\[projection\] expected [^\n]+, got [^\n]+"):
        make()
