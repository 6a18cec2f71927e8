// Front-to-back compositing of projected Gaussians, forward and backward, as XLA FFI calls.
//
// Inputs  xy[N,2], factor[N,3] = (u, v, w), opacity[N] (0 = culled), depth[N], values[N,C].
// Output  image[H,W,C] and transmittance[H,W].
// Rules   sigma = ((u dx + v dy)^2 + (w dy)^2) / 2, alpha = min(opacity exp(-sigma), 0.999), skipped where
//         opacity exp(-sigma) < 1/255; a pixel stops at T <= 1e-4; depth ties keep input order.
// Design  a tile row is one SIMD vector. Backward goes front to back again with the residual
//         R = what is still to come, weighted by the incoming gradient, so nothing is stored per item.
//         Each slot of a tile list gets its own row of sums; a Gaussian then adds its rows in slot
//         order, so gradients do not depend on the number of threads.
#include "bins.h"
namespace ffi = xla::ffi;

#ifdef LUMEFIELD_COUNT
static std::atomic<uint64_t> counted_rows{0}, counted_slots{0};
extern "C" void lumefield_counts(uint64_t* out) {  // row visits, items visited
  out[0] = counted_rows.exchange(0), out[1] = counted_slots.exchange(0);
}
#define COUNT(name, n) counted_##name += (n)
#else
#define COUNT(name, n)
#endif
#ifdef LF_TIME
#include <cstdio>
#include <time.h>
static double thread_ms() {  // CPU time of this thread
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return 1e3 * (t.tv_sec + 1e-9 * t.tv_nsec);
}
#define MARK(n) double mark_##n = thread_ms()
#define SPENT(a, b) (mark_##b - mark_##a)
#define SHOW(...) fprintf(stderr, __VA_ARGS__)
#else
#define MARK(n)
#define SHOW(...)
#endif

template <int C>
static Record<C>* make_records(Pool& pool, Scratch& mem, const Inputs& in, const float* values, const Bins& b) {
  Record<C>* rec = mem.take<Record<C>>(b.visible);
  pool.run(pool.parts(), [&, rec](int c) {
    for (int k = pool.begin(b.visible, c), e = pool.begin(b.visible, c + 1); k < e; k++) {
      int i = b.order[k], next = b.order[std::min(k + 16, b.visible - 1)];
      __builtin_prefetch(in.factor + 3 * next);
      __builtin_prefetch(in.xy + 2 * next);
      __builtin_prefetch(in.opacity + next);
      __builtin_prefetch(values + (size_t)next * C);
      const float* q = in.factor + 3 * i;
      Record<C>& r = rec[k];
      r.x = in.xy[2 * i], r.y = in.xy[2 * i + 1];
      r.u = q[0] * HALF_LOG2E, r.v = q[1] * HALF_LOG2E, r.w = q[2] * HALF_LOG2E;
      r.log2_opacity = std::log2(in.opacity[i]);
      r.cut = std::log2(255.f * in.opacity[i]);
      r.half_height = std::sqrt(r.cut) / r.w;
      for (int j = 0; j < C; j++) r.values[j] = values[(size_t)i * C + j];
    }
  });
  return rec;
}

// Tiles are handed out in short runs: neighbours share most of their Gaussians, and so a core's cache.
template <class F>
static void for_tiles(Pool& pool, const Bins& b, F f) {
  const int RUN = 16, n = b.tiles();
  pool.run((n + RUN - 1) / RUN, [&](int i) {
    for (int t = i * RUN; t < std::min(n, (i + 1) * RUN); t++) f(t);
  });
}

struct Tile {
  int x0, y0, rows;
  uint32_t live;  // bit r: row r has a pixel with T > T_MIN
  Tile(const Bins& b, int t, int height) : x0(t % b.tiles_x * TILE_W), y0(t / b.tiles_x * TILE_H) {
    rows = std::min(TILE_H, height - y0);
    live = (1u << rows) - 1;
  }
  template <class R>
  uint32_t rows_of(const R& g) const {  // live rows whose pixel centres lie inside the ellipse's height
    float c = g.y - y0 - 0.5f;
    int r0 = (int)std::ceil(std::max(c - g.half_height, 0.f));
    int r1 = (int)std::floor(std::min(c + g.half_height, TILE_H - 1.f));
    if (r1 < r0) return 0;
    return live & ((2u << r1) - (1u << r0));
  }
};

