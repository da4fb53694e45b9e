"""Gates by themselves: the formula, fits on planted conditions, and what chance makes of them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cogit.backends.gate_hook import PlacedGate
from cogit.backends.hooks import TokenClock
from cogit.gates import Gate, assess, fit_learned_gate, fit_similarity_gate, wilson
from cogit.gates.fits import best_threshold, logistic
from cogit.gates.rates import area_under_curve

D = 24
GATES = {
    "hard projection": Gate(np.eye(D)[0], np.zeros(D), 0.3),
    "hard cosine": Gate(3 * np.eye(D)[1], np.ones(D), 0.1, measure="cosine"),
    "smooth": Gate(np.ones(D), np.full(D, 0.1), 1.0, width=2.0),
    "smooth cosine": Gate(np.eye(D)[2], np.zeros(D), 0.0, measure="cosine", width=0.1),
    "no floor": Gate(np.ones(D), np.zeros(D), 0.0, "learned", width=1.0, floor=0.0),
}


def states(n: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


# ---- the formula ----


def test_a_hard_gate_is_a_step() -> None:
    gate = Gate([0.0, 2.0], [1.0, 1.0], 3.0)  # type: ignore[arg-type]
    h = [[0, 2.4], [0, 2.5], [9, 2.6]]
    assert gate.score(h).tolist() == pytest.approx([2.8, 3.0, 3.2])
    assert gate.factors(h, 3).tolist() == [0.0, 1.0, 1.0]


def test_a_cosine_gate_does_not_see_lengths() -> None:
    gate = Gate([2.0, 0.0], [0.0, 1.0], 0.5, measure="cosine")  # type: ignore[arg-type]
    assert gate.score([[1, 1], [50, 1], [1, 2], [0, 1]]).tolist() == pytest.approx(
        [1.0, 1.0, 0.5**0.5, 0.0]
    )


def test_a_smooth_gate_is_a_sigmoid_with_a_floor_of_exactly_zero() -> None:
    gate = Gate(np.ones(1), np.zeros(1), 1.0, width=0.5, floor=0.05)
    found = gate.factors([[1.0], [2.0], [-0.4], [-0.5], [-900.0], [900.0]], 6)
    expected = [0.5, 1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(2.8)), 0.0, 0.0, 1.0]
    assert found.tolist() == pytest.approx(expected)
    assert found[3] == found[4] == 0.0
    edge = gate.opening_score
    assert gate.factor([edge + 1e-6, edge - 1e-6]).tolist() == pytest.approx([0.05, 0.0], abs=1e-5)


def test_a_prompt_gate_decides_once_by_the_prompt() -> None:
    gate = Gate(np.ones(1), np.zeros(1), 0.5, scope="prompt")
    rows = [[100.0], [0.0], [1.0], [-7.0]]
    assert gate.factors(rows, 3).tolist() == [1.0] * 4  # the mean of 0 and 1, first token left out
    assert gate.factors(rows, 2).tolist() == [0.0] * 4
    assert gate.factors(rows, 1).tolist() == [1.0] * 4  # nothing but the first token
    assert gate.factors(rows[:1], 3).tolist() == [1.0]


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("scope", ["token", "prompt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_torch_computes_the_same_factors(name: str, scope: Any, dtype: torch.dtype) -> None:
    """Within the bounds that verification allows for rounding, padding on either side."""
    gate = replace(GATES[name], scope=scope)
    lengths, prompts = [5, 9, 1, 7], [3, 9, 1, 2]
    mask = torch.zeros(4, 9, dtype=torch.long)
    for row, n in enumerate(lengths):
        mask[row, 9 - n :] = 1
        if row == 3:
            mask[row] = mask[row].flip(0)
    hidden = torch.from_numpy(states(36)).reshape(4, 9, D).to(dtype)
    hidden[mask == 0] = torch.nan  # what padding holds does not count
    clock = TokenClock()
    clock.before_forward(None, (mask,), {"attention_mask": mask})  # type: ignore[arg-type]
    clock.forced_prompt = prompts
    placed = PlacedGate(gate, clock, torch.device("cpu"))
    placed.watch(hidden)
    found = placed.strengths(hidden, mask.reshape(-1).float()).reshape(4, 9)
    assert found.dtype == torch.float32
    assert not found[mask == 0].any()
    for row, n_prompt in enumerate(prompts):
        rows = hidden[row][mask[row] == 1].float().numpy()
        low, high = gate.bounds(rows, n_prompt)
        assert (low <= gate.factors(rows, n_prompt)).all()
        own = found[row][mask[row] == 1].numpy()
        # The sigmoid itself rounds too.
        assert ((own >= low - 1e-6) & (own <= high + 1e-6)).all()
        assert (high - low).max() < 1e-3


def test_a_score_does_not_depend_on_the_batch() -> None:
    """A hard gate must not flip because another prompt shares the batch."""
    gate = Gate(states(1)[0], states(1, 1)[0], 0.0, measure="cosine")
    placed = PlacedGate(gate, TokenClock(), torch.device("cpu"))
    rows = torch.from_numpy(states(400, 2))[None]
    together = placed.scores(rows)
    alone = torch.cat([placed.scores(rows[:, i : i + 1]) for i in range(400)], dim=1)
    assert torch.equal(together, alone)


def test_held_prompts_of_another_batch_are_refused() -> None:
    clock = TokenClock()
    placed = PlacedGate(replace(GATES["smooth"], scope="prompt"), clock, torch.device("cpu"))
    hidden = torch.zeros(2, 1, D)
    with pytest.raises(ValueError, match=r"^\[gate\] expected the prompts .* got none; begin "):
        placed.strengths(hidden, None)
    ids = torch.ones(3, 2, dtype=torch.long)
    clock.before_forward(None, (ids,), {})  # type: ignore[arg-type]
    placed.watch(torch.zeros(3, 2, D))
    with pytest.raises(ValueError, match="got those of 3 sequences"):
        placed.strengths(hidden, None)
    cache = SimpleNamespace(get_seq_length=lambda: 2)
    clock.before_forward(None, (ids[:, :1],), {"past_key_values": cache})  # type: ignore[arg-type]
    placed.watch(torch.zeros(3, 1, D))  # a call that continues decides nothing
    assert len(placed.strengths(torch.zeros(3, 1, D), None)) == 3


def test_bounds_are_wide_on_the_threshold_only() -> None:
    gate = Gate(np.eye(D)[0], np.zeros(D), 1.0)
    rows = np.zeros((3, D))
    rows[:, 0] = [1.0, 1.0 + 1e-4, 1.0 - 1e-4]
    low, high = gate.bounds(rows, 3)
    assert low.tolist() == [0.0, 1.0, 0.0]
    assert high.tolist() == [1.0, 1.0, 0.0]


def test_gates_that_can_never_open() -> None:
    never = Gate(np.ones(D), np.zeros(D), 1.01, measure="cosine")
    assert not never.can_open()
    assert replace(never, threshold=1.0).can_open()
    assert not replace(never, threshold=2.0, width=0.1).can_open()
    assert replace(never, threshold=2.0, width=0.1, floor=0.0).can_open()
    assert replace(never, measure="projection").can_open()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"direction": np.zeros(D)}, "a direction other than zero"),
        ({"direction": np.full(D, 1e-60)}, "a direction other than zero"),
        ({"direction": np.ones((D, 1))}, "direction of shape (d_model,), got (24, 1)"),
        ({"direction": np.full(D, np.nan)}, "finite float32 values in direction"),
        ({"mean": np.full(D, 1e60)}, "finite float32 values in mean"),
        ({"mean": np.zeros(D - 1)}, "mean and direction of one width, got 23 and 24"),
        ({"mean": np.zeros(0)}, "mean of shape (d_model,), got (0,)"),
        ({"mean": np.zeros(D, complex)}, "real numbers in mean, got complex128"),
        ({"threshold": np.inf}, "a finite threshold"),
        ({"threshold": 1e60}, "a finite threshold"),
        ({"width": -1.0}, "a finite width of at least 0"),
        ({"floor": 1.0}, "a floor in [0, 1), got 1.0"),
        ({"floor": np.nan}, "a floor in [0, 1), got nan"),
        ({"kind": "psychic"}, "kind among similarity, learned, random, got 'psychic'"),
        ({"measure": "angle"}, "measure among projection, cosine, got 'angle'"),
        ({"scope": "page"}, "scope among token, prompt, got 'page'"),
    ],
)
def test_refused(options: dict[str, Any], words: str) -> None:
    base = {"direction": np.ones(D), "mean": np.zeros(D), "threshold": 0.0}
    with pytest.raises((ValueError, TypeError), match=r"^\[gate\] expected ") as caught:
        Gate(**{**base, **options})
    assert words in str(caught.value)


@pytest.mark.parametrize("name", GATES)
def test_a_random_gate_opens_as_often(name: str) -> None:
    gate, rows = GATES[name], states(1000)
    share = float((gate.factor(gate.score(rows)) > 0).mean())
    drawn = [gate.randomised(seed, rows) for seed in range(3)]
    for control in drawn:
        # The threshold is rounded to float32, which a row next to it may notice.
        assert (control.factor(control.score(rows)) > 0).mean() == pytest.approx(share, abs=2e-3)
        assert control.kind == "random"
        cosine = control.direction @ gate.direction
        cosine /= np.linalg.norm(control.direction) * np.linalg.norm(gate.direction)
        assert abs(cosine) < 0.8
    assert len({control.direction.tobytes() for control in drawn}) == 3


# ---- rates ----


def test_wilson_intervals() -> None:
    """Known values: Wilson's interval of 8 of 10 and of 0 of 10 (Newcombe 1998, method 3)."""
    found = wilson(0.8, 10)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    found = wilson(0.0, 10)
    assert (found.low, found.high) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(1.0, 7).high == 1.0
    for share, n in ((0.5, 0), (1.1, 3), (-0.1, 3)):
        with pytest.raises(ValueError, match=r"^\[wilson\] expected "):
            wilson(share, n)


