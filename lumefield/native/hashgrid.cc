// Multiresolution hash grid (Mueller et al. 2022) with two features per entry, as XLA FFI calls.
//
// Level l of a grid splits [-1, 1]^D into cells[l]^D cells; its vertices have entries of two floats in one table. What
// the encoding e(table, x) is: per level, the entries of the 2^D corners around x, interpolated linearly along each
// axis. Three kernels, each with a twin "Along" that returns its derivative in direction v (given per sample):
//   HashGather   out[n, 2 L]  = e(table, x)
//   HashScatter  out[table]   = gradient of <e(table, x), g> by the table
//   HashSlope    out[n, D]    = gradient of <e(table, x), g> by x
// A tangent is carried beside each number (Num), so the twins are the same code.
//
// Gather and slope: LANES samples at once, blocks of samples as tasks, levels inside. A block's rows of the output and
// the table of one level fit the L2 cache together. An entry is one 8-byte lane of a gather, so vectors of values hold
// feature pairs of LANES / 2 samples. Scatter: one task owns one level; one sample is one vector (2^D corners x two
// features), and samples that follow each other in one cell are summed in it before memory is touched.
// Each output number is summed in an order that depends on nothing but the input: not on the number of threads.
#include <cstring>

#include "hash_levels.h"
#include "parallel.h"
#include "scratch.h"
#include "simd.h"
namespace ffi = xla::ffi;

static const int64_t BLOCK = 8192;    // samples per task of gather and slope, at most
static const int CHUNK = 64;          // samples whose indices are known before their entries are needed
struct Grid {
  int64_t n;       // samples
  int n_levels;
  const Level* level;
  const float *table, *g;  // g: [n, 2 L]
  const float *u, *v;      // [D, stride]: x + 1, and directions
  int64_t stride;
};

// LANES / 2 pairs (v[i], v[i]) from the lower and the upper half of v.
static inline void twice(vf v, vf* out) {
#if LANES == 16
  const __m512i lo = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
  out[0] = _mm512_permutexvar_ps(lo, v);
  out[1] = _mm512_permutexvar_ps(_mm512_add_epi32(lo, _mm512_set1_epi32(8)), v);
#else
  const __m256i lo = _mm256_set_epi32(3, 3, 2, 2, 1, 1, 0, 0);
  out[0] = _mm256_permutevar8x32_ps(v, lo);
  out[1] = _mm256_permutevar8x32_ps(v, _mm256_add_epi32(lo, _mm256_set1_epi32(4)));
#endif
}

// The pairs of floats number i[0], i[1], ... of p.
static inline void gather_pairs(const float* p, ints i, vf* out) {
#if LANES == 16
  const double* d = (const double*)p;
  out[0] = _mm512_castpd_ps(_mm512_i32gather_pd(_mm512_castsi512_si256((__m512i)i), d, 8));
  out[1] = _mm512_castpd_ps(_mm512_i32gather_pd(_mm512_extracti64x4_epi64((__m512i)i, 1), d, 8));
#else
  const double* d = (const double*)p;
  out[0] = _mm256_castpd_ps(_mm256_i32gather_pd(d, _mm256_castsi256_si128((__m256i)i), 8));
  out[1] = _mm256_castpd_ps(_mm256_i32gather_pd(d, _mm256_extracti128_si256((__m256i)i, 1), 8));
#endif
}

// A number and, if T, its derivative in the given direction.
template <bool T>
struct Num {
  vf a, t;
};

template <bool T>
static inline Num<T> lerp(Num<T> f, Num<T> a, Num<T> b) {
  Num<T> r;
  vf d = b.a - a.a;
  r.a = a.a + f.a * d;
  if (T) r.t = a.t + f.a * (b.t - a.t) + f.t * d;
  return r;
}

template <bool T>
static inline Num<T> minus(Num<T> b, Num<T> a) {
  Num<T> r;
  r.a = b.a - a.a;
  if (T) r.t = b.t - a.t;
  return r;
}

// Entries of the corners and places of one group, as pairs; h: lower or upper half of the group.
template <int D, bool T>
struct Group {
  vf v[1 << D][2];
  Num<T> f[D][2];

