"""Gated interventions: files, the proof of application, exact closure, effect and cost."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from _conditional import (
    conditional_backend,
    conditional_intervention,
    conditional_set,
    off_topic,
    on_topic,
)
from _models import D_MODEL, IDENTITY, N_LAYERS, prompt, push, steering, tiny_backend, tokens, turn
from _planted import PLANTED_LAYER
from cogit import artefact, verify
from cogit.backends import hooks
from cogit.backends.gate_hook import PlacedGate
from cogit.backends.llamacpp import LlamaCppBackend
from cogit.errors import ArtefactError, InterventionError
from cogit.evaluation.evaluate import Arm, ArmResult, Evaluator
from cogit.gates import Gate, fit_learned_gate, fit_similarity_gate
from cogit.gating import fit_gates
from cogit.intervention import Intervention
from cogit.positions import Positions
from cogit.sampling import SamplingOptions

CLOSED, OPEN = 1e9, -1e9  # thresholds of a projection that no state and every state reaches
FITS: dict[str, Any] = {
    "similarity": fit_similarity_gate,
    "smooth": partial(fit_similarity_gate, measure="projection", smooth=True),
    "learned": fit_learned_gate,
    "by prompt": partial(fit_similarity_gate, scope="prompt"),
}


def gate(threshold: float = 0.0, seed: int = 0, **options: Any) -> Gate:
    rng = np.random.default_rng([seed, 7])
    return Gate(rng.standard_normal(D_MODEL), np.zeros(D_MODEL), threshold, **options)


def generated(backend: Any, n_prompts: int = 5) -> list[Any]:
    """Prompts of different lengths in one batch, so with padding on the left."""
    options = SamplingOptions(max_tokens=6, temperature=0.0)
    return [s.ids for s in backend.generate([prompt(3 + i, i) for i in range(n_prompts)], options)]


# ---- files ----


@pytest.mark.parametrize(
    "gates",
    [
        {1: gate(0.25)},
        {0: gate(0.5, measure="cosine", scope="prompt"), 2: gate(1.0, kind="learned", width=0.3)},
        {0: gate(0.1), 1: gate(0.1), 2: gate(0.2)},
    ],
)
def test_gates_round_trip(gates: dict[int, Gate], tmp_path: Path) -> None:
    saved = Intervention.everywhere(turn(), range(N_LAYERS), IDENTITY, gates=gates)
    loaded = Intervention.load(saved.save(tmp_path / "i"))
    assert list(loaded.gates) == list(gates)
    for layer, made in gates.items():
        assert loaded.gates[layer].parameters() == made.parameters()
        assert loaded.gates[layer].direction.tobytes() == made.direction.tobytes()
        assert loaded.gates[layer].mean.tobytes() == made.mean.tobytes()
    assert loaded.content_hash == saved.content_hash
    assert loaded.describe() == saved.describe()


def header(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    found: dict[str, Any] = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return found


def test_files_without_a_gate_are_what_they_were(tmp_path: Path) -> None:
    """Older readers go on reading them, and their hash keys the same caches."""
    plain = steering(tiny_backend(), [0, 2])
    file = plain.save(tmp_path / "i")
    metadata = header(file)["__metadata__"]
    assert metadata["format_version"] == "1"
    assert "gates" not in json.loads(metadata["json"])
    tensors, data = plain._parts()
    assert plain.content_hash == artefact.content_hash(
        tensors, {k: data[k] for k in ("operators", "strength", "positions")}
    )
    assert plain.gated(gate()).ungated().content_hash == plain.content_hash


def test_a_reader_that_knows_no_gates_refuses_a_gated_file(tmp_path: Path) -> None:
    """It would steer every token. Its version check is the one of every other kind."""
    file = steering(tiny_backend(), [1]).gated(gate()).save(tmp_path / "i")
    assert header(file)["__metadata__"]["format_version"] == "2"
    with pytest.raises(ArtefactError, match="expected format version 1, got 2"):
        artefact.read(file, "intervention")
    raw = file.read_bytes().replace(b'"format_version":"2"', b'"format_version":"3"')
    file.write_bytes(raw)
    with pytest.raises(ArtefactError, match=r"expected format version 1\.\.2, got 3"):
        Intervention.load(file)


def test_the_hash_sees_every_part_of_a_gate() -> None:
    base = Intervention({0: turn(), 1: turn()}, IDENTITY)
    variants = [
        base,
        base.gated(gate()),
        base.gated({0: gate()}),
        base.gated({1: gate()}),
        base.gated(gate(1e-6)),
        base.gated(gate(seed=1)),
        base.gated(replace(gate(), mean=np.full(D_MODEL, 1e-6))),
        base.gated(gate(measure="cosine")),
        base.gated(gate(scope="prompt")),
        base.gated(gate(width=0.1)),
        base.gated(gate(width=0.1, floor=0.1)),
        base.gated({0: gate(), 1: gate(seed=1)}),
    ]
    assert len({variant.content_hash for variant in variants}) == len(variants)


def test_describe_names_the_gates() -> None:
    base = Intervention.everywhere(turn(), range(3), IDENTITY)
    text = base.gated({0: gate(0.5), 1: gate(0.5), 2: gate(2.0, width=1.0)}).describe()
    assert text == (
        "unitary on blocks 0..2, strength 1, positions all, similarity gate, projection ≥ 0.5, per "
        "token at blocks 0..1, similarity gate, sigmoid((projection − 2) / 1), 0 below 0.05, per "
        "token at block 2"
    )


def test_blocks_keep_their_gates() -> None:
    base = Intervention.everywhere(turn(), range(3), IDENTITY).gated({0: gate(), 2: gate(1.0)})
    assert base.on_blocks([1, 2]).gates == {2: base.gates[2]}
    assert base.on_blocks([1]).gates == {}
    assert base.at_strength(0.3).gates == base.gates


def test_gates_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"gates on steered blocks, block 0, got one at block 1"):
        Intervention({0: turn()}, IDENTITY, gates={1: gate()})
    narrow = Gate(np.ones(3), np.zeros(3), 0.0)
    with pytest.raises(ValueError, match=r"gates of width 64 for tiny, got 3 at block 0"):
        Intervention({0: turn()}, IDENTITY, gates={0: narrow})


BAD: list[tuple[str, Any]] = [
    ("gates", {}),
    ("gates", None),
    ("gates", "all"),
    ("gates", [3]),
    ("gates.0.layer", 1),  # no operator there
    ("gates.0.layer", 2),  # twice
    ("gates.0.layer", True),
    ("gates.0.layer", ...),
    ("gates.0.name", "gate.9"),
    ("gates.0.name", None),
    ("gates.0.parameters", ...),
    ("gates.0.parameters", []),
    ("gates.0.parameters.kind", "psychic"),
    ("gates.0.parameters.kind", ["learned"]),
    ("gates.0.parameters.measure", ...),
    ("gates.0.parameters.scope", 3),
    ("gates.0.parameters.threshold", "high"),
    ("gates.0.parameters.threshold", None),
    ("gates.0.parameters.threshold", 1e300),
    ("gates.0.parameters.width", -1.0),
    ("gates.0.parameters.width", True),
    ("gates.0.parameters.floor", 1.0),
    ("gate.0.direction", ...),
    ("gate.0.direction", np.zeros(D_MODEL)),
    ("gate.0.direction", np.ones(3)),
    ("gate.0.mean", np.zeros((D_MODEL, 1))),
    ("gate.0.mean", np.zeros(D_MODEL, bool)),
    ("gate.0.mean", np.full(D_MODEL, 1e60)),
]


@pytest.mark.parametrize(("path", "value"), BAD, ids=lambda x: str(np.shape(x) or x))
def test_hostile_gates_are_refused(path: str, value: Any, tmp_path: Path) -> None:
    good = Intervention({0: turn(), 2: push()}, IDENTITY).gated(gate())
    tensors, metadata = good._parts()
    place: Any = tensors if path.startswith("gate.") else json.loads(json.dumps(metadata))
    root, key = place, path
    if not path.startswith("gate."):
        *route, key = path.split(".")
        for step in route:
            place = place[int(step)] if step.isdigit() else place[step]
        metadata = root
    if value is ...:
        del place[key]
    else:
        place[key] = value
    file = artefact.write(tmp_path / "i", "intervention", tensors, metadata, version=2)
    with pytest.raises(ArtefactError, match=r"\A\[load\] expected [^\n]+\Z"):
        Intervention.load(file)


# ---- closed and open ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("width", [0.0, 1.0], ids=["hard", "smooth"])
@pytest.mark.parametrize("scope", ["token", "prompt"])
def test_a_closed_gate_is_bit_identical_to_the_unsteered_model(
    dtype: torch.dtype, width: float, scope: str
) -> None:
    """N11, acceptance 5: logits and generated tokens, in batches with padding."""
    backend = tiny_backend(dtype=dtype)
    sequences = [tokens(4 + 3 * i, i) for i in range(4)]
    logits, ids = backend.logits(sequences), generated(backend)
    closed = steering(backend, range(N_LAYERS), turn()).gated(
        gate(CLOSED, width=width, scope=scope)
    )
    with backend.steer(closed) as found:
        assert found is not None
        assert found.gate_open == {0: 0, 1: 0, 2: 0}
        assert found.logit_change == 0.0
        for one, other in zip(backend.logits(sequences), logits, strict=True):
            assert one.tobytes() == other.tobytes()
        assert generated(backend) == ids
    # The same operators without the gate do change both.
    with backend.steer(closed.ungated()):
        assert backend.logits(sequences)[0].tobytes() != logits[0].tobytes()
        assert generated(backend) != ids


@pytest.mark.parametrize("positions", [Positions(), Positions("generated")], ids=str)
@pytest.mark.parametrize("scope", ["token", "prompt"])
def test_an_open_gate_is_the_operator(positions: Positions, scope: str) -> None:
    backend = tiny_backend()
    bare = steering(backend, [0, 2], positions=positions)
    sequences = [tokens(4 + 3 * i, i) for i in range(4)]
    with backend.steer(bare):
        logits = backend.logits(sequences, n_prompt=[2] * 4)
        ids = generated(backend)
    with backend.steer(bare.gated(gate(OPEN, scope=scope))) as found:
        assert found is not None
        assert set(found.gate_open.values()) == {found.n_positions}
        for one, other in zip(backend.logits(sequences, n_prompt=[2] * 4), logits, strict=True):
            assert one.tobytes() == other.tobytes()
        assert generated(backend) == ids


def split(backend: Any, layer: int, sequences: list[list[int]], **options: Any) -> Gate:
    """A gate that opens for about half of the tokens, or prompts, of the plain model.

    Its threshold lies amid the widest gap of the middle scores, well off rounding.
    """
    made = gate(**options)
    rows = [s[0, 1:] for s in backend.residuals(sequences, [layer])]
    if made.scope == "prompt" and len(rows) > 1:
        rows = [row.mean(axis=0, keepdims=True) for row in rows]
    score = np.sort(made.score(np.concatenate(rows)))
    middle = score[len(score) // 4 : -(len(score) // 4)]
    at = int(np.diff(middle).argmax())
    threshold = float(middle[at] + middle[at + 1]) / 2
    # A smooth gate opens where its sigmoid reaches the floor.
    return replace(made, threshold=threshold + made.threshold - made.opening_score)


def probe_ids(backend: Any) -> list[int]:
    """The tokens that verification runs."""
    return verify._probe_tokens(backend, steering(backend, [0]))[0]


@pytest.mark.parametrize("scope", ["token", "prompt"])
def test_generation_agrees_with_scoring_its_own_text(scope: str) -> None:
    """Cache, left padding and batches decide as one pass over each whole text does."""
    backend = tiny_backend()
    prompts = [prompt(3 + i, i) for i in range(6)]
    ids = [backend.tokenize(text) for text in prompts]
    gated = steering(backend, [1], push(length=6.0)).gated(split(backend, 1, ids, scope=scope))
    options = SamplingOptions(max_tokens=8, temperature=0.0, stop_at_eos=False)
    with backend.steer(gated):
        together = [sample.ids for sample in backend.generate(prompts, options)]
        alone = [backend.generate([text], options)[0].ids for text in prompts]
        assert together == alone
        for own, made in zip(ids, together, strict=True):
            (scored,) = backend.logits([[*own, *made]], n_prompt=[len(own)])
            assert [int(i) for i in scored[len(own) - 1 : -1].argmax(axis=-1)] == list(made)
        shares = []
        for own, probe in zip(ids, backend.probe(ids, [1]), strict=True):
            changed = (probe.before[0] != probe.after[0]).any(axis=-1)[1:]
            expected = gated.gates[1].factors(probe.before[0], len(own))[1:] > 0
            assert (changed == expected).all()
            shares.append(changed.mean())
    # Some tokens are steered and some are not; by prompts, all of a sequence or none.
    assert 0 < np.mean(shares) < 1
    assert scope == "token" or set(shares) == {0.0, 1.0}
    with backend.steer(gated.ungated()):
        assert [sample.ids for sample in backend.generate(prompts, options)] != together


def test_a_prompt_gate_decides_for_each_sequence_of_a_batch() -> None:
    """A row that its prompt closes stays plain to the last token beside one that opens."""
    backend = tiny_backend()
    prompts = [prompt(3 + i % 4, i) for i in range(8)]
    ids = [backend.tokenize(text) for text in prompts]
    means = np.stack([s[0, 1:].mean(axis=0) for s in backend.residuals(ids, [1])])
    score = gate().score(means)
    at = float(np.median(score))
    options = SamplingOptions(max_tokens=8, temperature=0.0, stop_at_eos=False)
    plain = [sample.ids for sample in backend.generate(prompts, options)]
    gated = steering(backend, [1], push(length=20.0)).gated(gate(at, scope="prompt"))
    with backend.steer(gated, verify=False):
        some = [sample.ids for sample in backend.generate(prompts, options)]
    with backend.steer(gated.ungated(), verify=False):
        every = [sample.ids for sample in backend.generate(prompts, options)]
    assert some == [every[i] if score[i] >= at else plain[i] for i in range(8)]
    assert plain != some != every


# ---- the proof of application ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("name", ["hard", "cosine", "smooth", "floored"])
@pytest.mark.parametrize("scope", ["token", "prompt"])
def test_gated_changes_are_verified(dtype: torch.dtype, name: str, scope: Any) -> None:
    forms: dict[str, dict[str, Any]] = {
        "hard": {},
        "cosine": {"measure": "cosine"},
        "smooth": {"width": 3.0},
        "floored": {"width": 3.0, "floor": 0.5},
    }
    options = forms[name]
    backend = tiny_backend(dtype=dtype)
    made = split(backend, 0, [probe_ids(backend)], **options)
    gated = steering(backend, range(N_LAYERS)).gated(replace(made, scope=scope))
    with backend.steer(gated) as found:
        assert found is not None
        assert found.gate_undecided == 0
        assert set(found.gate_open) == {0, 1, 2}
        if scope == "token":
            assert 0 < found.gate_open[0] < found.n_positions
        # A smooth factor may be off by what float32 loses in a score, all else by a few roundings.
        assert found.worst_error < (1e-5 if dtype == torch.float32 else 1e-2)
        assert "where the gate opens" in found.describe() or found.without_gates is not None


def test_a_gate_closed_on_all_probe_tokens_is_no_error_and_the_operator_is_proven() -> None:
    backend = tiny_backend()
    gated = steering(backend, [1]).gated(gate(CLOSED))
    with backend.steer(gated) as found:
        assert found is not None
        assert backend.intervention is gated
        assert found.relative_change == {1: 0.0}
        assert found.without_gates is not None
        assert found.without_gates.relative_change[1] > 0.05
        assert found.describe().startswith(
            "verified: gate closed on all probe tokens at block 1, logits moved by 0; without the "
            "gate block 1 steered, change "
        )


def test_a_gate_that_can_never_open_is_an_error() -> None:
    backend = tiny_backend()
    shut = gate(1.5, measure="cosine")
    mixed = steering(backend, [0, 1]).gated({1: shut})
    with (
        pytest.raises(InterventionError, match=r"gates that some state can open.* at block 1, whi"),
        backend.steer(mixed),
    ):
        pass
    assert backend.intervention is None
    alone = steering(backend, [1]).gated(shut)
    assert alone.changes_nothing()
    assert not mixed.changes_nothing()
    with backend.steer(alone, control=True) as found:
        assert found is not None
        assert found.logit_change == 0.0
    with backend.steer(mixed.at_strength(0.0)):
        pass


def test_tokens_on_the_threshold_are_left_out_and_counted() -> None:
    """A threshold put on the score of one probe token: rounding decides about it."""
    backend = tiny_backend()
    (probe,) = backend.probe([probe_ids(backend)], [1])
    score = gate().score(probe.before[0])
    for flip in (0.0, 3e-7, -3e-7):
        gated = steering(backend, [1]).gated(gate(float(score[5]) * (1 + flip)))
        with backend.steer(gated) as found:
            assert found is not None
            assert found.gate_undecided == 1
            assert "1 more within rounding of its threshold left out" in found.describe()


@contextmanager
def broken(monkeypatch: pytest.MonkeyPatch, change: Any) -> Iterator[None]:
    original = PlacedGate.strengths

    def strengths(self: PlacedGate, hidden: Any, active: Any) -> Any:
        return change(original(self, hidden, active))

    with monkeypatch.context() as patch:
        patch.setattr(PlacedGate, "strengths", strengths)
        yield


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: torch.ones_like(f), "expected no change at block 1 outside"),
        (lambda f: 1 - f, "expected no change at block 1 outside"),
        (lambda f: f.roll(1), "expected no change at block 1 outside"),
        (lambda f: 0.9 * f, "expected the analytic change at block 1"),
        (lambda f: torch.zeros_like(f), "expected a change at block 1, got none"),
        (lambda f: f + 1e-6, "expected no change at block 1 outside"),
    ],
)
def test_a_backend_that_gates_wrongly_is_caught(
    monkeypatch: pytest.MonkeyPatch, change: Any, words: str
) -> None:
    backend = tiny_backend()
    gated = steering(backend, [1]).gated(split(backend, 1, [probe_ids(backend)]))
    with backend.steer(gated) as found:
        assert found is not None
        assert 0 < found.gate_open[1] < found.n_positions
    with (
        broken(monkeypatch, change),
        pytest.raises(InterventionError) as caught,
        backend.steer(gated),
    ):
        pass
    assert words in str(caught.value)


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_a_smooth_factor_that_is_wrong_by_two_percent_is_caught(
    monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    backend = tiny_backend()
    gated = steering(backend, [1], push()).gated(gate(width=3.0))
    with (
        broken(monkeypatch, lambda f: factor * f),
        pytest.raises(InterventionError) as caught,
        backend.steer(gated),
    ):
        pass
    assert "expected the analytic change at block 1" in str(caught.value)


def test_a_backend_that_forgets_the_gate_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = tiny_backend()
    original = hooks.SteeringHooks.__init__

    def forgetful(self: Any, blocks: Any, clock: Any, intervention: Intervention) -> None:
        original(self, blocks, clock, intervention.ungated())

    monkeypatch.setattr(hooks.SteeringHooks, "__init__", forgetful)
    with (
        pytest.raises(InterventionError, match="expected no change at block 2 outside"),
        backend.steer(steering(backend, [2]).gated(gate(CLOSED))),
    ):
        pass


@pytest.mark.llamacpp
def test_llamacpp_refuses_gates_by_name(tiny_gguf: Path) -> None:
    with LlamaCppBackend(tiny_gguf, threads=1) as backend:
        bare = Intervention({1: push(backend.identity.d_model)}, backend.identity)
        with (
            pytest.raises(
                InterventionError, match=r"^\[llamacpp\] expected an .*\bblock 1: .*use "
            ),
            backend.steer(bare.gated(gate(OPEN))),
        ):
            pass
        assert backend.intervention is None
        with backend.steer(bare) as found:
            assert found is not None


# ---- effect and cost on a planted condition ----


@functools.cache
def evaluator() -> Evaluator:
    return Evaluator(conditional_backend(), conditional_set())


@functools.cache
def ungated() -> ArmResult:
    return evaluator().run(Arm.both_ways("ungated", conditional_intervention()))


@functools.cache
def fitted(name: str) -> Intervention:
    gated, _ = fit_gates(
        conditional_backend(),
        conditional_intervention(),
        on_topic(40, 1),
        off_topic(40, 2),
        fit=FITS[name],
    )
    return gated


@functools.cache
def result(name: str) -> ArmResult:
    return evaluator().run(Arm.both_ways(name, fitted(name)))


@pytest.mark.parametrize("name", FITS)
def test_gated_effect_at_half_the_neutral_divergence(name: str) -> None:
    """N11, acceptance 5, on prompts, contexts and neutral texts that no fit has seen."""
    assert ungated().lift.low > 20  # percentage points: there is an effect to keep
    assert ungated().neutral_kl > 0.1  # nats per token: and a cost to save
    assert result(name).lift.mean >= 0.9 * ungated().lift.mean
    assert result(name).lift.low <= ungated().lift.mean <= result(name).lift.high
    assert result(name).neutral_kl <= 0.5 * ungated().neutral_kl


def test_random_gates_do_not_save_what_a_fitted_one_saves() -> None:
    """The control: random directions that open for the same share of the fitting texts.

    A single draw may come near, so that the control is ten of them.
    """
    backend, gated = conditional_backend(), fitted("similarity")
    texts = [backend.tokenize(text) for text in (*on_topic(40, 1), *off_topic(40, 2))]
    rows = np.concatenate([s[0, 1:] for s in backend.residuals(texts, [PLANTED_LAYER])])
    own = gated.gates[PLANTED_LAYER]
    results = [
        evaluator().run(Arm.both_ways(f"random {seed}", gated.gated(own.randomised(seed, rows))))
        for seed in range(10)
    ]
    assert all(result("similarity").neutral_kl < 0.2 * r.neutral_kl for r in results)
    assert all(result("similarity").lift.mean >= r.lift.mean for r in results)
    assert np.mean([r.lift.mean for r in results]) < 0.75 * ungated().lift.mean
    # As much of the cost as of the texts: nothing is saved but by steering less.
    share = float((own.factor(own.score(rows)) > 0).mean())
    assert np.mean([r.neutral_kl for r in results]) > 0.5 * share * ungated().neutral_kl


def test_the_fits_say_what_they_are_worth() -> None:
    gated = fitted("learned")
    lineage = gated.lineage["gates"]
    assert lineage["ungated"] == conditional_intervention().content_hash
    assert (lineage["on"]["texts"], lineage["off"]["texts"]) == (40, 40)
    rates = lineage["fits"][str(PLANTED_LAYER)]["held_out"]
    assert rates["accuracy"]["low"] > 0.75
    assert rates["auc_p"] == 0.001
    assert 0.3 < lineage["fits"][str(PLANTED_LAYER)]["chance_accuracy"]["mean"] < 0.7
    json.dumps(gated.lineage, allow_nan=False)


def test_texts_of_one_kind_on_both_sides_are_refused() -> None:
    backend = conditional_backend()
    with pytest.raises(ValueError, match=r"^\[gate\] expected conditions that held-out texts"):
        fit_gates(backend, conditional_intervention(), off_topic(40, 3), off_topic(40, 4))
    with pytest.raises(
        ValueError, match=r"expected texts of 2 to 64 tokens \(the context\), got 1"
    ):
        fit_gates(backend, conditional_intervention(), ["", *on_topic(9, 1)], off_topic(9, 1))
    assert backend.intervention is None


def test_later_blocks_are_fitted_behind_earlier_gates() -> None:
    """The second gate's states are those that the first one leaves, not the plain model's."""
    backend = tiny_backend()
    base = steering(backend, [0, 2], push(length=4.0))
    words = {sign: [" ".join(f"w{i}" for i in row) for row in rows] for sign, rows in _rows()}
    seen: list[list[Any]] = []

    def fit(on: Any, off: Any) -> Any:
        seen.append([*on, *off])
        return fit_similarity_gate(on, off, allow_chance=True)

    gated, fits = fit_gates(backend, base, words[1], words[-1], fit=fit)
    assert list(fits) == list(gated.gates) == [0, 2]
    ids = [backend.tokenize(text) for text in (*words[1], *words[-1])]
    with backend.steer(gated.on_blocks([0]), verify=False):
        behind = [s[0, 1:] for s in backend.residuals(ids, [2])]
    plain = [s[0, 1:] for s in backend.residuals(ids, [2])]
    assert all(np.array_equal(a, b) for a, b in zip(seen[1], behind, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(seen[1], plain, strict=True))


def _rows() -> list[tuple[int, Any]]:
    rng = np.random.default_rng(0)
    return [(1, rng.integers(3, 40, (12, 5))), (-1, rng.integers(50, 90, (12, 5)))]