def test_area_under_curve() -> None:
    """Against the count of all pairs, and with p-values of 1 in the number of labellings."""
    on, off = np.array([2.0, 3.0, 3.0]), np.array([1.0, 2.0, 3.0, 0.0])
    pairs = np.subtract.outer(on, off)
    for texts in ([on], [off]), (list(on[:, None]), list(off[:, None])):
        area, _ = area_under_curve(*texts)
        assert area == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    apart = [np.array([9.0, i]) for i in range(8, 12)], [np.full(50, i) for i in (0.0, 1, 2, 3)]
    area, p_value = area_under_curve(*apart)
    assert area == 1.0
    # 1 of 70 labellings, among 999 draws.
    assert p_value == pytest.approx(1 / 70, abs=0.01)
    assert area_under_curve(apart[1], apart[0]) == (0.0, 1.0)


def test_intervals_count_texts_and_not_tokens() -> None:
    gate = Gate(np.ones(1), np.zeros(1), 0.5)
    on = [np.ones((50, 1)), np.zeros((1, 1))]
    rates = assess(gate, on, [np.zeros((9, 1))] * 3)
    assert rates.true_positive.value == 0.5
    assert (rates.true_positive.n, rates.false_positive.n) == (2, 3)
    assert rates.accuracy.value == 0.75


