"""Rows of a data set, by the optional package ``datasets``."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.data_rows import MAX_ROWS
from cogit.errors import BackendMissingError

if TYPE_CHECKING:
    from cogit.dataset_spec import TableSpec

_LOG = logging.getLogger(__name__)


def dataset_rows(spec: TableSpec) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row as (where it is, its texts by the names of ``spec.columns``).

    The rows are those of the slice, whether streamed or not. Before a download the space on disk is
    checked (see ``cogit.disk``). A slice that ends beyond the split's last row gives the rows that
    there are, and says so.

    Raises BackendMissingError without the package, FileNotFoundError for a local folder that is not
    there, OSError for a disk that is too full, and ValueError for what ``datasets`` refuses, a
    configuration that must be named, a column that is absent, no row in the slice, or an open end
    with more than MAX_ROWS rows before it.
    """
    table = _table(spec)
    name, begin, end = spec.rows
    _require_bounds(spec, table)
    columns = spec.columns
    number = begin - 1
    for number, row in _numbered(table, begin, end, streaming=spec.streaming):
        where = f"{spec.dataset} {name}[{number}]"
        yield where, _texts(row, columns, where, spec.SUBJECT)
    if number < begin:
        message = (
            f"[{spec.SUBJECT}] expected rows in {spec.split} of {spec.dataset}, got none: the "
            f"split ends before them"
        )
        raise ValueError(message)
    if end is not None and number + 1 < end:
        _LOG.warning(
            "[%s] %s of %s ends beyond its last row: %d rows instead of %d",
            *(spec.SUBJECT, spec.split, spec.dataset, number + 1 - begin, end - begin),
        )


def _table(spec: TableSpec) -> Any:
    """The split, downloaded or as a stream."""
    try:
        import datasets
    except ImportError as error:
        message = (
            f"[{spec.SUBJECT}] expected the package datasets for a data set, got none; "
            f"install it with pip install 'cogit[datasets]'"
        )
        raise BackendMissingError(message) from error
    name = spec.dataset
    if Path(name).expanduser().is_dir():
        name = str(Path(name).expanduser())
    elif name.startswith((".", "/", "~")):
        message = (
            f"[{spec.SUBJECT}] expected a folder with a data set, got {name}, which does not exist"
        )
        raise FileNotFoundError(message)
    elif not spec.streaming:
        from cogit.disk import require_disk_for_dataset

        require_disk_for_dataset(name, spec.config)
    split = spec.rows[0]
    try:
        return datasets.load_dataset(
            name, spec.config or None, split=split, streaming=spec.streaming
        )
    except (OSError, RuntimeError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:200]
        _require_config(spec, name, reason)
        message = f"[{spec.SUBJECT}] expected {spec.dataset} with a split {split}, got: {reason}"
        raise ValueError(message) from error


def _require_config(spec: TableSpec, name: str, reason: str) -> None:
    """ValueError that names the choices, where a configuration is what was wrong."""
    import datasets

    if "config" not in reason.lower():
        return
    try:
        choices = list(datasets.get_dataset_config_names(name))
    except (OSError, RuntimeError, ValueError, datasets.exceptions.DatasetsError):
        return  # the reason is all that is known
    if spec.config not in choices:
        message = (
            f"[{spec.SUBJECT}] expected a config of {spec.dataset}, got "
            f"{spec.config or 'none'}; choose one of {', '.join(map(str, choices))[:400]}"
        )
        raise ValueError(message)


def _require_bounds(spec: TableSpec, table: Any) -> None:
    """ValueError, before any is read, for more than MAX_ROWS rows where their number is known."""
    name, begin, end = spec.rows
    if end is not None:
        return  # of at most MAX_ROWS rows, checked on making
    if spec.streaming:
        declared = getattr(getattr(table, "info", None), "splits", None) or {}
        length = getattr(declared.get(name), "num_examples", None) or 0
    else:
        length = len(table)
    if length - begin > MAX_ROWS:
        message = (
            f"[{spec.SUBJECT}] expected at most {MAX_ROWS} rows of {spec.dataset}, got "
            f"{length - begin}; name an end, such as split={name}[{begin}:{begin + 1000}]"
        )
        raise ValueError(message)


def _numbered(
    table: Any, begin: int, end: int | None, *, streaming: bool
) -> Iterator[tuple[int, Any]]:
    """The rows from ``begin``, with their numbers in the split."""
    if streaming:
        # A stream has no rows by number: those before are passed over.
        return enumerate(islice(table, begin, end), begin)
    stop = len(table) if end is None else min(end, len(table))
    return ((number, table[number]) for number in range(begin, stop))


def _texts(
    row: Mapping[str, Any], columns: Mapping[str, str], where: str, subject: str
) -> dict[str, Any]:
    missing = [column for column in columns.values() if column not in row]
    if missing:
        message = (
            f"[{subject}] expected the columns {', '.join(columns.values())} in {where}, got "
            f"{', '.join(row)[:120]}"
        )
        raise ValueError(message)
    return {name: row[column] for name, column in columns.items()}
