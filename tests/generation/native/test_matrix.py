"""Products with packed matrices of every kind, by every instruction set of this machine, against float64 and gguf.

Shapes: N rows of a matrix, C columns, R rows multiplied at once.
"""

from collections.abc import Iterator

import gguf
import numpy as np
import pytest
import torch

from cutaway.generation.native.library import SETS, instruction_set, load
from cutaway.models.formats.ggml import KINDS, dequantise

BEST = instruction_set()
HERE = [name for name in SETS if load().ctw_choose_instruction_set(name.encode())]
load().ctw_choose_instruction_set(BEST.encode())
QUANTISED = [kind for kind, how in KINDS.items() if how.decode is not None]
FLOATS = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}
# where the float16 scales of a block are
HALVES = {
    2: [0],
    3: [0, 2],
    6: [0],
    7: [0, 2],
    8: [0],
    10: [80, 82],
    11: [108],
    12: [0, 2],
    13: [0, 2],
    14: [208],
    20: [0],
}
ROWS = (1, 2, 5, 16, 17, 40)


class Packed:
    """A matrix in the library's hands: what its file holds, and its numbers."""

    def __init__(self, kind: int, data: np.ndarray, n: int, c: int):
        self.kind, self.n, self.c, self.data = kind, n, c, data
        self.values = dequantise(torch.from_numpy(data), KINDS[kind].name).view(n, c).numpy()
        self.pointer = load().ctw_pack(kind, data.ctypes.data, n, c, 2)
        assert self.pointer

    def __enter__(self) -> "Packed":
        return self

    def __exit__(self, *_: object) -> None:
        load().ctw_release(self.pointer)

    def __matmul__(self, x: np.ndarray) -> np.ndarray:
        return self.product(x, 8)

    def product(self, x: np.ndarray, rounding: int, threads: int = 2) -> np.ndarray:
        """(R, C) -> (R, N)"""
        x = np.ascontiguousarray(x)
        out = np.full((len(x), self.n), 7, np.float32)
        assert load().ctw_matmul(self.pointer, x.ctypes.data, len(x), rounding, out.ctypes.data, threads) == 0
        return out


