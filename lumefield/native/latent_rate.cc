// Bits of a pyramid of latents under their context model, with all gradients in the same pass, as an XLA FFI call.
//
// Inputs  w1[A,17] b1[L,A] w2[A,A] b2[A] w3[2,A] linear[2,17] b3[2], then the L levels, finest first; float32.
// Outputs bits[L]; then, when asked for, the gradients of the sum of the bits: of the seven parameters in that
//         order (float32), then of each level.
// Model   fields/latent/_model.py, from whose latent_bits this must not differ but in rounding and at ties:
//         x = 12 causal neighbours, 4 cells of the next coarser level, 1 of the one after it, zero outside;
//         h1 = clip(W1 x + b1), h2 = clip(h1 + relu(W2 h1 + b2)), (m, s) = W3 h2 + V x + b3, all clips at [0, 64];
//         bits = -log2 max(2^-16, mass of Laplace(m, 2^s) on [y - 1/2, y + 1/2]), and one for each unit by which
//         |y - m| exceeds clip(11 2^s, 9, 126).
// Design  A lane is a latent. A row is done in blocks, all of whose activations stay in fast memory; neighbours are
//         the padded level itself read at another place, coarser levels are spread out once per row. The forward
//         pass of a block is followed by its backward pass at once. Gradients of a row's inputs are first written
//         side by side and then added up by shifted reads. Levels are cut into bands of rows; a band adds to rows
//         of its neighbours too, so even bands run before odd ones: the order of every sum is fixed by the sizes
//         alone, whatever the number of threads.
#include <cmath>

#include "parallel.h"
#include "planar.h"
#include "scratch.h"
namespace ffi = xla::ffi;