  void read(const Grid& grid, const Level& q, const ints* index, int64_t s, const vf* place_in_cell) {
    for (int k = 0; k < D; k++) {
      vf two[2];
      twice(place_in_cell[k], two);
      f[k][0].a = two[0], f[k][1].a = two[1];
      if (!T) continue;
      twice(load(grid.v + k * grid.stride + s) * splat(q.half), two);
      f[k][0].t = two[0], f[k][1].t = two[1];
    }
    for (int m = 0; m < 1 << D; m++) gather_pairs(grid.table + q.offset, index[m], v[m]);
  }

  vf value(int h) const {
    Num<T> a[1 << D];
    for (int m = 0; m < 1 << D; m++) a[m].a = v[m][h], a[m].t = zero();
    for (int k = 0; k < D; k++)
      for (int j = 0; j < 1 << (D - 1 - k); j++) a[j] = lerp<T>(f[k][h], a[2 * j], a[2 * j + 1]);
    return T ? a[0].t : a[0].a;
  }

  // Derivatives by the place along each axis, of the values times g.
  void slope(int h, vf g, vf* out) const {
    Num<T> a[1 << D], d[D][1 << D];
    for (int m = 0; m < 1 << D; m++) a[m].a = v[m][h] * g, a[m].t = zero();
    for (int k = 0; k < D; k++)
      for (int j = 0; j < 1 << (D - 1 - k); j++) {
        for (int i = 0; i < k; i++) d[i][j] = lerp<T>(f[k][h], d[i][2 * j], d[i][2 * j + 1]);
        d[k][j] = minus<T>(a[2 * j + 1], a[2 * j]);
        a[j] = lerp<T>(f[k][h], a[2 * j], a[2 * j + 1]);
      }
    for (int k = 0; k < D; k++) out[k] = T ? d[k][0].t : d[k][0].a;
  }
};

// f(sample, group) for all groups of LANES samples of [first, last), with entries prefetched CHUNK samples ahead.
template <int D, bool T, class F>
static void each_group(const Grid& grid, const Level& q, int64_t first, int64_t last, F f) {
  const int G = CHUNK / LANES;
  struct Ready {
    ints index[G][1 << D];
    vf place[G][D];
  } ready[2];
  auto prepare = [&](int64_t s, Ready& r) {
    for (int i = 0; i < G && s + i * LANES < last; i++) {
      ints cell[D];
      place<D>(q, grid.u + s + i * LANES, grid.stride, cell, r.place[i]);
      for (int m = 0; m < 1 << D; m++) r.index[i][m] = corner<D>(q, cell, m);
      if (!q.big) continue;
      for (int m = 0; m < 1 << D; m += 2)  // corner m + 1 shares the cache line, mostly
        for (int j = 0; j < LANES; j++)
          __builtin_prefetch(grid.table + q.offset + 2 * (int64_t)r.index[i][m][j], 0, 2);
    }
  };
  prepare(first, ready[0]);
  int now = 0;
  for (int64_t s = first; s < last; s += CHUNK, now ^= 1) {
    if (s + CHUNK < last) prepare(s + CHUNK, ready[now ^ 1]);
    for (int i = 0; i < G && s + i * LANES < last; i++) {
      Group<D, T> group;
      group.read(grid, q, ready[now].index[i], s + i * LANES, ready[now].place[i]);
      f(s + i * LANES, group);
    }
  }
}

template <int D, bool T>
static void gather_block(const Grid& grid, int64_t first, int64_t last, float* out) {
  const int64_t row = 2 * grid.n_levels;
  for (int l = 0; l < grid.n_levels; l++)
    each_group<D, T>(grid, grid.level[l], first, last, [&](int64_t s, const Group<D, T>& group) {
      float pairs[2 * LANES];
      store(pairs, group.value(0)), store(pairs + LANES, group.value(1));
      float* to = out + s * row + 2 * l;
      const int count = (int)std::min<int64_t>(LANES, last - s);
      for (int j = 0; j < count; j++) memcpy(to + j * row, pairs + 2 * j, 8);
    });
}

