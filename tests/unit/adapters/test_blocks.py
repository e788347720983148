"""Rows and columns by their bytes, against numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.files import Raw, floats, random_tensor
from support.lazy import literal

from hubtool.adapters.blocks import (
    block_diagonal,
    columns,
    find_partition,
    halves_swapped,
    item_size,
    same_bytes,
    stacked,
    zeros,
)
from hubtool.formats.tensor import LazyTensor

DTYPES = ["F32", "F16", "BF16", "F64", "I8"]


def lazy(array: np.ndarray, dtype: str = "F32") -> LazyTensor:
    return LazyTensor(dtype, array.shape, floats(array.ravel(), dtype))


def integers(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 100, (rows, width)).astype(float)


@pytest.mark.parametrize("dtype", DTYPES)
def test_stacking_puts_rows_one_after_the_other(dtype: str) -> None:
    parts = [integers(rows, 3, rows) for rows in (2, 1, 4)]
    assert literal(stacked([lazy(part, dtype) for part in parts])) == literal(lazy(np.concatenate(parts), dtype))


@pytest.mark.parametrize("shape", [(4,), (6, 3), (2, 3, 3, 3)])
def test_swapping_halves_twice_is_nothing(shape: tuple[int, ...]) -> None:
    raw = random_tensor(1, shape)
    once = halves_swapped(LazyTensor(*raw))
    half = len(raw.data) // 2
    assert literal(once).data == raw.data[half:] + raw.data[:half]
    assert literal(halves_swapped(once)) == raw


@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_are_cut_out_of_every_row(dtype: str) -> None:
    matrix = integers(5, 7)
    for start, stop in ((0, 7), (0, 0), (2, 5), (6, 7)):
        assert literal(columns(lazy(matrix, dtype), start, stop)) == literal(lazy(matrix[:, start:stop], dtype))


def test_columns_of_a_1x1_convolution_keep_its_ones() -> None:
    tensor = LazyTensor(*random_tensor(1, (5, 4, 1, 1)))
    assert columns(tensor, 1, 3).shape == (5, 2, 1, 1)


def test_zeros_are_as_wide_as_their_model() -> None:
    assert literal(zeros(LazyTensor("F16", (1, 3, 2), bytes(12)), 4)) == Raw("F16", (4, 3, 2), bytes(48))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sides", [[(2, 3), (1, 1), (4, 2)], [(2, 0), (3, 2)], [(2, 2), (2, 0), (1, 0)]])
def test_blocks_lie_on_the_diagonal_among_zeros(dtype: str, sides: list[tuple[int, int]]) -> None:
    blocks = [integers(rows, width, rows) for rows, width in sides]
    expected = np.zeros((sum(rows for rows, _ in sides), sum(width for _, width in sides)))
    row = column = 0
    for block in blocks:
        expected[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    found = block_diagonal([lazy(block, dtype) for block in blocks])
    assert literal(found) == literal(lazy(expected, dtype))


def test_equal_bytes_need_equal_dtype_and_shape() -> None:
    tensor = LazyTensor("F16", (2, 3), bytes(12))
    assert same_bytes([tensor, LazyTensor("F16", (2, 3), bytes(12))])
    assert not same_bytes([tensor, LazyTensor("BF16", (2, 3), bytes(12))])
    assert not same_bytes([tensor, LazyTensor("F16", (3, 2), bytes(12))])
    assert not same_bytes([tensor, tensor, LazyTensor("F16", (2, 3), b"\1" * 12)])


def test_an_elements_size_is_its_dtypes() -> None:
    assert [item_size(lazy(np.ones(1), dtype)) for dtype in DTYPES] == [4, 2, 2, 8, 1]


ROWS = (3, 2, 4)


@st.composite
def matrices(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """A block-diagonal matrix over ROWS with some blocks, rows and columns of zeros; and the ranks it was made of."""
    ranks = draw(st.lists(st.integers(0, 4), min_size=3, max_size=3).filter(any))
    matrix, start = np.zeros((sum(ROWS), sum(ranks))), 0
    for part, rank in enumerate(ranks):
        top = sum(ROWS[:part])
        for column in range(start, start + rank):
            if draw(st.integers(0, 3)):
                matrix[top + draw(st.integers(0, ROWS[part] - 1)), column] = draw(st.sampled_from([1, -2, 1e-7]))
        start += rank
    return matrix, ranks


def allows(matrix: np.ndarray, ranks: list[int]) -> bool:
    """Whether everything outside the blocks is zero."""
    outside, row, column = matrix.copy(), 0, 0
    for rows, rank in zip(ROWS, ranks, strict=True):
        outside[row : row + rows, column : column + rank] = 0
        row, column = row + rows, column + rank
    return column == matrix.shape[1] and not outside.any()


@given(matrices(), st.sampled_from(["F32", "F16", "F64"]))
def test_a_partition_that_is_found_has_nothing_outside_its_blocks(
    made: tuple[np.ndarray, list[int]], dtype: str
) -> None:
    matrix, ranks = made
    found = find_partition(lazy(matrix, dtype), ROWS)
    assert allows(matrix, found) if found else not matrix.any()
    known = find_partition(lazy(matrix, dtype), ROWS, ranks)
    assert known == ranks


@given(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3))
def test_a_column_that_two_parts_use_is_no_partition(first: int, second: int, column: int) -> None:
    matrix = np.zeros((9, 4))
    starts = (0, 3, 5)
    matrix[starts[first], column] = matrix[starts[second], column] = 1
    found = find_partition(lazy(matrix), ROWS)
    assert (found is None) == (first != second)


@pytest.mark.parametrize("known", [[], [1], [1, 1], [2, 2, 2], [0, 0, 0], [9, 9, 9], [3, 0, 0, 0]])
def test_a_recorded_partition_that_does_not_fit_is_not_taken(known: list[int]) -> None:
    matrix = np.zeros((9, 3))
    matrix[0, 0] = matrix[3, 1] = matrix[5, 2] = 1
    assert find_partition(lazy(matrix), ROWS, known) == [1, 1, 1]


def test_a_matrix_of_zeros_has_equal_parts_where_they_are_whole() -> None:
    assert find_partition(lazy(np.zeros((9, 6))), ROWS) == [2, 2, 2]
