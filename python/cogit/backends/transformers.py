"""The transformers backend: any decoder-only model, steered by forward hooks on its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from cogit.backends.base import Backend, Probe, TokenIds
from cogit.backends.blocks import count, find_blocks, text_config
from cogit.backends.hooks import SteeringHooks, TokenClock, hidden_of, kernel_name
from cogit.backends.states import PaddingSide, forward_base, pad, read_states
from cogit.backends.taps import Tap, tap_blocks
from cogit.devices import choose_device
from cogit.errors import ArtefactError
from cogit.hook_points import HookPoint
from cogit.identity import ModelIdentity, file_fingerprint
from cogit.intervention import Intervention
from cogit.memory import megabytes
from cogit.memory_log import LOG, StageLog
from cogit.sampling import Sampler

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class TransformersBackend(Backend):
    """A loaded transformers model with its tokenizer."""

    name: ClassVar[str] = "transformers"

    def __init__(self, model: Any, tokenizer: Any, *, name: str, fingerprint: str = "") -> None:
        """Wrap a model that is already loaded; its weights and hooks are left as they are."""
        super().__init__()
        config = text_config(model.config)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.identity = ModelIdentity(
            name=name,
            architecture=str(config.model_type),
            n_layers=count(config, "num_hidden_layers", "n_layer", "num_layers"),
            d_model=count(config, "hidden_size", "n_embd", "d_model"),
            vocab_size=count(config, "vocab_size"),
            fingerprint=fingerprint,
        )
        self.context_length = int(
            getattr(config, "max_position_embeddings", None)
            or getattr(config, "n_positions", None)
            or 2**31
        )
        self.batch_size = 128
        self.precision = float(torch.finfo(model.dtype).eps)
        self.eos_ids = _eos_ids(model, tokenizer)
        self._blocks = find_blocks(model, self.identity.n_layers)
        self._clock = TokenClock()
        self._clock_handles = [
            model.register_forward_pre_hook(self._clock.before_forward, with_kwargs=True),
            model.register_forward_hook(self._clock.after_forward, always_call=True),
        ]
        self._hooks: SteeringHooks | None = None
        self._taps: dict[tuple[HookPoint, tuple[int, ...]], list[Tap]] = {}
        self.stages = StageLog(str(self.device))
        self.padding_side: PaddingSide = "right"  # of recorded batches; the states are the same

    @classmethod
    def load(
        cls, model: str | Path, *, device: str = "auto", dtype: str = "f32"
    ) -> TransformersBackend:
        """Load a local folder or a hub id.

        device: ``auto`` (CUDA if there is one, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: f32, bf16 or f16. Raises FileNotFoundError for a folder that is not there and
        ValueError for a device or dtype that cannot be had.
        """
        if dtype not in DTYPES:
            message = f"[dtype] expected one of {', '.join(DTYPES)}, got {dtype!r}"
            raise ValueError(message)
        target = torch.device(choose_device(device).name)
        source = _require_source(str(model))
        try:
            loaded = AutoModelForCausalLM.from_pretrained(
                source, dtype=DTYPES[dtype], trust_remote_code=False, use_safetensors=True
            )
        except SafetensorError as error:
            message = f"[model] expected whole safetensors files in {source}, got: {error}"
            raise ArtefactError(message) from error
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        if not tokenizer("a", add_special_tokens=False)["input_ids"]:
            # Some classes load without their files and then know no text at all.
            message = f"[model] expected a tokenizer in {source}, got one without a vocabulary"
            raise ArtefactError(message)
        folder = Path(source)
        if folder.is_dir():
            fingerprint = file_fingerprint(list(folder.glob("*.safetensors")))
        else:
            fingerprint = str(getattr(loaded.config, "_commit_hash", None) or "")
        name = folder.resolve().name if folder.is_dir() else source
        made = cls(loaded.to(target), tokenizer, name=name, fingerprint=fingerprint)
        size, numbers = parameter_bytes(made.model)
        LOG.info("weights: %s, %s in %d numbers on %s", dtype, megabytes(size), numbers, target)
        made.stages.tell("after model")
        return made

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    @property
    def kernel(self) -> str:
        """What applies the affine: the compiled kernel, or plain torch where it cannot."""
        return kernel_name(self.device, self.model.dtype)

    def tokenize(self, text: str) -> list[int]:
        return [int(i) for i in self.tokenizer(text)["input_ids"]]

    def detokenize(self, ids: TokenIds) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def probe(
        self,
        sequences: Sequence[TokenIds],
        layers: Sequence[int],
        *,
        n_prompt: int | None = None,
    ) -> list[Probe]:
        probes: list[Probe] = []
        prompts = None if n_prompt is None else [n_prompt] * len(sequences)
        for before, after, logits, length in self._forward(sequences, layers, prompts):
            probes.append(Probe(before[:, :length], after[:, :length], logits[:length]))
        return probes

    def logits(
        self, sequences: Sequence[TokenIds], *, n_prompt: Sequence[int] | None = None
    ) -> list[NDArray[np.float32]]:
        passes = self._forward(sequences, (), n_prompt)
        return [logits[:length] for _, _, logits, length in passes]

    @torch.inference_mode()
    def states(
        self,
        sequences: Sequence[TokenIds],
        layers: Sequence[int],
        spans: Sequence[tuple[int, int]],
        *,
        mean: bool,
        hook_point: HookPoint = HookPoint.RESID_POST,
    ) -> list[NDArray[np.float32]]:
        self._require_lengths(sequences)
        chosen = (hook_point, tuple(layers))
        if chosen not in self._taps:
            ids = torch.arange(5)[None, :] % self.identity.vocab_size
            self._taps[chosen] = tap_blocks(
                self._blocks,
                layers,
                hook_point,
                self.identity.architecture,
                lambda: forward_base(self.model, self._clock, ids, torch.ones_like(ids)),
            )
        return read_states(
            lambda ids, mask: forward_base(self.model, self._clock, ids, mask),
            self._taps[chosen],
            sequences,
            spans,
            width=self.identity.d_model,
            mean=mean,
            side=self.padding_side,
        )

    def close(self) -> None:
        self._attach(None)
        for handle in self._clock_handles:
            handle.remove()

    def _attach(self, intervention: Intervention | None) -> None:
        if self._hooks is not None:
            self._hooks.remove()
            self._hooks = None
        if intervention is not None:
            self._hooks = SteeringHooks(self._blocks, self._clock, intervention)

    @torch.inference_mode()
    def _forward(
        self,
        sequences: Sequence[TokenIds],
        layers: Sequence[int],
        n_prompt: Sequence[int] | None,
    ) -> list[tuple[Any, Any, Any, int]]:
        """(before, after, logits, length) of each sequence; right-padded to a common length."""
        self._require_lengths(sequences)
        results: list[tuple[Any, Any, Any, int]] = []
        for start in range(0, len(sequences), self.batch_size):
            chunk = sequences[start : start + self.batch_size]
            ids, mask = pad(chunk, "right")
            prompts = None if n_prompt is None else n_prompt[start : start + self.batch_size]
            before, after, logits = self._run(ids, mask, layers, prompts)
            for row, tokens in enumerate(chunk):
                results.append((before[:, row], after[:, row], logits[row], len(tokens)))
        return results

    def _require_lengths(self, sequences: Sequence[TokenIds]) -> None:
        if not sequences or not all(len(ids) for ids in sequences):
            message = "[forward] expected sequences of at least one token, got an empty one"
            raise ValueError(message)
        longest = max(map(len, sequences))
        if longest > self.context_length:
            message = (
                f"[forward] expected at most {self.context_length} tokens (the context), "
                f"got {longest}"
            )
            raise ValueError(message)

    def _run(
        self, ids: Tensor, mask: Tensor, layers: Sequence[int], n_prompt: Sequence[int] | None
    ) -> tuple[Any, Any, Any]:
        """One padded batch: states on both sides of the steering hooks, and logits."""
        seen: dict[tuple[int, bool], Tensor] = {}

        def watch(layer: int, *, late: bool) -> Any:
            def keep(module: Any, args: Any, output: Any) -> None:
                seen[layer, late] = hidden_of(output).detach().float().cpu()

            # `prepend` runs before the steering hook, which came earlier; the other after it.
            return self._blocks[layer].register_forward_hook(keep, prepend=not late)

        handles = [watch(layer, late=late) for layer in layers for late in (False, True)]
        self._clock.forced_prompt = n_prompt
        try:
            output = self.model(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                use_cache=False,
            )
        finally:
            self._clock.forced_prompt = None
            for handle in handles:
                handle.remove()
        shape = (0, *ids.shape, self.identity.d_model)
        states = [
            np.stack([seen[layer, late].numpy() for layer in layers])
            if layers
            else np.zeros(shape, np.float32)
            for late in (False, True)
        ]
        return states[0], states[1], output.logits.float().cpu().numpy()

    @torch.inference_mode()
    def _generate(
        self, prompts: Sequence[TokenIds], rows: Sequence[int], sampler: Sampler
    ) -> list[list[int]]:
        ids, mask = pad(prompts, "left")
        width = ids.shape[1]
        stop_ids = self.eos_ids if sampler.options.stop_at_eos else frozenset()
        config = GenerationConfig(
            max_new_tokens=sampler.options.max_tokens, do_sample=False, use_cache=True
        )
        # The model's own defaults (penalties, end tokens) would otherwise be merged in.
        kept, self.model.generation_config = self.model.generation_config, config
        try:
            output = self.model.generate(
                ids.to(self.device),
                attention_mask=mask.to(self.device),
                generation_config=config,
                logits_processor=LogitsProcessorList([_Choose(sampler, rows, self.stages)]),
                stopping_criteria=StoppingCriteriaList([_AllEnded(width, stop_ids)]),
            )
        finally:
            self.model.generation_config = kept
        return [cut_at_end(line[width:], stop_ids) for line in output.tolist()]


class _Choose(LogitsProcessor):  # type: ignore[misc]
    """Leaves only the token that the shared sampler chooses."""

    def __init__(self, sampler: Sampler, rows: Sequence[int], stages: StageLog) -> None:
        self._sampler, self._rows, self._stages = sampler, rows, stages

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._stages.tell("during generation")
        chosen = self._sampler.choose(scores.float().cpu().numpy(), self._rows)
        only = torch.full_like(scores, -torch.inf)
        only[torch.arange(len(chosen)), torch.tensor(chosen)] = 0.0
        return only


class _AllEnded(StoppingCriteria):  # type: ignore[misc]
    """Stops once every row holds an end token; rows are cut there afterwards."""

    def __init__(self, start: int, stop_ids: frozenset[int]) -> None:
        self._start, self._stop = start, torch.tensor(sorted(stop_ids), dtype=torch.long)

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        generated = input_ids[:, self._start :]
        ended = torch.isin(generated, self._stop.to(generated.device)).any(dim=1)
        return ended if bool(ended.all()) else torch.zeros_like(ended)


def cut_at_end(ids: Sequence[int], stop_ids: frozenset[int]) -> list[int]:
    """Tokens up to and including the first end token."""
    for index, token in enumerate(ids):
        if token in stop_ids:
            return list(ids[: index + 1])
    return list(ids)


def parameter_bytes(model: Any) -> tuple[int, int]:
    """Bytes and count of a model's parameters; what is tied counts once."""
    parameters = list(model.parameters())
    return (
        sum(p.numel() * p.element_size() for p in parameters),
        sum(p.numel() for p in parameters),
    )


def _require_source(model: str) -> str:
    """A model folder, or a hub id where no such folder is meant."""
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            message = f"[model] expected a folder with config.json, got {path}"
            raise FileNotFoundError(message)
        return str(path)
    if path.is_file() or path.suffix == ".gguf":
        message = f"[model] expected a model folder or hub id, got the file {path}; use llamacpp"
        raise ValueError(message)
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        message = f"[model] expected a model folder or hub id, got {path}, which does not exist"
        raise FileNotFoundError(message)
    return model


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    declared = getattr(model.generation_config, "eos_token_id", None)
    listed = declared if isinstance(declared, list) else [declared]
    own = getattr(tokenizer, "eos_token_id", None)
    return frozenset(int(i) for i in [*listed, own] if i is not None)
