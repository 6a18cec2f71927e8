"""File formats: splats and posed photos, to and from plain NumPy records.

In: paths, :class:`Splats`, :class:`PosedImages`. Out: the same. Imports only NumPy, the standard
library, ``lumefield.errors`` and (inside functions) Pillow; never jax. Oracles: files written by
other programs, plyfile and pycolmap reading ours, and the three formats against one another.
"""

from lumefield.codecs.formats._colmap import save_colmap as save_colmap
from lumefield.codecs.formats._files import PHOTO_SUFFIXES as PHOTO_SUFFIXES
from lumefield.codecs.formats._files import photos_in as photos_in
from lumefield.codecs.formats._files import replacing as replacing
from lumefield.codecs.formats._load import SPLAT_SUFFIXES as SPLAT_SUFFIXES
from lumefield.codecs.formats._load import detect_posed as detect_posed
from lumefield.codecs.formats._load import load_posed_images as load_posed_images
from lumefield.codecs.formats._load import load_splats as load_splats
from lumefield.codecs.formats._load import save_splats as save_splats
from lumefield.codecs.formats._picture import Picture as Picture
from lumefield.codecs.formats._picture import load_picture as load_picture
from lumefield.codecs.formats._picture import save_picture as save_picture
from lumefield.codecs.formats._ply import load_points as load_points
from lumefield.codecs.formats._types import PosedImages as PosedImages
from lumefield.codecs.formats._types import Splats as Splats
