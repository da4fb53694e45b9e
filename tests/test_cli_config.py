"""cogit config: every value with its source (row P16), the files, and the environment."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from _settings import write
from cogit.cli import config as config_command
from cogit.cli import settings_files
from cogit.cli.main import PROGRAMS, main
from cogit.cli.settings_env import OTHERS
from test_cli import flags_of

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parent.parent


def shown(capfd: Capture, *words: str) -> dict[str, Any]:
    assert main(["config", "show", "--json", *words]) == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)["commands"]
    return found


def test_flags_are_frozen() -> None:
    group: Any = get_command(config_command.app)
    assert {name: flags_of(command) for name, command in group.commands.items()} == {
        "show": {"--help", "--json"},
        "path": {"--help", "--json"},
        "check": {"--help", "--json"},
    }


def test_show_names_the_source_of_every_value(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P16: flag, variable, file and line, packaged default."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    user = write(tmp_path / "cogit/config.toml", "[fit]\nk = 3\n\nepochs = 7\n[runtime]\nseed = 5")
    given = write(tmp_path / "given.toml", "# mine\n[fit]\nk = 4\n")
    monkeypatch.setenv("COGIT_RUNTIME_DTYPE", "bf16")
    monkeypatch.setenv("COGIT_FIT_FORCE", "yes")
    words = ["fit", "--config", str(given), "--", "--gain", "2", "--auto", "false"]
    found = shown(capfd, *words)
    assert list(found) == ["fit"]
    assert set(found["fit"]) == set(PROGRAMS.commands[("fit",)].flags)
    lines = settings_files.PACKAGED.read_text(encoding="utf-8").splitlines()
    line = lines.index('backend = "transformers"') + 1
    expected = {
        "k": (4, f"{given}:3"),
        "epochs": (7, f"{user}:4"),
        "seed": (5, f"{user}:6"),
        "dtype": ("bf16", "env COGIT_RUNTIME_DTYPE"),
        "force": (True, "env COGIT_FIT_FORCE"),
        "gain": (2.0, "flag --gain"),
        "auto": (False, "flag --auto"),
        "backend": ("transformers", f"packaged default {settings_files.PACKAGED}:{line}"),
        "angle": (None, "not set"),
        "out": (None, "not set"),
    }
    assert {key: (found["fit"][key]["value"], found["fit"][key]["source"]) for key in expected} == (
        expected
    )
    assert found["fit"]["angle"]["note"] == "60"
    assert found["fit"]["out"]["note"] == "required"
    assert main(["config", "show", *words]) == 0
    out = capfd.readouterr().out
    assert re.search(rf"(?m)^  k +4 +{re.escape(str(given))}:3$", out)
    assert re.search(r"(?m)^  force +true +env COGIT_FIT_FORCE$", out)
    assert re.search(r"(?m)^  angle +- +not set \(60\)$", out)


def test_show_of_all_commands(capfd: Capture) -> None:
    found = shown(capfd)
    assert set(found) == {" ".join(path) for path in PROGRAMS.commands}
    assert {"infer", "fit", "sweep"} <= set(found)
    assert found["infer"]["max_tokens"]["value"] == 25


def test_show_of_a_shared_model(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COGIT_MODEL", "m")
    one = shown(capfd, "fit")["fit"]["model"]
    assert (one["value"], one["source"]) == ("m", "env COGIT_MODEL")
    assert one["note"] == "where a model is needed and none is named"
    assert shown(capfd, "parity")["parity"]["model"]["value"] is None


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["fitt"], "expected a command with flags, got 'fitt'; such as fit"),
        (["fit", "--", "--k", "abc"], "'--k'"),
        (["fit", "--", "--bogus"], "--bogus"),
        (["fit", "--", "--k", "0"], "--k"),
        (["config", "show"], "expected a command with flags"),
    ],
)
def test_show_refuses(words: list[str], part: str, capfd: Capture) -> None:
    assert main(["config", "show", *words]) == 2
    out, err = capfd.readouterr()
    assert not out
    assert part in err
    assert err.count("\n") == 1


def test_values_that_a_flag_does_not_take_are_refused_with_their_source(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in [
        ("COGIT_SWEEP_FOLDS", "many"),
        ("COGIT_SWEEP_BACKEND", "both"),
        ("COGIT_RUNTIME_THREADS", "0"),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            for call in (["sweep", "--pairs", "p"], ["config", "show", "sweep"]):
                assert main(call) == 2
                err = capfd.readouterr().err
                assert f"is from env {variable}" in err
                assert err.count("\n") == 1


def test_path_lists_the_files(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    named = write(tmp_path / "named.toml", "")
    monkeypatch.setenv("COGIT_CONFIG", str(named))
    assert main(["config", "path", "--json", "--config", str(tmp_path / "absent")]) == 0
    found = json.loads(capfd.readouterr().out)["files"]
    assert [(Path(one["file"]), one["exists"]) for one in found] == [
        (settings_files.PACKAGED, True),
        (tmp_path / "cogit" / "config.toml", False),
        (named, True),
        (tmp_path / "absent", False),
    ]
    assert main(["config", "path"]) == 0
    assert f"read    {named} (COGIT_CONFIG)" in capfd.readouterr().out


def test_check_says_that_a_file_is_valid(tmp_path: Path, capfd: Capture) -> None:
    file = write(tmp_path / "c.toml", "[fit]\nk = 3\n[runtime]\nthreads = 2\n[cost]\n")
    assert main(["config", "check", str(file)]) == 0
    assert capfd.readouterr().out == f"{file}: valid, 2 settings\n"
    assert main(["config", "check", str(file), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["valid"] is True
    assert main(["config", "check", str(settings_files.PACKAGED)]) == 0


def test_nested_commands_and_new_ones_have_settings(tmp_path: Path, capfd: Capture) -> None:
    """A command needs no more than to be in the app, also in a group."""
    from cogit.cli.errors import run
    from cogit.cli.settings_flags import Programs

    app, group = typer.Typer(), typer.Typer()
    seen: list[tuple[int, float, int]] = []

    @group.command("check")
    def check(
        count: int = 1, cost_rate: float = 0.5, threads: int = typer.Option(1, "--threads")
    ) -> None:
        seen.append((count, cost_rate, threads))

    @app.command("other")
    def other() -> None:
        pass

    app.add_typer(group, name="prompts")
    text = "[prompts.check]\ncount = 2\n[cost]\nrate = 3\n[runtime]\nthreads = 4\n"
    config = ["--config", str(write(tmp_path / "c.toml", text))]
    programs = Programs({(): app})
    assert run(app, "test", ["prompts", "check", *config], programs) == 0
    assert run(app, "test", ["prompts", "check", *config, "--count", "9"], programs) == 0
    assert seen == [(2, 3.0, 4), (9, 3.0, 4)]
    write(tmp_path / "c.toml", "[prompts]\ncheckk = 1\n")
    assert run(app, "test", ["other", *config], programs) == 2
    assert "names in [prompts] like it: check" in capfd.readouterr().err


# ---- the environment ----


def test_unknown_variables_are_warned_of(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COGIT_FIT_LAMDBA", "secret")
    monkeypatch.setenv("COGIT_CPU_VARIANT", "baseline")
    assert main(["presets", "tiny"]) == 0
    err = capfd.readouterr().err
    assert err.startswith("warning      the environment variable COGIT_FIT_LAMDBA sets nothing; ")
    assert "COGIT_FIT_LAMBDA" in err
    assert "secret" not in err
    assert err.count("\n") == 1
    assert main(["presets", "--help"]) == 0
    assert not capfd.readouterr().err


def test_variables_of_other_parts_are_known() -> None:
    """Each one that the sources read is known: a new one is to be added to OTHERS."""
    read = re.compile(r"""(?:environ\S*|getenv|ENV|_VARIABLE = )[({"'\[]*(COGIT_[A-Z_]+)""")
    files = [ROOT / "CMakeLists.txt", *(ROOT / "cmake").glob("*.cmake")]
    for folder, suffix in (("python/cogit", ".py"), ("csrc", ".cpp"), ("csrc", ".h")):
        files += [f for f in (ROOT / folder).rglob(f"*{suffix}") if "_llama" not in f.parts]
    found = {name for file in files for name in read.findall(file.read_text(encoding="utf-8"))}
    assert {"COGIT_CPU_VARIANT", "COGIT_NUM_THREADS", "COGIT_LLAMA_LOG", "COGIT_MODEL"} <= found
    assert found <= OTHERS


# ---- what is written when ----


def test_lines_are_written_at_once() -> None:
    """Q48: into a pipe, a line is there when it ends, not when the process does."""
    code = (
        "import sys, time\n"
        "from cogit.cli import main\n"
        "leaf = main.PROGRAMS.commands[('presets',)].command\n"
        "leaf.callback = lambda **_: (print('first'), sys.stdin.read())\n"
        "main.main(['presets'])\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as run:
        assert run.stdout is not None
        # The process goes on only after its first line was read here.
        assert run.stdout.readline() == "first\n"
        assert run.poll() is None
        run.communicate("", timeout=60)
    assert run.returncode == 0
