"""Pauses of hosts: how long they last, and that they are bounded."""

from __future__ import annotations

import pytest

from curate.web import pauses as pauses_module
from curate.web.pauses import LONGEST_S, Paused, Pauses


def test_a_pause_ends_by_itself_and_the_longer_one_counts():
    """Another host is not meant, and a shorter pause takes nothing from a longer one."""
    now = [100.0]
    pauses = Pauses(lambda: now[0])
    pauses.add({"a": (30.0, "busy")})
    pauses.add({"a": (5.0, "slow")})
    assert pauses.of(("a", "b")) == {"a": (30.0, "busy")}
    with pytest.raises(Paused, match="busy"):
        pauses.check("a")
    pauses.check("b")
    now[0] += 30
    pauses.check("a")
    assert pauses.of(("a",)) == {}


def test_a_pause_of_years_is_one_of_an_hour_and_few_hosts_are_remembered(monkeypatch):
    """What strangers ask for is bounded in time and in number."""
    monkeypatch.setattr(pauses_module, "MOST_HOSTS", 3)
    pauses = Pauses(lambda: 0.0)
    pauses.add({f"host{n}": (1e9, "busy") for n in range(5)})
    assert pauses.of(f"host{n}" for n in range(5)) == {
        f"host{n}": (LONGEST_S, "busy") for n in (2, 3, 4)
    }