template <int D, bool T>
static void slope_block(const Grid& grid, int64_t first, int64_t last, float* sum, float* out) {
  const int64_t row = 2 * grid.n_levels, width = (last - first + LANES - 1) / LANES * LANES * 2;
  memset(sum, 0, sizeof(float) * D * width);
  for (int l = 0; l < grid.n_levels; l++) {
    const Level& q = grid.level[l];
    each_group<D, T>(grid, q, first, last, [&](int64_t s, const Group<D, T>& group) {
      float g[2 * LANES];
      const int count = (int)std::min<int64_t>(LANES, last - s);
      for (int j = 0; j < LANES; j++) memcpy(g + 2 * j, grid.g + (s + std::min(j, count - 1)) * row + 2 * l, 8);
      for (int h = 0; h < 2; h++) {
        vf d[D];
        group.slope(h, load(g + h * LANES) * splat(q.half), d);
        float* to = sum + 2 * (s - first) + h * LANES;
        for (int k = 0; k < D; k++) store(to + k * width, load(to + k * width) + d[k]);
      }
    });
  }
  for (int64_t s = first; s < last; s++)
    for (int k = 0; k < D; k++) {
      const float* pair = sum + k * width + 2 * (s - first);
      out[s * D + k] = pair[0] + pair[1];
    }
}

// One sample as a vector: corner m has lanes 2 m and 2 m + 1.
template <int D>
struct Wide {
  typedef float vector __attribute__((vector_size(8 << D), aligned(32)));
  typedef int64_t pairs __attribute__((vector_size(8 << D), aligned(32)));
  typedef int32_t index __attribute__((vector_size(4 << D), aligned(16)));
};

template <int D>
static inline bool same(typename Wide<D>::index a, typename Wide<D>::index b) {
  __m128i part[1 << (D - 2)];
  a ^= b;
  memcpy(part, &a, sizeof(a));
  for (int i = 1; i < 1 << (D - 2); i++) part[0] = _mm_or_si128(part[0], part[i]);
  return _mm_testz_si128(part[0], part[0]);
}

template <int D>
static inline void add_entries(float* entries, const int32_t* index, const float* sum) {
  for (int m = 0; m < 1 << D; m++) {
    float* to = entries + 2 * (int64_t)index[m];
    __m128 a = _mm_castpd_ps(_mm_load_sd((const double*)to)), b = _mm_castpd_ps(_mm_load_sd((const double*)(sum + 2 * m)));
    _mm_store_sd((double*)to, _mm_castps_pd(_mm_add_ps(a, b)));
  }
}

template <int D, bool T>
static void scatter_level(const Grid& grid, int l, float* out) {
  typedef typename Wide<D>::vector vec;
  typedef typename Wide<D>::pairs vpairs;
  typedef typename Wide<D>::index vidx;
  const Level& q = grid.level[l];
  const int64_t row = 2 * grid.n_levels, n = grid.n;
  float* entries = out + q.offset;
  memset(entries, 0, sizeof(float) * q.floats);
  vec base[D], sign[D];
  vidx step[D], mask;
  for (int m = 0; m < 1 << D; m++) {
    mask[m] = (int32_t)q.mask;
    for (int k = 0; k < D; k++) {
      const bool up = m >> k & 1;
      step[k][m] = up ? (int32_t)q.mult[k] : 0;
      for (int i = 0; i < 2; i++) base[k][2 * m + i] = up ? 0.f : 1.f, sign[k][2 * m + i] = up ? 1.f : -1.f;
    }
  }
  struct Ready {
    int32_t cell[D][CHUNK];
    float place[D][CHUNK];
    vidx index[CHUNK];
  } ready[2];
  auto prepare = [&](int64_t s, Ready& r) {
    const int count = (int)std::min<int64_t>(CHUNK, n - s);
    for (int i = 0; i < count; i += LANES) {
      ints cell[D];
      vf f[D];
      place<D>(q, grid.u + s + i, grid.stride, cell, f);
      for (int k = 0; k < D; k++) memcpy(r.cell[k] + i, &cell[k], sizeof(ints)), store(r.place[k] + i, f[k]);
    }
    for (int i = 0; i < count; i++) {
      vidx index = step[0] + r.cell[0][i];
      if (q.dense) {
        for (int k = 1; k < D; k++) index += step[k] + r.cell[k][i];
      } else {
        for (int k = 1; k < D; k++) index ^= step[k] + r.cell[k][i];
        index &= mask;
      }
      r.index[i] = index;
      if (q.big)
        for (int m = 0; m < 1 << D; m += 2) __builtin_prefetch(entries + 2 * (int64_t)index[m], 1, 3);
    }
  };
  vec sum = base[0] - base[0];
  vidx owner = mask ^ mask;
  prepare(0, ready[0]);
  int now = 0;
  for (int64_t s = 0; s < n; s += CHUNK, now ^= 1) {
    if (s + CHUNK < n) prepare(s + CHUNK, ready[now ^ 1]);
    const Ready& r = ready[now];
    const int count = (int)std::min<int64_t>(CHUNK, n - s);
    for (int i = 0; i < count; i++) {
      vec w = base[0] + sign[0] * r.place[0][i], t;
      if (T) t = sign[0] * (grid.v[s + i] * q.half);
      for (int k = 1; k < D; k++) {
        vec f = base[k] + sign[k] * r.place[k][i];
        if (T) t = t * f + w * (sign[k] * (grid.v[k * grid.stride + s + i] * q.half));
        w = w * f;
      }
      int64_t pair;  // bits, never a double: denormal ones would be flushed to zero
      memcpy(&pair, grid.g + (s + i) * row + 2 * l, 8);
      vec g = (vec)(pair + vpairs{});
      if (!same<D>(owner, r.index[i])) {
        add_entries<D>(entries, (const int32_t*)&owner, (const float*)&sum);
        sum = (T ? t : w) * g;
        owner = r.index[i];
      } else {
        sum += (T ? t : w) * g;
      }
    }
  }
  add_entries<D>(entries, (const int32_t*)&owner, (const float*)&sum);
}

