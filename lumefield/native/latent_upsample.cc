// All levels of a pyramid at the size of the finest by a cascade of learned x2 filters, forward and backward, as XLA
// FFI calls.
//
// Inputs  filters[L-1,4], then the levels, finest first; backward also the gradient of the stack. float32.
// Rules   fields/latent/_model.py, upsample: one axis at a time, columns first, a row v of n numbers becomes
//         out[2k] = u0 v[k-2] + u1 v[k-1] + u2 v[k] + u3 v[k+1],
//         out[2k+1] = u3 v[k-1] + u2 v[k] + u1 v[k+1] + u0 v[k+2]
//         with repeated edges, cut to the finer level's size. Channels below level i all pass filter i.
// Design  A task is a band of rows of one channel of one level: its rows are widened into a buffer, then summed
//         downwards. Backward does the cascade again up to the level before the finest, whose stack is the largest.
//         Tasks are cut by sizes alone and sum the gradients of the filters for themselves; the sums are added in
//         order, so results do not depend on the number of threads.
#include <cstring>

#include "parallel.h"
#include "scratch.h"
#include "simd.h"
namespace ffi = xla::ffi;

namespace {

constexpr int MAX_L = 16;
constexpr int BAND = 16;  // rows of the coarser level
constexpr int PAD = 16;   // numbers around a row
constexpr int REACH = 2;  // of a filter, in numbers of the coarser level
constexpr int EVEN[4] = {-2, -1, 0, 1}, ODD[4] = {2, 1, 0, -1};  // where the taps read

// The coarser level (n x m) and the finer one it becomes (h x w).
struct Step {
  int n, m, h, w;
  const float* taps;
  int bands() const { return (n + BAND - 1) / BAND; }
  int narrow() const { return (m + LANES - 1) / LANES * LANES; }   // columns in whole vectors
  int wide() const { return 2 * narrow(); }
  int narrow_stride() const { return narrow() + 2 * PAD; }
  int wide_stride() const { return wide() + 2 * PAD; }
};

#if LANES == 16
void interleave(vf a, vf b, float* to) {
  const vi low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  store(to, _mm512_permutex2var_ps(a, low, b));
  store(to + LANES, _mm512_permutex2var_ps(a, _mm512_add_epi32(low, _mm512_set1_epi32(8)), b));
}
void part(const float* from, vf& even, vf& odd) {
  const vi index = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  vf a = load(from), b = load(from + LANES);
  even = _mm512_permutex2var_ps(a, index, b);
  odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(index, _mm512_set1_epi32(1)), b);
}
#else
void interleave(vf a, vf b, float* to) {
  vf low = _mm256_unpacklo_ps(a, b), high = _mm256_unpackhi_ps(a, b);
  store(to, _mm256_permute2f128_ps(low, high, 0x20));
  store(to + LANES, _mm256_permute2f128_ps(low, high, 0x31));
}
void part(const float* from, vf& even, vf& odd) {
  auto ordered = [](vf v) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xD8)); };
  vf a = load(from), b = load(from + LANES);
  even = ordered(_mm256_shuffle_ps(a, b, 0x88)), odd = ordered(_mm256_shuffle_ps(a, b, 0xDD));
}
#endif

// A row of m numbers with its edges repeated and zeros from there to the end of the last vector.
void padded(const float* from, const Step& s, float* row) {
  memcpy(row, from, s.m * sizeof(float));
  std::fill(row + s.m, row + s.narrow() + PAD, 0.f);
  for (int i = 1; i <= REACH; i++) row[-i] = row[0], row[s.m - 1 + i] = row[s.m - 1];
}

void widen(const float* row, const Step& s, float* to) {
  const float* u = s.taps;
  for (int k = 0; k < s.narrow(); k += LANES) {
    vf even = zero(), odd = zero();
    for (int t = 0; t < 4; t++) {
      even = even + splat(u[t]) * load(row + k + EVEN[t]);
      odd = odd + splat(u[t]) * load(row + k + ODD[t]);
    }
    interleave(even, odd, to + 2 * k);
  }
}

