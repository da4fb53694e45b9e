"""Lineage, freshness, state and lock of a run folder; nothing here loads a model."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cogit.errors import ArtefactError
from cogit.pipeline.freshness import Policy, decide, require_earlier, require_same_lineage
from cogit.pipeline.lineage import Lineage, fingerprint
from cogit.pipeline.lock import FILE, run_lock, start_time
from cogit.pipeline.plan import PHASES
from cogit.pipeline.state import RunState, phase_folder, sweep_leftovers


def lineages(**fields: Any) -> dict[str, Lineage]:
    found: dict[str, Lineage] = {}
    before = None
    for phase in PHASES:
        found[phase] = Lineage(phase, fields if phase == "record" else {}, before)
        before = found[phase].fingerprint
    return found


def finished(
    folder: Path, chain: dict[str, Lineage], minutes: float = 0.0, phases: Any = PHASES
) -> RunState:
    """A run folder with one small file a phase, finished so many minutes ago."""
    folder.mkdir(exist_ok=True)
    state = RunState.load(folder)
    for phase in phases:
        with phase_folder(folder, phase) as made:
            (made / "result.json").write_text(f'"{phase}"', encoding="utf-8")
        one = chain[phase]
        state = state.with_phase(phase, one.to_json(), one.fingerprint, 1.5).judged(phase, True)
        when = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
        record = replace(state.phases[phase], finished=when)
        state = replace(state, phases={**state.phases, phase: record})
    state.save()
    return RunState.load(folder)


def reused(state: RunState, chain: dict[str, Lineage], **policy: Any) -> list[str]:
    decision = decide(state, chain, Policy(**policy))
    return [phase for phase in PHASES if decision.reuse[phase]]


def test_fingerprint_is_eight_digits_of_everything(tmp_path: Path) -> None:
    """Row Q33: the known digest of known JSON; a field, or the phase before, changes it."""
    # printf '{"a":1}' | sha256sum
    assert fingerprint({"a": 1}) == "015abd7f"
    one, other = lineages(seed=1), lineages(seed=2)
    assert all(one[phase].fingerprint != other[phase].fingerprint for phase in PHASES)
    assert one["record"].differences(other["record"].to_json()) == ["seed 2 then, 1 now"]


@pytest.mark.parametrize("policy", [{}, {"yes": True}, {"resume": True}])
def test_other_lineages_are_refused(tmp_path: Path, policy: dict[str, Any]) -> None:
    """Row Q33: no policy but --force goes over a run of other settings."""
    state = finished(tmp_path / "run", lineages(seed=1, dtype="f32"))
    changed = lineages(seed=1, dtype="bf16")
    with pytest.raises(ValueError, match=r"^\[lineage\].*dtype f32 then, bf16 now"):
        require_same_lineage(state, changed, Policy(**policy))
    require_same_lineage(state, changed, Policy(force=True))
    assert reused(state, changed, **policy) == []
    require_same_lineage(state, lineages(seed=1, dtype="f32"), Policy(**policy))


def test_ages(tmp_path: Path) -> None:
    """Row Q32: 10 minutes old is asked about, 2 hours old is made anew, also with --yes."""
    chain, asked = lineages(), []

    def answer(value: bool) -> Any:
        def ask(text: str) -> bool:
            asked.append(text)
            return value

        return ask

    fresh = finished(tmp_path / "fresh", chain, minutes=10)
    assert reused(fresh, chain, ask=answer(True)) == list(PHASES)
    assert reused(fresh, chain, ask=answer(False)) == []
    assert "10 min ago" in asked[0]
    assert len(asked) == 2
    stale = finished(tmp_path / "stale", chain, minutes=120)
    for policy in ({"ask": answer(True)}, {"yes": True}, {}):
        assert reused(stale, chain, **policy) == []
    assert len(asked) == 2  # nothing to ask about
    # Nobody there to answer: as --yes, without waiting.
    assert reused(fresh, chain) == list(PHASES)
    assert reused(fresh, chain, yes=True, ask=answer(False)) == list(PHASES)
    # An interrupted run goes on whatever its age.
    assert reused(stale, chain, resume=True, ask=answer(False)) == list(PHASES)
    assert reused(fresh, chain, force=True) == []
    future = finished(tmp_path / "future", chain, minutes=-30)
    assert reused(future, chain, yes=True) == []


def test_a_phase_made_again_makes_the_later_ones_stale(tmp_path: Path) -> None:
    """Row Q34: the state's flags say so, and nothing stale is used, even where bytes are equal."""
    folder, chain = tmp_path / "run", lineages()
    finished(folder, chain)
    state = finished(folder, chain, phases=["record"])
    flags = json.loads((folder / "state.json").read_text(encoding="utf-8"))["phases"]
    assert flags["fit"]["matches"] == {"record": False}
    assert flags["reverse"]["matches"] == {
        "record": False,
        **dict.fromkeys(PHASES[1:4], True),
    }
    assert reused(state, chain, resume=True) == ["record"]
    assert state.problem("fit") == "stale: record was made again since"


