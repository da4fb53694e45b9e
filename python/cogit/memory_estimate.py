"""The estimate of a run: what a model, its operators and the work on it will take.

Peaks of a forward pass are sums over the tensors that are alive at once; docs/memory.md lists them
and what they were measured at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cogit.memory import Estimate, Part
from cogit.memory_free import free_memory, loaded, resident
from cogit.memory_gguf import describe_gguf
from cogit.memory_model import BYTES, ModelShape, describe_model
from cogit.memory_operators import fold_bytes

# Bytes that a process holds before any model is there, measured with the pinned versions: Python,
# NumPy, torch and this package; the class of one architecture with its imports; a tokenizer with
# the small tables of a load; libllama, what steering imports beside it, and a token's entry in its
# vocabulary. A process that
# holds more already is counted as it is.
_TORCH, _CLASS, _TOKENIZER = 266_000_000, 124_000_000, 28_000_000
_GGUF, _STEERING, _TOKEN = 56_000_000, 26_000_000, 120
# What matrix libraries and the allocator keep once a forward pass has run.
_BUFFERS = 20_000_000
# Of a CUDA context with its libraries; an assumption, not measured here.
_CUDA_CONTEXT = 500_000_000
# A batch of a recording: at most so many tokens and bytes of states, as in `cogit.recording`.
_RECORD_TOKENS, _RECORD_BYTES = 512, 2**25
_SHARD_BYTES = 2**24
# The proof that steering landed: tokens, and arrays of their logits, some in float64.
_PROBE, _PROOF = 12, 6
_LETTERS = 3  # letters a token, at least, in most languages
_UBATCH = 512


@dataclass(frozen=True)
class Workload:
    """What will be run. sequences: in one batch. positions: tokens of the longest text.

    generated: tokens to add to it. logit_rows: token positions whose logits are kept at once, of
    all texts that one call judges; 0 where only the last token of each sequence counts.
    recorded: texts whose states are kept in memory. rank, blocks: of the folded operators. n_ctx,
    n_parallel, cache_bytes: of the KV cache of llamacpp, which is made as a whole.
    """

    sequences: int = 8
    positions: int = 64
    generated: int = 32
    logit_rows: int = 0
    recorded: int = 0
    rank: int = 2
    blocks: int | None = None
    n_ctx: int | None = None
    n_parallel: int = 1
    cache_bytes: int = 2

    def __post_init__(self) -> None:
        for name in ("sequences", "positions", "n_parallel"):
            if getattr(self, name) < 1:
                message = f"[memory] expected {name} of 1 or more, got {getattr(self, name)}"
                raise ValueError(message)
        for name in ("generated", "logit_rows", "recorded", "rank"):
            if getattr(self, name) < 0:
                message = f"[memory] expected {name} of 0 or more, got {getattr(self, name)}"
                raise ValueError(message)

    @classmethod
    def of_texts(
        cls, texts: Iterable[str], *, generated: int = 0, batch: int = 128, recorded: int = 0
    ) -> Workload:
        """From texts before there is a tokenizer: a token is taken to have three letters."""
        lengths = [2 + len(text) // _LETTERS for text in texts] or [2]
        return cls(
            sequences=min(len(lengths), batch),
            positions=max(lengths),
            generated=generated,
            recorded=recorded,
        )


def estimate_memory(
    backend: str,
    model: str,
    *,
    dtype: str = "f32",
    device: str = "cpu",
    workload: Workload | None = None,
    operators: Sequence[Part] = (),
    base: int | None = None,
) -> Estimate:
    """The estimate for a model that is not loaded.

    backend: transformers or llamacpp. model: folder, hub id or GGUF file. dtype: f32, bf16, f16,
    of transformers. device: "cpu", "cuda" or "cuda:N". operators: parts of operators that are known
    (`memory_operators`); folds of the workload's rank otherwise. base: bytes of the process before
    the load; measured or known by default.

    A hub id that is neither cached nor told of by the hub leaves its parts unknown. Raises
    FileNotFoundError and ArtefactError for files that cannot be used.
    """
    work = workload or Workload()
    shape: ModelShape | None
    if backend == "llamacpp":
        found = describe_gguf(Path(model).expanduser())
        shape = found.shape
        parts = [Part("weights", found.weights, note="GGUF tensors, mapped")]
        parts += _gguf_parts(shape, work)
        unknown: tuple[str, ...] = ()
    else:
        described = describe_model(model, dtype)
        shape, weights = described.shape, described.weights
        parts, unknown = [], (described.unknown,) if described.unknown else ()
        if weights is not None:
            parts.append(Part("weights", weights.loaded, note=f"{weights.numbers} in {dtype}"))
        if weights is not None and weights.mapped and device == "cpu":
            note = "mapped while its numbers are converted"
            parts.append(Part("source files", weights.mapped, "load", note, reclaimable=True))
        if shape is not None:
            parts += _torch_parts(shape, work, BYTES[dtype])
    if shape is not None:
        parts += operators or [_folds(shape, work)]
        parts += _capture(shape, work)
    parts.insert(0, _process(backend, shape, device, base))
    memory = free_memory(device)
    held = resident() if device == "cpu" else 0
    return Estimate(tuple(parts), device, memory.free, memory.total, held, unknown)


def _process(backend: str, shape: ModelShape | None, device: str, base: int | None) -> Part:
    if device != "cpu":
        return Part("process", _CUDA_CONTEXT, note="CUDA context, assumed")
    if base is not None:
        return Part("process", base, note="as given")
    if backend == "llamacpp":
        vocabulary = _TOKEN * (shape.vocab_size if shape else 0)
        note = "Python, libllama, vocabulary"
        return Part("process", max(_GGUF, resident()) + _STEERING + vocabulary, note=note)
    name = "transformers.models.{0}.modeling_{0}".format(shape.kind if shape else "")
    more = _TOKENIZER + _BUFFERS + (0 if loaded(name) else _CLASS)
    now = resident() if loaded("cogit.backends.transformers") else max(_TORCH, resident())
    return Part("process", now + more, note="Python, torch, transformers")


def _torch_parts(shape: ModelShape, work: Workload, itemsize: int) -> list[Part]:
    """The KV cache of generation, and the largest workspace of what a run does in turn."""
    length = min(work.positions + work.generated, shape.context)
    cache = 0
    if work.generated:
        # A step writes the longer keys and values of one block beside the old ones.
        cache = shape.cache_bytes(work.sequences * length, itemsize)
        cache += cache // shape.n_layers
    prompts = work.sequences * min(work.positions, shape.context)
    logits = 4 * shape.vocab_size
    # (what, bytes): made one after the other.
    kept = max(work.logit_rows, prompts if work.logit_rows else 0)
    steps = [
        ("a forward pass", _forward(shape, prompts, work.positions, work.sequences)),
        ("recording", _forward(shape, _RECORD_TOKENS if work.recorded else 0, work.positions, 1)),
        ("choosing tokens", (4 if work.generated else 0) * work.sequences * logits),
        ("logits of texts", kept * (logits + (shape.vocab_size * itemsize if itemsize < 4 else 0))),
        ("the proof of steering", _PROOF * _PROBE * logits),
    ]
    note, size = max(steps, key=lambda step: step[1])
    return [
        Part("workspace", size, "run", note),
        Part("KV cache", cache, "run", shape.cache_note),
    ]


def _gguf_parts(shape: ModelShape, work: Workload) -> list[Part]:
    """The KV cache, which is made as a whole, and what a batch touches of the compute buffers."""
    context = (work.n_ctx or 2048) * work.n_parallel
    cells = -(-context // 256) * 256
    cache = shape.cache_bytes(cells, work.cache_bytes)
    tokens = min(_UBATCH, max(_PROBE, work.sequences * work.positions))
    outputs = max(_PROBE, work.sequences, work.logit_rows)
    # In the graph, in libllama's output buffer, and in NumPy.
    rows = max(min(outputs, _UBATCH) * 2 + outputs, _PROOF * _PROBE)
    logits = rows * 4 * shape.vocab_size
    cached = min(cells, -(-(work.positions + work.generated) // 256) * 256 * work.n_parallel)
    scores = 4 * tokens * cached * shape.n_heads
    return [
        Part("workspace", _forward(shape, tokens, 1, 1) + logits + scores, "run", "graph, logits"),
        Part("KV cache", cache, note=shape.cache_note),
    ]


def _forward(shape: ModelShape, tokens: int, positions: int, sequences: int) -> int:
    """A block's tensors at their peak: the stream, its norm and sum, and three of the MLP.

    float32 numbers in any dtype: norms and half-precision products widen them. With the attention
    mask of the batch.
    """
    attention = 2 * shape.n_heads * shape.head_dim
    row = 3 * shape.d_model + max(3 * shape.d_ff, attention)
    return 4 * (tokens * row + sequences * positions**2)


def _folds(shape: ModelShape, work: Workload) -> Part:
    blocks = shape.n_layers if work.blocks is None else work.blocks
    note = f"rank {work.rank} on {blocks} blocks"
    return Part("operators", fold_bytes(work.rank, shape.d_model, blocks), "run", note)


def _capture(shape: ModelShape, work: Workload) -> list[Part]:
    """Rows of states: those that are kept, twice while they are joined, and a batch on its way."""
    if not work.recorded:
        return []
    kept = 4 * shape.n_layers * shape.d_model * work.recorded
    flying = min(_RECORD_BYTES, kept) + min(_SHARD_BYTES, kept)
    return [Part("capture", 2 * kept + flying, "run", f"states of {work.recorded} texts")]