// Rows that still have a pixel to fill. Looked at every eighth item: a finished row only costs time.
static inline uint32_t live_rows(const vf* T, uint32_t rows) {
  uint32_t live = 0;
  for (int r = 0; r < TILE_H; r++) live |= (uint32_t)any(gt(T[r], splat(T_MIN))) << r;
  return live & rows;
}

// What a Gaussian adds in each row of a tile, computed for all rows at once and read back as broadcasts.
struct RowTerms {
  alignas(64) float vdy[TILE_H], wdy2[TILE_H], dy[TILE_H], dy2[TILE_H];
  template <class R>
  RowTerms(const R& g, float dy0) {
    static_assert(TILE_H == LANES, "a lane is a row");
    vf d = ramp() + splat(dy0), wd = splat(g.w) * d;
    store(vdy, splat(g.v) * d), store(wdy2, wd * wd), store(dy, d), store(dy2, d * d);
  }
};

template <int C>
static void tile_forward(const Bins& b, const Record<C>* rec, int t, const Inputs& in, float* image, float* trans) {
  Tile tile(b, t, in.height);
  vf T[TILE_H], acc[TILE_H][C];
  for (int r = 0; r < TILE_H; r++) {
    T[r] = splat(1);
    for (int j = 0; j < C; j++) acc[r][j] = zero();
  }
  const vf px = ramp() + splat(tile.x0 + 0.5f), t_min = splat(T_MIN), a_max = splat(ALPHA_MAX);
  const int end = b.start[t + 1];
  for (int s = b.start[t]; s < end && tile.live; s++) {
    const Record<C>& g = rec[b.items[s]];
    if (s + 2 < end) __builtin_prefetch(&rec[b.items[s + 2]]);
    uint32_t rows = tile.rows_of(g);
    vf ux = (px - splat(g.x)) * splat(g.u), cut = splat(g.cut), lo = splat(g.log2_opacity);
    vf value[C];
    for (int j = 0; j < C; j++) value[j] = splat(g.values[j]);
    const RowTerms row(g, tile.y0 + 0.5f - g.y);
    COUNT(slots, 1);
    for (; rows; rows &= rows - 1) {
      int r = __builtin_ctz(rows);
      vf q = ux + splat(row.vdy[r]), s2 = q * q + splat(row.wdy2[r]);
      vm m = gt(le(s2, cut), T[r], t_min);
      COUNT(rows, 1);
      vf w = keep_mul(m, min_(exp2_neg(lo - s2), a_max), T[r]);
      for (int j = 0; j < C; j++) acc[r][j] = acc[r][j] + w * value[j];
      T[r] = T[r] - w;
    }
    if ((s & 7) == 7) tile.live = live_rows(T, tile.live);
  }
  const int columns = std::min(TILE_W, in.width - tile.x0);
  for (int r = 0; r < tile.rows; r++) {
    size_t o = (size_t)(tile.y0 + r) * in.width + tile.x0;
    float buf[C + 1][TILE_W];
    for (int j = 0; j < C; j++) store(buf[j], acc[r][j]);
    store(buf[C], T[r]);
    for (int i = 0; i < columns; i++) {
      for (int j = 0; j < C; j++) image[(o + i) * C + j] = buf[j][i];
      trans[o + i] = buf[C][i];
    }
  }
}

// One row of sums per slot: v, v dx, v dx^2, v dy, v dy dx, v dy^2 with v = alpha dL/dalpha; then dL/dvalue;
// with ABS also sum |dL/dx|, sum |dL/dy| over the pixels.
template <int C, bool ABS>
constexpr int row_size() {
  return 6 + C + (ABS ? 2 : 0);
}

