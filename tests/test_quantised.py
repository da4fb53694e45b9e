"""Row Q43: what quantisation does to an intervention's effect, beside full precision."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cogit.activations import record
from cogit.backends import load_backend
from cogit.cli.main import main
from cogit.demo import grammar
from cogit.demo.assets import demo_model
from cogit.errors import BackendMissingError
from cogit.intervention import Intervention
from cogit.operators import fit_operator
from cogit.quantised import Comparison, Form, Material, compare_forms, degradation
from cogit.quantised_forms import full_form, gguf_form, gguf_source, require_bitsandbytes
from cogit.subspace import fit_subspace

pytestmark = pytest.mark.llamacpp
MODEL, EIGHT = demo_model("transformers"), demo_model("llamacpp", "q8_0")
_LAYER = 3


@pytest.fixture(scope="module")
def reference() -> Iterator[Form]:
    with load_backend("transformers", MODEL, device="cpu") as backend:
        yield full_form(str(MODEL), backend, "f32")


@pytest.fixture(scope="module")
def learned(reference: Form) -> Intervention:
    pairs = grammar.contrast_pairs(24, 0, "train")
    states = record(reference.backend, pairs, show_progress=False)
    operator = fit_operator(fit_subspace(states, _LAYER), "unitary")
    return Intervention({_LAYER: operator}, states.identity)


@pytest.fixture(scope="module")
def material() -> Material:
    return Material(
        pairs=grammar.contrast_pairs(12, 0, "test"),
        neutral=grammar.facts(6, 0, "test"),
        prompts=grammar.open_prompts(3, 0, "test"),
        max_tokens=6,
        repeats=1,
    )


def noisy(amount: float) -> Form:
    """The same model with noise of a share of each matrix's size."""
    backend: Any = load_backend("transformers", MODEL, device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in backend.model.parameters():
            if weight.ndim > 1:
                noise = torch.randn(weight.shape, generator=generator)
                weight += amount * weight.std() * noise
    return full_form(str(MODEL), backend, "noisy")


def compare(
    reference: Form, other: Form, learned: Intervention, material: Material, **options: Any
) -> Comparison:
    return compare_forms(reference, [other], learned, material, show=False, **options)


def test_eight_bits_keep_the_effect(
    reference: Form, learned: Intervention, material: Material
) -> None:
    """Row Q43: less than 2 % of the effect is lost in Q8_0; logits and speed stand beside it."""
    with load_backend("llamacpp", EIGHT, n_ctx=96, threads=1) as backend:
        found = compare(reference, gguf_form(EIGHT, backend), learned, material)
    one, eight = found.results
    assert found.has_effect
    assert found.holds
    assert (one.name, eight.name) == ("transformers f32", "Q8_0")
    assert one.degradation is not None
    assert one.degradation.mean == one.plain_kl == one.steered_kl == 0.0
    assert one.effect_cosine == pytest.approx(1.0, abs=1e-12)
    assert eight.degradation is not None
    assert abs(eight.degradation.mean) < 0.02
    # As measured here, .998; the bound of cogit parity is for a probe of its own size.
    assert eight.effect_cosine > 0.99
    assert 0 < eight.plain_kl < 1e-3
    assert 0 < eight.steered_kl < 1e-3
    assert eight.perplexity == pytest.approx(one.perplexity, rel=0.05)
    assert eight.file_bytes < 0.4 * one.file_bytes
    assert eight.weight_bytes < 0.4 * one.weight_bytes
    for result in found.results:
        assert result.speed.generation > 0
        assert result.speed.prefill > 0
    assert one.speed.generation_ratio == one.speed.prefill_ratio == 1.0
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["holds"] is True


def test_a_model_that_lost_it_does_not_hold(
    reference: Form, learned: Intervention, material: Material
) -> None:
    """Able to fail: noise in the weights. Such a model may be moved more, which is no gain."""
    form = noisy(1.0)
    found = compare(reference, form, learned, material)
    form.backend.close()
    lost = found.results[1]
    assert lost.degradation is not None
    assert abs(lost.degradation.mean) > 0.3
    assert lost.effect_cosine < 0.9
    assert lost.plain_kl > 0.1
    assert not lost.holds
    assert not found.holds


def test_without_an_effect_nothing_holds(
    reference: Form, learned: Intervention, material: Material
) -> None:
    """The wrong way round: the reference's contrast is negative, and no share of it is lost."""
    backwards = learned.at_strength(-1.0)
    found = compare(reference, reference, backwards, material)
    assert not found.has_effect
    assert not found.holds
    assert [result.degradation for result in found.results] == [None, None]


def test_degradation_by_hand() -> None:
    """Known answers: a common factor has no spread, and a gain is negative."""
    base = np.array([1.0, 2.0, 3.0, 6.0])
    for factor in (0.97, 1.0, 1.1):
        found = degradation(base, factor * base)
        for value in (found.mean, found.low, found.high):
            assert value == pytest.approx(1 - factor, abs=1e-12)
    spread = degradation(base, base + np.array([0.5, -0.5, 0.5, -0.5]))
    assert spread.mean == pytest.approx(0.0, abs=1e-12)
    assert spread.low < -0.05
    assert spread.high > 0.05
    assert degradation(base, base - 0.1) == degradation(base, base - 0.1)
    for bad in (-base, base * np.nan):
        with pytest.raises(ValueError, match="expected an effect of the reference"):
            degradation(bad, base)


def test_settings_that_make_no_sense(
    reference: Form, learned: Intervention, material: Material
) -> None:
    with pytest.raises(ValueError, match="expected a threshold between 0 and 1, got 2"):
        compare(reference, reference, learned, material, threshold=2.0)
    with pytest.raises(ValueError, match="expected 2 pairs at least, got 0"):
        Material([], ["a"], ["b"])
    with pytest.raises(ValueError, match="expected repeats of at least 1, got 0"):
        Material(material.pairs, ["a"], ["b"], repeats=0)


def test_what_a_gguf_may_be(tmp_path: Path) -> None:
    assert gguf_source(str(EIGHT), "org/name") == EIGHT
    assert gguf_source("q8_0", str(MODEL)) is None
    with pytest.raises(ValueError, match=r"expected a model folder, of which q8_0 is made"):
        gguf_source("q8_0", "org/name")
    with pytest.raises(FileNotFoundError, match=r"expected a GGUF file or one of f32, f16"):
        gguf_source(str(tmp_path / "none.gguf"), str(MODEL))


def test_without_bitsandbytes_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row Q43: not installed is a line of the report, never another form in its place."""
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendMissingError, match="bitsandbytes, which is not installed"):
        require_bitsandbytes()


def test_the_command(
    learned: Intervention,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    absent = ("bitsandbytes", "accelerate")
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n in absent else found(n))
    learned.save(tmp_path / "u.safetensors")
    rows = [
        {"positive": pair.positive, "negative": pair.negative}
        for pair in grammar.contrast_pairs(6, 0, "test")
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    facts = "\n".join(grammar.facts(4, 0, "test"))
    (tmp_path / "n.txt").write_text(facts, encoding="utf-8")
    arguments = ["quantised", "--intervention", str(tmp_path / "u.safetensors")]
    arguments += ["--pairs", str(tmp_path / "p.jsonl"), "--neutral", str(tmp_path / "n.txt")]
    arguments += ["--repeats", "1", "--max-tokens", "4", "--threads", "1", "--model", str(MODEL)]
    assert main([*arguments, "--bnb", "8bit"]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("error: [quantised] expected a form to compare, got none: bitsandbytes")
    assert main([*arguments, "--gguf", str(EIGHT), "--bnb", "8bit", "--json"]) == 0
    out = json.loads(capfd.readouterr().out)
    assert [form["name"] for form in out["forms"]] == ["transformers f32", "Q8_0"]
    assert "not installed" in out["not_measured"][0]
    assert main([*arguments, "--gguf", str(EIGHT), "--max-degradation", "1e-9"]) in (0, 1)
    text = capfd.readouterr().out
    for part in (
        "lost of it",
        "cosine of the effect",
        "generation, tokens/s",
        "Q8_0: effect within 0.00% of the",
    ):
        assert part in text


@pytest.mark.slow
def test_a_type_is_made_of_the_folder(
    learned: Intervention, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Row Q43: --gguf q8_0 converts, quantises, opens and compares, and leaves nothing behind."""
    learned.save(tmp_path / "u.safetensors")
    rows = [
        {"positive": pair.positive, "negative": pair.negative}
        for pair in grammar.contrast_pairs(6, 0, "test")
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    arguments = ["quantised", "--intervention", str(tmp_path / "u.safetensors")]
    arguments += ["--pairs", str(tmp_path / "p.jsonl"), "--repeats", "1", "--threads", "1"]
    assert main([*arguments, "--gguf", "q8_0", "--gguf", "q4_k_m"]) in (0, 1)
    out, err = capfd.readouterr()
    assert "quantised    q8_0, 1.4 MiB: 43 Q8_0" in err
    assert "43 not of this type" in err
    assert "Q4_K_M: effect within 2.00% of the reference's: " in out
