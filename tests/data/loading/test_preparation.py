import pytest

from data.errors import UserError
from data.loading.preparation import NAMES_KEPT, add_up, check_damaged, count_name
from data.readers.documents import Skipped
from data.readers.inputs import divide, group_tasks


def test_counts_go_on_where_names_end():
    counted = [0, []]
    for number in range(NAMES_KEPT + 5):
        count_name(counted, str(number))
    assert counted[0] == NAMES_KEPT + 5 and len(counted[1]) == NAMES_KEPT
    count, names = add_up([[1, ["first"]], counted])
    assert count == NAMES_KEPT + 6 and len(names) == NAMES_KEPT and names[:2] == ["first", "0"]


def test_more_damage_than_is_tolerated_stops():
    damaged = [Skipped("a", "broken", "damaged"), Skipped("b", "empty", "damaged")]
    check_damaged(damaged, 2)
    check_damaged(damaged, None)
    with pytest.raises(UserError, match=r"b: empty \(2 damaged, 1 tolerated\)"):
        check_damaged(damaged, 1)


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
def test_extents_cover_an_input_once(size):
    extents = divide("a", size, 100)
    assert [byte for extent in extents for byte in range(extent.start, extent.stop)] == list(range(size))
    assert extents[0].start == 0 and all(extent.stop - extent.start <= 100 for extent in extents)


def test_a_task_ends_with_the_unit_that_fills_it():
    assert group_tasks([("a", 60), ("b", 60), ("c", 100), ("d", 1)], 100) == [["a", "b"], ["c"], ["d"]]
    assert group_tasks([], 100) == []