struct Cotangent {
  const float *image, *trans, *g_image, *g_trans;
};

template <int C, bool ABS>
static void tile_backward(const Bins& b, const Record<C>* rec, int t, const Inputs& in, const Cotangent& ct,
                          float* sums) {
  constexpr int ROW = row_size<C, ABS>();
  Tile tile(b, t, in.height);
  vf T[TILE_H], R[TILE_H], g_out[TILE_H][C];
  const int columns = std::min(TILE_W, in.width - tile.x0);
  for (int r = 0; r < tile.rows; r++) {
    size_t o = (size_t)(tile.y0 + r) * in.width + tile.x0;
    float g[C][TILE_W] = {}, rest[TILE_W] = {}, one[TILE_W] = {};
    for (int i = 0; i < columns; i++) {
      rest[i] = ct.g_trans[o + i] * ct.trans[o + i];
      one[i] = 1;
      for (int j = 0; j < C; j++) {
        g[j][i] = ct.g_image[(o + i) * C + j];
        rest[i] += g[j][i] * ct.image[(o + i) * C + j];
      }
    }
    T[r] = load(one), R[r] = load(rest);
    for (int j = 0; j < C; j++) g_out[r][j] = load(g[j]);
  }
  const vf px = ramp() + splat(tile.x0 + 0.5f), t_min = splat(T_MIN), a_max = splat(ALPHA_MAX);
  const int end = b.start[t + 1];
  int s = b.start[t];
  for (; s < end && tile.live; s++) {
    const Record<C>& g = rec[b.items[s]];
    if (s + 2 < end) __builtin_prefetch(&rec[b.items[s + 2]]);
    uint32_t rows = tile.rows_of(g);
    vf dx = px - splat(g.x), ux = dx * splat(g.u), cut = splat(g.cut), lo = splat(g.log2_opacity);
    vf value[C], part[ROW];
    for (int j = 0; j < C; j++) value[j] = splat(g.values[j]);
    vf v0 = zero(), vy = zero(), vyy = zero(), gx = zero(), gy = zero(), gv[C];
    for (int j = 0; j < C; j++) gv[j] = zero();
    const RowTerms row(g, tile.y0 + 0.5f - g.y);
    vm hit = le(splat(1), zero());
    for (; rows; rows &= rows - 1) {
      int r = __builtin_ctz(rows);
      vf q = ux + splat(row.vdy[r]), s2 = q * q + splat(row.wdy2[r]);
      vm m = gt(le(s2, cut), T[r], t_min);
      hit = either(hit, m);
      vf e = exp2_neg(lo - s2), alpha = keep_min(m, e, a_max);
      vf w = alpha * T[r], d = g_out[r][0] * value[0];
      for (int j = 1; j < C; j++) d = d + g_out[r][j] * value[j];
      vf wd = w * d;
      R[r] = R[r] - wd;
      vf v = keep_sub_mul(le(e, a_max), wd, alpha * R[r], recip(splat(1) - alpha));  // none where clamped
      v0 = v0 + v;
      vy = vy + v * splat(row.dy[r]);
      vyy = vyy + v * splat(row.dy2[r]);
      for (int j = 0; j < C; j++) gv[j] = gv[j] + w * g_out[r][j];
      if (ABS) {  // dL/dx = v u q, dL/dy = v (v q + w^2 dy), up to the common factor 2 / log2(e)
        gx = gx + abs_(v * q);
        gy = gy + abs_(v * (splat(g.v) * q + splat(g.w * g.w * row.dy[r])));
      }
      T[r] = T[r] - w;
    }
    if ((s & 7) == 7) tile.live = live_rows(T, tile.live);
    float* out = sums + (size_t)s * ROW;
    if (!any(hit)) {
      memset(out, 0, ROW * sizeof(float));
      continue;
    }
    part[0] = v0, part[1] = v0 * dx, part[2] = part[1] * dx, part[3] = vy, part[4] = vy * dx, part[5] = vyy;
    for (int j = 0; j < C; j++) part[6 + j] = gv[j];
    if (ABS) part[6 + C] = gx, part[7 + C] = gy;
    constexpr int EIGHTS = ROW / 8 * 8;
    for (int j = 0; j < EIGHTS; j += 8) sum8(part + j, out + j);
    for (int j = EIGHTS; j < ROW; j++) out[j] = sum(part[j]);
  }
  memset(sums + (size_t)s * ROW, 0, (size_t)(end - s) * ROW * sizeof(float));
}

