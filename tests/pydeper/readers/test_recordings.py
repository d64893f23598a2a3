import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydeper import InvalidSampleError
from pydeper.gaze import IDT, FixedWindows
from pydeper.readers import sample_from_recording
from tests.support.capture.command import recording


def test_a_recording_that_an_app_received_is_a_sample():
    sample = sample_from_recording(recording(), "dog.jpg", subject="ana")
    assert (sample.image, sample.subject, sample.description) == ("dog.jpg", "ana", "A dog, then a ball.")
    assert len(sample.trajectory) == 2


def test_other_parameters_find_other_fixations():
    assert len(sample_from_recording(recording(), "dog.jpg", FixedWindows(0.25)).trajectory) > 4
    assert sample_from_recording(recording(), "dog.jpg", IDT(min_duration=5)).trajectory is None


def test_nothing_spans_the_time_in_which_nobody_looked():
    points = [[0.5, 0.5, 0.0], [0.5, 0.5, 0.3], [None, None, 0.35], [0.5, 0.5, 0.4], [0.5, 0.5, 0.6], [0.5, 0.5, 2.0]]
    looks = sample_from_recording(recording(points=points), "dog.jpg").trajectory
    assert [look.duration for look in looks] == pytest.approx([0.3, 0.2])


def test_points_outside_the_picture_are_at_its_edge():
    points = [[1.2, -0.1, i / 60] for i in range(60)]
    (look,) = sample_from_recording(recording(points=points), "dog.jpg").trajectory
    assert look.box[1] == 0
    assert look.box[2] == 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=12,
)


def complaint(**changes):
    """What is said against a recording with these changes; nothing where it is a sample."""
    try:
        sample_from_recording(recording(**changes), "dog.jpg")
    except InvalidSampleError as error:
        return str(error)
    return ""


@given(st.sampled_from(sorted(recording())), VALUES)
def test_any_value_of_any_field_is_taken_or_refused_by_its_name(field, value):
    said = complaint(**{field: value})
    assert not said or field in said or "positions lie far outside" in said


@given(st.lists(st.lists(st.none() | st.floats(-2, 2), min_size=3, max_size=3), max_size=30))
def test_points_of_any_kind_give_a_sample_or_an_error(points):
    said = complaint(points=points)
    assert not said or "points[" in said


def test_the_number_of_points_is_limited():
    assert "200001" in complaint(points=[[0, 0, 0]] * 200_001)


@pytest.mark.parametrize("record", [None, [], "x", {}])
def test_what_is_no_recording_is_refused(record):
    with pytest.raises(InvalidSampleError):
        sample_from_recording(record, "dog.jpg")
