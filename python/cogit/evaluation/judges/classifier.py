"""A Hugging Face text classifier as a judge: score = p(positive) − p(negative)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.errors import ArtefactError
from cogit.evaluation.judges.base import judged
from cogit.evaluation.judges.spec import JudgeSpec
from cogit.identity import file_fingerprint
from cogit.sampling import Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH = 32
MAX_TOKENS = 512
_WHERE = "judge classifier"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_USUAL = (("positive", "negative"), ("pos", "neg"))
# Some position tables keep two rows for themselves.
_RESERVED_POSITIONS = 2


class ClassifierJudge:
    """A sequence classifier, evaluated in float32.

    The probabilities are those among all its labels, so a third one, such as neutral, pulls the
    score towards 0. Only the first ``max_tokens`` tokens of a text are read; ``n_cut`` counts the
    texts that had more.
    """

    name = "classifier"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        source: str,
        fingerprint: str = "",
        positive: str | None = None,
        negative: str | None = None,
        batch_size: int = BATCH,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        """Wrap a loaded model. positive, negative: labels by name or number.

        Without them the labels must be called positive and negative (or pos and neg). ValueError
        for labels that the model does not have and for a model without classes that exclude each
        other.
        """
        if batch_size < 1 or max_tokens < 1:
            message = f"[{_WHERE}] expected a batch and tokens, got {batch_size} and {max_tokens}"
            raise ValueError(message)
        kind = getattr(model.config, "problem_type", None)
        if kind not in (None, "single_label_classification") or model.config.num_labels < 2:
            message = (
                f"[{_WHERE}] expected a model whose classes exclude each other, got {kind} with "
                f"{model.config.num_labels} outputs"
            )
            raise ValueError(message)
        named = {int(i): str(label) for i, label in model.config.id2label.items()}
        self._labels = _two_labels(named, positive, negative)
        self._named = named
        self._model, self._tokenizer = model.float().eval(), tokenizer
        self._source, self._fingerprint = source, fingerprint
        self._max_tokens = min(max_tokens, _room(model.config, tokenizer))
        self._batch_size = _batch_size(model.config, tokenizer, batch_size)
        self.n_cut = 0

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        positive: str | None = None,
        negative: str | None = None,
        device: str = "cpu",
        batch_size: int = BATCH,
        max_tokens: int = MAX_TOKENS,
    ) -> ClassifierJudge:
        """Load a local folder or a hub id, from safetensors only and without code of its own.

        Raises FileNotFoundError or OSError for what is not there, ArtefactError for files that are
        damaged or hold no trained classifier, ValueError for labels and devices.
        """
        from cogit.devices import resolve_device

        target = resolve_device(device)
        source = _require_source(str(model))
        loaded, tokenizer = _load(source)
        folder = Path(source)
        if folder.is_dir():
            fingerprint = file_fingerprint(list(folder.glob("*.safetensors")))
        else:
            fingerprint = str(getattr(loaded.config, "_commit_hash", None) or "")
        return cls(
            loaded.to(target),
            tokenizer,
            source=folder.resolve().name if folder.is_dir() else source,
            fingerprint=fingerprint,
            positive=positive,
            negative=negative,
            batch_size=batch_size,
            max_tokens=max_tokens,
        )

    @classmethod
    def from_spec(cls, spec: JudgeSpec) -> ClassifierJudge:
        spec.require_options(["positive", "negative", "device", "batch", "max_tokens"])
        return cls.load(
            spec.require_source("MODEL"),
            positive=spec.options.get("positive"),
            negative=spec.options.get("negative"),
            device=spec.options.get("device", "cpu"),
            batch_size=spec.whole("batch", BATCH),
            max_tokens=spec.whole("max_tokens", MAX_TOKENS),
        )

    def scores(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        return judged(
            self.name, samples, lambda kept: self._scores([samples[i].text for i in kept])
        )

    def describe(self) -> dict[str, Any]:
        positive, negative = self._labels
        return {
            "name": self.name,
            "decides": "p(positive) − p(negative) of a sequence classifier",
            "model": self._source,
            "fingerprint": self._fingerprint,
            "positive": self._named[positive],
            "negative": self._named[negative],
            "labels": [self._named[i] for i in sorted(self._named)],
            "max_tokens": self._max_tokens,
        }

    def _scores(self, texts: Sequence[str]) -> list[float]:
        # Texts of like length share a batch, so that little of it is padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found: dict[int, float] = {}
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            found.update(zip(rows, self._batch([texts[i] for i in rows]), strict=True))
        return [found[i] for i in range(len(texts))]

    def _batch(self, texts: list[str]) -> list[float]:
        import torch

        whole = self._tokenizer(texts, verbose=False)["input_ids"]
        self.n_cut += sum(len(ids) > self._max_tokens for ids in whole)
        inputs = self._tokenizer(
            texts,
            padding=len(texts) > 1,
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        )
        with torch.inference_mode():
            logits = self._model(**inputs.to(self._model.device)).logits
        positive, negative = self._labels
        shares = logits.double().softmax(dim=-1)
        return [float(p) for p in shares[:, positive] - shares[:, negative]]


def _load(source: str) -> tuple[Any, Any]:
    """The model and its tokenizer; nothing of the model may have been made up."""
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        model, found = AutoModelForSequenceClassification.from_pretrained(
            source, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except SafetensorError as error:
        message = f"[{_WHERE}] expected whole safetensors files in {source}, got: {error}"
        raise ArtefactError(message) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        message = f"[{_WHERE}] expected a classifier in {source}, got: {reason}"
        raise (OSError if isinstance(error, OSError) else ArtefactError)(message) from error
    missing = sorted(found["missing_keys"])
    if missing:
        # Without this, a model that was never trained to classify would judge at random.
        message = (
            f"[{_WHERE}] expected a trained classifier in {source}, got none of its weights "
            f"{', '.join(missing[:3])}; use a model that was trained to classify"
        )
        raise ArtefactError(message)
    return model, tokenizer


def _require_source(model: str) -> str:
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            message = f"[{_WHERE}] expected a folder with config.json, got {path}"
            raise FileNotFoundError(message)
        return str(path)
    if path.exists() or not _HUB_ID.fullmatch(model):
        message = f"[{_WHERE}] expected a model folder or hub id, got {model[:200]!r}"
        raise FileNotFoundError(message)
    return model


def _two_labels(
    named: Mapping[int, str], positive: str | None, negative: str | None
) -> tuple[int, int]:
    listed = ", ".join(f"{i} {label}" for i, label in sorted(named.items()))
    by_name: dict[str, list[int]] = {}
    for i, label in named.items():
        by_name.setdefault(label.casefold(), []).append(i)
    if positive is None and negative is None:
        for names in _USUAL:
            found = [by_name.get(name, []) for name in names]
            if all(len(ids) == 1 for ids in found):
                return found[0][0], found[1][0]
    if positive is None or negative is None:
        message = f"[{_WHERE}] expected both ?positive=…&negative=… among the labels {listed}"
        raise ValueError(message)
    chosen: list[int] = []
    for label in (positive, negative):
        ids = by_name.get(label.casefold(), [])
        if not ids and label.isascii() and label.isdigit() and int(label) in named:
            ids = [int(label)]
        if len(ids) != 1:
            message = f"[{_WHERE}] expected one of the labels {listed}, got {label[:60]!r}"
            raise ValueError(message)
        chosen += ids
    if chosen[0] == chosen[1]:
        message = f"[{_WHERE}] expected two different labels, got {positive!r} twice"
        raise ValueError(message)
    return chosen[0], chosen[1]


def _room(config: Any, tokenizer: Any) -> int:
    """How many tokens the model takes."""
    positions = getattr(config, "max_position_embeddings", None)
    limit = int(tokenizer.model_max_length)
    return limit if positions is None else max(1, min(limit, positions - _RESERVED_POSITIONS))


def _batch_size(config: Any, tokenizer: Any, wanted: int) -> int:
    """One text at a time where there is no token to fill shorter ones up with."""
    if tokenizer.pad_token_id is None:
        return 1
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    return wanted