// Rows of the coarser level that a band needs, and room for them made wide.
struct Rows {
  int first, last, stride;
  float* data;
  float* operator[](int r) const { return data + (size_t)(std::clamp(r, first, last - 1) - first) * stride + PAD; }
};

Rows wide_rows(Scratch& mem, const Step& s, const float* from, int band) {
  const int first = std::max(0, band * BAND - REACH), last = std::min(s.n, (band + 1) * BAND + REACH);
  float* row = mem.take<float>(s.narrow_stride()) + PAD;
  Rows rows = {first, last, s.wide_stride(), mem.take<float>((size_t)(last - first) * s.wide_stride())};
  for (int r = first; r < last; r++) {
    padded(from + (size_t)r * s.m, s, row);
    widen(row, s, rows[r]);
  }
  return rows;
}

void put(float* to, int room, vf v) {
  if (room >= LANES) return store(to, v);
  float some[LANES];
  store(some, v);
  memcpy(to, some, room * sizeof(float));
}

void forward_task(const Step& s, const float* from, float* to, int band) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  Rows rows = wide_rows(*mem, s, from, band);
  for (int k = band * BAND; k < std::min(s.n, (band + 1) * BAND); k++)
    for (int odd = 0; odd < 2 && 2 * k + odd < s.h; odd++) {
      const int* at = odd ? ODD : EVEN;
      const float* in[4] = {rows[k + at[0]], rows[k + at[1]], rows[k + at[2]], rows[k + at[3]]};
      float* out = to + (size_t)(2 * k + odd) * s.w;
      for (int c = 0; c < s.w; c += LANES) {
        vf sum = zero();
        for (int t = 0; t < 4; t++) sum = sum + splat(s.taps[t]) * load(in[t] + c);
        put(out + c, s.w - c, sum);
      }
    }
}

// The rows of the finer level whose gradients reach row k of the coarser one, and with what weight: eight, and at
// the edges also those that read a repeat of it.
struct Reach {
  int first, n;
  float weight[2 * 4 * (2 * REACH + 1)];
};

Reach reach_of(const Step& s, int k) {
  const int low = k == 0 ? -REACH : k, high = k == s.n - 1 ? s.n - 1 + REACH : k;
  Reach reach = {std::max(0, 2 * (low - REACH) + 1), 0, {}};
  reach.n = std::min(s.h, 2 * (high + REACH) + 1) - reach.first;
  for (int virt = low; virt <= high; virt++)
    for (int t = 0; t < 4; t++)
      for (int row : {2 * (virt - EVEN[t]), 2 * (virt - ODD[t]) + 1})
        if (row >= reach.first && row < std::min(reach.first + reach.n, 2 * s.n))
          reach.weight[row - reach.first] += s.taps[t];
  return reach;
}

// Gradients of one row of the coarser level from those of its wide form, `g`, with PAD zeros around; adds those of
// the taps.
void narrow(const Step& s, const float* g, const float* row, float* even, float* odd, float* to, vf* taps) {
  for (int k = 0; k < s.narrow(); k += LANES) {
    vf e, o;
    part(g + 2 * k, e, o);
    store(even + k, e), store(odd + k, o);
  }
  const float* u = s.taps;
  for (int k = 0; k < s.m; k += LANES) {
    vf e = load(even + k), o = load(odd + k), sum = zero();
    for (int t = 0; t < 4; t++) {
      taps[t] = taps[t] + e * load(row + k + EVEN[t]) + o * load(row + k + ODD[t]);
      sum = sum + splat(u[t]) * (load(even + k - EVEN[t]) + load(odd + k - ODD[t]));
    }
    put(to + k, s.m - k, sum);
  }
  auto at = [&](int k) {
    float sum = 0;
    for (int t = 0; t < 4; t++) sum += u[t] * (even[k - EVEN[t]] + odd[k - ODD[t]]);
    return sum;
  };
  for (int i = 1; i <= REACH; i++) to[0] += at(-i), to[s.m - 1] += at(s.m - 1 + i);  // the repeated edges
}

