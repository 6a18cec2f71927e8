"""Latents of all frames of a group, of which the fit sees one frame at a time."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lumefield.codecs.neural._group import CodedFrame, code_frame
from lumefield.codecs.neural._inter_model import LEVELS, InterModel
from lumefield.codecs.neural._motion import KINDS, MOTION_LEVELS
from lumefield.codecs.neural._order import Role
from lumefield.codecs.overfit._video_model import InterNetworks, InterScene
from lumefield.fields.latent import level_sizes
from lumefield.fit import TrainState


class Bank:
    """Latents of all frames and their moments in Adam; a scene holds those of one frame."""

    def __init__(self, motion: list[tuple[Array, ...]], size: tuple[int, int]) -> None:
        """Frames of a picture's size, with their first motion and no residual."""
        residual = tuple(jnp.zeros(s, jnp.float32) for s in level_sizes(*size, LEVELS))
        none = tuple(jnp.zeros_like(level) for level in motion[0])
        self._parts = [((residual, own), (residual, none), (residual, none)) for own in motion]

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._parts)

    def scene(self, frame: int, networks: InterNetworks) -> InterScene:
        """Networks with the latents of a frame."""
        return InterScene(*self._parts[frame][0], networks)

    def keep(self, frame: int, state: TrainState) -> None:
        """Take what the scene and the optimizer have of a frame."""
        trees = (state.scene, state.opt.mu, state.opt.nu)
        value, mu, nu = ((tree.residual, tree.motion) for tree in trees)
        self._parts[frame] = (value, mu, nu)

    def loaded(self, frame: int, state: TrainState) -> TrainState:
        """The state with a frame's latents and moments in place of those it has."""
        trees = zip((state.scene, state.opt.mu, state.opt.nu), self._parts[frame], strict=True)
        scene, mu, nu = (
            dataclasses.replace(tree, residual=part[0], motion=part[1]) for tree, part in trees
        )
        return dataclasses.replace(state, scene=scene, opt=state.opt.replace(mu=mu, nu=nu))


def coded_frame(model: InterModel, role: Role, scene: InterScene) -> CodedFrame:
    """The frame of a scene, rounded."""
    residual, motion = (
        [np.rint(np.asarray(y)).astype(np.int32) for y in levels]
        for levels in (scene.residual, scene.motion)
    )
    by_plane = [[level[plane] for level in motion] for plane in range(len(KINDS))]
    return code_frame(model, role, residual, by_plane)


def reachable(coded: CodedFrame, scene: InterScene) -> InterScene:
    """A scene whose latents round to the coded ones."""
    planes = [np.stack([p.latents[i] for p in coded.motion]) for i in range(MOTION_LEVELS)]

    def moved(level: Array, whole: np.ndarray) -> Array:
        wanted = jnp.asarray(whole, jnp.float32)
        return jnp.where(jnp.round(level) == wanted, level, wanted)

    return dataclasses.replace(
        scene,
        residual=tuple(map(moved, scene.residual, coded.residual.latents)),
        motion=tuple(map(moved, scene.motion, planes)),
    )
