"""The pointer to the latest run of a kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cogit.errors import ArtefactError
from cogit.latest import point_latest, resolve_latest

if TYPE_CHECKING:
    pass


def test_pointer_names_files_and_folders_below(tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    assert point_latest(tmp_path, "sweep", tmp_path / "runs" / "a").name == "latest-sweep.json"
    assert resolve_latest(tmp_path, "sweep") == tmp_path / "runs" / "a"
    (tmp_path / "runs" / "a").rmdir()
    with pytest.raises(FileNotFoundError, match="does not exist"):
        resolve_latest(tmp_path, "sweep")
    with pytest.raises(FileNotFoundError, match="make a states there first"):
        resolve_latest(tmp_path, "states")


def test_pointer_is_a_plain_file_that_replaces_a_link(tmp_path: Path) -> None:
    """A link laid there beforehand is replaced, not written through."""
    base = tmp_path / "base"
    (base / "a").mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (base / "latest-sweep.json").symlink_to(victim)
    pointer = point_latest(base, "sweep", base / "a")
    assert not pointer.is_symlink()
    assert victim.read_text() == "untouched"


@pytest.mark.parametrize("target", ["..", ".", "../other", "/etc"])
def test_pointers_are_not_made_to_the_outside(tmp_path: Path, target: str) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="expected a target below"):
        point_latest(base, "sweep", base / target)
    assert not list(base.iterdir())


@pytest.mark.parametrize("kind", ["", "Sweep", "a/b", "../x", "a" * 40])
def test_kinds_are_words(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="expected a kind"):
        point_latest(tmp_path, kind, tmp_path / "a")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 50_000,
        b"x" * 70_000,
        *(
            json.dumps(
                {"format": "cogit latest", "format_version": 1, "kind": "sweep", "path": "a"}
                | change
            ).encode()
            for change in (
                {"format": "other"},
                {"format_version": 2},
                {"kind": "states"},
                {"path": ""},
                {"path": 3},
                {"path": "."},
                {"path": "/etc/passwd"},
                {"path": "../secret"},
                {"path": "a/../../secret"},
                {"path": "a/../a"},
                {"path": "link"},
                {"path": "a\x00b"},
            )
        ),
    ],
)
def test_hostile_pointers_are_refused(tmp_path: Path, content: bytes) -> None:
    base = tmp_path / "base"
    (base / "a").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (base / "link").symlink_to(tmp_path / "secret")
    (base / "latest-sweep.json").write_bytes(content)
    with pytest.raises(ArtefactError) as caught:
        resolve_latest(base, "sweep")
    assert "\n" not in str(caught.value)
