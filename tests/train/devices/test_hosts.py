"""What the environment says of other processes."""

import pytest

from train.devices.hosts import _several


@pytest.mark.parametrize("value, said", [("2", True), ("1", False), ("", False), ("²", False), ("two", False)])
def test_several_processes_are_a_number_above_one(value, said):
    assert _several({"SLURM_NTASKS": value}) == ["SLURM_NTASKS"] * said