void backward_task(const Step& s, const float* from, const float* g, float* to, int band, double* sums) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  Rows rows = wide_rows(*mem, s, from, band);
  const int last = std::min(s.n, (band + 1) * BAND), stride = s.wide_stride();
  const int g_first = std::max(0, 2 * band * BAND - 2 * REACH), g_last = std::min(s.h, 2 * last + 2 * REACH + 1);
  float* g_rows = (*mem).take<float>((size_t)(g_last - g_first) * stride) + PAD;
  auto g_row = [&](int r) { return g_rows + (size_t)(r - g_first) * stride; };
  for (int r = g_first; r < g_last; r++) {
    memcpy(g_row(r), g + (size_t)r * s.w, s.w * sizeof(float));
    std::fill(g_row(r) + s.w, g_row(r) + s.wide(), 0.f);
  }
  float* row = (*mem).take<float>(s.narrow_stride()) + PAD;
  float* g_wide = (*mem).take<float>(stride) + PAD;
  float* halves = (*mem).take<float>(2 * (size_t)s.narrow_stride());
  memset(halves, 0, 2 * (size_t)s.narrow_stride() * sizeof(float));
  vf taps[4] = {zero(), zero(), zero(), zero()};
  for (int k = band * BAND; k < last; k++) {
    for (int side = 0; side < 2 && 2 * k + side < s.h; side++) {
      const float* gr = g_row(2 * k + side);
      const int* at = side ? ODD : EVEN;
      const float* in[4] = {rows[k + at[0]], rows[k + at[1]], rows[k + at[2]], rows[k + at[3]]};
      for (int c = 0; c < s.w; c += LANES) {
        vf x = load(gr + c);
        for (int t = 0; t < 4; t++) taps[t] = taps[t] + x * load(in[t] + c);
      }
    }
    Reach reach = reach_of(s, k);
    for (int c = 0; c < s.wide(); c += LANES) {
      vf sum = zero();
      for (int i = 0; i < reach.n; i++) sum = sum + splat(reach.weight[i]) * load(g_row(reach.first + i) + c);
      store(g_wide + c, sum);
    }
    padded(from + (size_t)k * s.m, s, row);
    narrow(s, g_wide, row, halves + PAD, halves + s.narrow_stride() + PAD, to + (size_t)k * s.m, taps);
  }
  for (int t = 0; t < 4; t++) sums[t] = sum(taps[t]);
}

using F32 = ffi::Buffer<ffi::F32>;

struct Pyramid {
  int levels;
  const float* y[MAX_L];
  Step step[MAX_L];  // step[i] makes level i's size out of level i + 1's
  size_t size[MAX_L];
};

const char* read(const F32& filters, ffi::RemainingArgs args, int levels, Pyramid& p) {
  p.levels = levels;
  if (levels < 1 || levels > MAX_L || (int)args.size() < levels) return "the upsampling kernel takes 1 to 16 levels";
  int h[MAX_L], w[MAX_L];
  for (int i = 0; i < levels; i++) {
    auto y = args.get<F32>(i);
    if (!y.has_value() || y->dimensions().size() != 2) return "levels are float32 matrices";
    p.y[i] = y->typed_data(), h[i] = (int)y->dimensions()[0], w[i] = (int)y->dimensions()[1];
    p.size[i] = (size_t)h[i] * w[i];
    if (!i) continue;
    if (h[i] != (h[i - 1] + 1) / 2 || w[i] != (w[i - 1] + 1) / 2)
      return "a level has half the rows and columns of the one before it, rounded up";
    p.step[i - 1] = {h[i], w[i], h[i - 1], w[i - 1], filters.typed_data() + 4 * (i - 1)};
  }
  return "";
}

