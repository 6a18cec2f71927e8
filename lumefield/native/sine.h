// sin and cos of vectors.
#pragma once
#include "simd.h"

// sin and cos with the sign folded in: k pi is taken off in three parts, then an odd polynomial of degree
// 11 (weighted least squares). cos x = sin(x + pi/2) is reduced by (k - 1/2) pi instead: no rounding. |x| <= 1e5.
static inline vf sine_after(vf x, vf k, vf parity) {
  vf r = x - k * splat(3.140625f);
  r = r - k * splat(9.67502593994140625e-4f);
  r = r - k * splat(1.509957990978376e-7f);
  vf s = r * r, p = splat(-0x1.9ab6e6p-26f);
  p = p * s + splat(0x1.71743p-19f);
  p = p * s + splat(-0x1.a017f8p-13f);
  p = p * s + splat(0x1.11110cp-7f);
  p = p * s + splat(-0x1.555556p-3f);
  vf y = r + r * s * p;
  vf half = parity * splat(0.5f), odd = half - round_(half - splat(0.25f));  // 0 or 1/2
  return y - y * (splat(4.f) * odd);
}
static inline vf sin_(vf x) {
  vf k = round_(x * splat(0.318309886f));
  return sine_after(x, k, k);
}
static inline vf cos_(vf x) {
  vf k = round_(x * splat(0.318309886f) + splat(0.5f));
  return sine_after(x, k - splat(0.5f), k);
}
