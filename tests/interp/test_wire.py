"""Results as bytes: what a page reads back is what Python had."""

import numpy as np
import pytest
import torch
from saved_page import unpacked

from cutaway.errors import InputError
from cutaway.interp.pictures.wire import packed, tile


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        (torch.float32, np.float32),
        (torch.float64, np.float64),
        (torch.bfloat16, np.float32),
        (torch.int64, np.int32),
        (torch.bool, np.uint8),
    ],
)
def test_tensors_come_back_as_they_were(dtype, kind):
    given = (torch.arange(15).reshape(3, 5) % 7).to(dtype)
    back = unpacked(packed({"名": "é", "a": given, "b": [given[0], None, 1.5]}))
    assert back["名"] == "é"
    assert back["a"].dtype == kind
    np.testing.assert_array_equal(back["a"], given.to(torch.float64).numpy())
    np.testing.assert_array_equal(back["b"][0], given[0].to(torch.float64).numpy())
    assert back["b"][1:] == [None, 1.5]


def test_large_whole_numbers_keep_their_value():
    given = torch.tensor([2**40, -3])
    np.testing.assert_array_equal(unpacked(packed([given]))[0], given.numpy())


def test_what_is_not_finite_becomes_nothing_in_json_and_stays_in_tensors():
    back = unpacked(packed({"x": float("nan"), "t": torch.tensor([float("nan"), 1.0])}))
    assert back["x"] is None
    assert np.isnan(back["t"][0])
    assert back["t"][1] == 1


def test_a_tensor_that_is_too_large_tells_its_shape_alone():
    assert unpacked(packed({"t": torch.zeros(4, 100)}, whole=100))["t"] == ("large", [4, 100])


def test_a_tile_is_the_strongest_of_what_each_cell_covers():
    given = torch.randn(2, 3, 40, 61, generator=torch.Generator().manual_seed(0))
    found = tile(given, (1, 2), 7, 10)
    assert found.shape == (7, 10)
    matrix = given[1, 2]
    for i in range(7):
        for j in range(10):
            rows = [r for r in range(40) if r * 7 // 40 == i]
            columns = [c for c in range(61) if c * 10 // 61 == j]
            block = matrix[rows][:, columns].flatten()
            assert found[i, j] == block[block.abs().argmax()]


def test_a_tile_of_a_small_matrix_is_the_matrix():
    given = torch.randn(2, 5, 6)
    torch.testing.assert_close(tile(given, (1,), 100, 100), given[1], rtol=0, atol=0)


@pytest.mark.parametrize("index", [(), (2,), (0, 0), (-1,)])
def test_an_index_that_is_not_there_is_refused(index):
    with pytest.raises(InputError, match="chosen by 1 indices"):
        tile(torch.zeros(2, 5, 6), index, 3, 3)


def test_a_tile_may_show_a_part_of_a_matrix():
    tensor = torch.arange(48.0).view(1, 6, 8)
    assert torch.equal(tile(tensor, (0,), 10, 10, (1, 3, 2, 7)), tensor[0, 1:3, 2:7])
    assert tile(tensor, (0,), 1, 2, (1, 3, 2, 6)).tolist() == [[19.0, 21.0]]
    with pytest.raises(InputError, match=r"the window \(0, 7, 0, 1\) is no part of a picture of \(6, 8\)"):
        tile(tensor, (0,), 10, 10, (0, 7, 0, 1))
