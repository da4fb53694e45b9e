"""Judges by name: where a text such as ``lexicon:words.tsv`` becomes a judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cogit.evaluation.judges.base import Judge
from cogit.evaluation.judges.spec import JudgeSpec

if TYPE_CHECKING:
    from cogit.backends.base import Backend

Maker = Callable[[JudgeSpec, "Backend | None"], Judge]


def make_judge(spec: str, *, backend: Backend | None = None) -> Judge:
    """A judge from its text form; docs/judges.md lists them.

    ``vader``, ``lexicon:FILE``, ``classifier:MODEL``, ``logits``, ``api:URL``, ``demo``, and those
    of ``register_judge``, with options after a question mark. backend: the model that ``logits``
    asks. Raises ValueError for another spec, OSError for files that are not there.
    """
    parsed = JudgeSpec.parse(spec)
    maker = _MAKERS.get(parsed.kind)
    if maker is None:
        message = f"[judge] expected one of {', '.join(_MAKERS)}, got {parsed.kind[:60]!r}"
        raise ValueError(message)
    return maker(parsed, backend)


def register_judge(kind: str, maker: Maker) -> None:
    """Make ``kind`` known to ``make_judge``; ValueError where it is taken."""
    if not kind.isidentifier() or kind in _MAKERS:
        message = f"[judge] expected a new kind, one word, got {kind!r}"
        raise ValueError(message)
    _MAKERS[kind] = maker


def _vader(spec: JudgeSpec, backend: Backend | None) -> Judge:
    from cogit.evaluation.judges.vader import VaderJudge

    return VaderJudge.from_spec(spec)


def _lexicon(spec: JudgeSpec, backend: Backend | None) -> Judge:
    from cogit.evaluation.judges.lexicon import LexiconJudge

    return LexiconJudge.from_spec(spec)


def _classifier(spec: JudgeSpec, backend: Backend | None) -> Judge:
    from cogit.evaluation.judges.classifier import ClassifierJudge

    return ClassifierJudge.from_spec(spec)


def _logits(spec: JudgeSpec, backend: Backend | None) -> Judge:
    from cogit.evaluation.judges.logits import LogitsJudge

    return LogitsJudge.from_spec(spec, backend)


def _api(spec: JudgeSpec, backend: Backend | None) -> Judge:
    from cogit.evaluation.judges.api import ApiJudge

    return ApiJudge.from_spec(spec)


def _demo(spec: JudgeSpec, backend: Backend | None) -> Judge:
    from cogit.evaluation.judges.demo import DemoJudge

    return DemoJudge.from_spec(spec)


# Imported when asked for: a lexicon needs no torch.
_MAKERS: dict[str, Maker] = {
    "vader": _vader,
    "lexicon": _lexicon,
    "classifier": _classifier,
    "logits": _logits,
    "api": _api,
    "demo": _demo,
}