def random_blocks(kind: int, n: int, c: int, seed: int = 0) -> np.ndarray:
    """Any bytes, with scales of a sensible size."""
    rng, how = np.random.default_rng(seed), KINDS[kind]
    if kind in FLOATS:
        numbers = torch.from_numpy(rng.standard_normal((n, c), np.float32)).to(FLOATS[kind])
        return numbers.view(torch.uint8).numpy().reshape(-1)
    blocks = rng.integers(0, 256, (n * c // how.numbers, how.bytes), np.uint8)
    for at in HALVES.get(kind, []):
        blocks[:, at : at + 2] = rng.standard_normal((len(blocks), 1)).astype(np.float16).view(np.uint8)
    if kind == 39:
        blocks[:, 0] = rng.integers(118, 130, len(blocks))
    return blocks.reshape(-1)


def rounded(x: np.ndarray) -> np.ndarray:
    """x in float64 as eight bits for each 32 numbers hold it."""
    blocks = x.reshape(len(x), -1, 32)
    largest = np.abs(blocks).max(-1, keepdims=True)
    whole = np.rint(blocks * (np.float32(127) / largest))
    return (whole.astype(np.float64) * (largest / np.float32(127))).reshape(x.shape)


@pytest.fixture(params=HERE)
def chosen(request: pytest.FixtureRequest) -> Iterator[str]:
    assert load().ctw_choose_instruction_set(request.param.encode())
    yield request.param
    load().ctw_choose_instruction_set(BEST.encode())


@pytest.mark.parametrize("n", [1, 3, 17, 100])
@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_products(chosen: str, kind: int, n: int):
    for blocks in (1, 3):
        c = blocks * KINDS[kind].numbers
        with Packed(kind, random_blocks(kind, n, c, seed=n), n, c) as matrix:
            x = np.random.default_rng(n).standard_normal((40, c)).astype(np.float32)
            exact, coarse = (
                numbers @ matrix.values.T.astype(np.float64) for numbers in (x.astype(np.float64), rounded(x))
            )
            size = np.abs(x) @ np.abs(matrix.values).T
            for rows in ROWS:
                sixteen, eight = (matrix.product(x[:rows], bits) for bits in (16, 8))
                assert (np.abs(sixteen - exact[:rows]) <= 1e-4 * size[:rows]).all()
                assert np.linalg.norm(sixteen - exact[:rows]) <= 2e-4 * np.linalg.norm(size[:rows])
                assert (np.abs(eight - coarse[:rows]) <= 1e-5 * size[:rows]).all()


@pytest.mark.parametrize("kind", FLOATS)
def test_float_products(chosen: str, kind: int):
    for n in (1, 3, 17, 100):
        for c in (1, 7, 32, 100, 515):
            with Packed(kind, random_blocks(kind, n, c), n, c) as matrix:
                x = np.random.default_rng(n).standard_normal((40, c)).astype(np.float32)
                exact = x.astype(np.float64) @ matrix.values.T.astype(np.float64)
                size = np.abs(x) @ np.abs(matrix.values).T
                for rows in ROWS:
                    assert (np.abs(matrix @ x[:rows] - exact[:rows]) <= 3e-6 * size[:rows]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_same_alone_beside_others_and_in_any_number_of_threads(chosen: str, kind: int):
    n, c = 83, 768
    with Packed(kind, random_blocks(kind, n, c), n, c) as matrix:
        x = np.random.default_rng(1).standard_normal((40, c)).astype(np.float32)
        for bits in (8, 16):
            whole = matrix.product(x, bits, threads=1)
            for rows in range(1, 41):
                np.testing.assert_array_equal(matrix.product(x[:rows], bits, threads=1), whole[:rows])
            np.testing.assert_array_equal(matrix.product(x[23:24], bits), whole[23:24])
            for threads in (2, 3, 5):
                np.testing.assert_array_equal(matrix.product(x, bits, threads), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_read_back_bit_for_bit(kind: int):
    n, c = 21, 512
    with Packed(kind, random_blocks(kind, n, c), n, c) as matrix:
        row = np.empty(c, np.float32)
        for i in range(n):
            load().ctw_decode_row(matrix.pointer, i, row.ctypes.data)
            np.testing.assert_array_equal(row, matrix.values[i])


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"])
def test_blocks_that_gguf_wrote(chosen: str, name: str):
    kind, n, c = gguf.GGMLQuantizationType[name], 48, 576
    weight = np.random.default_rng(0).standard_normal((n, c)).astype(np.float32)
    data = gguf.quants.quantize(weight, kind)
    with Packed(int(kind), data.reshape(-1), n, c) as matrix:
        x = np.random.default_rng(1).standard_normal((7, c)).astype(np.float32)
        exact = x.astype(np.float64) @ gguf.quants.dequantize(data, kind).T.astype(np.float64)
        assert np.linalg.norm(matrix.product(x, 16) - exact) <= 2e-4 * np.linalg.norm(exact)
        assert np.linalg.norm(matrix @ x - exact) <= 2e-2 * np.linalg.norm(exact)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_a_number_stays_in_sight(chosen: str, kind: int, bad: float):
    n, c = 35, 512
    good = random_blocks(kind, n, c)
    x = np.random.default_rng(1).standard_normal((20, c)).astype(np.float32)
    with Packed(kind, good, n, c) as matrix:
        spoiled = x.copy()
        spoiled[18, 77] = bad
        for bits in (8, 16):
            finite = np.isfinite(matrix.product(spoiled, bits))
            assert not finite[18].any()
            assert np.delete(finite, 18, axis=0).all()
    for at in HALVES.get(kind, []):
        data = good.copy().reshape(n, -1)
        data[33, at : at + 2] = np.array([bad], np.float16).view(np.uint8)
        with Packed(kind, data.reshape(-1), n, c) as matrix:
            finite = np.isfinite(matrix @ x)
            assert not finite[:, 33].any()
            assert np.delete(finite, 33, axis=1).all()


def test_small_and_large_numbers_keep_their_size(chosen: str):
    with Packed(8, random_blocks(8, 16, 64), 16, 64) as matrix:
        x = np.random.default_rng(1).standard_normal((1, 64)).astype(np.float32)
        for scale in (2.0**-100, 2.0**90):
            np.testing.assert_allclose(matrix @ (x * np.float32(scale)), (matrix @ x) * np.float32(scale), rtol=1e-6)
        assert (matrix @ np.zeros((3, 64), np.float32) == 0).all()


def test_bytes_packed_are_those_of_the_file():
    for kind in QUANTISED:
        data = random_blocks(kind, 64, 2048)
        with Packed(kind, data, 64, 2048) as matrix:
            # K kinds hold their small scales in a byte each
            assert (
                len(data)
                <= load().ctw_packed_bytes(matrix.pointer)
                <= len(data) * (1.06 if kind in (11, 12, 13, 14) else 1)
            )


def test_what_no_kernel_takes_is_not_packed():
    data = random_blocks(12, 4, 256)
    for kind, n, c in ((12, 1, 32), (3, 1, 33), (3, 0, 32), (3, 1, 0), (99, 1, 32), (16, 1, 256)):
        assert load().ctw_pack(kind, data.ctypes.data, n, c, 1) is None
