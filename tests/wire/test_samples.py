"""Every sample, fed in every way that a socket could cut it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.receiver import Receiver, bytewise, receive, sliced
from tests.wire.samples import ACK_5, ACKED_5, FAULTS, GOOD, Sample
from tests.wire.strategies import slicings

SAMPLES = GOOD + FAULTS

every_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
every_good_sample = pytest.mark.parametrize("sample", GOOD, ids=lambda sample: sample.name)


def check(receiver: Receiver, sample: Sample) -> None:
    assert receiver.events == sample.events
    if sample.code:
        assert receiver.error is not None
        assert (receiver.error.code, str(receiver.error)) == (sample.code, sample.error)
    else:
        assert receiver.error is None
        assert receiver.decoder.held_bytes == 0


@every_sample
def test_a_sample_fed_whole(sample: Sample) -> None:
    check(receive([sample.stream]), sample)


@every_sample
def test_a_sample_fed_byte_by_byte(sample: Sample) -> None:
    check(receive(bytewise(sample.stream)), sample)


@every_sample
@settings(max_examples=20)
@given(data=st.data())
def test_a_sample_fed_in_slices(sample: Sample, data: st.DataObject) -> None:
    check(receive(sliced(sample.stream, data.draw(slicings(len(sample.stream))))), sample)


@every_good_sample
def test_a_sample_with_trailing_bytes_of_the_next_frame(sample: Sample) -> None:
    following = bytes.fromhex(ACK_5)

    for cut in range(len(following)):
        receiver = receive([sample.stream + following[:cut]])
        assert receiver.events == sample.events
        assert receiver.decoder.held_bytes == cut
        receiver.feed(following[cut:])
        check(receiver, sample._replace(events=[*sample.events, ACKED_5]))


@every_sample
def test_a_sample_behind_another_one_in_the_same_read(sample: Sample) -> None:
    for first in GOOD:
        both = sample._replace(events=first.events + sample.events)
        check(receive([first.stream + sample.stream]), both)


@every_good_sample
def test_a_sample_that_is_cut_short_gives_no_event_too_many(sample: Sample) -> None:
    for size in range(len(sample.stream)):
        receiver = receive([sample.stream[:size]])
        assert receiver.error is None
        assert len(receiver.events) < len(sample.events)
        assert receiver.events == sample.events[: len(receiver.events)]
