"""Row P11: ``--layers 50%-75%`` and ``--layers middle`` name blocks in every command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from _models import N_LAYERS, prompt, tiny_backend
from cogit import Activations, Additive, Intervention, Positions
from cogit.cli import infer
from cogit.cli.main import main
from cogit.identity import ModelIdentity
from cogit.interop import export_control_vector
from cogit.layers import LayerRange
from cogit.pairs import ContrastPair
from cogit.recording import make_plan

# Blocks of a model of four. The middle is 40 % .. 70 %, and block 2 lies at 62.5 %.
SHARES = {"50%-75%": [2], "middle": [2], "0,late": [0, 3]}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    words = ("bada", "guro", "meme", "lika", "sofu", "tezo", "vane", "fidu")
    rows = [{"positive": f"{w} bada meme", "negative": f"{w} guro lika"} for w in words]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize("share", SHARES)
def test_record_and_sweep(
    share: str, tiny_hf: Path, pairs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ["--model", str(tiny_hf), "--pairs", str(pairs), "--layers", share, "--json"]
    common += ["--device", "cpu", "--threads", "1"]
    assert main(["record", *common, "--out", str(tmp_path / "a.safetensors")]) == 0
    assert json.loads(capfd.readouterr().out)["layers"] == SHARES[share]
    assert Activations.load(tmp_path / "a.safetensors").layers == tuple(SHARES[share])
    assert main(["sweep", *common, "--permutations", "100"]) == 0
    rows = json.loads(capfd.readouterr().out)["layers"]
    assert [row["layer"] for row in rows] == SHARES[share]


@pytest.mark.parametrize("share", SHARES)
def test_infer_with_a_file_and_with_a_commitment(
    share: str,
    tiny_hf: Path,
    tiny_identity: ModelIdentity,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    made = Intervention.everywhere(
        Additive(np.ones(tiny_identity.d_model)), range(4), tiny_identity, strength=0.5
    )
    file = made.save(tmp_path / "i")
    common = ["--backend", "transformers", "--model", str(tiny_hf), "--layers", share, "--json"]
    common += ["--prompt", "bada guro meme", "--max-tokens", "2", "--threads", "1"]
    for more in ([], ["--intervention", str(file)]):
        assert infer.main([*common, *more]) == 0
        facts = json.loads(capfd.readouterr().out)
        assert facts["blocks"] == SHARES[share]
        assert sorted(map(int, facts["relative_change"])) == SHARES[share]


def test_a_hook_point_with_its_block_beside_a_share() -> None:
    """They agree where the share holds that block alone."""
    pairs = [ContrastPair(prompt(4, i), prompt(4, 9 + i)) for i in range(2)]
    middle = LayerRange.parse("40%-60%")
    backend = tiny_backend()
    assert middle.resolve(N_LAYERS) == (1,)
    plan = make_plan(backend, pairs, middle, hook_point="blocks.1.hook_resid_post")
    assert plan.recipe.layers == (1,)
    with pytest.raises(ValueError, match=r"expected block 2, as blocks\.2"):
        make_plan(backend, pairs, middle, hook_point="blocks.2.hook_resid_post")


def test_import_takes_the_files_numbers_alone(
    tiny_identity: ModelIdentity, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A share would be of another depth than the file's numbering."""
    made = Intervention.everywhere(
        Additive(np.ones(tiny_identity.d_model)),
        (1, 2),
        tiny_identity,
        positions=Positions(first_token=True),
    )
    like, file = made.save(tmp_path / "i"), export_control_vector(made, tmp_path / "v.gguf")
    given = ["import", str(file), "--like", str(like), "--out", str(tmp_path / "o")]
    for layers in ("50%-75%", "middle", "1,late", "all"):
        assert main([*given, "--layer", layers]) == 2
        assert "[import] expected layer numbers" in capfd.readouterr().err
    assert not (tmp_path / "o").exists()
