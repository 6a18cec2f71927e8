"""A sound as a field t -> channels in [-1, 1].

Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions", 2020, Sec.
4.1, fit sounds by raising the frequencies of the first layer to omega = 3000. We do the same by
stretching time: sample k of n is at ``STRETCH (2 k + 1 - n) / n``, times omega = 30. Longer sounds
are stretched further, so that a second keeps its length. SNR is that of the samples as they are
written, 10 log10 of the power of the sound over that of the error, all channels together.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lumefield.apps._fit_settings import Fit
from lumefield.apps._signal import Exhibit, Problem, evaluate
from lumefield.apps._signal_plan import make_size
from lumefield.apps._sound_files import load_wav, save_wav
from lumefield.errors import InputError, RunError

Floats = NDArray[np.float32]
STRETCH = 100.0
"""Reach of time for sounds up to ``SECONDS`` long."""
SECONDS = 7.0
"""Length of the paper's sounds."""
RATES = (1000, 768_000)
"""Least and most samples a second of what is written."""


def prepare(settings: Fit) -> Problem:
    """Make a WAV file ready to be fitted.

    Raises:
        InputError: If the file or the field cannot be used.
        FormatError: If the file is damaged or holds no sound.
    """
    sound = load_wav(settings.input)
    count, channels = sound.values.shape
    size = make_size(settings, "audio", samples=count, side=count, d_in=1)
    loud = float(np.abs(sound.values).max()) or 1.0
    facts: dict[str, Any] = {
        "rate": sound.rate,
        "samples": count,
        "channels": channels,
        "bits": sound.bits,
        "loud": loud,
        "stretch": STRETCH * max(1.0, count / sound.rate / SECONDS),
    }
    target, power = sound.values / np.float32(loud), float(np.mean((sound.values / loud) ** 2))
    power = power or 1.0

    def batches(first: int, steps: int) -> Any:  # noqa: ANN401
        rows = np.stack([_rows(size.batch, count, settings.seed, first + k) for k in range(steps)])
        return places(rows, count, facts), target[rows]

    def loss(
        field: Any,  # noqa: ANN401
        aux: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
        del key, step
        points, wanted = batch
        error = jnp.mean((field(points) - wanted) ** 2)
        return error, (aux, {"shown": error / power})

    def finish(field: Any, folder: Path) -> tuple[dict[str, Any], list[Exhibit]]:  # noqa: ANN401
        ours = draw(field, facts, None)
        save_wav(folder / "sound.wav", ours, sound.rate, sound.bits)
        snr = snr_of(_as_written(ours, sound.bits), sound.values)
        metrics = {"snr": round(snr, 4), "values": int(sound.values.size)}
        pictures = (waves(sound.values), waves(ours))
        return metrics, [Exhibit("wave", *pictures, f"SNR {snr:.2f} dB")]

    return Problem(
        kind="audio",
        d_in=1,
        d_out=channels,
        size=size,
        facts=facts,
        summary=f"{settings.input.name}: {count / sound.rate:.2f} s, {sound.rate} Hz, "
        f"{channels} channels, {sound.bits} bits",
        notes=(),
        loss=loss,
        batches=batches,
        unit="dB",
        result="sound.wav",
        finish=finish,
    )


def draw(field: Any, facts: Mapping[str, Any], rate: int | None) -> Floats:  # noqa: ANN401
    """Samples (n, C) of a field in [-1, 1], at its own rate or another one.

    Raises:
        InputError: If the rate is outside ``RATES``.
        RunError: If the facts are damaged.
    """
    try:
        own, samples, loud = int(facts["rate"]), int(facts["samples"]), float(facts["loud"])
    except (KeyError, TypeError, ValueError):
        raise RunError("config.json does not tell the length of the sound; fit it again") from None
    if rate is not None and not RATES[0] <= rate <= RATES[1]:
        raise InputError(f"--rate {rate}: expected {RATES[0]} to {RATES[1]} samples a second")
    count = samples if rate is None else max(1, round(samples * rate / own))
    values = evaluate(field, places(np.arange(count), count, facts))
    return np.clip(values * np.float32(loud), -1, 1)


def places(rows: NDArray[np.int64], count: int, facts: Mapping[str, Any]) -> Floats:
    """Coordinate (..., 1) of samples ``rows`` of ``count``."""
    at = (2.0 * rows + 1 - count) / count * float(facts["stretch"])
    return at[..., None].astype(np.float32)


def snr_of(ours: Floats, truth: Floats) -> float:
    """Signal to noise in dB, at most 100."""
    power = float(np.mean(truth.astype(np.float64) ** 2))
    noise = float(np.mean((ours.astype(np.float64) - truth) ** 2))
    return float(10 * np.log10(max(power, 1e-20) / max(noise, 1e-10 * power, 1e-20)))


def waves(values: Floats, *, width: int = 800, height: int = 200) -> NDArray[np.uint8]:
    """Picture of a sound: the range of each column of time, channels one below the other."""
    channels = values.shape[1]
    edges = np.linspace(0, len(values), width + 1).astype(int)
    starts = np.minimum(edges[:-1], len(values) - 1)
    low = np.minimum.reduceat(values, starts, axis=0)
    high = np.maximum.reduceat(values, starts, axis=0)
    rows = height // channels
    level = 1 - 2 * (np.arange(rows) + 0.5) / rows
    out = np.full((rows * channels, width, 3), 250, np.uint8)
    for c in range(channels):
        lit = (level[:, None] <= high[:, c] + 1 / rows) & (level[:, None] >= low[:, c] - 1 / rows)
        out[c * rows : (c + 1) * rows][lit] = (47, 111, 159)
    return out


def _rows(batch: int, count: int, seed: int, step: int) -> NDArray[np.int64]:
    if batch >= count:
        return np.arange(count)
    return np.random.default_rng((seed, step)).integers(0, count, batch)


def _as_written(values: Floats, bits: int) -> Floats:
    steps = float(1 << (min(bits, 24) - 1))
    return (np.round(values * steps) / steps).astype(np.float32)
