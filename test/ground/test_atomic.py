# SPDX-License-Identifier: Apache-2.0
"""Folders that a failed command was about to fill."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlad_ros.atomic import withdrawing


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_what_was_not_there_is_gone(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), withdrawing(tmp_path / "a" / "b" / "run"):
        (tmp_path / "a" / "b" / "run" / "deep").mkdir(parents=True)
        (tmp_path / "a" / "b" / "run" / "deep" / "file").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays_and_what_others_put_there(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").write_text("whole")
    with pytest.raises(ValueError), withdrawing(tmp_path / "run"):
        raise ValueError
    assert (tmp_path / "run" / "old").read_text() == "whole"
    with pytest.raises(ValueError), withdrawing(tmp_path / "new" / "run"):
        (tmp_path / "new" / "run").mkdir(parents=True)
        (tmp_path / "new" / "thesis.tex").write_text("precious")
        raise ValueError
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["thesis.tex"]


def test_before_anything_was_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError), withdrawing(tmp_path / "run"):
        raise ValueError
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError), withdrawing(tmp_path / "link"):
        raise ValueError
    assert (tmp_path / "link").is_symlink()


def test_what_succeeds_stays(tmp_path: Path) -> None:
    with withdrawing(tmp_path / "run"):
        (tmp_path / "run").mkdir()
    assert (tmp_path / "run").is_dir()
