"""The model itself as a judge, unsteered: does it continue a question with yes or with no?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cogit.evaluation.judges.base import judged
from cogit.evaluation.judges.spec import JudgeSpec
from cogit.sampling import Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cogit.backends.base import Backend

QUESTION = "Is the feeling of this text positive?"
YES, NO = " yes", " no"
TEMPLATE = "{text}\n\nQuestion: {question} Answer yes or no.\nAnswer:"
_WHERE = "judge logits"
_MAX_LOGITS = 2**26  # numbers of one call, 256 MiB


class LogitsJudge:
    """tanh(ℓ/2) of the log-odds ℓ = log p(yes) − log p(no): p(yes) − p(no) if these are all.

    ``yes`` and ``no`` are compared at the first token in which they differ, after whatever tokens
    they share; single distinct tokens are the clearest. Many models lean to one answer whatever the
    text. ``opposite``, the contrary question, cancels that: ℓ is then half the difference of the
    log-odds of both questions. The model must not be steered while it judges, and judges itself:
    what it cannot tell, no score shows.
    """

    name = "logits"

    def __init__(
        self,
        backend: Backend,
        *,
        question: str = QUESTION,
        yes: str = YES,
        no: str = NO,
        opposite: str | None = None,
    ) -> None:
        """ValueError for answers without a token in which they differ."""
        self._backend = backend
        self._questions = [question] if opposite is None else [question, opposite]
        self._answers = (yes, no)
        if not all(each.strip() for each in self._questions):
            message = f"[{_WHERE}] expected a question, got an empty one"
            raise ValueError(message)
        for each in self._questions:
            self._ask("text", each, "the question")

    @classmethod
    def from_spec(cls, spec: JudgeSpec, backend: Backend | None) -> LogitsJudge:
        spec.require_no_source()
        spec.require_options(["question", "yes", "no", "opposite"])
        if backend is None:
            message = f"[{_WHERE}] expected a loaded model to ask, got none; use another judge"
            raise ValueError(message)
        return cls(
            backend,
            question=spec.options.get("question", QUESTION),
            yes=spec.options.get("yes", YES),
            no=spec.options.get("no", NO),
            opposite=spec.options.get("opposite"),
        )

    def scores(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        if self._backend.intervention is not None:
            message = (
                f"[{_WHERE}] expected an unsteered model, got one under "
                f"{self._backend.intervention.describe()}; judge after its `with` block"
            )
            raise ValueError(message)
        return judged(self.name, samples, lambda kept: self._scores(samples, kept))

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "decides": "tanh of half the log-odds of yes against no, by the unsteered model itself",
            "model": self._backend.identity.to_json(),
            "template": TEMPLATE,
            "questions": list(self._questions),
            "yes": self._answers[0],
            "no": self._answers[1],
        }

    def _scores(self, samples: Sequence[Sample], kept: Sequence[int]) -> list[float]:
        odds: list[list[float]] = []
        for question in self._questions:
            asked = [self._ask(samples[i].text, question, f"sample {i}") for i in kept]
            odds.append(self._log_odds(asked))
        if len(odds) == 1:
            return [math.tanh(value / 2) for value in odds[0]]
        return [math.tanh((a - b) / 4) for a, b in zip(*odds, strict=True)]

    def _ask(self, text: str, question: str, where: str) -> tuple[list[int], int, int]:
        """The tokens before the first that differs, and that token of yes and of no."""
        prompt = TEMPLATE.format(text=text, question=question)
        yes, no = (self._backend.tokenize(prompt + answer) for answer in self._answers)
        pairs = enumerate(zip(yes, no, strict=False))
        at = next((i for i, (a, b) in pairs if a != b), None)
        if not at:
            message = (
                f"[{_WHERE}] expected answers with a token in which they differ, got "
                f"{self._answers[0]!r} and {self._answers[1]!r}"
            )
            raise ValueError(message)
        if at > self._backend.context_length:
            message = (
                f"[{_WHERE}] expected a question within the context of "
                f"{self._backend.context_length} tokens, got {at} for {where}; judge shorter texts"
            )
            raise ValueError(message)
        return yes[:at], yes[at], no[at]

    def _log_odds(self, asked: Sequence[tuple[list[int], int, int]]) -> list[float]:
        # A backend returns the logits of every position: only so many texts at a time.
        result: list[float] = []
        start = 0
        while start < len(asked):
            end = start + 1
            room = _MAX_LOGITS // self._backend.identity.vocab_size - len(asked[start][0])
            while end < len(asked) and len(asked[end][0]) <= room:
                room -= len(asked[end][0])
                end += 1
            chunk = asked[start:end]
            logits = self._backend.logits([ids for ids, _, _ in chunk])
            for rows, (_, yes, no) in zip(logits, chunk, strict=True):
                # log p(yes) − log p(no): what normalises the two is the same.
                result.append(float(rows[-1, yes]) - float(rows[-1, no]))
            start = end
        return result
