"""Prompts in files: text, JSONL, CSV, or one column of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cogit.data_rows import (
    DATASET,
    PACKAGED,
    csv_rows,
    json_rows,
    limited,
    numbered_lines,
    refuse_folder,
)
from cogit.dataset_spec import TableSpec

SUBJECT = "prompts"
_JSON = (".jsonl", ".json", ".ndjson")
_COLUMN = "prompt"


@dataclass(frozen=True)
class PromptSpec(TableSpec):
    """The column that holds the prompts."""

    SUBJECT: ClassVar[str] = SUBJECT
    column: str = _COLUMN

    @property
    def columns(self) -> dict[str, str]:
        return {_COLUMN: self.column}


def read_prompts(source: str | Path | Mapping[str, object]) -> Iterator[str]:
    """The prompts of any source that ``load_prompts`` names; ValueError past MAX_ROWS of them."""
    if isinstance(source, Mapping):
        return limited(_dataset_prompts(PromptSpec.of(source)), SUBJECT, str(source))
    text = str(source)
    if text.startswith(DATASET):
        spec = PromptSpec.parse(text.removeprefix(DATASET))
        return limited(_dataset_prompts(spec), SUBJECT, text)
    if text.startswith(PACKAGED):
        from cogit.packaged import packaged_path

        return read_prompts(packaged_path(text.removeprefix(PACKAGED), SUBJECT))
    return limited(_file_prompts(Path(source)), SUBJECT, text)


def _file_prompts(path: Path) -> Iterator[str]:
    refuse_folder(path, SUBJECT)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        for found in csv_rows(path, SUBJECT, _header):
            yield _prompt(found.data[_COLUMN], found.where, found.excerpt)
    elif suffix in _JSON:
        for found in json_rows(path, SUBJECT):
            data = found.data
            value = data.get(_COLUMN) if isinstance(data, Mapping) else data
            yield _prompt(value, found.where, found.excerpt)
    else:
        for _, line in numbered_lines(path, SUBJECT):
            if line.strip():
                yield line.rstrip("\r\n")


def _dataset_prompts(spec: PromptSpec) -> Iterator[str]:
    from cogit.dataset_rows import dataset_rows

    for where, data in dataset_rows(spec):
        yield _prompt(data[_COLUMN], where, str(data[_COLUMN])[:80])


def _header(fields: list[str], where: str) -> list[str]:
    names = [name.strip() for name in fields]
    if names.count(_COLUMN) != 1:
        message = (
            f"[{SUBJECT}] expected a header with one column {_COLUMN} in {where}, got "
            f"{','.join(names)[:80]!r}"
        )
        raise ValueError(message)
    return names


def _prompt(value: Any, where: str, excerpt: str) -> str:
    """A text that is not blank; ValueError else."""
    if isinstance(value, str) and value.strip():
        return value
    message = f'[{SUBJECT}] expected a text or {{"{_COLUMN}": text}} in {where}, got {excerpt!r}'
    raise ValueError(message)
