"""Pictures as integer latents with tiny networks: the field that the image codec fits.

In: a pyramid of latents and the parameters of three small networks. Out: pixels, and the bits that
the latents take; both differentiable, by native kernels on CPUs. Imports only ``native``.
Oracle: the float64 twins in ``_model``, and for the rounded form the exact integer decoder in
``codecs.neural``.
"""

from lumefield.fields.latent._model import RANGE as RANGE
from lumefield.fields.latent._model import ContextModel as ContextModel
from lumefield.fields.latent._model import Networks as Networks
from lumefield.fields.latent._model import Synthesis as Synthesis
from lumefield.fields.latent._model import latent_bits as latent_bits
from lumefield.fields.latent._model import level_sizes as level_sizes
from lumefield.fields.latent._model import start_networks as start_networks
from lumefield.fields.latent._quantise import noisy as noisy
from lumefield.fields.latent._quantise import straight_through as straight_through
from lumefield.fields.latent._rate import latent_rate as latent_rate
from lumefield.fields.latent._synthesis import synthesise as synthesise
from lumefield.fields.latent._upsample import upsample as upsample
