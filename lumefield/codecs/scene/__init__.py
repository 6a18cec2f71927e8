"""Scenes of Gaussians to exact bitstreams and back: pruned, quantised and coded by what they cost.

In: :class:`Splats` and the costs of errors in them. Out: ``.lume`` bytes, or the Gaussians, which
are the same bits on every machine. NumPy only. Oracle: the twin, which decodes one number at a
time.
"""

from lumefield.codecs.scene._canonical import Canonical as Canonical
from lumefield.codecs.scene._canonical import canonical as canonical
from lumefield.codecs.scene._canonical import red_first as red_first
from lumefield.codecs.scene._encode import decode_scene as decode_scene
from lumefield.codecs.scene._encode import encode_scene as encode_scene
from lumefield.codecs.scene._encode import kept as kept
