"""cogit subspace: one block to a file, or a table of blocks; protected directions by file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _models import planted
from cogit import Activations
from cogit.cli.main import main
from cogit.cli.subspace import Method, Weights
from cogit.extractors import WEIGHT_METHODS, registered
from cogit.identity import ModelIdentity
from cogit.subspace import Subspace, fit_subspace


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Four recorded blocks of a model of eight; the classes coincide at the first."""
    parts = [planted(30, 16, seed=seed) for seed in range(4)]
    positive, negative = (
        np.stack([getattr(part, name)[0] for part in parts]) for name in ("positive", "negative")
    )
    positive[0] = negative[0]
    identity = ModelIdentity("planted", "none", 8, 16, 96)
    states = Activations(positive, negative, (0, 2, 4, 7), 4, identity)
    return states.save(tmp_path / "states.safetensors")


def run(
    capfd: pytest.CaptureFixture[str], recorded: Path, *arguments: object, code: int = 0
) -> tuple[str, str]:
    given = ["subspace", "--activations", str(recorded), *map(str, arguments)]
    assert main(given) == code
    out, err = capfd.readouterr()
    return out, err


def facts(capfd: pytest.CaptureFixture[str], recorded: Path, *arguments: object) -> dict[str, Any]:
    out, _ = run(capfd, recorded, *arguments, "--json")
    found: dict[str, Any] = json.loads(out)
    return found


def test_choices_are_the_registered_ones() -> None:
    """Row P8: whoever adds an extractor adds it here."""
    assert {method.value for method in Method} == set(registered())
    assert {weights.value for weights in Weights} == set(WEIGHT_METHODS)


@pytest.mark.parametrize("method", list(Method))
def test_one_block_to_a_file(
    recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], method: Method
) -> None:
    out = tmp_path / "s.safetensors"
    found = facts(capfd, recorded, "--layer", 4, "--k", 2, "--method", method.value, "--out", out)
    made = Subspace.load(out)
    expected = fit_subspace(Activations.load(recorded), 4, k=2, method=method.value)
    np.testing.assert_array_equal(made.basis, expected.basis)
    assert found["file"] == str(out)
    assert found["content_hash"] == made.content_hash
    assert (found["layer"], found["method"], found["pairs"], found["k"]) == (4, method.value, 30, 2)
    assert found["half_separation"] == made.half_separation
    assert found["spectrum"] == made.spectrum.tolist()
    assert found["angle_to_mean_difference"] == made.lineage["angle_to_mean_difference"]
    assert found["probe"]["accuracy"] > found["probe"]["chance_95"] > found["probe"]["chance"]
    assert found["fallback"] is False
    assert (found["agreement"] is None) == (method is not Method.ensemble)
    assert (found["leading_component_angle"] is None) == (method is not Method.contrastive_pca)


def test_what_people_read(
    recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "spectrum.png"
    out, err = run(
        capfd, recorded, "--layer", 2, "--method", "ensemble", "--weights", "rank", "--plot", plot
    )
    for part in (
        "2 of planted, 30 pairs",
        "ensemble, alpha 1, 8 columns",
        "from the mean difference",
        "of a state's norm",
        "mean_difference, probe",
        "held-out pairs, chance 0.5",
        "none written; give --out",
    ):
        assert part in out
    weights = next(line for line in out.splitlines() if line.startswith("weights"))
    assert len(weights.split(",")) == 8
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert not err
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "spectrum.png",
        "spectrum.png.run.json",
        "states.safetensors",
    ]