# ---- fits ----


def condition(
    separation: float, n: int = 30, seed: int = 0, tokens: int = 6
) -> tuple[list[Any], list[Any]]:
    """Texts whose tokens differ along the first axis, under larger noise along the second."""
    rng = np.random.default_rng([seed, n])
    made = []
    for sign in (1, -1):
        texts = [rng.standard_normal((tokens, D)) + 5.0 for _ in range(n)]
        for text in texts:
            text[:, 0] += sign * separation / 2
            text[:, 1] += 6 * rng.standard_normal()
        made.append(texts)
    return made[0], made[1]


FITS: dict[str, Any] = {
    "cosine": lambda *x, **o: fit_similarity_gate(*x, **o),
    "projection": lambda *x, **o: fit_similarity_gate(*x, measure="projection", **o),
    "smooth": lambda *x, **o: fit_similarity_gate(*x, smooth=True, **o),
    "learned": lambda *x, **o: fit_learned_gate(*x, **o),
}


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("scope", ["token", "prompt"])
def test_a_planted_condition_is_found(name: str, scope: str) -> None:
    fit = FITS[name](*condition(6.0), scope=scope)
    assert fit.decides
    assert fit.gate.scope == scope
    assert fit.n_train == (20, 20)
    rates = fit.held_out
    assert rates.true_positive.n == rates.false_positive.n == 10
    assert rates.auc > 0.85
    assert rates.accuracy.value > 0.8
    assert rates.accuracy.low > fit.chance.value
    assert rates.factor_on > rates.factor_off + 0.5
    assert 0.3 < fit.chance.value < 0.7
    assert 0.0 <= fit.chance.low <= fit.chance.high <= 1.0
    assert fit.gate.kind == ("learned" if name == "learned" else "similarity")
    assert "held out: opens on " in fit.describe()


def test_a_logistic_gate_ignores_a_loud_coordinate() -> None:
    """The noise of whole texts along the second axis misleads a mean difference, not a fit."""
    fit = fit_learned_gate(*condition(6.0), n_coordinates=4)
    assert abs(fit.gate.direction[1]) < 0.1 * abs(fit.gate.direction[0])
    assert fit.held_out.accuracy.value > 0.98


@pytest.mark.parametrize("name", FITS)
def test_conditions_that_do_not_differ_are_refused(name: str) -> None:
    """Of 100 seeds of pure noise at most 11 pass: more happen 1 in 100 times at a level of 5 %."""
    noise = [condition(0.0, n=15, seed=seed, tokens=3) for seed in range(100)]
    fits = [FITS[name](*texts, allow_chance=True) for texts in noise]
    assert sum(fit.decides for fit in fits) <= 11
    assert np.mean([fit.held_out.auc for fit in fits]) == pytest.approx(0.5, abs=0.05)
    undecided = next(i for i, fit in enumerate(fits) if not fit.decides)
    with pytest.raises(
        ValueError, match=r"^\[gate\] expected conditions that held-out texts tell "
    ):
        FITS[name](*noise[undecided])


