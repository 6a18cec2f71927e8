"""The dashboard of a training in a browser, by viser: scene, photos, curves, buttons, sliders."""

import functools
import re
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lumefield.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Generator

    import viser

    from lumefield.apps._live_splats import Frustum, Shown

TITLE = "lumefield"
_VISER = (1, 1)
"""Oldest version that has all that is used here. Not demanded of every installation: the extra
``[nerfstudio]`` comes with an older one."""
_POINTS = 400
"""Most points of a curve."""
_TRAIN, _HELD = (127, 212, 193), (240, 160, 90)
"""Colours of photos that are trained on, and of those that are held out."""
_PHOTO = 0.35
"""Size of a photo, over the way to the next."""


@dataclass
class Wishes:
    """What is asked for at the page: set by viser's threads, read by ours."""

    paused: bool = False
    ended: bool = False
    """Whether to end here as if the steps had ended."""
    seconds: float = 5.0
    """Fewest between two scenes."""
    most: int = 200_000
    """Gaussians."""
    floor: float = 0.02
    """Opacity under which a Gaussian is not shown."""
    size: float = 1.0
    """Factor of the Gaussians' size."""
    changes: int = 0
    """How often what is shown was changed."""


class Dashboard:
    """One viser server; nothing here waits for a browser."""

    def __init__(self, host: str, port: int, wishes: Wishes, origins: Sequence[str]) -> None:
        """Listen.

        Args:
            host: Numeric address of this machine.
            port: A free one.
            wishes: Where to put what is asked for.
            origins: Names of this machine, whose pages may connect; empty for all. Else a page of
                another site could steer the training and see the photos.

        Raises:
            InputError: If viser is not installed, or too old.
        """
        module = _viser()
        with _only_from(origins), _quiet():
            self._server: viser.ViserServer = module.ViserServer(
                host, port, label=TITLE, verbose=False
            )
        self._wishes = wishes
        self._cameras: list[viser.CameraFrustumHandle] = []
        self._near = self._scale = 1.0
        """Way from a photo to the next, and what their size is multiplied by."""
        self._splats: viser.GaussianSplatHandle | None = None
        gui = self._server.gui
        gui.configure_theme(
            dark_mode=True, show_logo=False, show_share_button=False, brand_color=_TRAIN
        )
        self._server.scene.set_background_image(np.full((2, 2, 3), 16, np.uint8))
        self._status = gui.add_markdown("Finding the cameras ...")
        self._bar = gui.add_progress_bar(0)
        self._pause = gui.add_button("Pause", disabled=True, icon=module.Icon.PLAYER_PAUSE)
        self._stop = gui.add_button(
            "Stop and finish",
            disabled=True,
            icon=module.Icon.PLAYER_STOP,
            hint="Save, score and report what there is; --resume goes on from here",
        )

        @self._pause.on_click
        def _(_: object) -> None:
            self.pause(not wishes.paused)

        @self._stop.on_click
        def _(_: object) -> None:
            self.stop()

        self._link = gui.add_markdown("")
        self._curves = self._add_curves()
        self._add_sliders()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.get_port()

    def watched(self) -> bool:
        """Whether a browser is connected."""
        return bool(self._server.get_clients())

    def begin(self, frusta: "Sequence[Frustum]", up: NDArray[np.float64], page: str) -> None:
        """Show the photos, look through the first one, and offer the buttons.

        Args:
            frusta: Cameras and photos.
            up: (3,) against gravity, training frame.
            page: Address of the page with harmonics and VR.
        """
        scene, first = self._server.scene, self._server.initial_camera
        scene.set_up_direction(tuple(up))
        eyes = np.array([f.position for f in frusta])
        away = np.linalg.norm(eyes[:, None] - eyes, axis=-1) + np.diag(np.full(len(eyes), np.inf))
        near = float(np.median(away.min(1))) if len(eyes) > 1 else 1.0
        self._near = near if near > 0 else 1.0
        for k, frustum in enumerate(frusta):
            self._add_frustum(k, frustum)
        start = frusta[0]
        ahead = start.turn[:, 2]
        first.far, first.fov = 1e4, max(start.fov, 0.7)
        first.up, first.position = up, self._before(start)
        # viser orbits about this point: the middle of the cameras, brought onto the view axis.
        reach = float((eyes.mean(0) - start.position) @ ahead)
        first.look_at = start.position + ahead * max(reach, 5.0)
        self._link.content = (
            f"[Open the scene as `lumefield view` shows it]({page}): all harmonics, VR"
        )
        self._pause.disabled = self._stop.disabled = False

    def show(self, what: "Shown") -> None:
        """Replace the Gaussians."""
        if self._splats is None:
            self._splats = self._server.scene.add_gaussian_splats("/splats", **what._asdict())
        else:
            self._splats.set_gaussians(**what._asdict())

    def tell(self, words: str, share: float) -> None:
        """Say how far it is, in Markdown; ``share`` in [0, 1] of the steps."""
        self._status.content = words
        self._bar.value = 100 * min(max(share, 0.0), 1.0)

    def plot(self, log: "Sequence[dict[str, Any]]") -> None:
        """Draw the curves of a log: ``loss``, ``psnr`` and now and then ``held_out_psnr``."""
        if len(log) < 2:
            return
        some = {int(k) for k in np.linspace(0, len(log) - 1, _POINTS).round()}
        rows = [row for k, row in enumerate(log) if k in some or "held_out_psnr" in row]
        for name, curve in self._curves.items():
            points = [(row["step"], row[name]) for row in rows if name in row]
            if len(points) > 1:
                steps, values = np.array(points, np.float64).T
                curve.data = (steps, np.maximum(values, 1e-9) if name == "loss" else values)
                curve.visible = True

    def pause(self, paused: bool) -> None:
        """Hold the training, or let it go on."""
        icon = self._icons
        self._wishes.paused = paused
        self._pause.label = "Resume" if paused else "Pause"
        self._pause.icon = icon.PLAYER_PLAY if paused else icon.PLAYER_PAUSE

    def stop(self) -> None:
        """End the training as if its steps had ended."""
        self._wishes.ended = True
        self.finish()

    def finish(self) -> None:
        """Take the buttons away: nothing is left to steer."""
        self._pause.disabled = self._stop.disabled = True

    def close(self) -> None:
        """Stop serving."""
        with _quiet():
            self._server.stop()

    # -- what it is made of ------------------------------------------------------------------

    @property
    def _icons(self) -> Any:  # noqa: ANN401
        return _viser().Icon

    def _add_curves(self) -> "dict[str, viser.GuiUplotHandle]":
        """Entry of the log -> its curve; each is seen once it has two points."""
        uplot, gui = _viser().uplot, self._server.gui
        look = {"stroke": "#bbb", "grid": {"stroke": "#444", "width": 1}}

        def curve(label: str, colour: tuple[int, int, int], distribution: int) -> Any:  # noqa: ANN401
            stroke = "#{:02x}{:02x}{:02x}".format(*colour)
            return gui.add_uplot(
                (np.array([0.0, 1.0]), np.array([1.0, 1.0])),
                (uplot.Series(label="step"), uplot.Series(label=label, stroke=stroke, width=2)),
                scales={"x": uplot.Scale(time=False), "y": uplot.Scale(distr=distribution)},
                axes=(uplot.Axis(**look), uplot.Axis(**look, size=56)),
                # No zoom by dragging: it lasts, and new points would go by unseen.
                cursor=uplot.Cursor(drag=uplot.Cursor_Drag(x=False, y=False)),
                height=150,
                visible=False,
            )

        with gui.add_folder("Curves"):
            return {
                "loss": curve("loss", _TRAIN, 3),
                "psnr": curve("PSNR of training photos, dB", _TRAIN, 1),
                "held_out_psnr": curve("PSNR of held-out photos, dB", _HELD, 1),
            }

    def _add_sliders(self) -> None:
        gui, wishes = self._server.gui, self._wishes
        with gui.add_folder("What is shown"):
            every = gui.add_slider("seconds between scenes", 1.0, 60.0, 1.0, wishes.seconds)
            most = gui.add_slider("most splats", 10_000, 500_000, 10_000, wishes.most)
            floor = gui.add_slider("hide opacity under", 0.0, 0.9, 0.01, wishes.floor)
            size = gui.add_slider("splat size", 0.05, 1.0, 0.05, wishes.size)
            photos = gui.add_checkbox("photos", initial_value=True)
            scale = gui.add_slider("size of photos", 0.1, 3.0, 0.1, 1.0)

        def changed(_: object) -> None:
            wishes.most, wishes.floor = max(1, int(most.value)), float(floor.value)
            wishes.size = max(1e-3, float(size.value))
            wishes.changes += 1

        def paced(_: object) -> None:
            wishes.seconds = max(0.2, float(every.value))

        def framed(_: object) -> None:
            self._scale = max(1e-3, float(scale.value))
            for camera in self._cameras:
                camera.visible = photos.value
                camera.scale = self._scale * _PHOTO * self._near

        for slider in (most, floor, size):
            slider.on_update(changed)
        every.on_update(paced)
        photos.on_update(framed)
        scale.on_update(framed)

    def _add_frustum(self, k: int, frustum: "Frustum") -> None:
        """A photo; a click flies to where it was taken, just before the photo itself."""
        wxyz = _viser().transforms.SO3.from_matrix(frustum.turn).wxyz
        handle = self._server.scene.add_camera_frustum(
            f"/photos/{k:04}",
            fov=frustum.fov,
            aspect=frustum.aspect,
            scale=_PHOTO * self._near,
            thickness=0.01 * self._near,
            color=_HELD if frustum.held_out else _TRAIN,
            image=frustum.photo,
            format="jpeg",
            wxyz=wxyz,
            position=frustum.position,
        )

        def fly(event: Any) -> None:  # noqa: ANN401
            camera = event.client.camera
            camera.wxyz = wxyz
            camera.position = self._before(frustum)

        handle.on_click(fly)
        self._cameras.append(handle)

    def _before(self, frustum: "Frustum") -> NDArray[np.float64]:
        """Just before the photo of a camera, which would hide the scene from the camera's place.

        viser makes all frusta of one volume, whatever their fields of view.
        """
        volume = np.tan(frustum.fov / 2) ** 2 * frustum.aspect / 3
        size = self._scale * _PHOTO * self._near
        return frustum.position + 1.01 * frustum.turn[:, 2] * size / np.cbrt(volume)


def _viser() -> Any:  # noqa: ANN401
    try:
        import viser
    except ImportError:
        viser = None
    version = getattr(viser, "__version__", "0.0").split(".")
    if viser is None or tuple(int(part) for part in version[:2]) < _VISER:
        raise InputError(
            "--view needs the package viser, 1.1 or newer; install it by "
            "`pip install 'viser>=1.1'`, or leave --view out"
        )
    return viser


@contextmanager
def _quiet() -> "Generator[None]":
    """What viser says on the terminal, however asked not to, is left out."""
    import rich

    console = rich.get_console()
    quiet, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = quiet


@contextmanager
def _only_from(names: Sequence[str]) -> "Generator[None]":
    """Have viser's web socket answer pages of these hosts only; viser has no option for it."""
    if not names:
        yield
        return
    import websockets.asyncio.server as sockets

    hosts = "|".join(re.escape(f"[{name}]" if ":" in name else name) for name in names)
    serve = sockets.serve
    sockets.serve = functools.partial(
        serve, origins=[None, re.compile(rf"https?://({hosts})(:\d+)?")]
    )
    try:
        yield
    finally:
        sockets.serve = serve
