"""How many bytes a download from the hub takes, by the hub's own metadata.

One request of a few seconds at most, and no file of the repository. Where the hub does not say, the
size is unknown and the reason is kept; it is never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

TIMEOUT_S = 10.0
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
# Beside the weights: configuration and tokenizer.
_SMALL = (".json", ".txt", ".model", ".jinja")
_DATA = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tsv", ".txt", ".gz", ".zst", ".zip")


@dataclass(frozen=True)
class Sizes:
    """Bytes to download, and of the copy that is made of them; None is unknown, for ``reason``."""

    download: int | None
    prepared: int = 0
    reason: str = ""


def model_sizes(repo_id: str) -> Sizes:
    """Of the files that the transformers backend loads and that are not in the cache."""
    try:
        from huggingface_hub import HfApi, try_to_load_from_cache

        info: Any = HfApi().model_info(repo_id, files_metadata=True, timeout=TIMEOUT_S)
    except Exception as error:  # of whatever the client is built on: the size is unknown
        return _unknown(error)
    files = {item.rfilename: item.size for item in info.siblings or []}
    wanted = _model_files(files)
    if not any(name.endswith(".safetensors") for name in wanted):
        return Sizes(None, reason="it has no safetensors files")
    missing = [
        files[name]
        for name in wanted
        if not isinstance(try_to_load_from_cache(repo_id, name, revision=info.sha), str)
    ]
    return _total(missing)


def _model_files(names: Iterable[str]) -> list[str]:
    """One file of weights or its shards, and what goes with them; nothing from folders."""
    flat = [name for name in names if "/" not in name]
    whole = [name for name in flat if name == "model.safetensors"]
    shards = [name for name in flat if _SHARD.fullmatch(name)]
    return (whole or shards) + [name for name in flat if name.endswith(_SMALL)]


def dataset_sizes(name: str, config: str = "", cache: Path | None = None) -> Sizes:
    """Of all splits of a configuration, which is what ``datasets`` downloads whatever the split.

    From the data set's card, else the sizes of its files where it has one configuration. cache: of
    prepared copies; nothing is needed where it holds this revision's.
    """
    try:
        from huggingface_hub import HfApi

        info: Any = HfApi().dataset_info(name, files_metadata=True, timeout=TIMEOUT_S)
    except Exception as error:  # as above
        return _unknown(error)
    if cache is not None and _is_prepared(cache, name, config, str(info.sha)):
        return Sizes(0)
    card = info.card_data
    described = card.get("dataset_info") if card is not None else None
    entries = _listed(described)
    entry = _entry(entries, config)
    if entry is not None:
        download, prepared = entry.get("download_size"), entry.get("dataset_size")
        if _is_size(download) and _is_size(prepared):
            return Sizes(download, prepared)
    configs = card.get("configs") if card is not None else None
    if len(entries) > 1 or len(_listed(configs)) > 1:
        return Sizes(None, reason=f"its card gives no size of the config {config or 'default'}")
    files = [item for item in info.siblings or [] if item.rfilename.endswith(_DATA)]
    if not files:
        return Sizes(None, reason="it has no data files of a known kind")
    found = _total([item.size for item in files])
    # The copy is counted as large as the data; of compressed data it is larger.
    return Sizes(found.download, found.download or 0, found.reason)


def prepared_folder(cache: Path, name: str) -> Path:
    """Where ``datasets`` keeps the copies of a hub data set, by its rule of names."""
    owner, slash, last = name.rpartition("/")
    for pattern in (r"([A-Z]+)([A-Z][a-z])", r"([a-z\d])([A-Z])"):
        last = re.sub(pattern, r"\1_\2", last)
    return cache / f"{owner}{'___' if slash else ''}{last.lower()}"


def _listed(value: Any) -> list[dict[str, Any]]:
    """The mappings in what a card says, which may be anything."""
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, dict)]


def _entry(entries: list[dict[str, Any]], config: str) -> dict[str, Any] | None:
    """The description of a configuration; of the only or the default one where none is named."""
    if not config and len(entries) == 1:
        return entries[0]
    wanted = config or "default"
    return next((one for one in entries if one.get("config_name", "default") == wanted), None)


def _is_prepared(cache: Path, name: str, config: str, revision: str) -> bool:
    """Whether ``datasets`` has made its copy of this revision already."""
    return any(
        path.parent.name == revision and config in ("", path.parts[-4])
        for path in prepared_folder(cache, name).glob("*/*/*/dataset_info.json")
    )


def _is_size(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def _total(sizes: list[Any]) -> Sizes:
    if all(map(_is_size, sizes)):
        return Sizes(sum(sizes))
    return Sizes(None, reason="the hub gives no sizes of its files")


def _unknown(error: Exception) -> Sizes:
    text = " ".join(str(error).split())[:120]
    return Sizes(None, reason=f"{type(error).__name__}: {text}" if text else type(error).__name__)
