"""Recording contrast pairs against the plain way to do it: python -m bench.record [--quick].

``value`` is states per second; a state is one text at one block. Plain, as a competent user writes
it: transformers' decoder without its head, ``output_hidden_states=True``, the same batches, the
mean of the last four tokens by one product a block, kept in float32. Both run in turns in one
process, in float32; the llamacpp rows have the same plain transformers run as their baseline.

Results are compared first, at all blocks but the last, where ``hidden_states`` holds the state
after the final norm. Peak memory is what each needs beyond its loaded model, in a process of its
own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench.memory import peak_rise
from bench.models import LAYERS, QUICK_LAYERS, Model, demo_model, random_model
from bench.rows import Row, arguments, cores, finish
from bench.timing import WALL, compare
from cogit.activations import Activations, record
from cogit.backends import load_backend
from cogit.demo.grammar import contrast_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.backends import Backend
    from cogit.pairs import ContrastPair

TAIL, BATCH = 4, 32
# Relative to the mean norm of a state. llama.cpp keeps keys and values in float16.
_SAME = {"transformers": 1e-5, "llamacpp": 5e-3}


def plain_record(model: Any, tokenizer: Any, pairs: list[ContrastPair]) -> NDArray[np.float32]:
    """(block, text, d_model) states; texts in the order positive, negative, positive, ..."""
    texts = [text for pair in pairs for text in (pair.positive, pair.negative)]
    parts = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            batch = tokenizer(
                texts[start : start + BATCH],
                padding=True,
                padding_side="right",
                return_tensors="pt",
            )
            mask = batch["attention_mask"]
            lengths, position = mask.sum(dim=1, keepdim=True), torch.arange(mask.shape[1])
            first = (lengths - TAIL).clamp(min=1)
            chosen = ((position >= first) & (position < lengths)).float()
            weights = (chosen / chosen.sum(dim=1, keepdim=True))[:, None]  # (text, 1, position)
            output = model.base_model(
                input_ids=batch["input_ids"],
                attention_mask=mask,
                use_cache=False,
                output_hidden_states=True,
            )
            means = [torch.bmm(weights, h.float())[:, 0] for h in output.hidden_states[1:]]
            parts.append(torch.stack(means))
    return np.asarray(torch.cat(parts, dim=1).numpy())


def load_plain(folder: str | Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return model, tokenizer


def plain_job(folder: str, n_pairs: str) -> Callable[[], object]:
    """What ``bench.memory`` runs for the plain way."""
    model, tokenizer = load_plain(folder)
    pairs = contrast_pairs(int(n_pairs), seed=0)
    return lambda: plain_record(model, tokenizer, pairs)


def our_job(backend: str, path: str, n_pairs: str) -> Callable[[], object]:
    """What ``bench.memory`` runs for ours."""
    options = {"device": "cpu"} if backend == "transformers" else {}
    loaded = load_backend(backend, path, **options)
    pairs = contrast_pairs(int(n_pairs), seed=0)
    return lambda: record(loaded, pairs, tail=TAIL, show_progress=False)


def require_same(found: Activations, plain: NDArray[np.float32], backend: str) -> None:
    """Equal states at all blocks but the last; RuntimeError otherwise."""
    norm = float(np.linalg.norm(plain, axis=-1).mean())
    for ours, theirs in ((found.positive, plain[:, 0::2]), (found.negative, plain[:, 1::2])):
        error = float(np.linalg.norm(ours[:-1] - theirs[:-1], axis=-1).max()) / norm
        if not error <= _SAME[backend]:
            message = (
                f"[bench] expected the states of {backend} within {_SAME[backend]:g} of the plain "
                f"ones, got {error:.1e}"
            )
            raise RuntimeError(message)


def model_rows(model: Model, n_pairs: int, rounds: int, *, memory: bool = True) -> list[Row]:
    """Speed and memory of both backends on one model."""
    pairs = contrast_pairs(n_pairs, seed=0)
    loaded, tokenizer = load_plain(model.folder)

    def plain() -> NDArray[np.float32]:
        return plain_record(loaded, tokenizer, pairs)

    rows: list[Row] = []
    for name in ("transformers", "llamacpp"):
        print(f"{model.name}: {name}", flush=True)
        with model.load(name, "f32") as backend:
            row_id = f"record.{name}.{model.name}.f32"
            rows.append(speed_row(row_id, backend, pairs, plain, rounds))
    return rows + (memory_rows(model, n_pairs) if memory else [])


def memory_rows(model: Model, n_pairs: int) -> list[Row]:
    print(f"{model.name}: peak memory", flush=True)
    rows: list[Row] = []
    base = peak_rise("bench.record:plain_job", str(model.folder), str(n_pairs)) / 1e6
    for name, path in (("transformers", model.folder), ("llamacpp", model.ggufs["f32"])):
        ours = peak_rise("bench.record:our_job", name, str(path), str(n_pairs)) / 1e6
        row_id, note = f"record.{name}.{model.name}.f32.memory", "beyond the loaded model"
        rows.append(Row(row_id, ours, "MB", base, base / ours, note=note))
    return rows


def speed_row(
    row_id: str,
    backend: Backend,
    pairs: list[ContrastPair],
    plain: Callable[[], NDArray[np.float32]],
    rounds: int,
) -> Row:
    def ours() -> Activations:
        return record(backend, pairs, tail=TAIL, show_progress=False)

    timing = compare(
        {"ours": ours, "plain": plain},
        check=lambda: require_same(ours(), plain(), backend.name),
        rounds=rounds,
        seconds=0.1,
        clock=WALL,
    )
    states = 2 * len(pairs) * backend.identity.n_layers
    speeds = [states / timing.median(name) for name in ("ours", "plain")]
    note = "transformers, output_hidden_states"
    return Row(row_id, speeds[0], "states/s", speeds[1], timing.ratio("plain", "ours"), note=note)


def main() -> None:
    options = arguments(__doc__)
    quick: bool = options.quick
    rows = model_rows(demo_model(), 32 if quick else 128, 3 if quick else 9)
    with tempfile.TemporaryDirectory() as folder:
        print("making the random model ...", flush=True)
        model = random_model(Path(folder), QUICK_LAYERS if quick else LAYERS)
        rows += model_rows(model, 8 if quick else 64, 2 if quick else 5, memory=not quick)
    finish("record", rows, options, threads=cores())


if __name__ == "__main__":
    main()
