"""Fields: coordinates to values, and explicit fields.

In: coordinates, keys, plain arrays. Out: values, or the Gaussians noun. Imports only ``native``.
Oracle: the contract table in ``tests/fields`` and 3DGS' published conventions.
"""

from lumefield.fields._densify import Stats as Stats
from lumefield.fields._densify import clone_split_prune as clone_split_prune
from lumefield.fields._densify import explore as explore
from lumefield.fields._densify import morton_order as morton_order
from lumefield.fields._densify import relocate as relocate
from lumefield.fields._densify import reset_opacity as reset_opacity
from lumefield.fields._densify import rotate as rotate
from lumefield.fields._densify import shared_shape as shared_shape
from lumefield.fields._gaussians import DEAD_LOGIT as DEAD_LOGIT
from lumefield.fields._gaussians import SH_C0 as SH_C0
from lumefield.fields._gaussians import Gaussians as Gaussians
from lumefield.fields._gaussians import Splatting as Splatting
from lumefield.fields._residual import hessian as hessian
from lumefield.fields._residual import laplacian as laplacian
from lumefield.fields._residual import value_and_jacobian as value_and_jacobian
