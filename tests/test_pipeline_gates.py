"""A failing fixture for each gate: what must stop the pipeline does (row Q31)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests._pipeline import backend, copied, material, plan, run

from cogit.activations import Activations
from cogit.pipeline.dims import resolve_dims
from cogit.pipeline.gates import Context, GateFailed, run_gate
from cogit.pipeline.lineages import lineages_of
from cogit.pipeline.plan import PHASES
from cogit.pipeline.record_phase import holm, separation


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gates") / "run"
    run(folder)
    return folder


def context(folder: Path) -> Context:
    one, texts, model = plan(), material(), backend()
    dims, _ = resolve_dims(one, model.identity)
    return Context(folder, one, dims, lineages_of(one, dims, texts, model), model)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def stopped(folder: Path, phase: str) -> str:
    with pytest.raises(GateFailed) as caught:
        run_gate(phase, context(folder))
    text = str(caught.value)
    assert text.startswith(f"gate P{PHASES.index(phase) + 1} ({phase}): ")
    assert "\n" not in text
    assert ": expected " in text
    assert ", found " in text
    return text


def test_a_whole_run_passes_every_gate(whole: Path) -> None:
    for phase in PHASES:
        assert all(check.holds for check in run_gate(phase, context(whole)))


@pytest.mark.parametrize("phase", PHASES)
def test_results_of_another_run_stop_every_gate(whole: Path, tmp_path: Path, phase: str) -> None:
    """Row Q31: files that another lineage left do not pass, nor does a folder without any."""
    folder = copied(whole, tmp_path / "run")
    edit(folder / phase / "lineage.json", lambda data: data.update(fingerprint="00000000"))
    assert "found 00000000" in stopped(folder, phase)
    (folder / phase / "lineage.json").unlink()
    assert "does not exist" in stopped(folder, phase)


def test_p1_states_and_spaces(whole: Path, tmp_path: Path) -> None:
    """Row Q31: states and subspace exist, and have the model's dimensions."""
    folder = copied(whole, tmp_path / "run") / "record"
    (folder / "subspace-3.safetensors").unlink()
    assert "subspace of block 3" in stopped(folder.parent, "record")
    (folder / "fit.safetensors").write_bytes(b"half")
    assert "states in fit.safetensors" in stopped(folder.parent, "record")


def test_p1_classes_that_do_not_differ(whole: Path, tmp_path: Path) -> None:
    """Row Q31: held-out pairs with their classes shuffled are not told apart."""
    from cogit.training.flips import shuffle_classes

    fit, unseen = (
        Activations.load(whole / "record" / f"{name}.safetensors") for name in ("fit", "held_out")
    )
    assert separation(fit, unseen)["p_holm"] < 1e-3
    folder = copied(whole, tmp_path / "run")
    facts = separation(fit, shuffle_classes(unseen, 0))
    (folder / "record" / "separation.json").write_text(json.dumps(facts), encoding="utf-8")
    assert "classes told apart: expected p < 0.05" in stopped(folder, "record")


def test_holm_by_hand() -> None:
    """Holm (1979): .01 x 3, .02 x 2, .04 x 1, never falling."""
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.6, 0.5]) == [1.0, 1.0]


@pytest.mark.parametrize("way", ["to_positive", "to_negative"])
def test_p2_fidelity_of_either_direction(whole: Path, tmp_path: Path, way: str) -> None:
    """Row Q31: > 0.85 in **both** directions."""
    folder = copied(whole, tmp_path / "run")
    edit(folder / "fit" / "fit.json", lambda data: data["fidelity"][way].update(trained=0.84))
    assert f"fidelity {way.replace('_', ' ')}: expected above 0.85" in stopped(folder, "fit")
    edit(folder / "fit" / "fit.json", lambda data: data["fidelity"].pop(way))
    assert "found none" in stopped(folder, "fit")


def test_p2_control_margin(whole: Path, tmp_path: Path) -> None:
    """ "What those systems got wrong", 3: fidelity alone passes nothing; controls decide."""
    names = list(json.loads((whole / "fit" / "fit.json").read_text(encoding="utf-8"))["criteria"])
    assert "contrast above every shuffled fit's" in names
    for number, name in enumerate(names):
        folder = copied(whole, tmp_path / f"run{number}")
        edit(folder / "fit" / "fit.json", lambda data, n=name: data["criteria"].update({n: False}))
        assert f"control margin: {name}" in stopped(folder, "fit")
    folder = copied(whole, tmp_path / "run")
    flips = {"rate": 0.1, "identity": 0.1}
    edit(folder / "fit" / "fit.json", lambda data: data["flips_of_both"].update(to_negative=flips))
    assert "flips to negative" in stopped(folder, "fit")


