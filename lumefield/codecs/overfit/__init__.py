"""Fitting pictures to the codec: from pixels to the integers that ``codecs.neural`` writes.

In: pixels and a goal (lambda, PSNR or bytes). Out: verified ``.lume`` bytes. Loads jax; decoding
needs nothing of this room. Oracle: what is decoded from the bytes.
"""

from lumefield.codecs.overfit._compress import EFFORTS as EFFORTS
from lumefield.codecs.overfit._compress import Compressed as Compressed
from lumefield.codecs.overfit._compress import compress_picture as compress_picture
from lumefield.codecs.overfit._image_fit import Effort as Effort
from lumefield.codecs.overfit._image_fit import Goal as Goal
from lumefield.codecs.overfit._video import VIDEO_EFFORTS as VIDEO_EFFORTS
from lumefield.codecs.overfit._video import CompressedVideo as CompressedVideo
from lumefield.codecs.overfit._video import VideoEffort as VideoEffort
from lumefield.codecs.overfit._video import VideoPlan as VideoPlan
from lumefield.codecs.overfit._video import compress_video as compress_video
