"""What llama.cpp's graph takes of an intervention, and one clear line for what it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cogit import Additive, Intervention, Positions
from cogit.backends.llama_engine import LlamaEngine
from cogit.backends.llamacpp import LlamaCppBackend
from cogit.cli import infer
from cogit.cli.main import main
from cogit.errors import InterventionError
from cogit.gates import Gate
from cogit.identity import ModelIdentity
from cogit.operators import Composed, Dense, LowRank
from conftest import make_gguf, make_llama

pytestmark = pytest.mark.llamacpp

PROMPT = "bada guro meme"
WIDE = 160


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two blocks, wide enough for ranks above 128."""
    return make_gguf(make_llama(tmp_path_factory.mktemp("wide") / "m", n_layers=2, d_model=WIDE))


def lowrank(rank: int, width: int = WIDE) -> LowRank:
    rng = np.random.default_rng(rank)
    down, up = rng.standard_normal((2, rank, width)) / width**0.5
    return LowRank(down, np.zeros(rank), 0.1 * up, np.zeros(width))


def test_every_rank_up_to_the_width_lands(wide: Path) -> None:
    """Verification compares each token's change with the analytic one: no rank is too high."""
    parts = (lowrank(100), lowrank(90))
    given: dict[int, Any] = {
        **{rank: lowrank(rank) for rank in (127, 128, 129, WIDE)},
        WIDE + 1: Dense.example(WIDE, 0),
        WIDE + 2: Composed(parts, (1.0, 1.0)),
    }
    with LlamaCppBackend(wide, threads=1) as backend:
        for operator in given.values():
            made = Intervention({0: operator}, backend.identity, strength=0.5)
            with backend.steer(made) as found:
                assert found is not None
                assert found.relative_change[0] > 1e-3
        assert made.folds()[0].rank == WIDE  # 100 + 90 are no more than the width


def test_a_rank_above_the_width_is_refused_before_the_graph_sees_it(
    wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limit, rank and what to do, in one line; what was there before stays as it was."""
    with LlamaCppBackend(wide, threads=1) as backend:
        calls: list[int] = []
        monkeypatch.setattr(LlamaEngine, "set_op", lambda _, layer, affine: calls.append(layer))
        monkeypatch.setattr(LlamaEngine, "clear_ops", lambda _, layer=None: calls.append(-1))
        operators = {0: lowrank(2), 1: lowrank(WIDE + 1)}
        made = Intervention(operators, backend.identity)
        with pytest.raises(InterventionError) as error, backend.steer(made):
            pass
        message = str(error.value)
        assert message == (
            f"[llamacpp] expected operators of rank {WIDE} at most, the width, got lowrank of rank "
            f"{WIDE + 1} at block 1; use --backend transformers, or an operator of lower rank"
        )
        assert not calls
        assert backend.intervention is None


@pytest.fixture
def gated(tiny_identity: ModelIdentity, tmp_path: Path) -> Path:
    width = tiny_identity.d_model
    always = Gate(np.ones(width), np.zeros(width), -1e9)
    made = Intervention.everywhere(
        Additive(np.ones(width)), (1, 2), tiny_identity, positions=Positions(first_token=True)
    )
    return made.gated({2: always}).save(tmp_path / "gated.safetensors")


@pytest.mark.parametrize("command", ["infer", "parity", "reverse", "export", "vectors"])
def test_commands_refuse_a_gated_file_in_one_line(
    command: str,
    gated: Path,
    tiny_hf: Path,
    tiny_gguf: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Row N11: naming the block, and what to do; nothing is printed or written."""
    file, out = str(gated), tmp_path / "out"
    prompts = tmp_path / "prompts"
    prompts.write_text(f"{PROMPT}\n{PROMPT} bada\n", encoding="utf-8")
    model = ["--backend", "llamacpp", "--model", str(tiny_gguf), "--threads", "1"]
    both = ["--model", str(tiny_hf), "--gguf", str(tiny_gguf), "--threads", "1"]
    given = {
        "infer": [*model, "--intervention", file, "--prompt", PROMPT],
        "parity": ["parity", *both, "--intervention", file, "--prompt", PROMPT],
        "reverse": ["reverse", *model, "--intervention", file, "--prompts", str(prompts)],
        "export": ["export", file, "--out", str(out.with_suffix(".gguf"))],
        "vectors": ["export", file, "--out", str(out.with_suffix(".safetensors"))],
    }[command]
    assert (infer.main if command == "infer" else main)(given) == 2
    printed, err = capfd.readouterr()
    assert not printed
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert errors == err.splitlines()[-1:]
    assert "block 2" in errors[0]
    assert "gate" in errors[0]
    assert "; " in errors[0]
    assert not list(tmp_path.glob("out*"))
