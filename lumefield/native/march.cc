// Marching rays through a cascade of occupancy grids into packed samples, and compositing such samples forward
// and backward, as XLA FFI calls.
//
// March      occupied[L,n,n,n], rays (origin, direction, near, far, jitter), step edges[K+1] and the level of each
//            step -> t[M], dt[M], ray[M], start[R+1], reached[R], counts[2] = (samples wanted, rays used).
//            Step k is sampled at edges[k] + jitter (edges[k+1] - edges[k]), if its cell is occupied. Empty cells,
//            and empty bricks of 4^3 cells, are left in one go: this changes which steps are looked at, never which
//            are kept. Rays are kept in order while they fit in M.
// Packed...  tau[M], values[M,C], start[R+1] -> image[R,C], transmittance[R]; w = T (1 - exp(-tau)), stop at
//            T <= 1e-4. Backward goes front to back again with the residual R = what is still to come.
// A ray is computed by one thread from its own samples, so results do not depend on the number of threads.
#include <cmath>
#include <cstring>

#include "parallel.h"
#include "scratch.h"
#include "simd.h"

namespace ffi = xla::ffi;

namespace {

constexpr float STOP = 1e-4f, SMALL = 1e-12f;
constexpr int BRICK = 4;
constexpr int64_t BLOCK_STEPS = 1 << 22;  // most steps kept in scratch memory at once
constexpr int GROUP = 64;                 // rays of one task

struct Grid {
  const uint8_t* cells;
  const uint8_t* bricks;  // any cell of a brick occupied; null where bricks do not tile the levels
  int levels, n;
  size_t at(int level, const int* i) const { return (((size_t)level * n + i[0]) * n + i[1]) * n + i[2]; }
  bool cell(int level, const int* i) const { return cells[at(level, i)]; }
  bool brick(int level, const int* i) const {
    int b = n / BRICK;
    return bricks[(((size_t)level * b + i[0] / BRICK) * b + i[1] / BRICK) * b + i[2] / BRICK];
  }
};

struct Steps {
  const float* edges;
  const int* level;  // finest level whose cells are no narrower than the step
  int count;
  float length(int k) const { return edges[k + 1] - edges[k]; }
  float at(int k, float jitter) const { return edges[k] + jitter * length(k); }
  // A step that still starts less than `gap` after step k, on the same level: steps only grow, so dividing by the
  // length of one that lies too far gives no step too many.
  int ahead(int k, float gap) const {
    if (!(gap > 0)) return k;
    int far = (int)std::min(count - 1.f, k + 1 + gap / length(k));
    int to = k - 1 + (int)std::min(count - 1.f - k, gap / length(std::max(far, k)));
    return to > k && level[to] == level[k] ? to : k;
  }
};

struct Ray {
  float o[3], d[3], inv[3], near, far, jitter;
};

const uint8_t* make_bricks(Pool& pool, Scratch& mem, const Grid& g) {
  if (g.n % (4 * BRICK)) return nullptr;  // the inner half of a level must be whole bricks
  int b = g.n / BRICK;
  uint8_t* out = mem.take<uint8_t>((size_t)g.levels * b * b * b);
  pool.run(g.levels * b, [&, out](int task) {
    const uint8_t* slab = g.cells + (size_t)task * BRICK * g.n * g.n;
    uint8_t* to = out + (size_t)task * b * b;
    for (int y = 0; y < b; y++) {
      for (int z = 0; z < b; z++) {
        uint32_t any = 0, four;
        for (int i = 0; i < BRICK; i++)
          for (int j = 0; j < BRICK; j++) {
            memcpy(&four, slab + ((size_t)i * g.n + y * BRICK + j) * g.n + z * BRICK, 4);
            any |= four;
          }
        to[y * b + z] = any != 0;
      }
    }
  });
  return out;
}

// Distance at which a ray leaves the cube of `size` cells that holds cell i of a level.
inline float leave(const Ray& r, const int* i, int size, float width, float half) {
  float first = INFINITY;
  for (int a = 0; a < 3; a++) {
    float face = (float)(i[a] / size * size + (r.d[a] > 0 ? size : 0)) * width - half;
    first = std::min(first, (face - r.o[a]) * r.inv[a]);
  }
  return first;
}

// Numbers of the kept steps of a ray, at most `limit`; the step to go on with in `next`.
int walk(const Grid& g, const Steps& s, const Ray& r, int limit, int* kept, int& next) {
  const float half_n = 0.5f * g.n;
  int k = std::max(0, (int)(std::upper_bound(s.edges, s.edges + s.count + 1, r.near) - s.edges) - 1);
  int found = 0;
  while (k < s.count && found < limit) {
    float t = s.at(k, r.jitter);
    if (!(t < r.far)) break;
    float x[3], size = 0;
    for (int a = 0; a < 3; a++) {
      x[a] = r.o[a] + t * r.d[a];
      size = std::max(size, std::fabs(x[a]));
    }
    int level = s.level[k];
    float half = (float)(1u << level), scale = half_n / half;
    while (level < g.levels - 1 && size >= half) level++, half *= 2, scale *= 0.5f;
    int i[3];
    bool inside = true;
    for (int a = 0; a < 3; a++) {
      float u = x[a] * scale + half_n;
      inside &= u >= 0 && u < g.n;
      i[a] = inside ? (int)u : 0;
    }
    if (!inside) {  // outside the cascade
      k++;
      continue;
    }
    if (g.cell(level, i)) {
      if (t >= r.near) kept[found++] = k;
      k++;
      continue;
    }
    int cube = g.bricks && !g.brick(level, i) ? BRICK : 1;
    float end = leave(r, i, cube, 2 * half / g.n, half);
    k = s.ahead(k, end - t);
    const int same = s.level[k];
    do k++;
    while (k < s.count && s.at(k, r.jitter) < end && s.level[k] == same);
  }
  next = k;
  return found;
}

using F32 = ffi::Buffer<ffi::F32>;
using S32 = ffi::Buffer<ffi::S32>;
using U8 = ffi::Buffer<ffi::U8>;
using OutF = ffi::ResultBuffer<ffi::F32>;
using OutI = ffi::ResultBuffer<ffi::S32>;

struct RayArrays {
  const float *origin, *direction, *near, *far, *jitter;
  Ray get(int r) const {
    Ray ray;
    for (int a = 0; a < 3; a++) {
      ray.o[a] = origin[3 * r + a];
      float d = direction[3 * r + a];
      ray.d[a] = d;
      ray.inv[a] = 1 / (std::fabs(d) > SMALL ? d : SMALL);
    }
    ray.near = near[r], ray.far = far[r], ray.jitter = jitter[r];
    return ray;
  }
};

ffi::Error MarchImpl(ffi::ThreadPool threads, U8 occupied, F32 origin, F32 direction, F32 near, F32 far, F32 jitter,
                 F32 edges, S32 level, OutF t, OutF dt, OutI ray, OutI start, OutF reached, OutI counts,
                 int64_t n_threads, int64_t limit) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  Pool pool(threads, n_threads);
  const int n_rays = (int)near.dimensions()[0];
  const int64_t capacity = t->dimensions()[0];
  Grid g = {occupied.typed_data(), nullptr, (int)occupied.dimensions()[0], (int)occupied.dimensions()[1]};
  g.bricks = make_bricks(pool, *mem, g);
  const Steps s = {edges.typed_data(), level.typed_data(), (int)level.dimensions()[0]};
  const RayArrays rays = {origin.typed_data(), direction.typed_data(), near.typed_data(), far.typed_data(),
                          jitter.typed_data()};
  const int most = (int)std::min<int64_t>(s.count, limit);
  const int block = (int)std::max<int64_t>(16, std::min<int64_t>(n_rays, BLOCK_STEPS / most));
  int* kept = (*mem).take<int>((size_t)block * most);
  int* found = (*mem).take<int>(2 * (size_t)block);
  int* next = found + block;
  float *t_out = t->typed_data(), *dt_out = dt->typed_data(), *reached_out = reached->typed_data();
  int *ray_out = ray->typed_data(), *start_out = start->typed_data();

