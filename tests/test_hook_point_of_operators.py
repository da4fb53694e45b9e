"""Operators act at the ends of blocks: what was read elsewhere is refused, moved or said."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _models import planted
from cogit import Activations, artefact
from cogit.autofit import Recipe
from cogit.cli.main import main
from cogit.errors import ArtefactError
from cogit.operators import _FITTED as KINDS
from cogit.operators import fit_operator
from cogit.subspace import Subspace, fit_subspace
from cogit.sweep import sweep_layers
from cogit.sweep_report import to_markdown
from cogit.sweep_result import Sweep


def recorded(hook_point: str, layer: int = 2) -> Activations:
    """Planted states, as if read at a hook point of a block of a model of four."""
    states = planted()
    identity = replace(states.identity, n_layers=4)
    return replace(states, layers=(layer,), identity=identity, hook_point=hook_point)


def test_a_subspace_keeps_its_hook_point(tmp_path: Path) -> None:
    made = fit_subspace(recorded("mlp_out"), 2)
    assert (made.hook_point, made.lineage["hook_point"]) == ("mlp_out", "mlp_out")
    found = Subspace.load(made.save(tmp_path / "s"))
    assert found.hook_point == "mlp_out"
    assert found.content_hash == made.content_hash
    assert replace(made, hook_point="resid_post").content_hash != made.content_hash


def test_files_of_before_the_entry_and_hostile_ones(tmp_path: Path) -> None:
    tensors, data = artefact.read(
        fit_subspace(recorded("mlp_out"), 2).save(tmp_path / "s"), "subspace"
    )
    older = {name: value for name, value in data.items() if name != "hook_point"}
    assert Subspace.load(artefact.write(tmp_path / "o", "subspace", tensors, older)).hook_point == (
        "mlp_out"
    )
    for bad in (3, "elsewhere", None):
        file = artefact.write(tmp_path / "b", "subspace", tensors, {**data, "hook_point": bad})
        with pytest.raises(ArtefactError, match=r"^\[load\] expected a subspace"):
            Subspace.load(file)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_fits_refuse_other_hook_points(kind: str) -> None:
    """By the function of all kinds and by each class's own."""
    for point, where in (("resid_pre", "resid_post of block 1"), ("mlp_out", "assume=True")):
        subspace = fit_subspace(recorded(point), 2)
        for fit in (functools.partial(fit_operator, kind=kind), KINDS[kind]):
            with pytest.raises(
                ValueError, match=rf"^\[fit\] expected.*{point} of block 2.*"
            ) as error:
                fit(subspace)
            assert where in str(error.value)
            assert "\n" not in str(error.value)
            assert fit(subspace.at_block_end(assume=True)).kind == kind


@pytest.mark.parametrize("method", ["plane", "margin"])
def test_recipes_refuse_too(method: str) -> None:
    with pytest.raises(ValueError, match=r"^\[fit\] expected a subspace of resid_post"):
        Recipe(method=method).fit_states(recorded("attn_out"), 2)


def test_the_start_of_a_block_is_the_end_of_the_one_before() -> None:
    start = fit_subspace(recorded("resid_pre"), 2)
    moved = start.at_block_end()
    assert (moved.layer, moved.hook_point) == (1, "resid_post")
    np.testing.assert_array_equal(moved.basis, start.basis)
    assert moved.lineage == start.lineage  # which says resid_pre
    end = fit_subspace(recorded("resid_post"), 2)
    assert end.at_block_end() is end
    first = fit_subspace(recorded("resid_pre", 0), 0)
    with pytest.raises(ValueError, match="resid_pre of block 0; record resid_post"):
        first.at_block_end()
    assert first.at_block_end(assume=True).layer == 0
    assert fit_subspace(recorded("mlp_out"), 2).at_block_end(assume=True).layer == 2


def test_commands_show_and_refuse(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = recorded("mlp_out").save(tmp_path / "a")
    given = ["subspace", "--activations", str(file)]
    assert main([*given, "--layer", "2", "--json", "--out", str(tmp_path / "s")]) == 0
    assert json.loads(capfd.readouterr().out)["hook_point"] == "mlp_out"
    assert main([*given, "--layer", "2"]) == 0
    assert "mlp_out" in capfd.readouterr().out
    assert main([*given, "--layers", "all"]) == 0
    assert "mlp_out" in capfd.readouterr().out.splitlines()[0]
    for source in (["--activations", str(file)], ["--subspace", str(tmp_path / "s")]):
        assert main(["fit", *source, "--out", str(tmp_path / "f")]) == 2
        last = capfd.readouterr().err.splitlines()[-1]
        assert last.startswith("error: [fit] expected a subspace of resid_post")
    assert not (tmp_path / "f").exists()


def test_a_sweep_names_its_hook_point(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    states = recorded("mlp_out")
    sweep = sweep_layers(states, permutations=20)
    assert sweep.hook_point == "mlp_out"
    assert "mlp_out of block 2" in sweep.describe()
    assert "states at mlp_out" in to_markdown(sweep)
    facts = sweep.to_json()
    assert Sweep.from_json(facts) == sweep
    del facts["hook_point"]
    assert Sweep.from_json(facts).hook_point == "resid_post"
    with pytest.raises(ArtefactError, match="hook_point"):
        Sweep.from_json({**facts, "hook_point": 1})
    file = states.save(tmp_path / "a")
    assert main(["sweep", "--activations", str(file), "--permutations", "20", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["hook_point"] == "mlp_out"
    assert main(["sweep", "--activations", str(file), "--permutations", "20"]) == 0
    assert "states at mlp_out" in capfd.readouterr().out


def block_of(sweep: Sweep) -> list[int]:
    return [row.layer for row in sweep.layers]


def test_a_sweep_takes_shares_of_the_depth() -> None:
    """Row P11."""
    from cogit.layers import LayerRange

    one = planted()
    identity = replace(one.identity, n_layers=4)
    pair: list[Any] = [np.repeat(x, 4, axis=0) for x in (one.positive, one.negative)]
    states = replace(
        one, positive=pair[0], negative=pair[1], layers=(0, 1, 2, 3), identity=identity
    )
    for text, blocks in (("50%-75%", [2]), ("middle", [2]), ("0,50%-100%", [0, 2, 3])):
        assert block_of(sweep_layers(states, LayerRange.parse(text), permutations=100)) == blocks
    few = replace(states, positive=pair[0][:2], negative=pair[1][:2], layers=(0, 1))
    with pytest.raises(ValueError, match="record the others first"):
        sweep_layers(few, LayerRange.parse("50%-75%"), permutations=100)
