"""SSIM, MS-SSIM, PSNR of YUV and BD-rate against scipy, definitions and stored curves."""

import csv
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import correlate1d

from lumefield.render import quality

ROOT = Path(__file__).parents[2]
_WEIGHTS = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
_BLUR = _WEIGHTS / _WEIGHTS.sum()


def pictures(rows: int, columns: int, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Waves with an edge and their noisy copy, (rows, columns, 2) in [0, 1]."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:rows, 0:columns]
    one = 0.5 + 0.3 * np.sin(x / 9 + y / 14) + 0.15 * (x > y)
    a = np.clip(np.stack([one, one[::-1] * 0.8], -1), 0, 1)
    return a, np.clip(a + rng.normal(scale=noise, size=a.shape), 0, 1)


def blurred(x: np.ndarray) -> np.ndarray:
    x = correlate1d(x, _BLUR, axis=0, mode="constant")[5:-5]
    return correlate1d(x, _BLUR, axis=1, mode="constant")[:, 5:-5]


def twin_parts(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ma, mb = blurred(a), blurred(b)
    va, vb, cov = blurred(a * a) - ma**2, blurred(b * b) - mb**2, blurred(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    return (2 * ma * mb + c1) / (ma**2 + mb**2 + c1), (2 * cov + c2) / (va + vb + c2)


def twin_ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    values = []
    for c in range(a.shape[2]):
        x, y, total = a[..., c], b[..., c], 1.0
        for i, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
            light, shape = twin_parts(x, y)
            total *= max(float((light * shape if i == 4 else shape).mean()), 0.0) ** weight
            h, w = (n // 2 * 2 for n in x.shape)
            x, y = (v[:h, :w].reshape(h // 2, 2, w // 2, 2).mean((1, 3)) for v in (x, y))
        values.append(total)
    return float(np.mean(values))


@pytest.mark.parametrize("size", [(11, 11), (37, 300)])
def test_ssim_is_the_mean_of_the_windows_inside(size: tuple[int, int]):
    a, b = pictures(*size)
    light, shape = zip(*(twin_parts(a[..., c], b[..., c]) for c in range(2)), strict=True)
    wanted = float(np.mean(np.array(light) * np.array(shape)))
    assert float(quality.ssim(*map(jnp.float32, (a, b)))) == pytest.approx(wanted, abs=5e-6)


def test_ms_ssim_equals_its_float64_twin():
    a, b = pictures(179, 210)
    found = float(jax.jit(quality.ms_ssim)(*map(jnp.float32, (a, b))))
    assert found == pytest.approx(twin_ms_ssim(a, b), abs=5e-6)
    assert 0.5 < found < 0.99


def test_equal_pictures_have_a_similarity_of_one():
    a = jnp.float32(pictures(180, 180)[0])
    assert float(quality.ssim(a, a)) == pytest.approx(1, abs=1e-6)
    assert float(quality.ms_ssim(a, a)) == pytest.approx(1, abs=1e-6)


def test_the_slope_of_ms_ssim_is_that_of_its_twin_and_finite_where_structure_is_opposite():
    a, b = pictures(176, 176)
    slope = jax.jit(jax.grad(quality.ms_ssim, argnums=1))
    found = np.asarray(slope(*map(jnp.float32, (a, b))), np.float64)
    way = np.random.default_rng(0).normal(size=b.shape)
    h = 1e-5
    wanted = (twin_ms_ssim(a, b + h * way) - twin_ms_ssim(a, b - h * way)) / (2 * h)
    assert float((found * way).sum()) == pytest.approx(wanted, rel=2e-3)
    inverted = jnp.float32(1 - a)
    assert float(quality.ms_ssim(jnp.float32(a), inverted)) == 0
    assert np.isfinite(np.asarray(slope(jnp.float32(a), inverted))).all()


@pytest.mark.parametrize(
    ("call", "side", "text"), [(quality.ssim, 10, "least 11"), (quality.ms_ssim, 175, "least 176")]
)
def test_pictures_too_small_or_of_different_sizes_are_refused(call, side: int, text: str):
    a = jnp.zeros((side, 200, 1))
    with pytest.raises(ValueError, match=text):
        call(a, a)
    with pytest.raises(ValueError, match="expected one shape"):
        call(a, jnp.zeros((side, 201, 1)))


def test_ycbcr_of_grey_has_no_chroma_and_of_red_the_luma_of_red():
    found = np.asarray(quality.ycbcr(jnp.float32([[0.4, 0.4, 0.4], [1, 0, 0]])))
    np.testing.assert_allclose(found, [[0.4, 0, 0], [0.299, -0.168736, 0.5]], atol=1e-6)


def test_yuv_psnr_weighs_luma_six_times():
    zero, off = jnp.zeros((4, 4)), jnp.full((4, 4), 0.1)
    small, shift = jnp.zeros((2, 2)), jnp.full((2, 2), 0.1)
    assert float(quality.plane_psnr(zero, off)) == pytest.approx(20, abs=1e-4)
    luma = float(quality.yuv_psnr((zero, small, small), (off, small, small)))
    chroma = float(quality.yuv_psnr((zero, small, small), (zero, shift, small)))
    assert luma == pytest.approx(20 + 10 * math.log10(8 / 6), abs=1e-4)
    assert chroma - luma == pytest.approx(10 * math.log10(6), abs=1e-4)


def test_a_curve_of_four_fifths_the_rate_saves_twenty_percent():
    anchor = [(0.1, 30.0), (0.2, 33.0), (0.4, 36.0), (0.9, 40.0)]
    ours = [(0.8 * r, q) for r, q in reversed(anchor)]
    assert quality.bd_rate(anchor, ours) == pytest.approx(-20, abs=1e-9)
    assert quality.bd_rate(anchor, anchor) == 0
    assert math.isnan(quality.bd_rate(anchor, [(r, q + 20) for r, q in anchor]))


@pytest.mark.parametrize(
    ("curve", "text"),
    [
        ([(1.0, 30.0), (2.0, 30.0)], "1 different"),
        ([(0.0, 30.0), (2.0, 31.0)], "above 0"),
        ([(1.0, 2.0, 3.0)], "rate and quality"),
    ],
)
def test_a_curve_that_says_nothing_is_refused(curve: list[tuple[float, ...]], text: str):
    with pytest.raises(ValueError, match=text):
        quality.bd_rate([(1, 30), (2, 33)], curve)


def test_bd_rates_of_the_stored_curves_are_those_of_the_guide():
    path = ROOT.parent / "shared" / "baselines" / "rd_images_kodak.csv"
    if not path.is_file():
        pytest.skip(f"no stored curves at {path}")
    with path.open() as file:
        rows = list(csv.DictReader(file))

    def curve(source: str, codec: str, config: str) -> list[tuple[float, float]]:
        key = (source, codec, config)
        return [
            (float(r["bpp"]), float(r["psnr_rgb"]))
            for r in rows
            if (r["source"], r["codec"], r["config"]) == key
        ]

    names = ("kodim05", "kodim15", "kodim19", "kodim23")
    wanted = {("jpeg", "444 optimize progressive"): 179, ("webp", "method6"): 61}
    for (codec, config), percent in wanted.items():
        found = [
            quality.bd_rate(curve(n, "avif", "4:4:4 speed2 aom tune=psnr"), curve(n, codec, config))
            for n in names
        ]
        assert float(np.mean(found)) == pytest.approx(percent, abs=0.6), codec
