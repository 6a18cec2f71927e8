"""Neural codecs: pictures as overfitted networks with real, exact bitstreams.

In: integer networks and latents (made by fitting), or ``.lume`` bytes. Out: ``.lume`` bytes, or the
pixels, which are the same on every machine and backend. Imports ``lumefield.native`` and
``lumefield.errors``; jax only when the ``xla`` backend decodes. Oracle: the NumPy twin.
"""

from lumefield.codecs.neural._base import base_model as base_model
from lumefield.codecs.neural._colour import pixels_of as pixels_of
from lumefield.codecs.neural._container import Container as Container
from lumefield.codecs.neural._container import Picture as Picture
from lumefield.codecs.neural._image import Cost as Cost
from lumefield.codecs.neural._image import decode_image as decode_image
from lumefield.codecs.neural._image import encode_image as encode_image
from lumefield.codecs.neural._image import image_cost as image_cost
from lumefield.codecs.neural._levels import levels_for as levels_for
from lumefield.codecs.neural._model import ImageModel as ImageModel
from lumefield.codecs.neural._model import Widths as Widths
from lumefield.codecs.neural._video import decode_video as decode_video
from lumefield.codecs.neural._video import open_video as open_video
from lumefield.codecs.neural._video import sound_of_video as sound_of_video
from lumefield.codecs.neural._video import video_picture as video_picture