  int64_t total = 0, stored = 0;
  int used = 0;
  start_out[0] = 0;
  for (int first = 0; first < n_rays; first += block) {
    const int size = std::min(block, n_rays - first), groups = (size + GROUP - 1) / GROUP;
    pool.run(groups, [&](int c) {
      for (int i = c * GROUP; i < std::min(size, (c + 1) * GROUP); i++)
        found[i] = walk(g, s, rays.get(first + i), most, kept + (size_t)i * most, next[i]);
    });
    for (int i = 0; i < size; i++) {
      total += found[i];
      if (total <= capacity) stored = total, used = first + i + 1;
      start_out[first + i + 1] = (int)stored;
    }
    pool.run(groups, [&](int c) {
      for (int i = c * GROUP; i < std::min(size, (c + 1) * GROUP); i++) {
        const int r = first + i;
        const bool fits = r < used;
        reached_out[r] = !fits ? rays.near[r] : found[i] < most ? rays.far[r] : std::min(s.edges[next[i]], rays.far[r]);
        if (!fits) continue;
        const int to = start_out[r];
        const int* k = kept + (size_t)i * most;
        for (int j = 0; j < found[i]; j++) {
          float length = s.edges[k[j] + 1] - s.edges[k[j]];
          t_out[to + j] = s.edges[k[j]] + rays.jitter[r] * length;
          dt_out[to + j] = length;
          ray_out[to + j] = r;
        }
      }
    });
  }
  size_t rest = (size_t)(capacity - stored);
  memset(t_out + stored, 0, 4 * rest);
  memset(dt_out + stored, 0, 4 * rest);
  memset(ray_out + stored, 0, 4 * rest);
  counts->typed_data()[0] = (int)std::min<int64_t>(total, INT32_MAX);
  counts->typed_data()[1] = used;
  return ffi::Error::Success();
}

