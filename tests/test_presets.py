"""The named settings and the command that lists them (row Q1)."""

from __future__ import annotations

import dataclasses
import json

import pytest

from cogit.cli.main import main
from cogit.presets import PRESETS, RATIO, preset
from cogit.training.born_config import BornConfig

# name: d, q, layers, learning rate, epochs, batch, prompts per class
TABLE = {
    "tiny": (768, 500, (6,), 1e-3, 50, 5, 10),
    "local": (768, 2000, (6,), 1e-3, 100, 10, 50),
    "remote": (768, 10000, (6,), 5e-4, 150, 20, 50),
    "qwen_tiny": (2048, 1500, (18,), 1e-3, 50, 5, 10),
    "qwen_local": (2048, 5333, (31,), 1e-3, 100, 10, 50),
    "qwen_test_layers": (2048, 2000, (25, 27, 29, 31, 33, 35), 1e-3, 50, 5, 20),
    "qwen_remote": (3584, 9333, (14,), 8e-4, 100, 16, 50),
    "pythia_410m": (1024, 2666, (22,), 1e-3, 100, 12, 50),
    "pythia_test_layers": (1024, 2000, (6, 12, 18, 20, 22), 1e-3, 50, 5, 20),
    "qwen3_4b": (2560, 6666, (18,), 1e-3, 100, 12, 50),
    "qwen3_4b_test_layers": (2560, 2000, (25, 27, 29, 31, 33, 35), 1e-3, 50, 5, 20),
    "qwen_remote_q8": (3584, 9333, (14,), 8e-4, 100, 16, 50),
}


def test_names_and_dimensions_are_the_listed_ones() -> None:
    """Row Q1: eleven presets and the 8-bit one."""
    found = {}
    for name, p in PRESETS.items():
        schedule = (p.learning_rate, p.epochs, p.batch_size, p.prompts_per_class)
        found[name] = (p.d_model, p.q, p.layers, *schedule)
    assert found == TABLE


def test_common_settings() -> None:
    """Row Q1, and row Q3: no preset pins a device."""
    for name, value in PRESETS.items():
        assert value.name == name
        assert value.device == "auto"
        assert value.seed == 42
        assert value.blend_ratios == (0.02, 0.05, 0.1, 0.2)
        folders = (value.data_folder, value.models_folder, value.results_folder)
        assert folders == ("data", "models", "results")
        assert value.lossy == ("lossy" in value.note) == (value.q < value.d_model)
    at_the_ratio = [n for n, p in PRESETS.items() if p.q == round(RATIO * p.d_model)]
    assert at_the_ratio == [
        "local",
        "qwen_local",
        "qwen_remote",
        "pythia_410m",
        "qwen3_4b",
        "qwen_remote_q8",
    ]
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset("tiny").q = 3  # type: ignore[misc]


def test_stored_numbers() -> None:
    published = {
        "local": 8_000_000,
        "remote": 200_000_000,
        "qwen_local": 56_881_778,
        "qwen_remote": 174_209_778,
        "pythia_410m": 14_215_112,
    }
    for name, count in published.items():
        assert preset(name).source_parameters == count
        assert preset(name).free_parameters * 2 == count
    assert preset("remote").to_json()["source_bytes"] == 800_000_000


def test_a_training_takes_its_schedule_from_a_preset() -> None:
    config = BornConfig.of(preset("qwen_remote"))
    assert (config.learning_rate, config.epochs, config.batch_size, config.seed) == (
        8e-4,
        100,
        16,
        42,
    )


def test_the_command_lists_all(capfd: pytest.CaptureFixture[str]) -> None:
    """Row Q1: `cogit presets --json` has 11 and the 8-bit one."""
    assert main(["presets", "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert list(facts["presets"]) == list(TABLE)
    assert facts["presets"]["tiny"]["layers"] == [6]
    assert main(["presets"]) == 0
    out = capfd.readouterr().out
    assert all(name in out for name in TABLE)
    assert "500*" in out


def test_the_command_shows_one(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "qwen_tiny", "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert (facts["name"], facts["q"], facts["lossy"]) == ("qwen_tiny", 1500, True)
    assert main(["presets", "qwen_tiny"]) == 0
    assert "1500" in capfd.readouterr().out


def test_an_unknown_name_lists_the_valid_ones(capfd: pytest.CaptureFixture[str]) -> None:
    """Row Q1: exit code 2 with the list."""
    with pytest.raises(ValueError, match=r"^\[presets\] expected one of tiny, .*got 'qwen'$"):
        preset("qwen")
    assert main(["presets", "qwen", "--json"]) == 2
    out, err = capfd.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert all(name in err for name in TABLE)