typedef ffi::Buffer<ffi::F32> In;
typedef ffi::ResultBuffer<ffi::F32> Out;
typedef ffi::Span<const int64_t> Cells;

// [n, d] + shift as [d, stride] with a stride of whole chunks; what is beyond n is 0.
static float* columns(Scratch& mem, Pool& pool, const In& x, float shift, int64_t stride) {
  const int64_t n = x.dimensions()[0], d = x.dimensions()[1];
  float* out = mem.take<float>(d * stride);
  const float* in = x.typed_data();
  pool.run((int)((stride + BLOCK - 1) / BLOCK), [=](int task) {
    const int64_t first = task * BLOCK, last = std::min(n, first + BLOCK), end = std::min(stride, first + BLOCK);
    for (int64_t k = 0; k < d; k++) {
      for (int64_t s = first; s < last; s++) out[k * stride + s] = in[s * d + k] + shift;
      for (int64_t s = std::max(first, last); s < end; s++) out[k * stride + s] = 0;
    }
  });
  return out;
}

enum Kind { GATHER, SCATTER, SLOPE };

template <int D, bool T>
static void run(Kind kind, const Grid& grid, Pool& pool, Scratch& mem, float* out) {
  if (kind == SCATTER) return pool.run(grid.n_levels, [&](int l) { scatter_level<D, T>(grid, l, out); });
  const int64_t n = grid.n, tasks = (n + BLOCK - 1) / BLOCK;
  float* sums = kind == SLOPE ? mem.take<float>(tasks * 2 * D * BLOCK) : nullptr;
  pool.run((int)tasks, [&](int task) {
    const int64_t first = task * BLOCK, last = std::min(n, first + BLOCK);
    if (kind == GATHER) return gather_block<D, T>(grid, first, last, out);
    slope_block<D, T>(grid, first, last, sums + task * 2 * D * BLOCK, out);
  });
}