// exp(-tau) and 1 - exp(-tau), both to float precision of their own size: with x = n + f, n whole, |f| <= 1/2,
// 2^x - 1 = 2^n (2^f - 1) + (2^n - 1). Coefficients of (2^f - 1) / f, largest relative error 2.2e-8.
inline void decay(vf tau, vf& stays, vf& goes) {
  vf x = max_(splat(-126.f), tau * splat(-1.44269504f)), n = round_(x), f = x - n;  // NaN stays
  vf p = splat(0.000154531634f);
  p = p * f + splat(0.00133908633f);
  p = p * f + splat(0.00961808302f);
  p = p * f + splat(0.0555035695f);
  p = p * f + splat(0.240226507f);
  p = p * f + splat(0.693147182f);
  p = p * f;
  vf whole = scale2(splat(1.f), n);
  stays = scale2(p + splat(1.f), n);
  goes = splat(1.f) - whole - scale2(p, n);
}

struct Decays {  // of LANES samples from `at` on, fewer at the end
  alignas(64) float stays[LANES], goes[LANES];
  void fill(const float* tau, int n) {
    vf stay, go;
    if (n >= LANES) {
      decay(load(tau), stay, go);
    } else {
      alignas(64) float part[LANES] = {};
      memcpy(part, tau, 4 * (size_t)n);
      decay(load(part), stay, go);
    }
    store(stays, stay), store(goes, go);
  }
};

struct Samples {
  const float *tau, *values;
  const int* start;
  int capacity, n_rays, channels;
  int begin(int r) const { return std::min(std::max(start[r], 0), capacity); }
};

// C channels known to the compiler, or 0: `m.channels` of them.
template <int C>
void ray_forward(const Samples& m, int r, float* image, float* trans) {
  const int channels = C ? C : m.channels, end = m.begin(r + 1);
  float* out = image + (size_t)r * channels;
  float acc[C ? C : 1] = {};
  float* sum = C ? acc : out;
  if (!C) memset(out, 0, 4 * (size_t)channels);
  float T = 1;
  Decays e;
  for (int s = m.begin(r); s < end && T > STOP; s += LANES) {
    const int n = std::min(LANES, end - s);
    e.fill(m.tau + s, n);
    const float* v = m.values + (size_t)s * channels;
    for (int i = 0; i < n && T > STOP; i++, v += channels) {
      float w = T * e.goes[i];
      T *= e.stays[i];
      for (int c = 0; c < channels; c++) sum[c] += w * v[c];
    }
  }
  if (C) memcpy(out, acc, sizeof acc);
  trans[r] = T;
}

struct Cotangent {
  const float *image, *trans, *g_image, *g_trans;
};

