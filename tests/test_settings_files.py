"""Files of settings: lines, unknown names, wrong types, hostile files (rows P16, P17)."""

from __future__ import annotations

import os
import random
import tomllib
from pathlib import Path
from typing import Any

import pytest

from _settings import Calls, write
from cogit.cli import settings_files
from cogit.cli.main import main
from cogit.cli.toml_lines import key_lines

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[fit]\n\nkk = 3\n", ["'fit.kk'", ":3 ", "names in [fit] like it: k"]),
        ("[fitt]\nk = 3\n", ["'fitt'", ":1 ", "tables like it: fit"]),
        ("seed = 3\n", ["'seed'", ":1 "]),
        ("[runtime]\ntreads = 3\n", ["'runtime.treads'", ":2 ", "threads"]),
        ("[sampling]\nthreads = 3\n", ["'sampling.threads'", "[runtime] threads"]),
        ("[cost]\nrate = 1.0\n", ["'cost.rate'", ":2 "]),
        ("[fit]\nn-ctx = 3\n", ["'fit.n-ctx'"]),
        ("[fit.deeper]\nk = 3\n", ["'fit.deeper'", ":1 "]),
        ("[fit]\nmax_tokens = 3\n", ["'fit.max_tokens'", "[sampling] max_tokens"]),
        ('["a\\u001bb"]\n', ["expected a known name"]),
        ("[fit]\nk = '3'\n", ["a valid integer", "'fit.k'", "got '3'", ":2 "]),
        ("[fit]\nk = 3.0\n", ["a valid integer", "'fit.k'", "got 3.0"]),
        ("[fit]\nk = true\n", ["a valid integer", "got True"]),
        ("[fit]\nk = 2020-01-01\n", ["a valid integer"]),
        ("[fit]\nk = 0\n", ["greater than or equal to 1", ":2 "]),
        ("[fit]\nauto = 1\n", ["a valid boolean", "got 1"]),
        ("[fit]\nauto = 'true'\n", ["a valid boolean"]),
        ("[fit]\nmodel = 3\n", ["a valid string"]),
        ("[fit]\noperator = 'x'\n", ["'unitary', 'additive' or 'ablation'", "got 'x'"]),
        ("[fit]\nout = ['a']\n", ["fit.out"]),
        ("[fit]\ngain = 'inf'\n", ["a valid number"]),
        ("[infer]\nprompt = 'a'\n", ["a valid array", "infer.prompt"]),
        ("[infer]\nprompt = ['a', 3]\n", ["infer.prompt", "a valid string"]),
        ("fit = 3\n", ["a table", "'fit'", ":1 "]),
        ("[[fit]]\nk = 3\n", ["a table", "'fit'"]),
        ("[gate]\nmax_false_positive = 2.0\n", ["less than or equal to 1"]),
        ("[runtime]\nbackend = 'neither'\n", ["runtime.backend", ":2 "]),
    ],
)
def test_unknown_names_and_wrong_types_are_errors(
    text: str, parts: list[str], tmp_path: Path, capfd: Capture
) -> None:
    """P17: exit 2, one line with file:line, whichever command runs, before it does anything."""
    file = write(tmp_path / "c.toml", text)
    for call in (["config", "check", str(file)], ["--config", str(file), "presets"]):
        assert main(call) == 2
        out, err = capfd.readouterr()
        assert not out
        assert err.count("\n") == 1
        assert str(file) in err
        assert all(part in err for part in parts), err


