"""What training photos say for and against each Gaussian of a scene: the guard of ``edit clean``.

Letters: ``r`` picture minus photo, ``d`` what a Gaussian adds to a picture, ``s`` its opacity as a
part of what it is. A pixel is linear in the alpha of any one Gaussian, so d = o dP/do exactly, o
its opacity, and the squared error of the photos is a parabola in s:

    E(s) - E(1) = -(1 - s) 2 r.d + (1 - s)^2 d.d

One backward pass per photo, of r, gives r.d of every Gaussian. d.d would take one per pixel; a pass
of random signs v gives (v.d)^2, whose mean it is (Hutchinson, "A Stochastic Estimator of the Trace
of the Influence Matrix", 1990), and the photos are many.
"""

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._edit_scene import Floats, Subject, Tell, opacity_of
from lumefield.apps._mesh_photos import Pictures, captured, photos_of
from lumefield.apps._views import camera_at, load_views
from lumefield.errors import InputError, UserError

if TYPE_CHECKING:
    from lumefield.codecs.formats import Splats

_UNIT = 4.0
"""Change of the error that counts as 1 of the log-odds, in units of the error per Gaussian."""
_MOST = 4.0
"""Most that the photos may add to or take from the log-odds: floaters before and behind a Gaussian
make them err."""
_PART = 0.25
"""Part of its opacity at which a Gaussian is tried again: the error is then that of the rest."""
_LEAST = 9.0
"""dB below which photos are not of the scene."""
_SIGNS = 2
"""Passes of random signs per photo."""


class Passes(NamedTuple):
    """Sums over all photos, or one; NumPy outside and traced inside the compiled function."""

    linear: Any
    """(N,) 2 r.d."""
    square: Any
    """(N,) d.d, estimated."""
    error: Any
    """r.r, display sRGB squared, summed over channels and pixels that count."""


@dataclasses.dataclass(frozen=True)
class Guard:
    """Training photos, and how well a scene explains them."""

    pictures: Pictures
    background: Any
    """Display sRGB."""

    def evidence(self, splats: "Splats", tell: Tell, stage: str) -> Floats:
        """What the photos add to the log-odds (N,) that a Gaussian should go, -4 to 4.

        0 where no photo shows it; negative where the error grows without it.
        """
        found = self.passes(splats, tell, stage)
        return np.clip(_weighed(found.linear - found.square, found.error), -_MOST, _MOST)

    def regret(self, splats: "Splats", gone: NDArray[np.bool_], tell: Tell, stage: str) -> Floats:
        """What they say (N,) once it is gone, of each alone: as ``evidence``, but without bounds.

        0 for what stays.

        Args:
            splats: N Gaussians, those that went among them.
            gone: (N,) which of them went and are tried again.
            tell: Progress.
            stage: What to call it.
        """
        opacity = np.where(gone, _PART, 1) * opacity_of(splats)
        logits = np.log(opacity / np.maximum(1 - opacity, 1e-12)).astype(np.float32)
        tried = dataclasses.replace(splats, logit_opacities=logits)
        found = self.passes(tried, tell, stage)
        # E(1) - E(0) from slope and curvature at s = _PART
        slope, curve = found.linear / _PART, found.square / _PART**2
        with_it = slope + (1 - 2 * _PART) * curve
        return np.where(gone, _weighed(with_it, found.error), 0)

    def passes(self, splats: "Splats", tell: Tell, stage: str) -> Passes:
        """One forward and three backward passes per photo, at its full size.

        Smaller photos would be another scene: Gaussians are at least a pixel wide.
        """
        import jax
        import jax.numpy as jnp

        from lumefield.fields import Gaussians

        leaves = (splats.means, splats.quats_wxyz, splats.log_scales, splats.logit_opacities)
        arrays = Gaussians.from_arrays(*leaves, splats.sh).activate()
        run, behind = _compiled(splats.antialiased), jnp.asarray(self.background, jnp.float32)
        n, views = len(splats.means), self.pictures.views
        linear, square, error = np.zeros(n), np.zeros(n), 0.0
        key = jax.random.key(0)
        for k in range(len(views)):
            photo = jnp.asarray(self.pictures.rgb[k]), jnp.asarray(self.pictures.counts[k])
            one = run(arrays, behind, camera_at(views, k), *photo, jax.random.fold_in(key, k))
            linear += np.asarray(one.linear, np.float64)
            square += np.asarray(one.square, np.float64)
            error += float(one.error)
            tell(stage, (k + 1) / len(views))
        return Passes(linear, square, error)

    def decibels(self, error: float) -> float:
        """PSNR of the scene's pictures against the photos, over the pixels that count."""
        pixels = 3 * int(self.pictures.counts.sum())
        return float(10 * np.log10(pixels / max(error, 1e-12)))


