# SPDX-License-Identifier: Apache-2.0
"""The tests' own helpers: ROS domains that nobody shares, and campaigns of which a part can be repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import campaign
import pytest
import ros_domain

HELPERS = Path(ros_domain.__file__).parent


def test_two_processes_never_share_a_ros_domain() -> None:
    program = "import ros_domain; print(ros_domain.claim_domain())"
    beside = subprocess.run([sys.executable, "-c", program], cwd=HELPERS, capture_output=True, text=True, check=True)
    assert int(beside.stdout) in ros_domain.DOMAINS
    assert int(beside.stdout) != int(os.environ["ROS_DOMAIN_ID"])
    assert ros_domain.claim_domain() != int(os.environ["ROS_DOMAIN_ID"])


def test_a_hundredth_of_a_campaign_or_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLAD_PROOF", raising=False)
    assert campaign.share() == 0.01
    assert [campaign.rounds(whole) for whole in (1_000_000, 700, 10)] == [10_000, 7, 1]
    monkeypatch.setenv("VLAD_PROOF", "1")
    assert campaign.share() == 1.0 and campaign.rounds(700) == 700


def test_a_campaigns_seed_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("VLAD_SEED", raising=False)
    first = campaign.generator().random(3)
    assert "VLAD_SEED=0 " in capsys.readouterr().out
    monkeypatch.setenv("VLAD_SEED", "7")
    other = campaign.generator().random(3)
    assert "VLAD_SEED=7 " in capsys.readouterr().out
    assert (first != other).all() and (campaign.generator().random(3) == other).all()