def test_p2_operator_of_this_run(whole: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path / "run")
    other = (folder / "fit" / "additive.safetensors").read_bytes()
    (folder / "fit" / "learned.safetensors").write_bytes(other)
    assert "operators of this run" in stopped(folder, "fit")
    (folder / "fit" / "learned.safetensors").unlink()
    assert "operators of this run" in stopped(folder, "fit")


def test_p3_continuations(whole: Path, tmp_path: Path) -> None:
    """Row Q31, and "what those systems got wrong", 11: cut by ids, not by characters."""
    folder = copied(whole, tmp_path / "run")
    path = folder / "generate" / "continuations.json"

    def tail(data: Any) -> None:
        one = data["results"][0]
        one["baseline"] = one["prompt"][-5:] + one["baseline"]

    edit(path, tail)
    assert "cut by token ids" in stopped(folder, "generate")
    edit(path, lambda data: data.update(results=[]))
    assert "continuations: expected some of both directions" in stopped(folder, "generate")
    folder = copied(whole, tmp_path / "other")
    edit(
        folder / "generate" / "continuations.json",
        lambda data: data["config"].update(intervention="0" * 64),
    )
    assert "operator and model" in stopped(folder, "generate")
    folder = copied(whole, tmp_path / "ids")
    edit(folder / "generate" / "tokens.json", lambda data: data["continuations"].pop())
    assert "which has no ids" in stopped(folder, "generate")


def test_p4_evaluation(whole: Path, tmp_path: Path) -> None:
    """Row Q31: results of **this** run, with a verdict, arms and exact controls."""
    wrong: dict[str, Callable[[Any], Any]] = {
        "evaluation of this run": lambda d: d["intervention"].update(hash="0" * 64),
        "verdict": lambda d: d.update(verdict="great"),
        "no random": lambda d: d.update(arms=[a for a in d["arms"] if a["role"] != "random"]),
        "controls exact": lambda d: next(a for a in d["arms"] if a["role"] == "identity").update(
            neutral_kl=0.5
        ),
    }
    for number, (name, change) in enumerate(wrong.items()):
        folder = copied(whole, tmp_path / f"run{number}")
        edit(folder / "evaluate" / "evaluation.json", change)
        assert name in stopped(folder, "evaluate")
    (folder / "evaluate" / "evaluation.json").write_text("[]", encoding="utf-8")
    assert "expected a JSON object" in stopped(folder, "evaluate")


def test_p4_takes_no_effect_for_a_result(whole: Path, tmp_path: Path) -> None:
    """The verdict is no gate: "no effect" is a result too."""
    folder = copied(whole, tmp_path / "run")
    edit(folder / "evaluate" / "evaluation.json", lambda d: d.update(verdict="no effect"))
    run_gate("evaluate", context(folder))


def test_p5_controls(whole: Path, tmp_path: Path) -> None:
    """Row Q28: the identity and shuffled controls are there, and the identity undoes nothing."""
    wrong: dict[str, Callable[[Any], Any]] = {
        "reverse report: expected operator": lambda d: d.update(content_hash="0"),
        "identity control": lambda d: d["layers"][0]["identity"].update(edit=0.2),
        "found 'shuffled'": lambda d: d["layers"][0].pop("shuffled"),
        "shuffled control": lambda d: d["layers"][0]["source_report"]["round_trip"].update(
            shuffled=None
        ),
    }
    for number, (name, change) in enumerate(wrong.items()):
        folder = copied(whole, tmp_path / f"run{number}")
        edit(folder / "reverse" / "reverse.json", change)
        assert name in stopped(folder, "reverse")


def test_the_schedule_of_a_preset_is_in_the_lineage() -> None:
    """Equal widths and epochs do not make two presets the same training; nor does another k."""

    def prints(**changes: Any) -> dict[str, str]:
        one = plan(
            **{"method": "born-adam", "angle": None, "gain": None, "q": 8, "epochs": 2, **changes}
        )
        dims, _ = resolve_dims(one, backend().identity)
        found = lineages_of(one, dims, material(plan()), backend())
        return {name: lineage.fingerprint for name, lineage in found.items()}

    tiny, local = prints(preset="tiny"), prints(preset="local", prompts_per_class=10)
    assert tiny["record"] == local["record"]
    assert tiny["fit"] != local["fit"]
    assert prints(k=3)["fit"] == tiny["fit"]
    assert prints(k=3)["evaluate"] != tiny["evaluate"]


def test_nothing_compared_is_no_pass(whole: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path / "run")
    edit(folder / "fit" / "fit.json", lambda data: data.update(criteria={}))
    assert "controls compared" in stopped(folder, "fit")

    def unmeasured(data: Any) -> None:
        next(arm for arm in data["arms"] if arm["role"] == "identity")["neutral_kl"] = None

    edit(folder / "evaluate" / "evaluation.json", unmeasured)
    assert "controls exact" in stopped(folder, "evaluate")
    edit(folder / "reverse" / "reverse.json", lambda data: data.update(layers=[]))
    assert "reverse report" in stopped(folder, "reverse")
