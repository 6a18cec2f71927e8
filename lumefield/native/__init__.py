"""The C++ kernels: sources, build, load, register. Ground floor under ``fields`` and ``render``.

In: nothing but this machine. Out: XLA FFI targets named ``lumefield_<Symbol>`` on the CPU platform,
a call for kernels written in NVIDIA Warp, the optimizer's kernel, and a report of which of them are
active and why.
Imports no other room; jax and warp only when kernels load.
Oracle: ``tests/render``, where every kernel is compared with its float64 twin.
"""

from lumefield.native._adam import adam_rows as adam_rows
from lumefield.native._loader import Status as Status
from lumefield.native._loader import build as build
from lumefield.native._loader import call as call
from lumefield.native._loader import has_tiles as has_tiles
from lumefield.native._loader import library as library
from lumefield.native._loader import load as load
from lumefield.native._loader import status as status
from lumefield.native._loader import threads as threads
from lumefield.native._warp import backend_on as backend_on
from lumefield.native._warp import warp_available as warp_available
from lumefield.native._warp import warp_call as warp_call
from lumefield.native._warp import warp_missing as warp_missing
from lumefield.native._warp import warp_on_gpu as warp_on_gpu