def test_a_plot_is_what_its_name_says(
    recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, start in (("a.PNG", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")):
        run(capfd, recorded, "--layer", 2, "--plot", tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)


def test_protected_directions_by_file(
    recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Row P9: the direction of a file, its first columns, or all of them; several files."""
    other, odd = tmp_path / "other.safetensors", tmp_path / "odd:3"
    run(capfd, recorded, "--layer", 2, "--k", 2, "--out", other)
    run(capfd, recorded, "--layer", 7, "--k", 1, "--out", odd)
    basis, odd_basis = Subspace.load(other).basis, Subspace.load(odd).basis
    for given, protected in (
        ([other], basis[:, :1]),
        ([f"{other}:3"], basis[:, :3]),
        ([f"{other}:all"], basis),
        ([other, f"{odd}:2"], np.column_stack([basis[:, :1], odd_basis])),
    ):
        flags = [part for one in given for part in ("--protect", one)]
        out = tmp_path / "clear"
        # The two blocks have one planted axis: the mean difference is left in part.
        found = facts(
            capfd,
            recorded,
            "--layer",
            4,
            "--k",
            2,
            "--method",
            "probe",
            *flags,
            "--out",
            out,
            "--force",
        )
        assert found["protected"] == protected.shape[1]
        assert np.abs(protected.T @ Subspace.load(out).basis).max() < 1e-6


def test_a_table_of_all_blocks(
    recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A block where the classes coincide has its reason; the others their figures."""
    before = sorted(tmp_path.iterdir())
    found = facts(capfd, recorded, "--layers", "all")
    assert [row["layer"] for row in found["layers"]] == [0, 2, 4, 7]
    assert "zero norm" in found["layers"][0]["reason"]
    alone = facts(capfd, recorded, "--layer", 4)
    assert found["layers"][2] == alone
    out, err = run(capfd, recorded, "--layers", "all")
    lines = out.splitlines()
    assert len(lines) == 5
    assert "probe" in lines[0]
    assert "zero norm" in lines[1]
    assert not err
    assert sorted(tmp_path.iterdir()) == before


def test_blocks_by_share_and_list(recorded: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Row P11."""
    rows = facts(capfd, recorded, "--layers", "2,50%-60%")["layers"]
    assert [row["layer"] for row in rows] == [2, 4]
    _, err = run(capfd, recorded, "--layers", "late", code=2)
    assert "expected a recorded block (0, 2, 4, 7), got 6" in err


def test_a_fallback_is_said(
    recorded: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row P5: on standard error, in the figures, and refused by --strict."""

    def fail(matrix: Any, full_matrices: bool = True) -> Any:
        message = "SVD did not converge"
        raise np.linalg.LinAlgError(message)

    monkeypatch.setattr(np.linalg, "svd", fail)
    one = ("--layer", 2, "--method", "pca")
    out, err = run(capfd, recorded, *one, "--json")
    assert json.loads(out)["fallback"] is True
    assert json.loads(out)["reason"] == "SVD did not converge"
    assert err.startswith("warning")
    assert err.count("\n") == 1
    assert "SVD did not converge; the mean difference of the finite pairs is used" in err
    out, _ = run(capfd, recorded, *one)
    assert "fell back        to the mean difference: SVD did not converge" in out
    out, _ = run(capfd, recorded, "--layers", "2,4", "--method", "pca")
    assert out.count("fell back: SVD did not converge") == 2
    _, err = run(capfd, recorded, *one, "--strict", code=2)
    assert "SVD did not converge" in err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "expected --layer for one block or --layers for a table"),
        (["--layer", "2", "--layers", "all"], "one of them"),
        (["--layers", "all", "--out", "x"], "--layers writes nothing"),
        (["--layers", "all", "--plot", "x"], "--layers writes nothing"),
        (["--layer", "3"], "expected a recorded block (0, 2, 4, 7), got 3"),
        (["--layer", "0"], "expected two classes with different means at block 0"),
        (["--layers", "0"], "expected two classes with different means at block 0"),
        (["--layers", "all", "--k", "9"], "expected 1 <= k <= 8"),
        (["--layer", "2", "--method", "magic"], "'magic' is not one of"),
        (["--layer", "2", "--alpha", "-1"], "alpha of zero or more"),
        (["--layer", "2", "--method", "pca", "--alpha", "2"], "no alpha with pca"),
        (["--layer", "2", "--temperature", "2"], "temperature with weights only"),
        (["--layer", "2", "--protect", "absent"], "absent, which does not exist"),
        (["--layer", "2", "--out", "absent/s.safetensors"], "expected an existing folder"),
    ],
)
def test_wrong_flags_are_one_line(
    recorded: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    out, err = run(capfd, recorded, *arguments, code=2)
    assert not out
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert part in err


def test_protected_files_that_do_not_fit(
    recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wide = fit_subspace(planted(10, 20), 0, k=1).save(tmp_path / "wide")
    own = fit_subspace(Activations.load(recorded), 2, k=1).save(tmp_path / "own")
    for given, part in (
        (wide, "expected directions of width 16, got 20 in "),
        (f"{own}:3", "expected 1..2 columns of "),
        (f"{own}:0", "expected 1..2 columns of "),
        (recorded, "expected a file of kind subspace, got activations"),
        (own, "expected directions outside the span of the protected ones"),
    ):
        _, err = run(capfd, recorded, "--layer", 2, "--protect", given, code=2)
        assert part in err
