"""Rasterizers side by side on one device: ours, gsplat (CUDA) and splax, on synthetic scenes."""
