"""Runs arms on one backend: the same prompts and the same random numbers for every arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.evaluation import measures
from cogit.evaluation.arms import Arm
from cogit.evaluation.continuations import likelihoods, perplexity, relevance, text_divergence
from cogit.evaluation.neutral import NeutralTexts
from cogit.evaluation.suite import SIGNS, Suite
from cogit.evaluation.thresholds import Settings
from cogit.sampling import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.backends.base import Backend
    from cogit.evaluation.judges import Judge
    from cogit.intervention import Intervention

Samples = dict[int, list[list[Sample]]]
"""By target sign: (seed, prompt)."""


@dataclass(frozen=True)
class ArmRun:
    """What one arm wrote and what it cost.

    scores: (prompt, seed, sign) of the judge, signs in the order of ``SIGNS``. neutral_scores,
    opposite_scores: the same on neutral prompts and on prompts of the opposite context, where run.
    same_logits: whether every logit on neutral texts is the unsteered model's, where run. changed:
    whether any token or logit differs from the unsteered model's.
    """

    arm: Arm
    samples: Samples
    scores: NDArray[np.float64]
    neutral_samples: Samples = field(default_factory=dict)
    neutral_scores: NDArray[np.float64] | None = None
    opposite_scores: NDArray[np.float64] | None = None
    perplexity: float | None = None
    relevance: float | None = None
    repetition: float | None = None
    text_kl: float | None = None
    neutral_kl: float | None = None
    accuracy: float | None = None
    displacement: float | None = None
    same_logits: bool | None = None
    changed: bool | None = None

    @property
    def hits(self) -> NDArray[np.float64]:
        """1 where the text took the target's side. (prompt, seed, sign)"""
        return self.hits_of(self.scores)

    def hits_of(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(scores * np.array(SIGNS) > 0, dtype=np.float64)


class Engine:
    """Runs arms; the unsteered model runs once."""

    def __init__(self, backend: Backend, suite: Suite, judge: Judge, settings: Settings) -> None:
        """Raises ValueError before any work where a prompt or text does not fit the context."""
        self.backend, self.suite, self.settings = backend, suite, settings
        self._judge = judge
        self._judged: dict[tuple[str, str], float] = {}
        self._require_fit()
        self._ids = [backend.tokenize(prompt) for prompt in suite.prompts]
        self.neutral: NeutralTexts | None = None
        self._plain: ArmRun | None = None
        self._learned: ArmRun | None = None

    def run(self, arm: Arm) -> ArmRun:
        """Generate, judge and measure one arm. The baseline must be the first."""
        if arm.role == "baseline":
            self._plain = self._run_plain(arm)
            return self._plain
        if arm.towards is None:
            return self._finish(arm, self._unsteered(arm), {})
        if arm.role == "sign_flipped" and self._learned is not None:
            return _turned(self._learned, arm)
        run = self._run_steered(arm)
        if arm.role == "learned" and self._learned is None:
            self._learned = run
        return run

    def generate(
        self, prompts: Sequence[str], *, seeds: Sequence[int] | None = None
    ) -> list[list[Sample]]:
        """Continuations (seed, prompt) as the backend is now; row i draws from (seed, i)."""
        if not prompts:
            return []
        chosen = self.settings.seeds if seeds is None else seeds
        return self.backend.replicate(prompts, self.settings.sampling, chosen)

    def judge(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        """(sample,) scores; the same text after the same prompt is asked about once.

        Raises ValueError for another number of scores, and for scores that are not in [-1, 1].
        """
        keys = [(sample.prompt, sample.text) for sample in samples]
        new = {
            key: sample
            for key, sample in zip(keys, samples, strict=True)
            if key not in self._judged
        }
        if new:
            found = np.asarray(self._judge.scores(list(new.values())), dtype=np.float64)
            if found.shape != (len(new),):
                message = (
                    f"[judge] expected one score for each of {len(new)} texts from "
                    f"{self._judge.name}, got an array of shape {found.shape}"
                )
                raise ValueError(message)
            if not (np.isfinite(found).all() and (np.abs(found) <= 1).all()):
                wrong = found[~(np.abs(found) <= 1)][0]
                message = f"[judge] expected scores in [-1, 1] from {self._judge.name}, got {wrong}"
                raise ValueError(message)
            self._judged.update(zip(new, (float(value) for value in found), strict=True))
        return np.array([self._judged[key] for key in keys])

    def scores(self, samples: Mapping[int, Sequence[Sequence[Sample]]]) -> NDArray[np.float64]:
        """(prompt, seed, sign) scores."""
        table = [[self.judge(row) for row in samples[sign]] for sign in SIGNS]
        return np.moveaxis(np.array(table), (0, 1, 2), (2, 1, 0))

    # ---- the runs ----

    def _run_plain(self, arm: Arm) -> ArmRun:
        suite = self.suite
        parts: dict[str, Samples] = {
            "open": dict.fromkeys(SIGNS, self.generate(suite.prompts)),
            "neutral": dict.fromkeys(SIGNS, self.generate(suite.neutral_prompts)),
            "opposite": {sign: self.generate(suite.opposite.get(sign, ())) for sign in SIGNS},
        }
        return self._finish(arm, parts, {"neutral_kl": 0.0, "displacement": 0.0})

    def _unsteered(self, arm: Arm) -> dict[str, Samples]:
        """Prompts with their instruction, and no steering: it differs by sign."""
        return {
            part: {sign: self._continue(arm, part, sign) for sign in SIGNS}
            for part in ("open", "neutral", "opposite")
        }

    def _run_steered(self, arm: Arm) -> ArmRun:
        assert arm.towards is not None
        parts: dict[str, Samples] = {"open": {}, "neutral": {}, "opposite": {}}
        divergence: list[float] = []
        costs: list[Any] = []
        for sign in SIGNS:
            chosen = arm.towards[sign]
            with self.backend.steer(chosen, verify=arm.role == "learned", control=arm.control):
                parts["open"][sign] = self._continue(arm, "open", sign)
                if arm.full:
                    parts["neutral"][sign] = self._continue(arm, "neutral", sign)
                    parts["opposite"][sign] = self._continue(arm, "opposite", sign)
                    divergence += self._text_divergence(arm, chosen, parts["open"][sign])
                if self.neutral is not None:
                    costs.append(self.neutral.cost())
        found: dict[str, Any] = {"text_kl": float(np.mean(divergence)) if divergence else None}
        if self.neutral is not None:
            found["neutral_kl"] = float(np.mean([cost.kl for cost in costs]))
            found["same_logits"] = all(cost.same for cost in costs)
            accuracies = [cost.accuracy for cost in costs if cost.accuracy is not None]
            found["accuracy"] = float(np.mean(accuracies)) if accuracies else None
            moved = [self.neutral.displacement(arm.towards[sign]) for sign in SIGNS]
            found["displacement"] = float(np.mean(moved))
        return self._finish(arm, parts, found)

    def _continue(self, arm: Arm, part: str, sign: int) -> list[list[Sample]]:
        suite = self.suite
        prompts = {
            "open": suite.prompts,
            "neutral": suite.neutral_prompts,
            "opposite": suite.opposite.get(sign, ()),
        }[part]
        if not arm.prompted:
            return self.generate(prompts)
        before = suite.instructions[sign]
        joined = [f"{before}{'' if before[-1].isspace() else ' '}{text}" for text in prompts]
        # Judged and shown by the prompt itself: a judge must not read what was asked for.
        return [
            [replace(one, prompt=text) for one, text in zip(row, prompts, strict=True)]
            for row in self.generate(joined)
        ]

    def _text_divergence(
        self, arm: Arm, chosen: Intervention, samples: list[list[Sample]]
    ) -> list[float]:
        if arm.control:
            return [0.0]
        first = samples[0]
        found = text_divergence(
            self.backend, chosen, [one.prompt_ids for one in first], [one.ids for one in first]
        )
        return [] if found is None else [found]

    def _finish(self, arm: Arm, parts: dict[str, Samples], found: dict[str, Any]) -> ArmRun:
        samples, neutral, opposite = parts["open"], parts["neutral"], parts["opposite"]
        texts = [one for sign in SIGNS for row in samples[sign] for one in row]
        judged = {
            name: self.scores(some) if some and all(some.get(sign) for sign in SIGNS) else None
            for name, some in (("neutral", neutral), ("opposite", opposite))
        }
        run = ArmRun(
            arm=arm,
            samples=samples,
            scores=self.scores(samples),
            neutral_samples=neutral,
            neutral_scores=judged["neutral"],
            opposite_scores=judged["opposite"],
            repetition=measures.repetition(texts),
            **found,
        )
        if arm.full:
            run = self._under_the_plain_model(run)
        if arm.control:
            run = replace(run, changed=self._differs(run))
        return run

    def _under_the_plain_model(self, run: ArmRun) -> ArmRun:
        """Perplexity and relevance of the continuations after the prompts themselves."""
        values: list[NDArray[np.float64]] = []
        shares: list[float] = []
        for sign in SIGNS:
            for number, row in enumerate(run.samples[sign]):
                continuations = [one.ids for one in row]
                own = likelihoods(self.backend, self._ids, continuations)
                values += own
                if number == 0:
                    share = relevance(
                        self.backend, self._ids, continuations, own, self.settings.seed
                    )
                    shares += [] if share is None else [share]
        return replace(
            run,
            perplexity=perplexity(values),
            relevance=float(np.mean(shares)) if shares else None,
        )

    def _differs(self, run: ArmRun) -> bool:
        """Whether any token of any text, or any logit on neutral texts, is another."""
        assert self._plain is not None
        pairs = (
            (run.samples, self._plain.samples),
            (run.neutral_samples, self._plain.neutral_samples),
        )
        same = all(
            [one.ids for row in ours[sign] for one in row]
            == [one.ids for row in theirs[sign] for one in row]
            for ours, theirs in pairs
            for sign in SIGNS
        )
        # A divergence of 0 would not tell: rounding hides small changes, and so does a shift.
        return not same or run.same_logits is False

    def _require_fit(self) -> None:
        suite, backend = self.suite, self.backend
        prompts = [*suite.prompts, *suite.neutral_prompts, *suite.calibration_prompts]
        prompts += [text for texts in suite.opposite.values() for text in texts]
        if suite.instructions:
            # Both: the longer in characters need not be the longer in tokens.
            before = suite.instructions.values()
            prompts += [f"{one} {text}" for one in before for text in prompts]
        backend.require_fit(prompts, self.settings.sampling.max_tokens)
        for text in (*suite.neutral_texts, *suite.calibration_texts):
            n_tokens = len(backend.tokenize(text))
            if not 1 <= n_tokens <= backend.context_length:
                message = (
                    f"[suite] expected neutral texts of 1..{backend.context_length} tokens (the "
                    f"context), got {n_tokens} in {text[:60]!r}; shorten it"
                )
                raise ValueError(message)


def _turned(run: ArmRun, arm: Arm) -> ArmRun:
    """The learned arm's texts held against the other sign: what its flip would write again.

    The prompts of opposite contexts are others for each sign and were not run so.
    """
    neutral = run.neutral_scores
    return replace(
        run,
        arm=arm,
        samples={sign: run.samples[-sign] for sign in SIGNS},
        scores=run.scores[:, :, ::-1],
        neutral_samples={sign: run.neutral_samples[-sign] for sign in SIGNS},
        neutral_scores=None if neutral is None else neutral[:, :, ::-1],
        opposite_scores=None,
    )
