"""Contrast pairs from a data set, by the optional package ``datasets``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from cogit.errors import BackendMissingError

_SLICE = re.compile(r"([\w.-]+)(?:\[(\d*):(\d*)\])?", re.ASCII)


@dataclass(frozen=True)
class DatasetSpec:
    """Which rows and columns of which data set.

    dataset: a hub id or a local folder. split: with a slice, as ``train[:100]``. positive,
    negative, prompt: names of columns; an empty prompt column is none. streaming: read rows as they
    are needed, without a copy on disk.
    """

    dataset: str
    config: str = ""
    split: str = "train"
    positive: str = "positive"
    negative: str = "negative"
    prompt: str = ""
    streaming: bool = False

    def __post_init__(self) -> None:
        if not self.dataset or not _SLICE.fullmatch(self.split):
            message = (
                f"[pairs] expected a data set and a split such as train or train[:100], got "
                f"{self.dataset!r} and {self.split!r}"
            )
            raise ValueError(message)

    @classmethod
    def of(cls, data: Mapping[str, object]) -> DatasetSpec:
        """From a mapping; ValueError for keys that are unknown, missing, or of another type."""
        kinds = {field.name: bool if field.name == "streaming" else str for field in fields(cls)}
        wrong = [name for name, value in data.items() if type(value) is not kinds.get(name)]
        if wrong or "dataset" not in data:
            message = (
                f"[pairs] expected dataset and perhaps {', '.join(list(kinds)[1:])}, got "
                f"{', '.join(f'{name}={value!r}' for name, value in data.items())[:120]}"
            )
            raise ValueError(message)
        return cls(**data)  # type: ignore[arg-type]

    @classmethod
    def parse(cls, text: str) -> DatasetSpec:
        """From ``NAME?split=train[:100]&positive=chosen&negative=rejected&streaming=true``."""
        name, _, options = text.partition("?")
        data: dict[str, object] = {"dataset": name}
        for option in filter(None, options.split("&")):
            key, sign, value = option.partition("=")
            if not sign or key in data:
                message = f"[pairs] expected options KEY=VALUE, each once, got {option!r} in {text}"
                raise ValueError(message)
            flag = {"true": True, "false": False}.get(value, value)
            data[key] = flag if key == "streaming" else value
        return cls.of(data)

    def to_mapping(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def rows(self) -> tuple[str, int, int | None]:
        """The split's name, and the half-open range of its rows."""
        match = _SLICE.fullmatch(self.split)
        assert match is not None  # checked on making
        return match[1], int(match[2] or 0), int(match[3]) if match[3] else None


def dataset_rows(spec: DatasetSpec) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row as (where it is, its texts by the names ``positive``, ``negative``, ``prompt``).

    Raises BackendMissingError without the package, FileNotFoundError for a local folder that is not
    there, and ValueError for what ``datasets`` refuses or a column that is absent.
    """
    try:
        import datasets
    except ImportError as error:
        message = (
            "[pairs] expected the package datasets for a data set, got none; "
            "install it with pip install 'cogit[datasets]'"
        )
        raise BackendMissingError(message) from error
    name = spec.dataset
    if Path(name).expanduser().is_dir():
        name = str(Path(name).expanduser())
    elif name.startswith((".", "/", "~")):
        message = f"[pairs] expected a folder with a data set, got {name}, which does not exist"
        raise FileNotFoundError(message)
    split, begin, end = spec.rows
    try:
        table = datasets.load_dataset(
            name, spec.config or None, split=split, streaming=spec.streaming
        )
    except (OSError, RuntimeError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:200]
        message = f"[pairs] expected {spec.dataset} with a split {split}, got: {reason}"
        raise ValueError(message) from error
    columns = {"positive": spec.positive, "negative": spec.negative}
    columns |= {"prompt": spec.prompt} if spec.prompt else {}
    for number, row in enumerate(islice(table, begin, end), begin):
        where = f"{spec.dataset} {split}[{number}]"
        yield where, _texts(row, columns, where)


def _texts(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> dict[str, Any]:
    missing = [column for column in columns.values() if column not in row]
    if missing:
        message = (
            f"[pairs] expected the columns {', '.join(columns.values())} in {where}, got "
            f"{', '.join(row)[:120]}"
        )
        raise ValueError(message)
    return {name: row[column] for name, column in columns.items()}
