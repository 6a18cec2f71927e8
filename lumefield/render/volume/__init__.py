"""Volume rendering: where to sample rays, what the samples weigh, and the losses on those weights.

Rays and callables or arrays of their samples come in; samples, weights and colours go out. Two
layouts: [samples, rays] for equally many samples on each ray (compositing: ``composite_samples``),
and packed, one ray after another, for samples in the occupied cells of a grid. Imports ``native``
and this room only. Oracles: dense float64 twins in ``tests/render``. See docs/render.md.
"""

from lumefield.render._camp import pose_preconditioner as pose_preconditioner
from lumefield.render.volume._cones import cone_gaussians as cone_gaussians
from lumefield.render.volume._contract import contract as contract
from lumefield.render.volume._contract import contract_gaussians as contract_gaussians
from lumefield.render.volume._losses import distortion_loss as distortion_loss
from lumefield.render.volume._losses import proposal_loss as proposal_loss
from lumefield.render.volume._losses import ray_weights as ray_weights
from lumefield.render.volume._march import Packed as Packed
from lumefield.render.volume._march import march as march
from lumefield.render.volume._march import step_edges as step_edges
from lumefield.render.volume._occupancy import Occupancy as Occupancy
from lumefield.render.volume._packed import composite_packed as composite_packed
from lumefield.render.volume._sampling import importance as importance
from lumefield.render.volume._sampling import ray_box as ray_box
from lumefield.render.volume._sampling import stratified as stratified
