"""Matrices in 8 bits: near what they were, and not worse each time they are stored."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sdvar_jax.checkpoint.eight_bit import (
    Int8Array,
    column_scales,
    from_int8,
    joined_arrays,
    may_be_rounded,
    round_to_int8,
    stored_arrays,
)
from sdvar_jax.checkpoint.lazy import LazyArray
from sdvar_jax.checkpoint.safetensors_file import read_safetensors, write_safetensors
from sdvar_jax.errors import SdvarError

WEIGHTS = arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 4)),
    elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-1, 1, width=32),
)
SPREAD = np.random.default_rng(0).standard_normal((67, 3)).astype(np.float32) * [1e-6, 1, 1e6]


def rounded(weights):
    scales = column_scales(weights)
    return round_to_int8(weights, scales), scales


class TestRounding:
    def test_the_largest_of_a_column_is_127_steps(self):
        numbers, scales = rounded(np.array([[2.0, -0.5, 0], [-1.0, 0.125, 0]], np.float32))
        np.testing.assert_array_equal(numbers, [[127, -127, 0], [-64, 32, 0]])
        np.testing.assert_array_equal(scales, np.float32([2 / 127, 0.5 / 127, 1]))
        assert (numbers.dtype, scales.dtype) == (np.int8, np.float32)

    def test_columns_are_those_of_the_last_axis(self):
        weights = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        np.testing.assert_array_equal(column_scales(weights), np.float32([20, 21, 22, 23]) / 127)

    @given(WEIGHTS)
    def test_the_error_is_at_most_a_254th_of_the_largest_of_the_column(self, weights):
        numbers, scales = rounded(weights)
        assert np.abs(numbers.astype(int)).max() <= 127
        error = np.abs(from_int8(numbers, scales) - weights.astype(np.float64))
        bound = np.abs(weights).max(0).astype(np.float64) / 254
        # Next to it, the rounding of float32, and columns that are nothing in float32.
        assert (error <= bound * (1 + 1e-4) + 1.5e-36).all()

    @given(WEIGHTS)
    def test_rounding_what_was_read_back_changes_nothing(self, weights):
        numbers, scales = rounded(weights)
        again, scales_again = rounded(from_int8(numbers, scales))
        np.testing.assert_array_equal(again, numbers)
        nothing = (numbers == 0).all(0)
        np.testing.assert_array_max_ulp(scales_again[~nothing], scales[~nothing], 1)

    def test_every_number_keeps_its_place(self):
        scales = np.linspace(1, 2, 1001, dtype=np.float32)
        numbers = np.repeat(np.arange(-127, 128, dtype=np.int8)[:, None], scales.size, 1)
        again, scales_again = rounded(from_int8(numbers, scales))
        np.testing.assert_array_equal(again, numbers)
        np.testing.assert_array_max_ulp(scales_again, scales, 1)
        # In bfloat16, whose eight bits are hardly finer than the numbers, they move by one.
        again, _ = rounded(from_int8(numbers, scales).astype(ml_dtypes.bfloat16))
        assert np.abs(again.astype(int) - numbers).max() == 1

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_what_is_no_number_is_refused_by_name(self, value):
        weights = SPREAD.copy()
        weights[5, 1] = value
        made = Int8Array.rounding(LazyArray.of(weights), "blocks.0.kernel")
        with pytest.raises(SdvarError, match=r"blocks\.0\.kernel: NaN or infinite"):
            made.numbers.read()


@pytest.mark.parametrize(
    ("shape", "dtype", "may"),
    [
        ((64, 2), np.float32, True),
        ((64, 2), ml_dtypes.bfloat16, True),
        ((63, 500), np.float32, False),
        ((500,), np.float32, False),
        ((64, 64, 3), np.float32, False),
        ((64, 2), np.int32, False),
    ],
)
def test_matrices_of_floats_with_many_rows_are_rounded(shape, dtype, may):
    assert may_be_rounded(LazyArray.of(np.zeros(shape, dtype))) == may


class TestStored:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "f.safetensors"

    @pytest.fixture
    def made(self):
        """A matrix of an odd number of bytes, and a vector behind it."""
        return {
            "a.kernel": Int8Array.rounding(LazyArray.of(SPREAD), "a.kernel"),
            "b": LazyArray.of(np.arange(3).astype(ml_dtypes.bfloat16)),
        }

    @staticmethod
    def write(path, made, **changes):
        stored = {
            k: v for name, array in made.items() for k, v in stored_arrays(name, array).items()
        }
        for name, array in changes.items():
            name = name.replace("__", ".")
            if array is None:
                del stored[name]
            else:
                stored[name] = LazyArray.of(array)
        write_safetensors(path, stored)
        return read_safetensors(path)

    def test_a_file_holds_numbers_and_scales(self, path, made):
        stored = self.write(path, made)
        assert list(stored) == ["a.kernel", "a.kernel.scale", "b"]
        assert stored["a.kernel"].dtype == np.int8
        np.testing.assert_array_equal(stored["a.kernel.scale"].read(), column_scales(SPREAD))

    def test_it_reads_as_float32(self, path, made):
        joined = joined_arrays(self.write(path, made), path)
        assert list(joined) == list(made)
        back = joined["a.kernel"]
        assert (back.shape, back.dtype) == ((67, 3), np.float32)
        np.testing.assert_array_equal(back.read(), from_int8(*rounded(SPREAD)))
        np.testing.assert_array_equal(back.read(), made["a.kernel"].read())
        np.testing.assert_array_equal(joined["b"].read(), made["b"].read())

    def test_nothing_is_read_before_it_is_needed(self):
        def never():
            raise AssertionError("read")

        lazy = Int8Array.rounding(LazyArray((64, 2), np.dtype(np.float32), never), "a")
        assert [array.nbytes for array in stored_arrays("a", lazy).values()] == [128, 8]

    def test_rounded_arrays_stay_what_they_are(self, made):
        assert Int8Array.rounding(made["a.kernel"], "a.kernel") is made["a.kernel"]

    @pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
    def test_a_cast_makes_floats_of_them(self, made, dtype):
        cast = made["a.kernel"].cast(np.dtype(dtype))
        assert list(stored_arrays("a", cast)) == ["a"]
        assert cast.read().dtype == cast.dtype == dtype

    @pytest.mark.parametrize(
        ("scales", "complaint"),
        [
            (None, r"a\.kernel is int8, but a\.kernel\.scale is missing"),
            (np.ones(4, np.float32), r"a\.kernel\.scale is float32 \[4\] instead of float32 \[3\]"),
            (np.ones((1, 3), np.float32), r"a\.kernel\.scale is float32 \[1, 3\] instead of"),
            (np.ones(3, np.float16), r"a\.kernel\.scale is float16 \[3\] instead of float32"),
        ],
    )
    def test_damage_is_one_line_with_the_name(self, path, made, scales, complaint):
        stored = self.write(path, made, a__kernel__scale=scales)
        with pytest.raises(SdvarError, match=complaint) as caught:
            joined_arrays(stored, path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
    def test_damaged_scales_are_found_when_they_are_read(self, path, made, value):
        stored = self.write(path, made, a__kernel__scale=np.float32([1, value, 1]))
        with pytest.raises(
            SdvarError, match=r"a\.kernel\.scale holds scales that are not positive"
        ):
            joined_arrays(stored, path)["a.kernel"].read()

    def test_scales_of_nothing_stay_to_be_refused(self, path, made):
        stored = self.write(path, made, a__kernel=None)
        assert "a.kernel.scale" in joined_arrays(stored, path)