struct Gradients {
  float *xy, *factor, *opacity, *values, *probe;
};

// Gradients of the Gaussians at positions [a, e) of the depth order from their rows of sums.
template <int C, bool ABS>
static void gather_rows(const Bins& b, const Inputs& in, const float* sums, int a, int e, const Gradients& out) {
  constexpr int ROW = row_size<C, ABS>();
  const int last = b.total - 1;
  for (int k = a; k < e; k++) {
    float m[ROW] = {};
    for (int j = b.first_slot[k]; j < b.first_slot[k + 1]; j++) {
      const float* row = sums + (size_t)b.slots[j] * ROW;
      __builtin_prefetch(sums + (size_t)b.slots[std::min(j + 16, last)] * ROW);
      for (int q = 0; q < ROW; q++) m[q] += row[q];
    }
    int i = b.order[k];
    double u = in.factor[3 * i], v = in.factor[3 * i + 1], w = in.factor[3 * i + 2];
    double first = u * m[1] + v * m[3];  // sum of v_pixel (u dx + v dy)
    out.xy[2 * i] = (float)(u * first);
    out.xy[2 * i + 1] = (float)(v * first + w * w * m[3]);
    out.factor[3 * i] = (float)-(u * m[2] + v * m[4]);
    out.factor[3 * i + 1] = (float)-(u * m[4] + v * m[5]);
    out.factor[3 * i + 2] = (float)-(w * m[5]);
    out.opacity[i] = m[0] / in.opacity[i];
    for (int j = 0; j < C; j++) out.values[(size_t)i * C + j] = m[6 + j];
    if (ABS) {
      out.probe[2 * i] = (float)(u * m[6 + C]) / HALF_LOG2E;
      out.probe[2 * i + 1] = m[7 + C] / (HALF_LOG2E * HALF_LOG2E);
    }
  }
}

template <int C>
static void forward(Pool& pool, const Inputs& in, const float* values, float* image, float* trans, int* kept) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  Bins b;
  MARK(0);
  b.order = kept;  // the order is kept for the backward pass, which then need not sort
  b.visible = kept[in.n] = sort_visible(pool, *mem, in, kept);
  MARK(1);
  Record<C>* rec = make_records<C>(pool, *mem, in, values, b);
  MARK(2);
  make_bins(pool, *mem, in, rec, false, b);
  MARK(3);
  for_tiles(pool, b, [&](int t) { tile_forward<C>(b, rec, t, in, image, trans); });
  MARK(4);
  SHOW("fwd sort %.2f rec %.2f bins %.2f tiles %.2f\n", SPENT(0, 1), SPENT(1, 2), SPENT(2, 3), SPENT(3, 4));
  std::fill(kept + b.visible, kept + in.n, 0);
}

