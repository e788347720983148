"""The short form of the kill soak: a handful of commands die, and the library is whole after each."""

from soak.kills import soak


def test_commands_that_are_killed_leave_a_whole_library(tmp_path):
    done = soak(tmp_path, kills=5, seed=2)
    assert sum(done.killed.values()) == 5
