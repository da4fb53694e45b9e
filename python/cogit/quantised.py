"""What quantisation does to steering: the same intervention on the same model in fewer bits.

The reference is the model in full precision. Every other form of it runs the same token ids, plain
and steered, and is compared in its effect, its logits, its perplexity and its speed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.evaluation.measures import log_likelihoods, token_divergence
from cogit.evaluation.statistics import RESAMPLES, Interval, bootstrap_mean
from cogit.evaluation.teacher_forced import TeacherForced
from cogit.intervention import Intervention
from cogit.pairs import ContrastPair
from cogit.parity import require_same_tokens
from cogit.progress import track
from cogit.sampling import SamplingOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.backends import Backend

THRESHOLD = 0.02
_LONG, _SHORT = 256, 4


@dataclass(frozen=True)
class Form:
    """A model in one precision, loaded. file_bytes: on disk; weight_bytes: of its tensors."""

    name: str
    backend: Backend
    file_bytes: int
    weight_bytes: int


@dataclass(frozen=True)
class Material:
    """What is measured on. pairs: none of those that the intervention was fitted to.

    prompts are continued greedily by the reference for ``max_tokens``, and these tokens are then
    run through every form. repeats: of the timings, after one that does not count.
    """

    pairs: Sequence[ContrastPair]
    neutral: Sequence[str]
    prompts: Sequence[str]
    max_tokens: int = 16
    repeats: int = 5

    def __post_init__(self) -> None:
        least = {"pairs": 2, "neutral": 1, "prompts": 1}
        for name, n in least.items():
            if len(getattr(self, name)) < n:
                message = (
                    f"[quantised] expected {n} {name} at least, got {len(getattr(self, name))}"
                )
                raise ValueError(message)
        for name in ("max_tokens", "repeats"):
            if getattr(self, name) < 1:
                message = f"[quantised] expected {name} of at least 1, got {getattr(self, name)}"
                raise ValueError(message)


@dataclass(frozen=True)
class Speed:
    """Medians of interleaved, steered runs of one sequence, in tokens per second.

    generation: new tokens behind a prompt of a few tokens; prefill: a prompt with one new token.
    The ratios are to the reference, medians over rounds.
    """

    generation: float
    prefill: float
    generation_ratio: float
    prefill_ratio: float


@dataclass(frozen=True)
class FormResult:
    """One form of the model beside the reference, whose own row compares it with itself.

    contrast: teacher-forced, nats per pair, the effect of steering both ways (see TeacherForced).
    degradation: the share of the reference's contrast that is lost, 1 - contrast / reference's,
    with its 95 % bootstrap interval over pairs; negative where the effect is larger, None where the
    reference has none.
    plain_kl, steered_kl: KL(reference ‖ form) per token, nats, unsteered and steered.
    effect_cosine: of the changes of the logits by steering. neutral_kl: KL(plain ‖ steered) of
    this form. perplexity, steered_perplexity: on neutral texts, by this form.
    """

    name: str
    file_bytes: int
    weight_bytes: int
    contrast: Interval
    degradation: Interval | None
    effect_cosine: float
    plain_kl: float
    steered_kl: float
    neutral_kl: float
    perplexity: float
    steered_perplexity: float
    speed: Speed
    holds: bool


@dataclass(frozen=True)
class Comparison:
    """The reference first, then every other form. threshold: of the degradation, as a share."""

    results: tuple[FormResult, ...]
    threshold: float
    n_pairs: int
    n_tokens: int

    @property
    def has_effect(self) -> bool:
        """Whether the reference is steered at all: its interval lies above zero."""
        return self.results[0].contrast.low > 0.0

    @property
    def holds(self) -> bool:
        """Whether there is an effect, and no form loses the threshold of it or more."""
        return self.has_effect and all(result.holds for result in self.results)

    def to_json(self) -> dict[str, Any]:
        return {
            "criterion": f"degradation < {self.threshold:g}, where degradation = 1 - contrast / "
            f"contrast of the reference",
            "threshold": self.threshold,
            "reference_has_effect": self.has_effect,
            "holds": self.holds,
            "pairs": self.n_pairs,
            "compared_tokens": self.n_tokens,
            "forms": [asdict(result) for result in self.results],
        }


@dataclass(frozen=True)
class _Run:
    """What one form computes: (pair,) contrasts, logits of the sequences, and its costs."""

    per_pair: NDArray[np.float64]
    neutral_kl: float
    plain: list[NDArray[np.float32]]
    steered: list[NDArray[np.float32]]
    perplexity: float
    steered_perplexity: float


def compare_forms(
    reference: Form,
    others: Sequence[Form],
    intervention: Intervention,
    material: Material,
    *,
    threshold: float = THRESHOLD,
    seed: int = 0,
    show: bool = True,
) -> Comparison:
    """Run the reference and the other forms, each verified to steer, and compare them.

    Raises ValueError for a text that has other token ids in another form or does not fit, and
    InterventionError where steering does not land.
    """
    if not 0.0 < threshold < 1.0:
        message = f"[quantised] expected a threshold between 0 and 1, got {threshold:g}"
        raise ValueError(message)
    texts = [text for pair in material.pairs for text in pair.texts]
    texts += [*material.neutral, *material.prompts]
    for other in others:
        require_same_tokens(reference.backend, other.backend, texts)
    greedy = SamplingOptions(max_tokens=material.max_tokens, temperature=0.0, stop_at_eos=False)
    samples = reference.backend.generate(material.prompts, greedy)
    sequences = [[*sample.prompt_ids, *sample.ids] for sample in samples]
    n_prompt = [len(sample.prompt_ids) for sample in samples]
    forms = [reference, *others]
    runs = [
        _run(form.backend, intervention, material, sequences, n_prompt)
        for form in track(forms, "comparing", show=show)
    ]
    speeds = _speeds(forms, intervention, material, show=show)
    results = [
        _result(form, run, runs[0], speed, threshold, seed)
        for form, run, speed in zip(forms, runs, speeds, strict=True)
    ]
    return Comparison(tuple(results), threshold, len(material.pairs), sum(map(len, sequences)))


def _run(
    backend: Backend,
    intervention: Intervention,
    material: Material,
    sequences: Sequence[Sequence[int]],
    n_prompt: Sequence[int],
) -> _Run:
    score = TeacherForced(backend, material.pairs, material.neutral).score(intervention)
    neutral = [backend.tokenize(text) for text in material.neutral]
    plain, perplexity = backend.logits(sequences, n_prompt=n_prompt), _perplexity(backend, neutral)
    with backend.steer(intervention):
        steered = backend.logits(sequences, n_prompt=n_prompt)
        under = _perplexity(backend, neutral)
    return _Run(score.per_pair, score.neutral_kl, plain, steered, perplexity, under)


def _result(
    form: Form, run: _Run, reference: _Run, speed: Speed, threshold: float, seed: int
) -> FormResult:
    lost = None
    if bootstrap_mean(reference.per_pair).low > 0.0:
        lost = degradation(reference.per_pair, run.per_pair, seed=seed)
    return FormResult(
        name=form.name,
        file_bytes=form.file_bytes,
        weight_bytes=form.weight_bytes,
        contrast=bootstrap_mean(run.per_pair),
        degradation=lost,
        effect_cosine=_cosine(_effect(reference), _effect(run)),
        plain_kl=token_divergence(reference.plain, run.plain),
        steered_kl=token_divergence(reference.steered, run.steered),
        neutral_kl=run.neutral_kl,
        perplexity=run.perplexity,
        steered_perplexity=run.steered_perplexity,
        speed=speed,
        holds=lost is not None and lost.mean < threshold,
    )


def degradation(
    reference: NDArray[np.float64], other: NDArray[np.float64], *, seed: int = 0
) -> Interval:
    """1 - mean(other) / mean(reference) over the same pairs, with its 95 % percentile interval.

    Pairs are resampled together, 2000 times. ValueError where the reference's mean is not above
    zero or a value is not finite: nothing can be lost of an effect that is not there.
    """
    both = np.stack([reference, other])  # (2, pair)
    if not np.isfinite(both).all() or both[0].mean() <= 0.0:
        message = (
            f"[quantised] expected an effect of the reference in the direction of the pairs, got a "
            f"mean contrast of {both[0].mean():.3g} nats; use other pairs or strength"
        )
        raise ValueError(message)
    draws = np.random.default_rng(seed).integers(0, both.shape[1], (RESAMPLES, both.shape[1]))
    means = both[:, draws].mean(axis=2)
    ratios = 1.0 - means[1] / np.where(means[0] == 0.0, np.nan, means[0])
    low, high = np.nanquantile(ratios, [0.025, 0.975])
    return Interval(1.0 - float(both[1].mean() / both[0].mean()), float(low), float(high))


def _effect(run: _Run) -> NDArray[np.float64]:
    """What steering changes in the logits. (position, vocabulary)"""
    pairs = zip(run.steered, run.plain, strict=True)
    return np.concatenate([on.astype(np.float64) - off for on, off in pairs])


def _cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum() / scale) if scale > 0 else 0.0


def _perplexity(backend: Backend, sequences: Sequence[Sequence[int]]) -> float:
    return float(np.exp(-np.concatenate(log_likelihoods(backend, sequences)).mean()))


def _speeds(
    forms: Sequence[Form], intervention: Intervention, material: Material, *, show: bool
) -> list[Speed]:
    """Each round runs every form, one after the other; the first round warms up."""
    context = min(form.backend.context_length for form in forms)
    first = forms[0].backend
    ids = [token for text in material.neutral for token in first.tokenize(text)]
    prompts = [first.detokenize(ids[:n]) for n in (min(_LONG, context // 2), _SHORT)]
    new = max(2, min(2 * material.max_tokens, context // 4))
    times: list[list[tuple[float, float]]] = []
    for _ in track(range(material.repeats + 1), "timing", show=show):
        times.append([_time(form.backend, intervention, prompts, new) for form in forms])
    rates = np.array(times[1:])  # (round, form, kind)
    medians, ratios = np.median(rates, axis=0), np.median(rates / rates[:, :1], axis=0)
    return [
        Speed(*map(float, (*rate, *ratio))) for rate, ratio in zip(medians, ratios, strict=True)
    ]


def _time(
    backend: Backend, intervention: Intervention, prompts: Sequence[str], new: int
) -> tuple[float, float]:
    """Tokens per second of generation and of prefill."""
    long, short = prompts
    options = SamplingOptions(max_tokens=new, temperature=0.0, stop_at_eos=False)
    once = SamplingOptions(max_tokens=1, temperature=0.0, stop_at_eos=False)
    n_long = len(backend.tokenize(long))
    with backend.steer(intervention, verify=False):
        start = time.perf_counter()
        backend.generate([short], options)
        middle = time.perf_counter()
        backend.generate([long], once)
        end = time.perf_counter()
    return new / (middle - start), n_long / (end - middle)
