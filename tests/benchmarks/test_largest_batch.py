"""Finding the largest batch from few compiled programs."""

import json

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.largest_batch import largest_batch, main, proved
from sdvar_jax.errors import SdvarError


class Memory:
    """Bytes that grow with the batch, a little unevenly; counts how often it is asked."""

    def __init__(self, fixed, each, uneven=0):
        self.fixed, self.each, self.uneven, self.asked = fixed, each, uneven, []

    def __call__(self, batch):
        self.asked.append(batch)
        return self.fixed + self.each * batch + self.uneven * (batch // 7)


@given(
    fixed=st.integers(0, 10**4),
    each=st.integers(1, 10**3),
    uneven=st.integers(0, 100),
    limit=st.integers(1, 10**5),
)
def test_it_is_the_largest_within_a_64th(fixed, each, uneven, limit):
    memory = Memory(fixed, each, uneven)
    found = largest_batch(memory, limit, tries=40)
    assert len(memory.asked) == len(set(memory.asked))
    beyond = Memory(fixed, each, uneven)
    if found:
        assert beyond(found) <= limit
    assert beyond(found + max(1, found // 64)) > limit


def test_a_straight_line_takes_few_programs():
    memory = Memory(4000, 320)
    assert largest_batch(memory, 60_000) == (60_000 - 4000) // 320
    assert len(memory.asked) <= 5


def test_nothing_fits():
    assert largest_batch(Memory(100, 1), 50) == 0


@pytest.mark.parametrize(("room", "ran"), [(60_000, True), (58_000, True), (20_000, False)])
def test_what_runs_out_of_memory_is_taken_smaller(room, ran):
    memory = Memory(4000, 320)

    def call(batch):
        if memory(batch) > room:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return jax.numpy.zeros(())

    found, got = proved(memory, call, 60_000)
    assert got == ran
    assert not ran or 0.93 * room <= memory(found) <= room


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def call(batch):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        proved(Memory(4000, 320), call, 60_000)


def test_a_device_that_does_not_tell_its_memory_wants_to_be_told():
    with pytest.raises(SdvarError, match="say it with --memory GIB"):
        main(["--target", "tiny"])


def test_what_it_found_ran_through(tmp_path):
    file = tmp_path / "largest.json"
    arguments = ["--target", "tiny", "--dtype", "float32", "--memory", "0.03", "--tries", "1"]
    main([*arguments, "--json", str(file)])
    records = json.loads(file.read_text())["records"]
    *programs, found = records
    assert [record["batch"] for record in programs[:2]] == [1, 8]
    fitting = [r["batch"] for r in programs if r["program_bytes"] <= found["limit_bytes"]]
    assert found["batch"] == max(fitting)
    assert found["ran_through"]
