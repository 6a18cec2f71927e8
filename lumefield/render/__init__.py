"""Cameras and the renderer: arrays and a camera come in, pictures and gradients go out.

Imports `native` at most; never `fields`. The mathematics is one compositing kernel, front to back,
in a C++ backend, an XLA backend and a dense reference twin, which is its oracle beside stored
vectors of gsplat. See docs/render.md.
"""

from lumefield.render._cameras import Cameras as Cameras
from lumefield.render._composite import composite_gaussians as composite_gaussians
from lumefield.render._photometric import photometric_loss as photometric_loss
from lumefield.render._photometric import psnr as psnr
from lumefield.render._photometric import ssim as ssim
from lumefield.render._rasterize import SplatOptions as SplatOptions
from lumefield.render._rasterize import project_gaussians as project_gaussians
from lumefield.render._rasterize import rasterize as rasterize
from lumefield.render._rasterize import rasterize_rgb as rasterize_rgb
from lumefield.render._rays import camera_rays as camera_rays
from lumefield.render._samples import composite_samples as composite_samples
from lumefield.render._se3 import se3_exp as se3_exp
from lumefield.render._se3 import se3_log as se3_log
from lumefield.render._sh import rotate_sh as rotate_sh
from lumefield.render._sh import sh_basis as sh_basis
