"""Two small Warp kernels for ``test_warp``."""

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.kernel
def turn_and_sum(
    x: wp.array2d[wp.float32],
    factor: wp.float32,
    turned: wp.array2d[wp.float32],
    total: wp.array[wp.float32],
) -> None:
    """Each row in reverse, times ``factor``, by way of the block's shared memory; and its sum."""
    row, lane = wp.tid()
    mine = wp.float32(0.0)
    mine = x[row, lane]
    tile = wp.tile(mine)
    turned[row, lane] = factor * tile[63 - lane]
    whole = wp.tile_sum(tile)
    wp.tile_store(total, whole, offset=row)


@wp.kernel
def add_index(x: wp.array[wp.float32]) -> None:
    """x[i] += i."""
    i = wp.tid()
    x[i] += wp.float32(i)
