"""Golden bits for every form, as worked examples. Once released they never change."""

import numpy as np
import pytest

from wire.codec import decode_delta, encode_delta
from wire.delta import RowBlock, Tensor
from wire.manifest import ParameterSpec, Role
from wire.policy import CodecMode, CodecPolicy

TABLE = (ParameterSpec("item", Role.ROWS, (10, 2)),)

# Two of ten rows. The count: 2 has two bits ("010"), and after the first of them a "0". The divisor
# is 3; of the gaps 1 and 1, no thirds in either ("1 1"), and the remainders 1 and 1 ("1 1", and
# each "0" after it, for it is a long one).
ROWS_1_AND_3 = "010 0 11 11 00"
# Three of four entries. The count: 3 has two bits ("10"), and after the first of them a "1". The
# one that is missing is coded, with the divisor 2; a gap of 2.
ENTRIES_0_1_3 = "10 1 01 0"
# The second of three is negative: a bit each.
SECOND_OF_THREE = "0 010"
# Scales: 8 bits of exponent, 5 of mantissa.
ONE, ABOUT_4_3, ABOUT_3_2 = "01111111 00000", "01111111 01011", "01111111 01111"
QUARTER, EIGHTH = "01111101 00000", "01111100 00000"
SEED = "11011001110000101000001001011111"


def packed(bits: str) -> bytes:
    bits = bits.replace(" ", "")
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def delta() -> dict[str, Tensor]:
    return {"item": RowBlock(np.array([1, 3]), np.array([[1, -2], [0, 1]], np.float32))}


@pytest.mark.parametrize(
    ("policy", "bits", "rows", "values"),
    [
        (
            CodecPolicy(mode=CodecMode.RAW),
            # The version, any row, float32, the rows, the numbers.
            f"0001 001 {ROWS_1_AND_3}"
            "00111111100000000000000000000000 11000000000000000000000000000000"
            "00000000000000000000000000000000 00111111100000000000000000000000",
            [1, 3],
            [[1, -2], [0, 1]],
        ),
        (
            CodecPolicy(mode=CodecMode.HALF),
            f"0001 010 {ROWS_1_AND_3}"
            "0011110000000000 1100000000000000 0000000000000000 0011110000000000",
            [1, 3],
            [[1, -2], [0, 1]],
        ),
        (
            CodecPolicy(mode=CodecMode.TOP_K, bits=1, density=0.75),
            # Sign times mean: 4/3 as a scale, and no codes.
            f"0001 011 {ROWS_1_AND_3} {ENTRIES_0_1_3} {SECOND_OF_THREE} {ABOUT_4_3} 0000",
            [1, 3],
            [[1.34375, -1.34375], [0, 1.34375]],
        ),
        (
            CodecPolicy(mode=CodecMode.TOP_K, bits=2, density=0.75),
            # One bit a code: 0, 1, 0, and the step, 1.
            f"0001 011 {ROWS_1_AND_3} {ENTRIES_0_1_3} {SECOND_OF_THREE} {ONE} 0001 010 {ONE}",
            [1, 3],
            [[1, -2], [0, 1]],
        ),
        (
            CodecPolicy(mode=CodecMode.ROWS, bits=1, density=1.0, row_scales=True),
            # Row scales 0 and 2 quarters of an octave: two bits each.
            f"0001 100 {ROWS_1_AND_3} 0010 00 10 "
            f"{ENTRIES_0_1_3} {SECOND_OF_THREE} {ABOUT_3_2} 0000",
            [1, 3],
            [[1.46875, -1.46875], [0, float(np.float32(1.46875 * 0x16A09E6 / 2**25))]],
        ),
        (
            CodecPolicy(mode=CodecMode.RANDOM_ROWS, bits=1, density=0.5),
            # The seed, and five places, which are 1, 3, 4, 7, 9: all of those, changed or not.
            f"0001 110 {SEED} 011 01 011 11 01 "
            # Of their ten entries 0, 1 and 3; the divisor is 2.
            f"010 1 1 1 1 0 0 1 {SECOND_OF_THREE} {ABOUT_4_3} 0000",
            [1, 3, 4, 7, 9],
            [[1.34375, -1.34375], [0, 1.34375], [0, 0], [0, 0], [0, 0]],
        ),
        (
            CodecPolicy(mode=CodecMode.RANDOM_ENTRIES, bits=2, density=0.5),
            # Ten places of twenty: 1, 3, 4, 7, 9, 11, 12, 15, 17, 18, all of them; 1 and 3 of
            # those are not zero.
            f"0001 111 {SEED} 100 010 011 100 010 {ROWS_1_AND_3} 0 10 {ONE} 0001 10 {ONE}",
            [*range(10)],
            [[0, 0], [0, -2], [0, 0], [0, 1], *[[0, 0]] * 6],
        ),
    ],
)
def test_what_is_written(
    policy: CodecPolicy, bits: str, rows: list[int], values: list[list[float]]
) -> None:
    payload = encode_delta(delta(), TABLE, policy, np.random.default_rng(0))
    assert payload.hex() == packed(bits).hex()
    block = decode_delta(payload, TABLE)["item"]
    assert isinstance(block, RowBlock)
    assert block.rows.tolist() == rows
    assert block.values.tolist() == values


def test_what_is_read_of_factors() -> None:
    payload = packed(
        # Rows 1 and 3; rank 1; the right factor (1, -1.5): base 1, step 1/4, codes 0 and 2.
        f"0001 101 {ROWS_1_AND_3} 0000 10 0 0 01 {ONE} 0010 00 10 {QUARTER}"
        # The left factor (0, -1/8 * 3): one of two entries, a gap of 1; negative; base 1/8, step
        # 1/4, and the set of codes that are not zero: the only one, and nothing above 1.
        f"01 01 0 1 {EIGHTH} 1000 1 1 {QUARTER}"
    )
    block = decode_delta(payload, TABLE)["item"]
    assert isinstance(block, RowBlock)
    assert block.rows.tolist() == [1, 3]
    assert block.values.tolist() == [[0, 0], [-0.375, 0.5625]]


def test_a_dense_parameter_is_a_row_for_each_leading_index() -> None:
    specs = (ParameterSpec("kernel", Role.DENSE, (2, 1, 2)),)
    payload = packed(f"0001 011 01 01 10 0 0 00 {ONE} 0000")
    kernel = decode_delta(payload, specs)["kernel"]
    assert np.asarray(kernel).tolist() == [[[0, 0]], [[1, 1]]]