def test_types_that_mean_the_same_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole numbers for decimals, texts for paths; nan and inf are left to the command."""
    calls = Calls(monkeypatch)
    text = "[fit]\ngain = 2\nout = 'ü ö'\nangle = inf\nlambda = -nan\n"
    found = calls("fit", "--config", str(write(tmp_path / "c.toml", text)), command="fit")
    assert (found["gain"], found["out"]) == (2.0, Path("ü ö"))
    assert isinstance(found["gain"], float)
    assert found["angle"] == float("inf")
    assert found["strength"] != found["strength"]


HOSTILE: dict[str, bytes] = {
    "huge": b"#" * (settings_files.MOST_BYTES + 1),
    "not UTF-8": b"[fit]\nk = '\xff'\n",
    "UTF-16": "[fit]\nk = 3\n".encode("utf-16"),
    "NUL": b"[fit]\nk = \0\n",
    "a key twice": b"[fit]\nk = 3\nk = 4\n",
    "a table twice": b"[fit]\nk = 3\n[fit]\nq = 4\n",
    "a table over a key": b"fit.k = 3\n[fit.k]\na = 1\n",
    "no TOML": b"{'fit': 3}",
    "truncated": b"[fit]\nout = 'a",
    "deep arrays": b"[fit]\nk = " + b"[" * 20_000,
    "deep closed arrays": b"[fit]\nk = " + b"[" * 20_000 + b"]" * 20_000,
    "deep tables": b"[fit]\nk = " + b"{a=" * 20_000,
    "arrays that parse": b"[fit]\nk = " + b"[" * 200 + b"]" * 200,
    "tables that parse": b"[fit]\nk = " + b"{a=" * 100 + b"1" + b"}" * 100,
    "deep keys inside": b"[fit]\nk = {b = 1, " + b".".join([b'"a"'] * 30_000) + b" = 1}",
    "deep keys": b".".join([b"a"] * 50_000) + b" = 1\n",
    "deep known keys": b"fit." + b".".join([b"a"] * 50_000) + b" = 1\n",
    "a long number": b"[fit]\nk = " + b"9" * 10_000,
    "a long name": b"x" * 100_000 + b" = 1\n",
    "control characters": b'[fit]\n"\\u001b[2J\\n" = 1\n',
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_refused_in_one_line(data: bytes, tmp_path: Path, capfd: Capture) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(data)
    assert main(["--config", str(file), "presets"]) == 2
    out, err = capfd.readouterr()
    assert not out
    assert err.startswith("error: [config] ")
    assert err.count("\n") == 1
    assert err.rstrip("\n").isprintable()
    assert len(err) < 1000


def test_what_is_no_plain_file_is_refused(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pipes, devices, folders, loops and dangling links; a link to a plain file is read."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    good = write(tmp_path / "good.toml", "[fit]\nk = 3\n")
    targets = {"to-pipe": "pipe", "to-folder": "folder", "dangling": "nothing", "loop": "loop"}
    for name, target in targets.items():
        (tmp_path / name).symlink_to(tmp_path / target)
    for name in ("pipe", "folder", *targets, "absent"):
        assert main(["--config", str(tmp_path / name), "presets"]) == 2
        err = capfd.readouterr().err
        assert err.startswith("error: [config] expected ")
        assert err.count("\n") == 1
    assert main(["--config", "/dev/zero", "presets"]) == 2
    assert "no plain file" in capfd.readouterr().err
    (tmp_path / "link").symlink_to(good)
    found = Calls(monkeypatch)("fit", "--out", "o", f"--config={tmp_path}/link", command="fit")
    assert found["k"] == 3


def test_a_named_file_must_exist_but_not_the_users(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["presets", "tiny"]) == 0
    capfd.readouterr()
    monkeypatch.setenv("COGIT_CONFIG", str(tmp_path / "absent.toml"))
    assert main(["presets", "tiny"]) == 2
    assert "(COGIT_CONFIG), got none" in capfd.readouterr().err
    monkeypatch.delenv("COGIT_CONFIG")
    write(tmp_path / "cogit" / "config.toml", "[fit]\nkk = 3\n")
    assert main(["presets", "tiny"]) == 2
    assert "(user file)" in capfd.readouterr().err
    # What mends a file must work while it is broken.
    assert main(["presets", "--help"]) == 0
    assert main(["config", "path"]) == 0


@pytest.mark.parametrize("arguments", [["--config"], ["--config="], ["--config=a", "--config=b"]])
def test_one_config_file_is_expected(arguments: list[str], capfd: Capture) -> None:
    assert main(["presets", *arguments]) == 2
    assert "expected one --config FILE" in capfd.readouterr().err


# ---- lines ----

LINES = '''\
top = 1 # [not]
# [comment]
[a]
x = """
[no] # "
y = 2 \\"""
"""
y = """"quoted""""
z = \'\'\'
k = [
\'\'\'
list = [
  1, # ]
  "]",
  [2,
   3],
]

  [ a . "b.c" ]   # comment
  "p q" . r = { s = 1, t = "}" }
'l.m' = 'it # [x]'
[[rows]]
n = 1
[[rows]]
n = 2
'''


def test_lines_of_keys() -> None:
    tomllib.loads(LINES)
    assert key_lines(LINES) == {
        ("top",): 1,
        ("a",): 3,
        ("a", "x"): 4,
        ("a", "y"): 8,
        ("a", "z"): 9,
        ("a", "list"): 12,
        ("a", "b.c"): 19,
        ("a", "b.c", "p q"): 20,
        ("a", "b.c", "p q", "r"): 20,
        ("a", "b.c", "l.m"): 21,
        ("rows",): 22,
        ("rows", "n"): 23,
    }
    assert key_lines(LINES.replace("\n", "\r\n")) == key_lines(LINES)
    assert key_lines("") == {}


def test_lines_of_made_up_documents() -> None:
    """Every leaf is found on the line it was written on, among values made to confuse."""
    rng = random.Random(0)
    values = ['"""\n[t]\nk = 1\n"""', "'''\n'''", "[\n1,\n[2], # ]\n]", '"#"', "{ a = '}' }", "1"]
    for _ in range(200):
        text, wanted, table = "", dict[tuple[str, ...], int](), tuple[str, ...]()
        for number in range(rng.randint(1, 12)):
            text += rng.choice(["", "\n", "# k = 1\n", "  "])
            line = text.count("\n") + 1
            if rng.random() < 0.3:
                table = (f"t{number}",)
                text += f"[t{number}] # x\n"
                wanted[table] = line
            else:
                text += f"k{number} = {rng.choice(values)}\n"
                wanted[(*table, f"k{number}")] = line
        tomllib.loads(text)
        assert key_lines(text) == wanted, text


def values_below(values: dict[str, Any], keys: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in values.items():
        found += values_below(value, (*keys, key)) if isinstance(value, dict) else [(*keys, key)]
    return found


def test_every_packaged_default_has_its_line() -> None:
    text = settings_files.PACKAGED.read_text(encoding="utf-8")
    lines = text.splitlines()
    for keys in values_below(tomllib.loads(text)):
        assert lines[key_lines(text)[keys] - 1].startswith(f"{keys[-1]} = ")
