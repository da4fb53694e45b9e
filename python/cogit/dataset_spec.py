"""Which rows of which data set, as a mapping, or as one string of the command line."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar, Self

from cogit.data_rows import MAX_ROWS

_SPLIT = re.compile(r"([\w.-]+)(?:\[(\d{0,15}):(\d{0,15})\])?", re.ASCII)


@dataclass(frozen=True)
class TableSpec(ABC):
    """Rows of a data set; a subclass says which columns are read.

    dataset: a hub id or a local folder. config: one of its configurations, where it has several.
    split: with a slice, as ``train[400:600]``, which is rows 400 to 599. streaming: read rows as
    they are needed, without a copy on disk.
    """

    SUBJECT: ClassVar[str] = "data"
    dataset: str
    config: str = ""
    split: str = "train"
    streaming: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if not self.dataset or not _SPLIT.fullmatch(self.split):
            message = (
                f"[{self.SUBJECT}] expected a data set and a split such as train or "
                f"train[400:600], got {self.dataset!r} and {self.split!r}{_why(self.split)}"
            )
            raise ValueError(message)
        _, begin, end = self.rows
        if end is not None and not begin < end <= begin + MAX_ROWS:
            message = (
                f"[{self.SUBJECT}] expected a slice of 1 to {MAX_ROWS} rows, got {self.split}: "
                f"the first row, then the one after the last"
            )
            raise ValueError(message)

    @classmethod
    def of(cls, data: Mapping[str, object]) -> Self:
        """From a mapping; ValueError for keys that are unknown, missing, or of another type."""
        kinds = {field.name: bool if field.name == "streaming" else str for field in fields(cls)}
        wrong = [name for name, value in data.items() if type(value) is not kinds.get(name)]
        if wrong or "dataset" not in data:
            message = (
                f"[{cls.SUBJECT}] expected dataset and perhaps {', '.join(list(kinds)[1:])}, got "
                f"{', '.join(f'{name}={value!r}' for name, value in data.items())[:120]}"
            )
            raise ValueError(message)
        return cls(**data)  # type: ignore[arg-type]

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``NAME?config=…&split=train[:100]&streaming=true`` and columns likewise."""
        name, _, options = text.partition("?")
        data: dict[str, object] = {"dataset": name}
        for option in filter(None, options.split("&")):
            key, sign, value = option.partition("=")
            if not sign or key in data:
                message = (
                    f"[{cls.SUBJECT}] expected options KEY=VALUE, each once, got {option!r} in "
                    f"{text}"
                )
                raise ValueError(message)
            flag = {"true": True, "false": False}.get(value, value)
            data[key] = flag if key == "streaming" else value
        return cls.of(data)

    def to_mapping(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def rows(self) -> tuple[str, int, int | None]:
        """The split's name, and the half-open range of its rows."""
        match = _SPLIT.fullmatch(self.split)
        assert match is not None  # checked on making
        return match[1], int(match[2] or 0), int(match[3]) if match[3] else None

    @property
    @abstractmethod
    def columns(self) -> dict[str, str]:
        """The column of each text by what the text is to the reader."""


def _why(split: str) -> str:
    """What is refused about a slice that ``datasets`` itself would take."""
    if "%" in split:
        return "; shares in percent are not taken, count rows"
    if re.search(r"\[-|:-", split):
        return "; negative row numbers are not taken, count from the first row"
    if "+" in split:
        return "; one split at a time"
    return ""