template <int C, bool ABS>
static void backward(Pool& pool, const Inputs& in, const float* values, const int* kept, const Cotangent& ct,
                     const Gradients& out) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  Bins b;
  MARK(0);
  b.order = const_cast<int*>(kept);
  b.visible = kept[in.n];
  Record<C>* rec = make_records<C>(pool, *mem, in, values, b);
  make_bins(pool, *mem, in, rec, true, b);
  MARK(1);
  float* sums = (*mem).take<float>((size_t)b.total * row_size<C, ABS>());
  for_tiles(pool, b, [&](int t) { tile_backward<C, ABS>(b, rec, t, in, ct, sums); });
  MARK(2);
  pool.run(pool.parts(), [&](int c) {
    size_t a = pool.begin(in.n, c), n = pool.begin(in.n, c + 1) - a;
    memset(out.xy + 2 * a, 0, 8 * n);
    memset(out.factor + 3 * a, 0, 12 * n);
    memset(out.opacity + a, 0, 4 * n);
    memset(out.values + C * a, 0, 4 * C * n);
    memset(out.probe + 2 * a, 0, 8 * n);
  });
  pool.run(pool.parts(), [&](int c) {
    gather_rows<C, ABS>(b, in, sums, pool.begin(b.visible, c), pool.begin(b.visible, c + 1), out);
  });
  MARK(3);
  SHOW("bwd bins %.2f tiles %.2f gather %.2f\n", SPENT(0, 1), SPENT(1, 2), SPENT(2, 3));
}

using F32 = ffi::Buffer<ffi::F32>;
using S32 = ffi::Buffer<ffi::S32>;
using OutF = ffi::ResultBuffer<ffi::F32>;
using OutI = ffi::ResultBuffer<ffi::S32>;

#define FOR_CHANNELS(c, CALL)                                                                           \
  switch (c) {                                                                                          \
    case 1: CALL(1); break;                                                                             \
    case 2: CALL(2); break;                                                                             \
    case 3: CALL(3); break;                                                                             \
    case 4: CALL(4); break;                                                                             \
    case 8: CALL(8); break;                                                                             \
    default: return ffi::Error::InvalidArgument("the composite kernel takes 1, 2, 3, 4 or 8 channels"); \
  }

static ffi::Error Forward(ffi::ThreadPool threads, F32 xy, F32 factor, F32 opacity, F32 depth, F32 values, OutF image,
                          OutF trans, OutI kept, int64_t n_threads) {
  Pool pool(threads, n_threads);
  Inputs in = {(int)xy.dimensions()[0],   (int)image->dimensions()[0], (int)image->dimensions()[1], xy.typed_data(),
               factor.typed_data(), opacity.typed_data(), depth.typed_data()};
#define CALL(c) forward<c>(pool, in, values.typed_data(), image->typed_data(), trans->typed_data(), kept->typed_data())
  FOR_CHANNELS(values.dimensions()[1], CALL)
#undef CALL
  return ffi::Error::Success();
}

static ffi::Error Backward(ffi::ThreadPool threads, F32 xy, F32 factor, F32 opacity, F32 depth, F32 values, S32 kept,
                           F32 image, F32 trans, F32 g_image, F32 g_trans, OutF g_xy, OutF g_factor, OutF g_opacity,
                           OutF g_values, OutF g_probe, int64_t n_threads, bool absolute) {
  Pool pool(threads, n_threads);
  Inputs in = {(int)xy.dimensions()[0],   (int)image.dimensions()[0], (int)image.dimensions()[1], xy.typed_data(),
               factor.typed_data(), opacity.typed_data(), depth.typed_data()};
  Cotangent ct = {image.typed_data(), trans.typed_data(), g_image.typed_data(), g_trans.typed_data()};
  Gradients out = {g_xy->typed_data(), g_factor->typed_data(), g_opacity->typed_data(), g_values->typed_data(),
                   g_probe->typed_data()};
#define CALL(c)                                                                                   \
  absolute ? backward<c, true>(pool, in, values.typed_data(), kept.typed_data(), ct, out)         \
           : backward<c, false>(pool, in, values.typed_data(), kept.typed_data(), ct, out)
  FOR_CHANNELS(values.dimensions()[1], CALL)
#undef CALL
  return ffi::Error::Success();
}

// clang-format off
XLA_FFI_DEFINE_HANDLER_SYMBOL(CompositeForward, Forward, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>()
    .Ret<F32>().Ret<F32>().Ret<S32>().Attr<int64_t>("n_threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(CompositeBackward, Backward, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<S32>()
    .Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>()
    .Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>()
    .Attr<int64_t>("n_threads").Attr<bool>("absolute"));
// clang-format on
