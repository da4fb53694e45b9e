"""Is there room for a download? Asked before the first byte, answered with numbers and remedies.

Local folders need no room. What is in the cache already needs none either.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from cogit.hub_sizes import dataset_sizes, model_sizes, prepared_folder

_LOG = logging.getLogger(__name__)
# What stays free beside the download: a disk that is full to the last byte breaks other things.
SPARE = 64 * 10**6
_MAX_INDEX = 2**26


def require_disk(
    what: str, needs: Sequence[tuple[Path, int | None]], remedies: str, reason: str = ""
) -> None:
    """OSError where a disk has too little room for what will be written to its folders.

    needs: folders, which need not exist yet, and bytes; those on one disk count together. None is
    an unknown size, for ``reason``: that is said aloud, and room for SPARE bytes is asked for.
    """
    disks: dict[int, tuple[Path, int]] = {}
    for folder, size in needs:
        there = _existing(folder)
        device = there.stat().st_dev
        place, total = disks.get(device, (folder, 0))
        disks[device] = (place, total + (size or 0))
    unknown = any(size is None for _, size in needs)
    for folder, size in disks.values():
        free = shutil.disk_usage(_existing(folder)).free
        if free < size + SPARE:
            known = f"{bytes_text(size)} to download and unpack" if size else "a size unknown"
            message = (
                f"[disk] expected {bytes_text(size + SPARE)} free at {folder} for {what} ({known}, "
                f"{bytes_text(SPARE)} to spare), got {bytes_text(free)}; {remedies}"
            )
            raise OSError(message)
        if unknown:
            _LOG.warning(
                "[disk] unknown size of %s (%s); %s free at %s",
                *(what, reason or "not given", bytes_text(free), folder),
            )


def require_disk_for_model(model: str) -> None:
    """OSError where there is no room for a hub model that is not in the cache.

    A local folder or file, a cached model, and work offline (HF_HUB_OFFLINE) need none.
    """
    from huggingface_hub import constants

    if not _is_hub_id(model) or constants.HF_HUB_OFFLINE or model_is_cached(model):
        return
    sizes = model_sizes(model)
    require_disk(
        f"the model {model}",
        [(Path(constants.HF_HUB_CACHE), sizes.download)],
        "free space there, choose a smaller model, or set HF_HOME to a folder on a larger disk",
        sizes.reason,
    )


def require_disk_for_dataset(name: str, config: str = "", cache: Path | None = None) -> None:
    """OSError where there is no room for a hub data set, its files and the copy made of them.

    cache: where ``datasets`` keeps its copies; by default as its variables say. Not for streams,
    which keep nothing.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    copies = cache or Path(
        os.environ.get("HF_DATASETS_CACHE", str(Path(constants.HF_HOME) / "datasets"))
    )
    sizes = dataset_sizes(name, config, copies)
    if sizes.download == 0 or (sizes.download is None and prepared_folder(copies, name).is_dir()):
        return
    files = Path(constants.HF_HUB_CACHE)
    prepared = None if sizes.download is None else sizes.prepared
    require_disk(
        f"the data set {name}{f' ({config})' if config else ''}",
        [(files, sizes.download), (copies, prepared)],
        "free space there, read a slice of it with streaming=true, take a smaller config or data "
        "set, set HF_HOME to a folder on a larger disk, or leave out the step that reads it",
        sizes.reason,
    )


def model_is_cached(repo_id: str) -> bool:
    """Whether the hub's cache holds a model's configuration and all of its weights."""
    from huggingface_hub import try_to_load_from_cache

    def cached(name: str) -> str | None:
        found = try_to_load_from_cache(repo_id, name)
        return found if isinstance(found, str) else None

    if not cached("config.json"):
        return False
    if cached("model.safetensors"):
        return True
    index = cached("model.safetensors.index.json")
    if index is None or Path(index).stat().st_size > _MAX_INDEX:
        return False
    try:
        shards = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError):
        return False  # a broken index is downloaded anew
    return bool(shards) and all(cached(str(name)) for name in shards)


def bytes_text(size: int) -> str:
    """A size for people, in decimal units: ``2.8 MB``."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1000:.1f} kB"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    place = folder.expanduser().absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return place


def _is_hub_id(model: str) -> bool:
    path = Path(model).expanduser()
    local = path.exists() or path.is_absolute() or model.startswith((".", "~"))
    return not (local or path.suffix == ".gguf" or model.count("/") > 1)
