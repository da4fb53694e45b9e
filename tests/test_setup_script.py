"""scripts/setup.sh: safe to run again, and nothing of one person's machine in it (row Q44)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "setup.sh"

# Stands for python: `-m venv` makes an environment of itself, `-m pip` is noted.
FAKE = """#!/bin/sh
case "$1 $2" in
  "-c import"*) exit "${FAKE_OLD:-0}" ;;
  "-m venv")
    mkdir -p "$3/bin" && touch "$3/pyvenv.cfg" && cp "$0" "$3/bin/python"
    printf '#!/bin/sh\\necho cogit 0\\n' > "$3/bin/cogit" && chmod +x "$3/bin/cogit" ;;
  "-m pip") shift 2; echo "$@" >> "$FAKE_LOG"; exit "${FAKE_FAILS:-0}" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small tree with what the script looks at, and a false python."""
    root = tmp_path / "a checkout"
    for name in ("requirements.txt", "pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, encoding="utf-8")
    for name in ("cmake", "csrc", "python/cogit", "vendor", "scripts"):
        (root / name).mkdir(parents=True)
    (root / "python/cogit/a.py").write_text("x = 1\n", encoding="utf-8")
    shutil.copy(SCRIPT, root / "scripts")
    fake = tmp_path / "python"
    fake.write_text(FAKE, encoding="utf-8")
    fake.chmod(0o755)
    return root


def run(
    checkout: Path, *arguments: str, code: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [checkout / "scripts/setup.sh", "--python", checkout.parent / "python", *arguments],
        env={**os.environ, "FAKE_LOG": str(checkout.parent / "log"), **environment},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done


def installs(checkout: Path) -> list[str]:
    log = checkout.parent / "log"
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def test_syntax_and_no_personal_paths() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    text = SCRIPT.read_text(encoding="utf-8")
    assert os.access(SCRIPT, os.X_OK)
    assert "requirements.txt" in text
    for word in ("/home/", "/root", "/Users/", "/work", "~/", "sudo", "curl", "eval"):
        assert word not in text


def test_a_second_run_installs_nothing(checkout: Path) -> None:
    """Q44: idempotent, from any folder; what changed is installed."""
    run(checkout)
    assert installs(checkout) == ["install -r requirements.txt ."]
    assert "nothing changed" in run(checkout).stdout
    assert len(installs(checkout)) == 1
    (checkout / "python/cogit/a.py").write_text("x = 2\n", encoding="utf-8")
    run(checkout)
    run(checkout, "--extras", "test")
    run(checkout, "--extras", "test")
    run(checkout, "--extras", "test", "--force")
    assert installs(checkout)[1:] == [
        "install -r requirements.txt .",
        "install -r requirements.txt .[test]",
        "install -r requirements.txt .[test]",
    ]


def test_an_interrupted_install_is_done_again(checkout: Path) -> None:
    run(checkout, code=1, FAKE_FAILS="1")
    run(checkout)
    run(checkout)
    assert len(installs(checkout)) == 2


def test_a_dry_run_changes_nothing(checkout: Path) -> None:
    before = sorted(checkout.rglob("*"))
    out = run(checkout, "--dry-run", "--venv", "an environment", "--extras", "test").stdout
    assert "-m venv an\\ environment" in out
    assert "install -r requirements.txt .\\[test\\]" in out
    assert sorted(checkout.rglob("*")) == before
    assert not installs(checkout)


def test_refusals_are_one_line_and_touch_nothing(checkout: Path) -> None:
    (checkout / "mine").mkdir()
    (checkout / "mine" / "file").write_text("kept", encoding="utf-8")
    for arguments, part, environment in [
        (["--venv", "mine"], "expected a virtual environment or a new folder, got mine", {}),
        (["--bogus"], "got --bogus", {}),
        (["--venv"], "expected a value after --venv", {}),
        (["--extras", "test];x"], "names of extras", {}),
        (["--python", "absent-python"], "absent-python, which is not found", {}),
        ([], "expected Python 3.11 or later", {"FAKE_OLD": "1"}),
    ]:
        err = run(checkout, *arguments, code=2, **environment).stderr
        assert err.startswith("error: [setup] ")
        assert part in err
        assert err.count("\n") == 1
    assert [f.name for f in (checkout / "mine").iterdir()] == ["file"]
    assert not (checkout / ".venv").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_real_environment(tmp_path: Path) -> None:
    """From nothing to a command that answers; needs a package index."""
    command = [SCRIPT, "--python", sys.executable, "--venv", tmp_path / "venv"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for expected in ("cogit ", "nothing changed"):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert expected in done.stdout
    script = tmp_path / "venv/bin/cogit"
    subprocess.run([script, "config", "show"], env=environment, cwd=tmp_path, check=True)