template <int C>
void ray_backward(const Samples& m, int r, const Cotangent& ct, float* g_tau, float* g_values) {
  const int channels = C ? C : m.channels, end = m.begin(r + 1);
  const float *g = ct.g_image + (size_t)r * channels, *out = ct.image + (size_t)r * channels;
  float T = 1, rest = ct.g_trans[r] * ct.trans[r];
  for (int c = 0; c < channels; c++) rest += g[c] * out[c];
  float own[C ? C : 1];
  if (C) memcpy(own, g, sizeof own);
  const float* gr = C ? own : g;
  Decays e;
  int s = m.begin(r), done = s;
  for (; s < end && T > STOP; s += LANES) {
    const int n = std::min(LANES, end - s);
    e.fill(m.tau + s, n);
    const float* v = m.values + (size_t)s * channels;
    float* gv = g_values + (size_t)s * channels;
    int i = 0;
    for (; i < n && T > STOP; i++, v += channels, gv += channels) {
      float w = T * e.goes[i], toward = 0;
      T *= e.stays[i];
      for (int c = 0; c < channels; c++) toward += gr[c] * v[c], gv[c] = w * gr[c];
      rest -= w * toward;
      g_tau[s + i] = T * toward - rest;
    }
    done = s + i;
  }
  if (done < end) {
    memset(g_tau + done, 0, 4 * (size_t)(end - done));
    memset(g_values + (size_t)done * channels, 0, 4 * (size_t)(end - done) * channels);
  }
}

#define FOR_CHANNELS(c, CALL) \
  switch (c) {                \
    case 1: CALL(1); break;   \
    case 3: CALL(3); break;   \
    case 4: CALL(4); break;   \
    case 8: CALL(8); break;   \
    default: CALL(0); break;  \
  }

template <class F>
void over_rays(Pool& pool, int n_rays, F f) {
  pool.run((n_rays + GROUP - 1) / GROUP, [&](int c) {
    for (int r = c * GROUP; r < std::min(n_rays, (c + 1) * GROUP); r++) f(r);
  });
}

Samples samples(const F32& tau, const F32& values, const S32& start) {
  return {tau.typed_data(), values.typed_data(), start.typed_data(), (int)tau.dimensions()[0],
          (int)start.dimensions()[0] - 1, (int)values.dimensions()[1]};
}

ffi::Error PackedForwardImpl(ffi::ThreadPool threads, F32 tau, F32 values, S32 start, OutF image, OutF trans,
                             int64_t n_threads) {
  Pool pool(threads, n_threads);
  const Samples m = samples(tau, values, start);
  float *out = image->typed_data(), *t = trans->typed_data();
#define CALL(C) over_rays(pool, m.n_rays, [&](int r) { ray_forward<C>(m, r, out, t); })
  FOR_CHANNELS(m.channels, CALL)
#undef CALL
  return ffi::Error::Success();
}

ffi::Error PackedBackwardImpl(ffi::ThreadPool threads, F32 tau, F32 values, S32 start, F32 image, F32 trans,
                              F32 g_image, F32 g_trans, OutF g_tau, OutF g_values, int64_t n_threads) {
  Pool pool(threads, n_threads);
  const Samples m = samples(tau, values, start);
  const Cotangent ct = {image.typed_data(), trans.typed_data(), g_image.typed_data(), g_trans.typed_data()};
  float *gt = g_tau->typed_data(), *gv = g_values->typed_data();
#define CALL(C) over_rays(pool, m.n_rays, [&](int r) { ray_backward<C>(m, r, ct, gt, gv); })
  FOR_CHANNELS(m.channels, CALL)
#undef CALL
  // What belongs to no ray.
  auto clear = [&](int from, int to) {
    memset(gt + from, 0, 4 * (size_t)(to - from));
    memset(gv + (size_t)from * m.channels, 0, 4 * (size_t)(to - from) * m.channels);
  };
  clear(0, m.begin(0));
  clear(m.begin(m.n_rays), m.capacity);
  return ffi::Error::Success();
}

}  // namespace

// clang-format off
XLA_FFI_DEFINE_HANDLER_SYMBOL(March, MarchImpl, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<U8>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<S32>()
    .Ret<F32>().Ret<F32>().Ret<S32>().Ret<S32>().Ret<F32>().Ret<S32>()
    .Attr<int64_t>("n_threads").Attr<int64_t>("limit"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(PackedForward, PackedForwardImpl, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().Arg<F32>().Arg<S32>().Ret<F32>().Ret<F32>().Attr<int64_t>("n_threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(PackedBackward, PackedBackwardImpl, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().Arg<F32>().Arg<S32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>()
    .Ret<F32>().Ret<F32>().Attr<int64_t>("n_threads"));
// clang-format on