namespace {

constexpr int NEAR = 12, K = 17;  // causal neighbours; all inputs
constexpr int DR[NEAR] = {-1, 0, -1, -1, -2, 0, -2, -2, -1, -1, -2, -2};
constexpr int DC[NEAR] = {0, -1, -1, 1, 0, -2, -1, 1, -2, 2, -2, 2};
constexpr int MAX_A = 24, MAX_LEVELS = 16;
constexpr int BLOCK = 256;  // pixels; a multiple of CHUNK
constexpr int BAND = 16;    // rows; a multiple of 4 so that bands share as few coarse rows as they can
constexpr int PAD = 16;     // zeros before and after the columns of a row
constexpr float REACH = 11.f, LEAST_REACH = 9.f, MOST_REACH = 126.f;  // of a file, in scales and units
constexpr float CLIP = 64.f, FLOOR = 0x1p-16f, LN2 = 0.693147181f, LOG2E = 1.44269504f;

// Rows from -above to h - 1 + 1, all with zeros around.
struct Plane {
  float* data = nullptr;
  int stride = 0;
  float* row(int r) const { return data + (ptrdiff_t)(r + 2) * stride + PAD; }
};

struct Level {
  int h, w, bands;
  const float* given;
  Plane y, own, half, quarter;  // latents; gradients from this level, the next finer one and the one after it
  float* out;
  int stride() const { return chunks_of(w) + 2 * PAD; }
};

struct Net {
  int a;  // width, padded to a multiple of four with zeros
  int levels;
  float w1[K * MAX_A], b1[MAX_LEVELS * MAX_A], w2[MAX_A * MAX_A], b2[MAX_A], w3[(MAX_A + K) * 2], b3[2];
  float w3_turned[2 * MAX_A], w2_turned[MAX_A * MAX_A], x_turned[(MAX_A + 2) * K];
};

// Gradients of the parameters, summed over a band.
struct Sums {
  double x[(MAX_A + 2) * (K + 1)];    // w1, b1 | linear, b3: rows are outputs, columns inputs and 1
  double h1[MAX_A * (MAX_A + 1)];     // w2, b2
  double h2[2 * MAX_A];               // w3
  double bits;
};

struct Store {
  float* const* to;
  void operator()(int j, int v, vf acc) const { store(to[j] + v * LANES, acc); }
};
struct Clipped {
  float* const* to;
  void operator()(int j, int v, vf acc) const {
    store(to[j] + v * LANES, min_(splat(CLIP), max_(zero(), acc)));
  }
};
// relu and the residual sum; the relu is kept for its slope.
struct Residual {
  float *const *h1, *const *relu, *const *h2;
  void operator()(int j, int v, vf acc) const {
    vf r = max_(zero(), acc);
    store(relu[j] + v * LANES, r);
    store(h2[j] + v * LANES, min_(splat(CLIP), load(h1[j] + v * LANES) + r));
  }
};
// Through the outer clip; then also through the relu, which its gradient replaces.
struct ResidualSlope {
  float *const *h2, *const *sum, *const *relu;
  void operator()(int j, int v, vf acc) const {
    vf g = keep(gt(splat(CLIP), load(h2[j] + v * LANES)), acc);
    store(sum[j] + v * LANES, g);
    store(relu[j] + v * LANES, keep(gt(load(relu[j] + v * LANES), zero()), g));
  }
};
struct ClippedSlope {
  float *const *h1, *const *g;
  void operator()(int j, int v, vf acc) const {
    vf h = load(h1[j] + v * LANES);
    vm slope = both(gt(h, zero()), gt(splat(CLIP), h));
    store(g[j] + v * LANES, keep(slope, load(g[j] + v * LANES) + acc));
  }
};

// What one task works with: rows of BLOCK pixels, and rows as long as a level.
struct Desk {
  float *h1[MAX_A], *h2[MAX_A], *relu[MAX_A], *g[MAX_A + 2], *out[2], *ones;
  float* coarse[5];  // inputs 12 to 16 of a row
  float* gx[K];      // gradients of the inputs of a row, with PAD zeros before
};

Desk make_desk(Scratch& mem, int stride) {
  Desk d;
  float* block = mem.take<float>((4 * MAX_A + 5) * BLOCK);
  auto next = [&] { return std::exchange(block, block + BLOCK); };
  for (int j = 0; j < MAX_A; j++) d.h1[j] = next(), d.h2[j] = next(), d.relu[j] = next();
  for (int j = 0; j < MAX_A + 2; j++) d.g[j] = next();
  for (float*& o : d.out) o = next();
  d.ones = next();
  std::fill(d.ones, d.ones + BLOCK, 1.f);
  float* rows = mem.take<float>((size_t)(5 + K) * stride);
  memset(rows, 0, (size_t)(5 + K) * stride * sizeof(float));
  for (int k = 0; k < 5; k++) d.coarse[k] = rows + (size_t)k * stride + PAD;
  for (int k = 0; k < K; k++) d.gx[k] = rows + (size_t)(5 + k) * stride + PAD;
  return d;
}

// Bits of n vectors of latents y from `out` (location, log2 of the scale), which their gradients replace; gradients
// of the latents are added to `own`. Pixels from `width` on count nothing.
vf laplace(float* const* out, const float* y, float* own, int width, int n) {
  const vf one = splat(1.f), half = splat(0.5f);
  vf total = zero();
  for (int v = 0; v < n; v++) {
    vm inside = gt(splat((float)(width - v * LANES)), ramp());
    vf o = load(out[0] + v * LANES), s = load(out[1] + v * LANES);
    vm free_o = gt(splat(127.f), abs_(o)), free_s = both(gt(s, splat(-6.f)), gt(splat(6.6f), s));
    vf m = min_(splat(127.f), max_(splat(-127.f), o));
    s = min_(splat(6.6f), max_(splat(-6.f), s));
    vf t = splat(64.f) * exp2_neg(zero() - s - splat(6.f));  // 1 / scale
    vf d = load(y + v * LANES) - m, a = abs_(d), rate = t * splat(LOG2E);
    vf high = exp2_neg(zero() - (a + half) * rate), low = exp2_neg(zero() - abs_(a - half) * rate);
    vm beside = gt(a, half);
    vf mass = select(beside, half * (low - high), one - half * (low + high));
    vm free = both(inside, gt(mass, splat(FLOOR)));
    mass = max_(mass, splat(FLOOR));
    vf wide = splat(REACH) / t, far = a - min_(splat(MOST_REACH), max_(splat(LEAST_REACH), wide));
    vm out_of_reach = both(inside, gt(far, zero()));
    vm follows = both(out_of_reach, both(gt(wide, splat(LEAST_REACH)), gt(splat(MOST_REACH), wide)));
    total = total - keep(inside, log2_(mass)) + keep(out_of_reach, far);
    vf per = splat(-0.5f * LOG2E) * t / mass;  // d bits / d mass, times half the slope of both exponentials
    vf g_a = per * (high - low), g_s = zero() - splat(LN2) * per * ((a + half) * high - (a - half) * low);
    g_a = keep(free, g_a) + keep(out_of_reach, one);
    g_s = keep(free, g_s) - keep(follows, splat(LN2) * wide);
    vf g_d = select(gt(d, zero()), g_a, keep(gt(zero(), d), zero() - g_a));
    store(own + v * LANES, load(own + v * LANES) + g_d);
    store(out[0] + v * LANES, keep(free_o, zero() - g_d));
    store(out[1] + v * LANES, keep(free_s, g_s));
  }
  return total;
}

// Inputs 12 to 16 of row r: the coarser levels at this level's size, as far as `w` columns.
void spread(const Level* half, const Level* quarter, int r, int w, float* const* coarse) {
  if (half) {
    const int R = r >> 1;
    for (int n = 0; n < 2; n++) {
      const float* s = half->y.row(n == 0 ? R : r & 1 ? R + 1 : R - 1);
      float *same = coarse[2 * n], *beside = coarse[2 * n + 1];
      for (int q = 0; q < w / 2; q++) {
        same[2 * q] = same[2 * q + 1] = s[q];
        beside[2 * q] = s[q - 1], beside[2 * q + 1] = s[q + 1];
      }
    }
  }
  if (quarter) {
    const float* s = quarter->y.row(r >> 2);
    for (int q = 0; q < w / 4; q++)
      for (int e = 0; e < 4; e++) coarse[4][4 * q + e] = s[q];
  }
}

// The gradients of a row's inputs to where the inputs came from.
void collect(const Level& level, const Level* half, const Level* quarter, int r, float* const* gx) {
  for (int dr = -2; dr <= 0; dr++) {
    if (r + dr < 0) continue;
    const float* from[5];
    int n = 0;
    for (int k = 0; k < NEAR; k++)
      if (DR[k] == dr) from[n++] = gx[k] - DC[k];
    float* to = level.own.row(r + dr);
    for (int c = 0; c < level.w; c += LANES) {
      vf sum = load(to + c);
      for (int k = 0; k < n; k++) sum = sum + load(from[k] + c);
      store(to + c, sum);
    }
  }
  if (half) {
    const int R = r >> 1;
    for (int n = 0; n < 2; n++) {
      const int row = n == 0 ? R : r & 1 ? R + 1 : R - 1;
      if (row < 0 || row >= half->h) continue;
      const float *same = gx[NEAR + 2 * n], *beside = gx[NEAR + 2 * n + 1];
      float* to = half->half.row(row);
      for (int q = 0; q < half->w; q++)
        to[q] += (same[2 * q] + same[2 * q + 1]) + (beside[2 * q + 2] + beside[2 * q - 1]);
    }
  }
  if (quarter) {
    const float* g = gx[K - 1];
    float* to = quarter->quarter.row(r >> 2);
    for (int q = 0; q < quarter->w; q++)
      to[q] += (g[4 * q] + g[4 * q + 1]) + (g[4 * q + 2] + g[4 * q + 3]);
  }
}

// One block: n vectors of inputs x, latents y. Returns the bits; with `sums` also does the backward pass, whose
// gradients of the inputs go to gx.
vf run_block(const Net& net, int level, Desk& d, const float** x, const float* y, float* own, int width, int n,
             float* const* gx, Sums* sums) {
  const int a = net.a;
  product(x, K, net.w1, a, net.b1 + level * a, n, Clipped{d.h1});
  product(d.h1, a, net.w2, a, net.b2, n, Residual{d.h1, d.relu, d.h2});
  const float* all[MAX_A + K];
  std::copy(d.h2, d.h2 + a, all);
  std::copy(x, x + K, all + a);
  product(all, a + K, net.w3, 2, net.b3, n, Store{d.out});
  vf bits = laplace(d.out, y, own, width, n);
  if (!sums) return bits;
  outer(d.out, 2, d.h2, a, n, sums->h2);
  product(d.out, 2, net.w3_turned, a, nullptr, n, ResidualSlope{d.h2, d.g, d.relu});
  const float* with_one[MAX_A + 1];
  std::copy(d.h1, d.h1 + a, with_one);
  with_one[a] = d.ones;
  outer(d.relu, a, with_one, a + 1, n, sums->h1);
  product(d.relu, a, net.w2_turned, a, nullptr, n, ClippedSlope{d.h1, d.g});
  const float* g[MAX_A + 2];
  std::copy(d.g, d.g + a, g);
  std::copy(d.out, d.out + 2, g + a);
  outer(g, a + 2, x, K + 1, n, sums->x);
  product(g, a + 2, net.x_turned, K, nullptr, n, Store{gx});
  return bits;
}

void run_band(const Net& net, const Level* levels, int i, int band, bool gradients, Sums& sums) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  const Level& level = levels[i];
  const Level* half = i + 1 < net.levels ? levels + i + 1 : nullptr;
  const Level* quarter = i + 2 < net.levels ? levels + i + 2 : nullptr;
  Desk d = make_desk(*mem, level.stride());
  memset(&sums, 0, sizeof(Sums));
  const int w = chunks_of(level.w);
  for (int r = band * BAND; r < std::min(level.h, (band + 1) * BAND); r++) {
    spread(half, quarter, r, w, d.coarse);
    vf bits = zero();
    for (int c = 0; c < w; c += BLOCK) {
      const float* x[K + 1];
      float* gx[K];
      for (int k = 0; k < NEAR; k++) x[k] = level.y.row(r + DR[k]) + c + DC[k];
      for (int k = NEAR; k < K; k++) x[k] = d.coarse[k - NEAR] + c;
      x[K] = d.ones;
      for (int k = 0; k < K; k++) gx[k] = d.gx[k] + c;
      const int n = std::min(BLOCK, w - c) / LANES;
      bits = bits + run_block(net, i, d, x, level.y.row(r) + c, level.own.row(r) + c, level.w - c, n, gx,
                              gradients ? &sums : nullptr);
    }
    sums.bits += sum(bits);
    if (gradients) collect(level, half, quarter, r, d.gx);
  }
}

