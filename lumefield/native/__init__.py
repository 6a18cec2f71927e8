"""The C++ kernels: sources, build, load, register. Ground floor under ``fields`` and ``render``.

In: nothing but this machine. Out: XLA FFI targets named ``lumefield_<Symbol>`` on the CPU platform,
and a report of which build is active and why. Imports no other room; jax only when kernels load.
Oracle: ``tests/render``, where every kernel is compared with its float64 twin.
"""

from lumefield.native._loader import Status as Status
from lumefield.native._loader import build as build
from lumefield.native._loader import call as call
from lumefield.native._loader import load as load
from lumefield.native._loader import status as status
from lumefield.native._loader import threads as threads