static ffi::Error dispatch(Kind kind, ffi::ThreadPool& threads, int64_t n_threads, Cells cells, int64_t capacity,
                           const In* table, const In& x, const In* g, const In* v, Out& out) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  Pool pool(threads, n_threads);
  const int64_t n = x.dimensions()[0], d = x.dimensions()[1], levels = (int64_t)cells.size();
  if (d < 2 || d > 4) return ffi::Error::InvalidArgument("x must have 2, 3 or 4 coordinates");
  if (levels < 1 || capacity < 1 || capacity > (1 << 28) || (capacity & (capacity - 1)))
    return ffi::Error::InvalidArgument("entries per level must be a power of two up to 2^28");
  Level* level = (*mem).take<Level>(levels);
  const int64_t floats = 2 * make_levels(cells, (int)d, capacity, level);
  const size_t given = table ? table->element_count() : out->element_count();
  if (given != (size_t)floats) return ffi::Error::InvalidArgument("the table does not fit the levels");
  if (g && g->element_count() != (size_t)(2 * levels * n)) return ffi::Error::InvalidArgument("g must be (n, 2 levels)");
  if (v && v->element_count() != (size_t)(d * n)) return ffi::Error::InvalidArgument("v must have the shape of x");
  const int64_t stride = (n + CHUNK - 1) / CHUNK * CHUNK;
  const float* u = columns(*mem, pool, x, 1.f, stride);
  const float* along = v ? columns(*mem, pool, *v, 0.f, stride) : nullptr;
  Grid grid = {n, (int)levels, level, table ? table->typed_data() : nullptr, g ? g->typed_data() : nullptr, u, along,
               stride};
  auto with = [&](auto dims) {
    constexpr int D = decltype(dims)::value;
    v ? run<D, true>(kind, grid, pool, *mem, out->typed_data()) : run<D, false>(kind, grid, pool, *mem, out->typed_data());
  };
  if (d == 2) with(std::integral_constant<int, 2>());
  if (d == 3) with(std::integral_constant<int, 3>());
  if (d == 4) with(std::integral_constant<int, 4>());
  return ffi::Error::Success();
}

static ffi::Error Gather(ffi::ThreadPool t, In table, In x, Out out, int64_t n_threads, Cells cells, int64_t capacity) {
  return dispatch(GATHER, t, n_threads, cells, capacity, &table, x, nullptr, nullptr, out);
}
static ffi::Error GatherAlong(ffi::ThreadPool t, In table, In x, In v, Out out, int64_t n_threads, Cells cells,
                              int64_t capacity) {
  return dispatch(GATHER, t, n_threads, cells, capacity, &table, x, nullptr, &v, out);
}
static ffi::Error Scatter(ffi::ThreadPool t, In x, In g, Out out, int64_t n_threads, Cells cells, int64_t capacity) {
  return dispatch(SCATTER, t, n_threads, cells, capacity, nullptr, x, &g, nullptr, out);
}
static ffi::Error ScatterAlong(ffi::ThreadPool t, In x, In g, In v, Out out, int64_t n_threads, Cells cells,
                               int64_t capacity) {
  return dispatch(SCATTER, t, n_threads, cells, capacity, nullptr, x, &g, &v, out);
}
static ffi::Error Slope(ffi::ThreadPool t, In table, In x, In g, Out out, int64_t n_threads, Cells cells,
                        int64_t capacity) {
  return dispatch(SLOPE, t, n_threads, cells, capacity, &table, x, &g, nullptr, out);
}
static ffi::Error SlopeAlong(ffi::ThreadPool t, In table, In x, In g, In v, Out out, int64_t n_threads, Cells cells,
                             int64_t capacity) {
  return dispatch(SLOPE, t, n_threads, cells, capacity, &table, x, &g, &v, out);
}

// clang-format off
#define STATIC .Ret<In>().Attr<int64_t>("n_threads").Attr<Cells>("cells").Attr<int64_t>("capacity")
#define BIND ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
XLA_FFI_DEFINE_HANDLER_SYMBOL(HashGather, Gather, BIND.Arg<In>().Arg<In>() STATIC);
XLA_FFI_DEFINE_HANDLER_SYMBOL(HashGatherAlong, GatherAlong, BIND.Arg<In>().Arg<In>().Arg<In>() STATIC);
XLA_FFI_DEFINE_HANDLER_SYMBOL(HashScatter, Scatter, BIND.Arg<In>().Arg<In>() STATIC);
XLA_FFI_DEFINE_HANDLER_SYMBOL(HashScatterAlong, ScatterAlong, BIND.Arg<In>().Arg<In>().Arg<In>() STATIC);
XLA_FFI_DEFINE_HANDLER_SYMBOL(HashSlope, Slope, BIND.Arg<In>().Arg<In>().Arg<In>() STATIC);
XLA_FFI_DEFINE_HANDLER_SYMBOL(HashSlopeAlong, SlopeAlong, BIND.Arg<In>().Arg<In>().Arg<In>().Arg<In>() STATIC);
// clang-format on