// Copies rows of a level to where they have zeros around, and clears its gradients.
void load_band(const Level& level, int band) {
  const size_t bytes = level.stride() * sizeof(float);
  const int last = band == level.bands - 1;
  for (int r = band ? band * BAND : -2; r < std::min(level.h, (band + 1) * BAND) + last; r++) {
    for (const Plane& p : {level.y, level.own, level.half, level.quarter})
      if (p.data) memset(p.row(r) - PAD, 0, bytes);
    if (r >= 0 && r < level.h) memcpy(level.y.row(r), level.given + (size_t)r * level.w, level.w * sizeof(float));
  }
}

void add_band(const Level& level, int band) {
  for (int r = band * BAND; r < std::min(level.h, (band + 1) * BAND); r++) {
    float* out = level.out + (size_t)r * level.w;
    const float *own = level.own.row(r), *half = level.half.data ? level.half.row(r) : nullptr;
    const float* quarter = level.quarter.data ? level.quarter.row(r) : nullptr;
    for (int c = 0; c < level.w; c++)
      out[c] = own[c] + (half ? half[c] : 0.f) + (quarter ? quarter[c] : 0.f);
  }
}

struct Parameters {
  const float *w1, *b1, *w2, *b2, *w3, *linear, *b3;
};

void pack(const Parameters& p, int a, int levels, Net& net) {
  memset(&net, 0, sizeof net);
  const int n = net.a = (a + 3) / 4 * 4;
  net.levels = levels;
  for (int j = 0; j < a; j++) {
    for (int k = 0; k < K; k++) net.w1[k * n + j] = net.x_turned[j * K + k] = p.w1[j * K + k];
    for (int i = 0; i < a; i++) net.w2[i * n + j] = net.w2_turned[j * n + i] = p.w2[j * a + i];
    for (int l = 0; l < levels; l++) net.b1[l * n + j] = p.b1[l * a + j];
    net.b2[j] = p.b2[j];
  }
  for (int o = 0; o < 2; o++) {
    for (int j = 0; j < a; j++) net.w3[j * 2 + o] = net.w3_turned[o * n + j] = p.w3[o * a + j];
    for (int k = 0; k < K; k++) net.w3[(n + k) * 2 + o] = net.x_turned[(n + o) * K + k] = p.linear[o * K + k];
    net.b3[o] = p.b3[o];
  }
}

