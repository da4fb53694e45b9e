"""Trains the demo model on the demo's grammar: ``python -m cogit.demo.train --out DIR``.

Writes DIR/model (safetensors and tokenizer) and, where llama.cpp's converter is at hand, the same
model as DIR/demo-f32.gguf, demo-f16.gguf and demo-q8_0.gguf. The same seed, number of threads and
machine give the same weights.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cogit.demo import grammar, quality
from cogit.demo.convert import convert_to_gguf
from cogit.demo.tokenizer import (
    BOS,
    CONTEXT,
    EOS,
    VOCAB_SIZE,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)
from cogit.demo.training_data import PackedRows, pack
from cogit.errors import BackendMissingError
from cogit.progress import track

if TYPE_CHECKING:
    import torch

STEPS = 1800
_ROWS = 8
_TOKENIZER_DOCUMENTS = 6000
_MUON_RATE, _ADAM_RATE = 0.02, 4e-3
_FLOOR, _WARMUP = 0.03, 50


def build_model(seed: int) -> Any:
    """An untrained Llama of 1.3 million parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-6,
        initializer_range=0.06,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=EOS,
    )
    return LlamaForCausalLM(config)


def train_model(tokenizer: Any, seed: int, steps: int) -> Any:
    """Train on ``steps`` batches of packed documents; returns the model in eval mode."""
    import torch

    rows = pack(_endless_corpus(seed), tokenizer, steps * _ROWS)
    model = build_model(seed)
    optimizers = _optimizers(model)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
        for optimizer in optimizers
    ]
    model.train()
    for step in track(range(steps), "training"):
        loss = _loss(model, rows, slice(step * _ROWS, (step + 1) * _ROWS))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model.eval()


def _optimizers(model: Any) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the blocks' matrices, AdamW for embeddings and norms.

    In single runs at seed 0, AdamW alone took several times as many tokens before it let a
    document's sentiment decide the next opinion.
    """
    import torch

    matrices = [weight for name, weight in model.named_parameters() if _is_matrix(name, weight)]
    others = [weight for name, weight in model.named_parameters() if not _is_matrix(name, weight)]
    return [
        torch.optim.Muon(matrices, lr=_MUON_RATE, weight_decay=0.0, momentum=0.95),
        torch.optim.AdamW(others, lr=_ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _is_matrix(name: str, weight: torch.Tensor) -> bool:
    return weight.ndim > 1 and "embed" not in name


def train(out: Path, seed: int, steps: int) -> tuple[Any, Any]:
    """Train tokenizer and model and write them to ``out``/model; returns (model, tokenizer)."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.use_deterministic_algorithms(True)
    directory = out / "model"
    save_tokenizer(train_tokenizer(grammar.corpus(_TOKENIZER_DOCUMENTS, seed)), directory)
    tokenizer = load_tokenizer(directory)
    model = train_model(tokenizer, seed, steps)
    model.save_pretrained(directory)
    return model, tokenizer


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, export; returns 1 where a quality gate is missed."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m cogit.demo.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where model/ and the GGUFs go")
    parser.add_argument("--seed", type=int, default=0, help="of the corpus, weights and samples")
    parser.add_argument("--steps", type=int, default=STEPS, help="batches of 2048 tokens")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    console = Console(highlight=False)
    started = time.perf_counter()
    model, tokenizer = train(options.out, options.seed, options.steps)
    size = sum(weight.numel() for weight in model.parameters())
    console.print(f"trained {size:,} parameters in {time.perf_counter() - started:.0f} s")
    figures = quality.measure_quality(model, tokenizer, options.seed)
    for name, value in vars(figures).items():
        console.print(f"{name:>18} {value:.3f}")
    try:
        for path in export_gguf(options.out):
            console.print(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)")
    except BackendMissingError as error:
        console.print(f"no GGUF written: {error}")
    failures = figures.failures()
    for failure in failures:
        console.print(f"[demo] {failure}", markup=False)
    return 1 if failures else 0


def export_gguf(out: Path) -> list[Path]:
    """Write ``out``/model as demo-f32.gguf, demo-f16.gguf and demo-q8_0.gguf.

    Q8_0 keeps the embedding, which is the output matrix too, in float16: rounding it
    as well brought the cosine of a steering effect from .9990 to .9986.
    """
    from cogit.backends.llama_engine import LlamaEngine

    paths = {kind: out / f"demo-{kind}.gguf" for kind in ("f32", "f16", "q8_0")}
    convert_to_gguf(out / "model", paths["f32"], "f32")
    convert_to_gguf(out / "model", paths["f16"], "f16")
    LlamaEngine.quantize(paths["f32"], paths["q8_0"], "q8_0", half_embedding=True)
    return list(paths.values())


def _endless_corpus(seed: int) -> itertools.chain[str]:
    return itertools.chain.from_iterable(
        grammar.corpus(_TOKENIZER_DOCUMENTS, seed * 1_000_003 + part) for part in itertools.count()
    )


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to _FLOOR, as a multiple of the peak rate."""
    warmup = min(_WARMUP, steps // 4 + 1)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return _FLOOR + (1 - _FLOOR) * (1 + math.cos(math.pi * progress)) / 2


def _loss(model: Any, rows: PackedRows, batch: slice) -> torch.Tensor:
    """Mean cross-entropy of the next token within each document of the batch."""
    import torch

    logits = model(
        input_ids=rows.ids[batch],
        attention_mask=rows.mask(batch),
        position_ids=rows.positions[batch],
        use_cache=False,
    ).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), rows.targets(batch).flatten()
    )


if __name__ == "__main__":
    sys.exit(main())
