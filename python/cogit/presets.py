"""Named settings for training a unitary on encoded states: model, dimensions, layers, schedule.

The names and numbers are those of the system that the Born training follows; a preset says where to
start, never which device to use: ``device`` is "auto" in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

RATIO = 2.604


@dataclass(frozen=True)
class Preset:
    """One named setting.

    d_model: the model's width; q: the dimension of the encoded states.
    layers: 0-based blocks; more than one where the preset is a sweep over layers.
    learning_rate, epochs, batch_size: the schedule of the Born training.
    prompts_per_class: how many texts of each class are recorded.
    """

    name: str
    model: str
    d_model: int
    q: int
    layers: tuple[int, ...]
    learning_rate: float
    epochs: int
    batch_size: int
    prompts_per_class: int
    note: str = ""
    blend_ratios: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2)
    seed: int = 42
    device: str = "auto"
    data_folder: str = "data"
    models_folder: str = "models"
    results_folder: str = "results"

    @property
    def n_layers(self) -> int:
        """How many blocks the preset's own model has, for the relative depth of ``layers``."""
        return _DEPTHS[self.model.removesuffix("-GGUF")]

    @property
    def lossy(self) -> bool:
        """Whether q < d_model, where encoding forgets d_model - q directions or more."""
        return self.q < self.d_model

    @property
    def free_parameters(self) -> int:
        """q²: the real numbers in a Hermitian generator, all of which are stored here."""
        return self.q**2

    @property
    def source_parameters(self) -> int:
        """2 q²: what two full squares hold, of which only triangles are used."""
        return 2 * self.q**2

    def to_json(self) -> dict[str, Any]:
        """Everything above as JSON values, with the bytes of the parameters in float32."""
        facts = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return facts | {
            "lossy": self.lossy,
            "free_parameters": self.free_parameters,
            "source_parameters": self.source_parameters,
            "bytes": 4 * self.free_parameters,
            "source_bytes": 4 * self.source_parameters,
        }


def _named(presets: Iterable[Preset]) -> dict[str, Preset]:
    return {preset.name: preset for preset in presets}


_SMALL = "gpt2"
_3B = "Qwen/Qwen2.5-3B-Instruct"
_7B = "Qwen/Qwen2.5-7B-Instruct"
_410M = "EleutherAI/pythia-410m"
_4B = "Qwen/Qwen3-4B"
_DEPTHS = {_SMALL: 12, _3B: 36, _7B: 28, _410M: 24, _4B: 36}
_SWEEP = (25, 27, 29, 31, 33, 35)
_LOSSY = "q < d_model: lossy"

PRESETS = _named(
    [
        Preset("tiny", _SMALL, 768, 500, (6,), 1e-3, 50, 5, 10, _LOSSY),
        Preset("local", _SMALL, 768, 2000, (6,), 1e-3, 100, 10, 50),
        Preset("remote", _SMALL, 768, 10000, (6,), 5e-4, 150, 20, 50, "q far above 2.604 d_model"),
        Preset("qwen_tiny", _3B, 2048, 1500, (18,), 1e-3, 50, 5, 10, _LOSSY),
        Preset("qwen_local", _3B, 2048, 5333, (31,), 1e-3, 100, 10, 50),
        Preset(
            "qwen_test_layers", _3B, 2048, 2000, _SWEEP, 1e-3, 50, 5, 20, f"layer sweep; {_LOSSY}"
        ),
        Preset("qwen_remote", _7B, 3584, 9333, (14,), 8e-4, 100, 16, 50),
        Preset("pythia_410m", _410M, 1024, 2666, (22,), 1e-3, 100, 12, 50),
        Preset(
            "pythia_test_layers",
            _410M,
            1024,
            2000,
            (6, 12, 18, 20, 22),
            1e-3,
            50,
            5,
            20,
            "layer sweep",
        ),
        Preset("qwen3_4b", _4B, 2560, 6666, (18,), 1e-3, 100, 12, 50),
        Preset(
            "qwen3_4b_test_layers",
            _4B,
            2560,
            2000,
            _SWEEP,
            1e-3,
            50,
            5,
            20,
            f"layer sweep; {_LOSSY}",
        ),
        Preset(
            "qwen_remote_q8",
            f"{_7B}-GGUF",
            3584,
            9333,
            (14,),
            8e-4,
            100,
            16,
            50,
            "8-bit weights (Q8_0 GGUF), for the backend llamacpp; cogit quantised compares them",
        ),
    ]
)


def preset(name: str) -> Preset:
    """The preset of this name. ValueError, listing all names, for another."""
    try:
        return PRESETS[name]
    except KeyError:
        message = f"[presets] expected one of {', '.join(PRESETS)}; got {name!r}"
        raise ValueError(message) from None
