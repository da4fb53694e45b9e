"""The memory check as the commands do it, and ``cogit estimate``."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from cogit import memory_estimate, memory_free
from cogit.cli import infer, main
from cogit.demo.assets import demo_model
from cogit.memory_free import Memory

PLAIN = ["--max-tokens", "1", "--lambda", "0.1", "--no-verify", "--prompt", "the room was"]


def little(monkeypatch: pytest.MonkeyPatch, free: int = 1_000_000) -> None:
    memory = Memory(free, 2_000_000)
    for module in (memory_estimate, memory_free):
        monkeypatch.setattr(module, "free_memory", lambda _: memory)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_model_that_does_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Q39: parts, free and total are shown; without a terminal exit code 2, nothing is loaded."""
    little(monkeypatch)
    assert infer.main(PLAIN) == 2
    out, err = capfd.readouterr()
    assert not out
    lines = err.splitlines()
    assert lines[0].startswith("device       cpu (no CUDA device is visible: torch ")
    for name in ("weights", "workspace", "KV cache", "operators", "free of total"):
        assert any(line.startswith(f"memory       {name}") for line in lines), name
    assert lines[-1].startswith("error: [memory] expected ")
    assert "no terminal to ask at" in lines[-1]
    assert "1.0 MB of 2.0 MB free" in lines[-1]
    assert "after model" not in err


@pytest.mark.parametrize("flag", ["--yes", "--no-memory-check"])
def test_flags_that_go_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], flag: str
) -> None:
    little(monkeypatch)
    assert infer.main([*PLAIN, flag]) == 0
    out, err = capfd.readouterr()
    assert out.strip()
    assert ("--yes" if flag == "--yes" else "not checked") in err


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 2), ("no\n", 2)])
def test_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch, answer: str, code: int) -> None:
    """Q39: prompt [y/N]."""
    little(monkeypatch)
    screen = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", screen)
    assert infer.main(PLAIN) == code
    assert "go on all the same? [y/N] " in screen.getvalue()


def test_memory_prints_an_estimate(capfd: pytest.CaptureFixture[str]) -> None:
    assert main.main(["estimate", "--q", "333", "--json"]) == 0
    out, err = capfd.readouterr()
    facts = json.loads(out)
    assert {"process", "weights", "optimiser"} <= {part["name"] for part in facts["parts"]}
    assert facts["fits"] is True
    assert facts["total"] > facts["parts"][0]["bytes"]
    assert "nothing is loaded" in err
    gguf = str(demo_model("llamacpp", "q8_0"))
    assert main.main(["estimate", "--backend", "llamacpp", "--model", gguf]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "fits"


def test_memory_exits_with_1_where_it_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    little(monkeypatch)
    assert main.main(["estimate", "--q", "9333"]) == 1
    assert capfd.readouterr().out.splitlines()[-1] == "TOO BIG"


@pytest.mark.parametrize(
    "arguments", [["--model", "/nowhere"], ["--backend", "llamacpp", "--model", "none.gguf"]]
)
def test_memory_of_nothing_is_refused(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["estimate", *arguments]) == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: [")


@pytest.mark.parametrize("flag", ["--yes", "--no-memory-check"])
def test_the_pipeline_has_the_flags_that_its_refusal_names(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    flag: str,
) -> None:
    little(monkeypatch)
    study = tmp_path / "study.toml"
    study.write_text("[base]\npreset = 'tiny'\nlayers = '99'\n", encoding="utf-8")
    # With the flag it goes on to the blocks, which the model has not.
    for command in (
        ["pipeline", "--out", str(tmp_path / "run"), "--layers", "99"],
        ["study", str(study), "--out", str(tmp_path / "study")],
    ):
        assert main.main(command) != 0
        assert "[memory] expected" in capfd.readouterr().err
        assert main.main([*command, flag]) != 0
        err = capfd.readouterr().err
        assert "[memory] expected" not in err
        assert "[layers]" in err