using F32 = ffi::Buffer<ffi::F32>;

// Gradients of the parameters from the sums of the bands: `first[i]` is the first band of level i.
void unpack(const Sums* sums, const int* first, int a, const Net& net, float* const* out) {
  auto total = [&](auto f, int from, int to) {
    double s = 0;
    for (int b = from; b < to; b++) s += f(sums[b]);
    return (float)s;
  };
  const int n = net.a, end = first[net.levels];
  for (int j = 0; j < a; j++) {
    for (int k = 0; k < K; k++) out[0][j * K + k] = total([=](const Sums& s) { return s.x[j * (K + 1) + k]; }, 0, end);
    for (int l = 0; l < net.levels; l++)
      out[1][l * a + j] = total([=](const Sums& s) { return s.x[j * (K + 1) + K]; }, first[l], first[l + 1]);
    for (int i = 0; i < a; i++)
      out[2][j * a + i] = total([=](const Sums& s) { return s.h1[j * (n + 1) + i]; }, 0, end);
    out[3][j] = total([=](const Sums& s) { return s.h1[j * (n + 1) + n]; }, 0, end);
  }
  for (int o = 0; o < 2; o++) {
    for (int j = 0; j < a; j++) out[4][o * a + j] = total([=](const Sums& s) { return s.h2[o * n + j]; }, 0, end);
    for (int k = 0; k < K; k++)
      out[5][o * K + k] = total([=](const Sums& s) { return s.x[(n + o) * (K + 1) + k]; }, 0, end);
    out[6][o] = total([=](const Sums& s) { return s.x[(n + o) * (K + 1) + K]; }, 0, end);
  }
}