def _weighed(worse: Floats, error: float) -> Floats:
    """How much worse the photos are explained with each of N Gaussians, as log-odds."""
    return worse * len(worse) / (_UNIT * max(error, 1e-12))


def guard_of(subject: Subject, given: Path | None, tell: Tell) -> tuple[Guard | None, str]:
    """The guard of a scene, or None where it has no photos; and a line that says which.

    Held-out photos are no part of it.

    Args:
        subject: The scene.
        given: ``--photos``: a run, or what a scene is trained from; where the run says when None.
        tell: Progress.

    Raises:
        InputError: If the photos that were given cannot be used, or show something else.
    """
    try:
        found = _given(subject, given, tell) if given is not None else _own(subject, tell)
    except (UserError, OSError) as error:
        if given is not None:
            raise
        return None, f"judged without photos ({error})"
    if found is None or not len(found.views):
        if given is not None:
            raise InputError(
                f"--photos {given}: no photo of it is a training view of {subject.path}, at its "
                "size; give what the scene was trained from"
            )
        return None, "judged without photos: none are known (--photos CAPTURE names them)"
    guard = Guard(found, subject.background)
    if given is not None:
        near = guard.decibels(guard.passes(subject.splats, tell, "looking at the photos").error)
        if near < _LEAST:
            raise InputError(
                f"--photos {given}: not of this scene, whose pictures are within {near:.1f} dB of "
                "them; give photos in the frame of the scene, as it was before any move"
            )
    return guard, f"judged by {len(found.views)} training photos too: what they need stays"


def _own(subject: Subject, tell: Tell) -> Pictures | None:
    if subject.run is None or subject.views is None:
        return None
    return photos_of(subject.run, subject.views, tell)


def _given(subject: Subject, given: Path, tell: Tell) -> Pictures | None:
    cameras = given / "capture" / "cameras.json"
    if cameras.is_file():
        views = subject.views or load_views(cameras)
        return photos_of(given, views, tell)
    if subject.run is not None and subject.views is not None:
        return photos_of(subject.run, subject.views, tell, source=given)
    from lumefield.codecs.formats import detect_posed

    if given.exists() and detect_posed(given) is None:
        raise InputError(
            f"--photos {given}: has no cameras, and neither has {subject.path}; give the run it "
            "was trained in, or a COLMAP model, transforms.json or LLFF folder in its frame"
        )
    with tempfile.TemporaryDirectory() as cache:
        return captured(given, Path(cache), tell)


@functools.cache
def _compiled(antialiased: bool) -> Callable[..., Passes]:
    import jax
    import jax.numpy as jnp

    from lumefield.render import Cameras, SplatOptions, rasterize_rgb

    options = SplatOptions(antialiased=antialiased)

    @jax.jit
    def run(
        arrays: Any,  # noqa: ANN401
        behind: jax.Array,
        camera: Cameras,
        photo: jax.Array,
        counts: jax.Array,
        key: jax.Array,
    ) -> Passes:
        own = arrays["opacities"]

        def picture(opacities: jax.Array) -> jax.Array:
            shown = {**arrays, "opacities": opacities}
            return rasterize_rgb(**shown, camera=camera, background=behind, options=options)[0]

        out, pull = jax.vjp(picture, own)
        wrong = jnp.where(counts[..., None], out - photo.astype(out.dtype) / 255, 0)
        square = jnp.zeros_like(own)
        for one in jax.random.split(key, _SIGNS):
            signs = jax.random.rademacher(one, out.shape, out.dtype)
            square += (own * pull(jnp.where(counts[..., None], signs, 0))[0]) ** 2 / _SIGNS
        return Passes(own * pull(2 * wrong)[0], square, (wrong**2).sum())

    return run