def test_files_of_other_runs_are_not_used(tmp_path: Path) -> None:
    """Row Q31, "this run's files only": changed, missing and added files are told."""
    folder, chain = tmp_path / "run", lineages()
    state = finished(folder, chain)
    (folder / "evaluate" / "evaluation_old.json").write_text("{}", encoding="utf-8")
    assert state.problem("evaluate") == "evaluate/evaluation_old.json is not of this run"
    (folder / "evaluate" / "evaluation_old.json").unlink()
    (folder / "fit" / "result.json").write_text("1", encoding="utf-8")
    assert state.problem("fit") == "fit/result.json changed since"
    (folder / "record" / "result.json").unlink()
    assert reused(state, chain, resume=True) == []


def test_a_later_phase_needs_the_earlier_ones(tmp_path: Path) -> None:
    """Row Q33: an error, before any work."""
    folder, chain = tmp_path / "run", lineages()
    state = finished(folder, chain, phases=["record"])
    require_earlier(state, chain, "fit")
    with pytest.raises(ValueError, match=r"phase fit in .* before generate, got one that is not f"):
        require_earlier(state, chain, "generate")
    with pytest.raises(ValueError, match="of another lineage"):
        require_earlier(state, lineages(seed=2), "fit")
    with pytest.raises(ValueError, match="not through its gate"):
        require_earlier(state.judged("record", False), chain, "fit")


def test_a_phase_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail() -> None:
        with phase_folder(tmp_path, "fit") as made:
            (made / "half").write_text("x", encoding="utf-8")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):  # the second takes the place of the first
        with phase_folder(tmp_path, "fit") as made:
            (made / "whole").write_text("x", encoding="utf-8")
    (tmp_path / ".fit.killed").mkdir()
    assert sweep_leftovers(tmp_path) == [".fit.killed"]
    assert [path.name for path in tmp_path.iterdir()] == ["fit"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"format": "x", "format_version": 1, "phases": {}}',
        '{"format": "cogit pipeline state", "format_version": 1, "phases": {"fit": 3}}',
        '{"format": "cogit pipeline state", "format_version": 1, "phases": {"fit": {"number": 1}}}',
        "[" * 100_000,
    ],
)
def test_damaged_states_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtefactError, match=r"^\[pipeline\] expected the state"):
        RunState.load(tmp_path)


@pytest.mark.parametrize("name", ["/etc/passwd", "fit/../../x", "a\0b"])
def test_states_cannot_point_outside(tmp_path: Path, name: str) -> None:
    finished(tmp_path, lineages(), phases=["record"])
    path = tmp_path / "state.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["phases"]["record"]["outputs"] = {name: "0"}
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ArtefactError, match="within the run folder"):
        RunState.load(tmp_path)


def test_second_run_is_refused_and_names_the_first(tmp_path: Path) -> None:
    """Row P22."""
    code = (
        "import sys, pathlib; from cogit.pipeline.lock import run_lock\n"
        f"with run_lock(pathlib.Path({str(tmp_path)!r}), print):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(BlockingIOError, match=rf"process {other.pid} runs a pipeline"),
            run_lock(tmp_path, print),
        ):
            pass
        other.kill()
    said: list[str] = []
    with run_lock(tmp_path, said.append):
        holder = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
        assert holder["pid"] == os.getpid()
        assert holder["started"] == start_time(os.getpid())
    assert said == [f"cleared the lock of process {other.pid}, which is gone"]
    assert not (tmp_path / FILE).exists()


def test_a_number_given_to_another_process_is_told_apart(tmp_path: Path) -> None:
    """Row P22: where the file system shares no locks, the start time decides."""
    parent = os.getppid()

    def left(**changes: Any) -> None:
        facts = {"pid": parent, "started": start_time(parent), "host": socket.gethostname()}
        (tmp_path / FILE).write_text(json.dumps({**facts, **changes}), encoding="utf-8")

    left()
    with pytest.raises(BlockingIOError, match=f"process {parent}"), run_lock(tmp_path, print):
        pass
    said: list[str] = []
    left(started=1)
    with run_lock(tmp_path, said.append):
        pass
    assert said == [f"cleared the lock of process {parent}, which is another process now"]
    left(host="elsewhere")
    with pytest.raises(BlockingIOError, match="on elsewhere holds"), run_lock(tmp_path, print):
        pass
    (tmp_path / FILE).write_bytes(b"\xff not json")
    with run_lock(tmp_path, said.append):
        pass


def test_a_judge_is_what_it_reads(tmp_path: Path) -> None:
    """Other words in the same file are another judge; the same words elsewhere are the same."""
    from cogit.pipeline.lineages import judge_fields

    one, other = tmp_path / "a" / "words.txt", tmp_path / "b" / "words.txt"
    for path in (one, other):
        path.parent.mkdir()
        path.write_text("good,1\nbad,-1\n", encoding="utf-8")
    before = judge_fields(f"lexicon:{one}")
    assert judge_fields(f"lexicon:{other}") == before
    assert judge_fields(f"lexicon:{one}?negation=not") != before
    one.write_text("good,-1\nbad,1\n", encoding="utf-8")
    assert judge_fields(f"lexicon:{one}") != before
    weights = tmp_path / "classifier"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"one")
    before = judge_fields(f"classifier:{weights}")
    (weights / "model.safetensors").write_bytes(b"two")
    assert judge_fields(f"classifier:{weights}") != before
    with pytest.raises(FileNotFoundError):
        judge_fields(f"lexicon:{tmp_path / 'none.txt'}")
