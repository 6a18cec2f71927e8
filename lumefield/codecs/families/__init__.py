"""Families of the literature: pictures and videos as the weights of overfitted networks.

In: pixels and a number of bytes. Out: verified ``.lume`` bytes; or from these the pixels, which are
the same on every machine. All families are rows of one table, :data:`METHODS`, over one quantiser,
entropy coder and container. Decoding needs NumPy alone; fitting loads jax. Oracle: the contract
table in ``tests/codecs/test_families.py``. Trained fields of scenes go through the same coder at a
price per bit: :func:`encode_field`.
"""

from lumefield.codecs.families._compress import EFFORTS as EFFORTS
from lumefield.codecs.families._compress import Fitted as Fitted
from lumefield.codecs.families._compress import compress_network as compress_network
from lumefield.codecs.families._decode import decode_planes as decode_planes
from lumefield.codecs.families._facts import file_facts as file_facts
from lumefield.codecs.families._family import Family as Family
from lumefield.codecs.families._family import Layout as Layout
from lumefield.codecs.families._field import decode_field as decode_field
from lumefield.codecs.families._field import encode_field as encode_field
from lumefield.codecs.families._table import METHODS as METHODS
