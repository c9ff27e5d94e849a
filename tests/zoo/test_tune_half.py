"""Marks on the members of the half called tune: only where numbers are overstated."""

import pytest
from marks import check_marks, of_half

WHOLE_CONTROL = True


@pytest.mark.parametrize("member", of_half("tune"), ids=lambda member: member.name)
def test_overstated_numbers_are_marked_and_honest_ones_are_sound(
    member, tmp_path, request, monkeypatch
):
    if member.dataset != "digits":  # skipped with a reason where the data is absent
        monkeypatch.setenv("ADVBENCH_DATA", str(request.getfixturevalue("data_dir")))
    check_marks(member, tmp_path)