// The stacks of levels from the coarsest up to `last`: stack[i] is [levels - i][h][w], finest first. stack[last] is
// given, the others are taken.
void cascade(Pool& pool, Scratch& mem, const Pyramid& p, int last, float** stack) {
  for (int i = p.levels - 1; i >= last; i--) {
    const int channels = p.levels - 1 - i;
    if (i > last || !stack[i]) stack[i] = mem.take<float>((channels + 1) * p.size[i]);
    const Step& s = p.step[i];
    const int bands = channels ? s.bands() : 0, copies = (int)std::min<size_t>(8, p.size[i]);
    pool.run(channels * bands + copies, [&, i](int task) {
      if (task < channels * bands) {
        const int c = task / bands;
        return forward_task(s, stack[i + 1] + c * p.size[i + 1], stack[i] + (c + 1) * p.size[i], task % bands);
      }
      const int t = task - channels * bands;
      const size_t from = p.size[i] * t / copies, to = p.size[i] * (t + 1) / copies;
      memcpy(stack[i] + from, p.y[i] + from, (to - from) * sizeof(float));
    });
  }
}

ffi::Error Forward(ffi::ThreadPool threads, F32 filters, ffi::RemainingArgs args, ffi::ResultBuffer<ffi::F32> out,
                   int64_t n_threads) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  Pool pool(threads, n_threads);
  Pyramid p;
  const char* wrong = read(filters, args, (int)args.size(), p);
  if (*wrong) return ffi::Error::InvalidArgument(wrong);
  float* stack[MAX_L] = {out->typed_data()};
  cascade(pool, *mem, p, 0, stack);
  return ffi::Error::Success();
}

ffi::Error Backward(ffi::ThreadPool threads, F32 g, F32 filters, ffi::RemainingArgs args, ffi::RemainingRets rets,
                    int64_t n_threads) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  Pool pool(threads, n_threads);
  Pyramid p;
  const int levels = (int)args.size();
  const char* wrong = read(filters, args, levels, p);
  if (*wrong) return ffi::Error::InvalidArgument(wrong);
  float *stack[MAX_L] = {}, *out[MAX_L + 1];
  for (int k = 0; k <= levels; k++) {
    auto r = rets.get<F32>(k);
    if (!r.has_value()) return ffi::Error::InvalidArgument("upsampling has gradients of the filters and each level");
    out[k] = (*r)->typed_data();
  }
  if (levels > 1) cascade(pool, *mem, p, 1, stack);
  const float* g_stack = g.typed_data();
  for (int i = 0; i < levels; i++) {
    const int channels = levels - 1 - i;
    memcpy(out[1 + i], g_stack, p.size[i] * sizeof(float));
    if (!channels) break;
    const Step& s = p.step[i];
    const int bands = s.bands();
    float* next = (*mem).take<float>(channels * p.size[i + 1]);
    double* sums = (*mem).take<double>((size_t)channels * bands * 4);
    pool.run(channels * bands, [&, i](int task) {
      const int c = task / bands;
      backward_task(s, stack[i + 1] + c * p.size[i + 1], g_stack + (c + 1) * p.size[i], next + c * p.size[i + 1],
                    task % bands, sums + 4 * task);
    });
    for (int t = 0; t < 4; t++) {
      double total = 0;
      for (int k = 0; k < channels * bands; k++) total += sums[4 * k + t];
      out[0][4 * i + t] = (float)total;
    }
    g_stack = next;
  }
  return ffi::Error::Success();
}

}  // namespace

// clang-format off
XLA_FFI_DEFINE_HANDLER_SYMBOL(UpsampleForward, Forward, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().RemainingArgs().Ret<F32>().Attr<int64_t>("n_threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(UpsampleBackward, Backward, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().Arg<F32>().RemainingArgs().RemainingRets().Attr<int64_t>("n_threads"));
// clang-format on
