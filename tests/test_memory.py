"""Memory estimates as nouns, the question before a load, what is free, and running out of it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
import typer

from cogit.cli.errors import run
from cogit.errors import MemoryRefusedError
from cogit.memory import (
    Estimate,
    Part,
    explain_out_of_memory,
    is_out_of_memory,
    megabytes,
    remember,
    require_memory,
)
from cogit.memory_free import Memory, cpu_memory, free_memory, resident
from cogit.memory_log import LOG, StageLog, memory_line

if TYPE_CHECKING:
    from pathlib import Path

PARTS = (
    Part("weights", 1000),
    Part("source files", 4000, "load", reclaimable=True),
    Part("workspace", 300, "run"),
    Part("KV cache", 200, "run", "upper bound"),
)


def test_a_peak_has_the_larger_of_loading_and_running() -> None:
    estimate = Estimate(PARTS, free=2000, total_device=9000, resident=100)
    assert estimate.total == 1000 + 4000
    # Mapped pages are given back: what must be free is the running phase, less what is held.
    assert estimate.needed == 1000 + 500 - 100
    assert estimate.fits
    assert not Estimate(PARTS, free=1300, resident=100).fits
    assert Estimate(PARTS).fits is None
    assert Estimate(PARTS, free=9000, unknown=("the model",)).fits is None
    assert Estimate(PARTS, free=10, unknown=("the model",)).fits is False
    with pytest.raises(ValueError, match="expected 0 bytes or more"):
        Part("weights", -1)


def test_the_parts_are_shown_and_are_json() -> None:
    """Q39: weights, operators, workspace, cache, free and total."""
    estimate = Estimate(PARTS, "cuda:1", 2_500_000_000, 32_000_000_000, unknown=("the rest",))
    text = estimate.describe()
    for part in ("weights", "workspace", "KV cache", "upper bound", "cuda:1", "the rest"):
        assert part in text
    assert "2.50 GB of 32.00 GB" in text
    facts = json.loads(json.dumps(estimate.to_json()))
    assert facts["total"] == 5000
    assert facts["fits"] is None
    assert [part["name"] for part in facts["parts"]] == [part.name for part in PARTS]
    assert megabytes(999_000) == "1.0 MB"


def test_enough_memory_is_one_line() -> None:
    lines: list[str] = []
    require_memory(Estimate(PARTS, free=10**9, total_device=10**10), say=lines.append)
    assert len(lines) == 1
    assert "10.00 GB free on cpu" in lines[0]


@pytest.mark.parametrize("answer", [True, False])
def test_too_little_memory_is_a_question(answer: bool) -> None:
    """Q39: prompt [y/N]; refused is a MemoryError."""
    estimate, asked, lines = Estimate(PARTS, free=10), [], []

    def ask(question: str) -> bool:
        asked.append(question)
        return answer

    if answer:
        require_memory(estimate, ask=ask, say=lines.append)
    else:
        with pytest.raises(MemoryRefusedError, match="refused"):
            require_memory(estimate, ask=ask, say=lines.append)
    assert len(asked) == 1
    assert any("KV cache" in line for line in lines)


def test_nobody_to_ask_is_a_refusal_unless_told_yes() -> None:
    """Q39: insufficient without a terminal does not go on."""
    estimate = Estimate(PARTS, free=10, total_device=20)
    with pytest.raises(MemoryError, match=r"^\[memory\] expected .* no terminal .*--yes to try$"):
        require_memory(estimate)
    lines: list[str] = []
    require_memory(estimate, assume_yes=True, say=lines.append)
    assert "--yes" in lines[-1]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


@pytest.mark.parametrize("version", [1, 2])
def test_free_memory_is_the_least_of_machine_and_control_groups(
    tmp_path: Path, version: int
) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    write(proc / "meminfo", "MemTotal: 8000 kB\nMemFree: 10 kB\nMemAvailable: 5000 kB\n")
    assert cpu_memory(proc, groups) == Memory(5000 * 1024, 8000 * 1024)
    name = "0::/a/b" if version == 2 else "4:cpu,memory:/a/b\n1:cpu:/x"
    write(proc / "self" / "cgroup", name + "\n")
    base = groups if version == 2 else groups / "memory"
    limit, used, cache = (
        ("memory.max", "memory.current", "inactive_file")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    write(base / "a" / "b" / limit, "max" if version == 2 else "9223372036854771712")
    assert cpu_memory(proc, groups) == Memory(5000 * 1024, 8000 * 1024)
    write(base / "a" / limit, "3000000")
    write(base / "a" / used, "1000000")
    write(base / "a" / "memory.stat", f"{cache} 400000\nnonsense\n")
    assert cpu_memory(proc, groups) == Memory(2_400_000, 3_000_000)
    write(base / limit, "100")
    assert cpu_memory(proc, groups) == Memory(100, 100)


def test_a_machine_that_says_nothing_is_not_known(tmp_path: Path) -> None:
    assert cpu_memory(tmp_path, tmp_path) == Memory(None, None)
    assert resident(proc=tmp_path) == 0
    write(tmp_path / "meminfo", "MemTotal: 7 kB\nMemAvailable: x\n\0\n")
    write(tmp_path / "self" / "cgroup", "0::/../../etc\nbroken\n")
    assert cpu_memory(tmp_path, tmp_path) == Memory(None, 7 * 1024)


NUMBER = r"\d+\.\d\d"


def test_stage_lines_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Q42: `[GPU Memory <stage>] Allocated/Reserved/Free x / y GB`."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (60_000_000_000, 80_000_000_000))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 1_980_000_000)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 2_100_000_000)
    assert memory_line("after model", "cuda") == (
        "[GPU Memory after model] Allocated 1.98 GB, Reserved 2.10 GB, Free 60.00 / 80.00 GB"
    )
    assert free_memory("cuda:1") == Memory(60_000_000_000, 80_000_000_000)


def test_stage_lines_of_a_cpu(caplog: pytest.LogCaptureFixture) -> None:
    """Q42: a stage is told once, and again only where much more is in use."""
    log = StageLog("cpu")
    with caplog.at_level("INFO", LOG.name):
        for _ in range(3):
            log.tell("during generation")
    assert len(caplog.messages) == 1
    form = rf"\[CPU Memory during generation\] RSS {NUMBER} GB, Peak {NUMBER} GB, Free "
    assert re.fullmatch(rf"{form}{NUMBER} / {NUMBER} GB", caplog.messages[0])
    log._told["during generation"] = 1
    with caplog.at_level("INFO", LOG.name):
        log.tell("during generation")
    assert len(caplog.messages) == 2


OUT_OF_MEMORY = [
    MemoryError(),
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ValueError("[LlamaEngine] no context for m.gguf: failed to allocate buffer for kv cache"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
def test_running_out_is_one_line_with_the_estimate(
    error: Exception, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit 2 with estimate and remedies, tried once."""
    tries = []
    app = typer.Typer(add_completion=False)

    @app.command()
    def work() -> None:
        tries.append(1)
        remember(Estimate(PARTS))
        raise error

    assert run(app, "test", []) == 2
    text = capfd.readouterr().err
    assert text.startswith("error: [memory] expected enough memory, got: ")
    assert text.count("\n") == 1
    assert "KV cache 0.0 MB" in text
    assert "smaller batch" in text
    assert "--dtype" in text
    assert len(tries) == 1


def test_other_errors_are_not_memory() -> None:
    others: list[Any] = [
        ValueError("x"),
        RuntimeError("x"),
        OSError("failed to allocate"),
        KeyError(),
    ]
    assert not any(map(is_out_of_memory, [*others, MemoryRefusedError("no")]))
    remember(None)
    assert "nothing was estimated" in explain_out_of_memory(MemoryError())


def test_a_refusal_is_exit_code_2(capfd: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(add_completion=False)

    @app.command()
    def work() -> None:
        require_memory(Estimate(PARTS, free=10))

    assert run(app, "test", []) == 2
    assert capfd.readouterr().err.count("\n") == 1
