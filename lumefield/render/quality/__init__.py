"""How alike two pictures are, and what a codec pays for it: SSIM, MS-SSIM, PSNR of YUV, BD-rate.

In: arrays. Out: numbers; what takes pictures is differentiable jax. Imports this room only.
Oracles: scipy in float64, skimage's definition, and the stored curves of ``shared/baselines``.
"""

from lumefield.render.quality._bd_rate import bd_rate as bd_rate
from lumefield.render.quality._ssim import MS_SSIM_SIDE as MS_SSIM_SIDE
from lumefield.render.quality._ssim import SSIM_SIDE as SSIM_SIDE
from lumefield.render.quality._ssim import ms_ssim as ms_ssim
from lumefield.render.quality._ssim import ssim as ssim
from lumefield.render.quality._yuv import plane_psnr as plane_psnr
from lumefield.render.quality._yuv import ycbcr as ycbcr
from lumefield.render.quality._yuv import yuv_psnr as yuv_psnr
