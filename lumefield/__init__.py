"""lumefield: neural fields and 3D reconstruction in JAX, on a plain CPU and on GPUs."""

__version__ = "0.1.0"
