// Histograms over the intervals of rays, in layout [samples, rays]: their inverse cumulative distribution, and sums
// over the intervals that overlap others. One merge of two sorted lists per ray; as XLA FFI calls.
#include <cstring>

#include "parallel.h"
#include "scratch.h"

namespace ffi = xla::ffi;

namespace {

constexpr int LANE = 16;  // rays whose columns are turned into rows together: one cache line

using F32 = ffi::Buffer<ffi::F32>;
using OutF = ffi::ResultBuffer<ffi::F32>;

// Rows of up to LANE rays out of a [rows, rays] array.
void turn(const float* from, int rows, int rays, int first, int lanes, float* to) {
  for (int s = 0; s < rows; s++)
    for (int l = 0; l < lanes; l++) to[(size_t)l * rows + s] = from[(size_t)s * rays + first + l];
}

void turn_back(const float* from, int rows, int rays, int first, int lanes, float* to) {
  for (int s = 0; s < rows; s++)
    for (int l = 0; l < lanes; l++) to[(size_t)s * rays + first + l] = from[(size_t)l * rows + s];
}

// f(first ray, rays, room for `floats` numbers) for groups of LANE rays.
template <class F>
void over_groups(Pool& pool, int rays, size_t floats, F f) {
  static Borrowed::Pile pile;
  pool.run((rays + LANE - 1) / LANE, [&](int c) {
    Borrowed mem(pile);
    f(c * LANE, std::min(LANE, rays - c * LANE), (*mem).take<float>(floats));
  });
}

// t where the share of the weight so far is u; shares are > 0 and sum to 1, u does not decrease.
void quantiles(const float* edges, const float* share, int n, const float* u, int n_u, float* t) {
  float below = 0;
  int s = 0;
  for (int i = 0; i < n_u; i++) {
    while (s < n - 1 && u[i] > below + share[s]) below += share[s++];
    float part = std::min(std::max((u[i] - below) / share[s], 0.f), 1.f);
    t[i] = edges[s] + part * (edges[s + 1] - edges[s]);
  }
}

ffi::Error QuantilesImpl(ffi::ThreadPool threads, F32 edges, F32 share, F32 u, OutF t, int64_t n_threads) {
  Pool pool(threads, n_threads);
  const int n = (int)share.dimensions()[0], rays = (int)share.dimensions()[1], n_u = (int)u.dimensions()[0];
  const size_t row = (size_t)(n + 1) + n + n_u + n_u;
  over_groups(pool, rays, LANE * row, [&](int first, int lanes, float* room) {
    float *e = room, *p = e + LANE * (n + 1), *q = p + LANE * n, *out = q + LANE * n_u;
    turn(edges.typed_data(), n + 1, rays, first, lanes, e);
    turn(share.typed_data(), n, rays, first, lanes, p);
    turn(u.typed_data(), n_u, rays, first, lanes, q);
    for (int l = 0; l < lanes; l++) quantiles(e + l * (n + 1), p + l * n, n, q + l * n_u, n_u, out + l * n_u);
    turn_back(out, n_u, rays, first, lanes, t->typed_data());
  });
  return ffi::Error::Success();
}

// out[i] = sum of w[p] over the intervals p of `b` that overlap interval i of `a`; both lists do not decrease.
void overlaps(const float* a, int n_a, const float* b, const float* w, int n_b, float* out) {
  int lo = 0, hi = 0;
  double upto_lo = 0, upto_hi = 0;
  for (int i = 0; i < n_a; i++) {
    for (; lo < n_b && b[lo + 1] <= a[i]; lo++) upto_lo += w[lo];
    for (; hi < n_b && b[hi] < a[i + 1]; hi++) upto_hi += w[hi];
    out[i] = hi > lo ? (float)(upto_hi - upto_lo) : 0.f;
  }
}

ffi::Error OverlapsImpl(ffi::ThreadPool threads, F32 a, F32 b, F32 w, OutF out, int64_t n_threads) {
  Pool pool(threads, n_threads);
  const int n_a = (int)a.dimensions()[0] - 1, n_b = (int)w.dimensions()[0], rays = (int)w.dimensions()[1];
  const size_t row = (size_t)(n_a + 1) + (n_b + 1) + n_b + n_a;
  over_groups(pool, rays, LANE * row, [&](int first, int lanes, float* room) {
    float *ea = room, *eb = ea + LANE * (n_a + 1), *ws = eb + LANE * (n_b + 1), *sums = ws + LANE * n_b;
    turn(a.typed_data(), n_a + 1, rays, first, lanes, ea);
    turn(b.typed_data(), n_b + 1, rays, first, lanes, eb);
    turn(w.typed_data(), n_b, rays, first, lanes, ws);
    for (int l = 0; l < lanes; l++)
      overlaps(ea + l * (n_a + 1), n_a, eb + l * (n_b + 1), ws + l * n_b, n_b, sums + l * n_a);
    turn_back(sums, n_a, rays, first, lanes, out->typed_data());
  });
  return ffi::Error::Success();
}

}  // namespace

// clang-format off
XLA_FFI_DEFINE_HANDLER_SYMBOL(Quantiles, QuantilesImpl, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().Arg<F32>().Arg<F32>().Ret<F32>().Attr<int64_t>("n_threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(Overlaps, OverlapsImpl, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().Arg<F32>().Arg<F32>().Ret<F32>().Attr<int64_t>("n_threads"));
// clang-format on
