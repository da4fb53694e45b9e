"""What a folder holds: models, and the stores, caches, states and runs that cogit writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cogit.artefact_facts import Facts, Header, artefact_facts, one_line
from cogit.errors import ArtefactError
from cogit.latest import resolve_latest
from cogit.layers import describe_blocks
from cogit.states import STATES_FILE
from cogit.store import ActivationStore
from cogit.sweep_result import FILE_NAME as SWEEP_FILE
from cogit.sweep_result import Sweep

_WIDTHS = ("hidden_size", "n_embd", "d_model")
_DEPTHS = ("num_hidden_layers", "n_layer", "num_layers")
_CONTEXTS = ("max_position_embeddings", "n_positions")
_MANIFEST, _CHECKPOINT = "manifest.json", "checkpoint.safetensors"
_LATEST = re.compile(r"latest-(.+)\.json")
_MAX_JSON = 64 * 2**20
STORE = "activation store"


def folder_facts(source: Path) -> Facts:
    """The facts of a folder; FileNotFoundError for one without anything that is known."""
    if (source / "config.json").is_file():
        return _model_folder(source)
    if (source / _MANIFEST).is_file():
        manifest = _read_json(source / _MANIFEST)
        return _store(source) if manifest.get("kind") == STORE else _run(source, manifest)
    if (source / SWEEP_FILE).is_file():
        return _sweep(source, source / SWEEP_FILE)
    for name in (STATES_FILE, _CHECKPOINT):
        file = source / name
        if file.is_file() and (header := Header.read(file)).metadata.get("format") == "cogit":
            return {**artefact_facts(file, header), **_measures(source)}
    pointers = sorted(path for path in source.glob("latest-*.json") if path.is_file())
    if pointers:
        latest = {_pointer(path)["of"]: _pointer(path)["latest"] for path in pointers}
        return {"kind": "folder of runs", "file": str(source), "latest": latest}
    stores = [path for path in sorted(source.iterdir()) if _is_store(path)]
    if stores:
        return _cache(source, stores)
    message = f"[inspect] expected a model folder with config.json, or one of cogit's, got {source}"
    raise FileNotFoundError(message)


def json_facts(source: Path) -> Facts:
    """The facts of a JSON file: a sweep, a pointer to the latest run, a folder's manifest."""
    if source.name == _MANIFEST:
        return folder_facts(source.parent)
    if _LATEST.fullmatch(source.name):
        return _pointer(source)
    if _read_json(source).get("format") == "cogit sweep":
        return _sweep(source, source)
    message = (
        f"[inspect] expected {SWEEP_FILE}, {_MANIFEST} or latest-*.json, got {source}, JSON of "
        f"another kind"
    )
    raise ArtefactError(message)


def _store(source: Path) -> Facts:
    store = ActivationStore.peek(source)
    recipe = store.recipe
    present = sum(store.path(number).is_file() for number in range(len(recipe.shards)))
    return {
        "kind": STORE,
        "file": str(source),
        "bytes": store.size(),
        "finished": present == len(recipe.shards),
        "shards": f"{present} of {len(recipe.shards)}",
        "recorded": describe_blocks(recipe.layers),
        "hook_point": str(recipe.hook_point),
        "select": str(recipe.select),
        "row_type": recipe.dtype,
        "pairs": recipe.n_pairs,
        "width": recipe.identity.d_model,
        "key": recipe.key,
        "model": recipe.identity.to_json(),
    }


def _cache(source: Path, stores: list[Path]) -> Facts:
    entries = [_store(path) for path in stores]
    named = ("key", "finished", "recorded", "hook_point", "select", "pairs", "bytes")
    return {
        "kind": "activation cache",
        "file": str(source),
        "bytes": sum(one["bytes"] for one in entries),
        "recordings": len(entries),
        "entries": [
            {**{name: one[name] for name in named}, "model": one["model"]["name"]}
            for one in entries
        ],
    }


def _is_store(path: Path) -> bool:
    manifest = path / _MANIFEST
    return manifest.is_file() and _read_json(manifest).get("kind") == STORE


def _sweep(source: Path, file: Path) -> Facts:
    sweep = Sweep.load(file)
    return {
        "kind": "layer sweep",
        "file": str(source),
        "verdict": sweep.verdict,
        "found": sweep.describe(),
        "best_block": sweep.best.layer,
        "hook_point": sweep.hook_point,
        "p_value": sweep.p_value,
        "p_family": sweep.p_family,
        "scores": {str(layer.layer): layer.score for layer in sweep.layers},
        "pairs": sweep.n_pairs,
        "permutations": sweep.permutations,
        "seed": sweep.seed,
        "model": sweep.identity.to_json(),
        **(_measures(source) if source.is_dir() else {"bytes": file.stat().st_size}),
    }


def _pointer(source: Path) -> Facts:
    match = _LATEST.fullmatch(source.name)
    assert match is not None  # so it was chosen
    target = resolve_latest(source.parent, match[1])
    return {
        "kind": "pointer",
        "file": str(source),
        "of": match[1],
        "latest": str(target),
    }


def _run(source: Path, manifest: Facts) -> Facts:
    """A folder that cogit wrote, such as a run, by its manifest and the sizes of its files."""
    return {
        "kind": str(manifest.get("kind", "run folder")),
        "file": str(source),
        **_measures(source),
        "metadata": manifest,
    }


def _measures(source: Path) -> Facts:
    files = {file.name: file.stat().st_size for file in sorted(source.iterdir()) if file.is_file()}
    return {"file": str(source), "bytes": sum(files.values()), "files": files}


def _model_folder(source: Path) -> Facts:
    """A transformers model folder, by its config.json alone."""
    config = _read_json(source / "config.json")
    text = config.get("text_config") or config
    if not isinstance(text, dict):
        message = f"[inspect] expected an object as text_config of {source}, got {text!r:.60}"
        raise ArtefactError(message)
    weights = sorted(source.glob("*.safetensors"))
    return {
        "kind": "model folder",
        "file": str(source),
        "architecture": text.get("model_type"),
        "classes": config.get("architectures"),
        "blocks": _first(text, _DEPTHS),
        "width": _first(text, _WIDTHS),
        "context": _first(text, _CONTEXTS),
        "vocabulary": text.get("vocab_size"),
        "dtype": config.get("dtype") or config.get("torch_dtype"),
        "weight_files": [weight.name for weight in weights],
        "weight_bytes": sum(weight.stat().st_size for weight in weights),
    }


def _read_json(path: Path) -> Facts:
    """A JSON object; ArtefactError for anything else."""
    try:
        if path.stat().st_size > _MAX_JSON:
            message = f"more than {_MAX_JSON // 2**20} MiB"
            raise ValueError(message)
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        message = f"[inspect] expected JSON in {path}, got {one_line(error)}"
        raise ArtefactError(message) from error
    if not isinstance(found, dict):
        message = f"[inspect] expected a JSON object in {path}, got {type(found).__name__}"
        raise ArtefactError(message)
    return found


def _first(config: Facts, names: tuple[str, ...]) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)