def test_rates_come_from_texts_that_the_fit_has_not_seen() -> None:
    """With as many coordinates as texts training accuracy is perfect, held-out is chance."""
    fit = fit_learned_gate(
        *condition(0.0, n=12), n_coordinates=D, allow_chance=True, scope="prompt"
    )
    assert abs(fit.held_out.accuracy.value - 0.5) < 0.4
    assert not fit.decides


@pytest.mark.parametrize("width", [D, 300], ids=["narrow", "wide"])
def test_states_that_hardly_vary_make_no_noise_loud(width: int) -> None:
    """Two axes vary, eight are asked for: the direction stays within the two."""
    rng = np.random.default_rng(0)
    made = []
    for sign in (1, -1):
        texts = [np.full((4, width), 7.0) for _ in range(12)]
        for text in texts:
            text[:, 0] += sign + 0.1 * rng.standard_normal(4)
            text[:, 1] += rng.standard_normal(4)
        made.append(texts)
    fit = fit_learned_gate(*made)
    assert fit.held_out.accuracy.value == 1.0
    assert np.abs(fit.gate.direction[2:]).max() < 1e-6 * abs(fit.gate.direction[0])


def test_fits_are_the_same_again_and_differ_by_seed() -> None:
    for name, fit in FITS.items():
        first, again, other = (fit(*condition(6.0), seed=s) for s in (0, 0, 1))
        assert first.gate.parameters() == again.gate.parameters(), name
        assert first.to_json() == again.to_json(), name
        assert first.gate.threshold != other.gate.threshold, name


def test_the_best_threshold() -> None:
    on, off = np.array([3.0, 4.0, 9.0]), np.array([0.0, 1.0, 3.5])
    # Between 1 and 3 all of on are above and one of off is; so it is from 3.5 to 4, but for one.
    assert best_threshold(on, off) == 2.0
    assert best_threshold(on, off, max_false_positive=0.1) == 3.75
    assert best_threshold(off, on, max_false_positive=0.0) > 9.0  # closed
    assert best_threshold(np.ones(3), np.ones(3), max_false_positive=0.0) > 1.0


def test_false_positives_are_bounded_on_the_training_texts() -> None:
    on, off = condition(4.0)
    strict = fit_similarity_gate(on, off, max_false_positive=0.02)
    loose = fit_similarity_gate(on, off)
    assert strict.held_out.false_positive.value < 0.1
    assert strict.held_out.false_positive.value < loose.held_out.false_positive.value
    with pytest.raises(ValueError, match=r"expected max_false_positive in \[0, 1\], got 2"):
        fit_similarity_gate(on, off, max_false_positive=2.0)


def test_the_logistic_fit_is_a_minimum() -> None:
    """The gradient of the stated loss, written out again, vanishes at the fit."""
    rng = np.random.default_rng(0)
    on, off = rng.standard_normal((40, 3)) + 0.7, rng.standard_normal((90, 3))
    weights, bias = logistic(on, off)
    scale = np.concatenate([on, off]).std(axis=0)
    pull_on = (1 / (1 + np.exp(on @ weights + bias))) / (2 * len(on))
    pull_off = (1 / (1 + np.exp(-(off @ weights + bias)))) / (2 * len(off))
    assert pull_on.sum() == pytest.approx(pull_off.sum(), abs=1e-6)
    gradient = (pull_off @ off - pull_on @ on) / 1.0 + 0.01 * weights * scale**2
    assert np.abs(gradient).max() < 1e-5


@pytest.mark.parametrize(
    ("on", "off", "options", "words"),
    [
        (5, 9, {}, "at least 8 texts of each condition, got 5 on the condition"),
        (9, 5, {}, "at least 8 texts of each condition, got 5 off the condition"),
        (9, 9, {"held_out": 0.0}, "a held-out share between 0 and 1, got 0.0"),
        (9, 9, {"held_out": 1.0}, "a held-out share between 0 and 1, got 1.0"),
    ],
)
def test_fits_refuse(on: int, off: int, options: dict[str, Any], words: str) -> None:
    texts = condition(6.0)
    for fit in FITS.values():
        with pytest.raises(ValueError, match=r"^\[gate\] expected ") as caught:
            fit(texts[0][:on], texts[1][:off], **options)
        assert words in str(caught.value)


def test_fits_refuse_states_that_are_none() -> None:
    on, off = condition(6.0)
    for wrong in (np.zeros((0, D)), np.full((2, D), np.nan), np.zeros((2, 3, D)), np.zeros((2, 5))):
        with pytest.raises(ValueError, match=r"^\[gate\] expected (finite )?states "):
            fit_similarity_gate([*on, wrong], off)
    with pytest.raises(ValueError, match="n_coordinates >= 1, got 0"):
        fit_learned_gate(on, off, n_coordinates=0)
