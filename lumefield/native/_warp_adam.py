"""Adam as a Warp kernel that touches the rows it moves and no others; imports warp."""

from typing import no_type_check

import warp as wp

wp.set_module_options({"enable_backward": False, "fast_math": False})


@no_type_check
@wp.kernel
def adam_rows(
    rows: wp.array[wp.bool],
    rates: wp.array[wp.float32],
    grow: wp.array[wp.float32],
    gradient: wp.array2d[wp.float32],
    b1: wp.float32,
    rest1: wp.float32,
    b2: wp.float32,
    rest2: wp.float32,
    eps: wp.float32,
    value: wp.array2d[wp.float32],
    mu: wp.array2d[wp.float32],
    nu: wp.array2d[wp.float32],
) -> None:
    """One number of one row a thread, so that neighbours read neighbouring numbers.

    ``rest1`` and ``rest2`` are 1 - b1 and 1 - b2: in float32 the difference would lose digits.
    """
    row, column = wp.tid()
    if not rows[row]:
        return
    g = gradient[row, column]
    m = b1 * mu[row, column] + rest1 * g
    v = b2 * nu[row, column] + rest2 * g * g
    by = m * grow[0] / (wp.sqrt(v * grow[1]) + eps)
    mu[row, column] = m
    nu[row, column] = v
    value[row, column] = value[row, column] - rates[column] * by
