"""Contrast pairs from a data set: which of its columns hold the two texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cogit.dataset_spec import TableSpec


@dataclass(frozen=True)
class DatasetSpec(TableSpec):
    """Columns of the two texts and of the prompt, which may be none ("")."""

    SUBJECT: ClassVar[str] = "pairs"
    positive: str = "positive"
    negative: str = "negative"
    prompt: str = ""

    @property
    def columns(self) -> dict[str, str]:
        columns = {"positive": self.positive, "negative": self.negative}
        return columns | ({"prompt": self.prompt} if self.prompt else {})