ffi::Error Rate(ffi::ThreadPool threads, F32 w1, F32 b1, F32 w2, F32 b2, F32 w3, F32 linear, F32 b3,
                ffi::RemainingArgs args, ffi::RemainingRets rets, int64_t n_threads) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  Pool pool(threads, n_threads);
  const int a = (int)w1.dimensions()[0], levels = (int)args.size();
  const bool gradients = rets.size() > 1;
  if (a > MAX_A || levels < 1 || levels > MAX_LEVELS || w1.dimensions()[1] != K || (int)b1.dimensions()[0] != levels)
    return ffi::Error::InvalidArgument("the rate kernel takes 17 inputs, at most 24 features and 16 levels");
  if (rets.size() != (gradients ? 8 + (size_t)levels : 1))
    return ffi::Error::InvalidArgument("the rate kernel returns bits, or bits, 7 gradients and one per level");
  Net net;
  pack({w1.typed_data(), b1.typed_data(), w2.typed_data(), b2.typed_data(), w3.typed_data(), linear.typed_data(),
        b3.typed_data()},
       a, levels, net);
  auto result = [&](int k) {
    auto out = rets.get<F32>(k);
    return out.has_value() ? (*out)->typed_data() : nullptr;
  };
  Level level[MAX_LEVELS] = {};
  int first[MAX_LEVELS + 1] = {0};
  for (int i = 0; i < levels; i++) {
    auto y = args.get<F32>(i);
    Level& l = level[i];
    if (!y.has_value() || y->dimensions().size() != 2)
      return ffi::Error::InvalidArgument("levels are float32 matrices");
    l.h = (int)y->dimensions()[0], l.w = (int)y->dimensions()[1], l.given = y->typed_data();
    if (i && (l.h != (level[i - 1].h + 1) / 2 || l.w != (level[i - 1].w + 1) / 2))
      return ffi::Error::InvalidArgument("a level has half the rows and columns of the one before it, rounded up");
    l.bands = (l.h + BAND - 1) / BAND;
    first[i + 1] = first[i] + l.bands;
    auto plane = [&] { return Plane{(*mem).take<float>((size_t)(l.h + 3) * l.stride()), l.stride()}; };
    l.y = plane(), l.own = plane();
    if (i > 0) l.half = plane();
    if (i > 1) l.quarter = plane();
    l.out = gradients ? result(8 + i) : nullptr;
  }
  const int bands = first[levels];
  Sums* sums = (*mem).take<Sums>(bands);
  auto each = [&](auto f) {  // f(level, band) for all bands of all levels
    return [&, f](int b) {
      int i = 0;
      while (b >= first[i + 1]) i++;
      f(i, b - first[i]);
    };
  };
  pool.run(bands, each([&](int i, int b) { load_band(level[i], b); }));
  for (int odd = 0; odd < 2; odd++)
    pool.run(bands, each([&](int i, int b) {
               if (b % 2 == odd) run_band(net, level, i, b, gradients, sums[first[i] + b]);
             }));
  float* bits = result(0);
  for (int i = 0; i < levels; i++) {
    double total = 0;
    for (int b = first[i]; b < first[i + 1]; b++) total += sums[b].bits;
    bits[i] = (float)total;
  }
  if (!gradients) return ffi::Error::Success();
  pool.run(bands, each([&](int i, int b) { add_band(level[i], b); }));
  float* out[7];
  for (int k = 0; k < 7; k++) out[k] = result(1 + k);
  unpack(sums, first, a, net, out);
  return ffi::Error::Success();
}

}  // namespace

// clang-format off
XLA_FFI_DEFINE_HANDLER_SYMBOL(LatentRate, Rate, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().RemainingArgs().RemainingRets()
    .Attr<int64_t>("n_threads"));
// clang-format on
