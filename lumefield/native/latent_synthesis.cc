// From upsampled latents to pixels, forward and backward, as XLA FFI calls.
//
// Inputs  x1[S,L] c1[S] x2[C,S] linear[C,L] c2[C] conv1[C,C,3,3] g1[C] conv2[C,C,3,3] g2[C], stack[L,H,W]; float32.
// Rules   fields/latent/_model.py, synthesise: v = clip(stack, +-128), h = clip(X1 v + c1, 0, 64),
//         z0 = clip(X2 h + Y v + c2, +-32), z1 = relu(z0 + conv1(z0) + g1), out = z1 + conv2(z1) + g2; the
//         convolutions are 3 x 3 and repeat the edges.
// Design  A lane is a pixel. Pictures are cut into bands of rows by their size alone; a band computes the few rows
//         of its neighbours that it needs for itself, in planes that fit the second-level cache. Forward keeps z0
//         and z1, backward computes h again. A band sums its own gradients of the parameters; bands are added in
//         order, so results do not depend on the number of threads.
#include "parallel.h"
#include "planar.h"
#include "scratch.h"
namespace ffi = xla::ffi;

namespace {

constexpr int MAX_L = 16, MAX_S = 32, MAX_C = 4, TAPS = 9;
constexpr int BAND = 32;    // rows
constexpr int BLOCK = 256;  // pixels of the pointwise network; a multiple of CHUNK
constexpr int PAD = 16;     // columns around a row
constexpr float CLIP_V = 128.f, CLIP_H = 64.f, CLIP_Z = 32.f;

struct Net {
  int levels, hidden, channels;
  // As given, transposed for `product`: rows are inputs.
  float x1[MAX_L * MAX_S], c1[MAX_S], top[(MAX_S + MAX_L) * MAX_C], c2[MAX_C];
  float conv[2][MAX_C * TAPS * MAX_C], g[2][MAX_C];
  // And for the way back: rows are outputs.
  float x2_back[MAX_C * MAX_S], v_back[(MAX_S + MAX_C) * MAX_L], conv_back[2][MAX_C * TAPS * MAX_C];
};

// Gradients of the parameters, summed over a band; columns are inputs and 1.
struct Sums {
  double x1[MAX_S * (MAX_L + 1)], top[MAX_C * (MAX_S + MAX_L + 1)], conv[2][MAX_C * (MAX_C * TAPS + 1)];
};

struct Picture {
  int h, w;
  int padded() const { return chunks_of(w); }
  int stride() const { return padded() + 2 * PAD; }
  size_t size() const { return (size_t)h * w; }
};

// Rows first ... first + n - 1 of all channels, with room around each row.
struct Plane {
  float* data;
  int stride, first, rows;
  float* row(int c, int r) const { return data + ((size_t)c * rows + r - first) * stride + PAD; }
};

Plane make_plane(Scratch& mem, const Picture& p, int channels, int from, int to) {
  from = std::max(from, 0), to = std::min(to, p.h);
  return {mem.take<float>((size_t)channels * (to - from) * p.stride()), p.stride(), from, to - from};
}

struct Store {
  float* const* to;
  void operator()(int j, int v, vf acc) const { store(to[j] + v * LANES, acc); }
};
struct Clipped {
  float* const* to;
  float low, high;
  void operator()(int j, int v, vf acc) const {
    store(to[j] + v * LANES, min_(splat(high), max_(splat(low), acc)));
  }
};
struct AddRelu {
  float *const *to, *const *more;
  void operator()(int j, int v, vf acc) const {
    store(to[j] + v * LANES, max_(zero(), acc + load(more[j] + v * LANES)));
  }
};
struct Add {
  float *const *to, *const *more;
  void operator()(int j, int v, vf acc) const { store(to[j] + v * LANES, acc + load(more[j] + v * LANES)); }
};
// Through clip(., low, high), whose result is at `from`.
struct Slope {
  float *const *to, *const *from;
  float low, high;
  void operator()(int j, int v, vf acc) const {
    vf x = load(from[j] + v * LANES);
    store(to[j] + v * LANES, keep(both(gt(x, splat(low)), gt(splat(high), x)), acc));
  }
};

// What the pointwise network of a task works with: rows of BLOCK pixels.
struct Desk {
  float *v[MAX_L], *h[MAX_S], *g_h[MAX_S], *g_v[MAX_L], *ones;
};

Desk make_desk(Scratch& mem, const Net& net) {
  float* block = mem.take<float>((size_t)(2 * net.levels + 2 * net.hidden + 1) * BLOCK);
  auto next = [&] { return std::exchange(block, block + BLOCK); };
  Desk d;
  for (int l = 0; l < net.levels; l++) d.v[l] = next(), d.g_v[l] = next();
  for (int s = 0; s < net.hidden; s++) d.h[s] = next(), d.g_h[s] = next();
  d.ones = next();
  std::fill(d.ones, d.ones + BLOCK, 1.f);
  return d;
}

// v and h of up to BLOCK pixels of row r from column c on; returns the number of vectors.
int pointwise(const Net& net, const Picture& p, const float* stack, int r, int c, Desk& d) {
  const int inside = std::min(BLOCK, p.w - c), n = chunks_of(inside) / LANES;
  for (int l = 0; l < net.levels; l++) {
    const float* from = stack + l * p.size() + (size_t)r * p.w + c;
    int i = 0;
    for (; i + LANES <= inside; i += LANES)
      store(d.v[l] + i, min_(splat(CLIP_V), max_(splat(-CLIP_V), load(from + i))));
    for (; i < n * LANES; i++) d.v[l][i] = i < inside ? std::min(CLIP_V, std::max(-CLIP_V, from[i])) : 0.f;
  }
  product(d.v, net.levels, net.x1, net.hidden, net.c1, n, Clipped{d.h, 0.f, CLIP_H});
  return n;
}

// Nine shifted reads of each channel around row r; rows outside repeat the edge.
void neighbours(const Net& net, const Picture& p, const Plane& z, int r, const float** in) {
  for (int c = 0; c < net.channels; c++)
    for (int dy = -1; dy <= 1; dy++)
      for (int dx = -1; dx <= 1; dx++) *in++ = z.row(c, std::clamp(r + dy, 0, p.h - 1)) + dx;
}

void repeat_edges(float* row, int w) { row[-1] = row[0], row[w] = row[w - 1]; }

void rows_of(const Net& net, const Plane& z, int r, float** rows) {
  for (int c = 0; c < net.channels; c++) rows[c] = z.row(c, r);
}

struct Kept {
  float *out, *z0, *z1;  // z0 and z1 may be null
};

void forward_band(const Net& net, const Picture& p, const float* stack, int band, Kept kept) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  Desk d = make_desk(*mem, net);
  const int from = band * BAND, to = std::min(p.h, from + BAND), channels = net.channels;
  Plane z0 = make_plane(*mem, p, channels, from - 2, to + 2), z1 = make_plane(*mem, p, channels, from - 1, to + 1);
  Plane out = make_plane(*mem, p, channels, from, from + 1);
  const int n = p.padded() / LANES;
  const float* in[MAX_C * TAPS];
  float *a[MAX_C], *b[MAX_C];
  for (int r = z0.first; r < z0.first + z0.rows; r++) {
    for (int c = 0; c < p.w; c += BLOCK) {
      const int vectors = pointwise(net, p, stack, r, c, d);
      const float* all[MAX_S + MAX_L];
      std::copy(d.h, d.h + net.hidden, all);
      std::copy(d.v, d.v + net.levels, all + net.hidden);
      for (int k = 0; k < channels; k++) a[k] = z0.row(k, r) + c;
      product(all, net.hidden + net.levels, net.top, channels, net.c2, vectors, Clipped{a, -CLIP_Z, CLIP_Z});
    }
    for (int k = 0; k < channels; k++) repeat_edges(z0.row(k, r), p.w);
  }
  for (int r = z1.first; r < z1.first + z1.rows; r++) {
    neighbours(net, p, z0, r, in);
    rows_of(net, z1, r, a), rows_of(net, z0, r, b);
    product(in, channels * TAPS, net.conv[0], channels, net.g[0], n, AddRelu{a, b});
    for (int k = 0; k < channels; k++) repeat_edges(a[k], p.w);
  }
  rows_of(net, out, from, a);
  for (int r = from; r < to; r++) {
    neighbours(net, p, z1, r, in);
    rows_of(net, z1, r, b);
    product(in, channels * TAPS, net.conv[1], channels, net.g[1], n, Add{a, b});
    for (int k = 0; k < channels; k++) {
      const size_t at = k * p.size() + (size_t)r * p.w, bytes = p.w * sizeof(float);
      memcpy(kept.out + at, a[k], bytes);
      if (!kept.z0) continue;
      memcpy(kept.z0 + at, z0.row(k, r), bytes);
      memcpy(kept.z1 + at, b[k], bytes);
    }
  }
}

// A plane of rows of a [C,H,W] array; around them the edge repeats, or zeros.
Plane read_plane(Scratch& mem, const Net& net, const Picture& p, const float* all, int from, int to, bool edges) {
  Plane z = make_plane(mem, p, net.channels, from, to);
  for (int c = 0; c < net.channels; c++)
    for (int r = z.first; r < z.first + z.rows; r++) {
      float* row = z.row(c, r);
      memcpy(row, all + c * p.size() + (size_t)r * p.w, p.w * sizeof(float));
      std::fill(row + p.w, row + p.padded() + 1, 0.f);
      row[-1] = 0;
      if (edges) repeat_edges(row, p.w);
    }
  return z;
}

// g + the transpose of a convolution with repeated edges applied to g, at row r; zeros around the result.
void conv_back(const Net& net, const Picture& p, const float* weights, const Plane& g, int r, float* room,
               float* const* to) {
  const float* rows[MAX_C * 3];
  for (int c = 0; c < net.channels; c++)
    for (int dy = -1; dy <= 1; dy++) {
      const int q = r - dy;  // the row whose output saw this one at dy; an edge row sees itself there too
      const bool inside = q >= 0 && q < p.h, edge = (dy < 0 && r == 0) || (dy > 0 && r == p.h - 1);
      float* sum = room + (size_t)(c * 3 + dy + 1) * p.stride() + PAD;
      if (inside && edge) {
        for (int i = -1; i <= p.padded(); i++) sum[i] = g.row(c, q)[i] + g.row(c, r)[i];
      } else if (!inside && !edge) {
        std::fill(sum - 1, sum + p.padded() + 1, 0.f);
      }
      rows[c * 3 + dy + 1] = inside == edge ? sum : g.row(c, inside ? q : r);
    }
  const float* in[MAX_C * TAPS];
  float* same[MAX_C];
  rows_of(net, g, r, same);
  for (int k = 0; k < net.channels * 3; k++)
    for (int dx = -1; dx <= 1; dx++) in[k * 3 + dx + 1] = rows[k] - dx;
  product(in, net.channels * TAPS, weights, net.channels, nullptr, p.padded() / LANES, Add{to, same});
  for (int c = 0; c < net.channels; c++) {
    for (int k = 0; k < net.channels * 3; k++) {  // an edge column sees itself one further out
      to[c][0] += weights[(k * 3) * net.channels + c] * rows[k][0];
      to[c][p.w - 1] += weights[(k * 3 + 2) * net.channels + c] * rows[k][p.w - 1];
    }
    to[c][-1] = 0;
    std::fill(to[c] + p.w, to[c] + p.padded() + 1, 0.f);
  }
}

// Sets to zero what a clip held back.
void through_clip(float* g, const float* result, float low, float high, int n) {
  for (int v = 0; v < n; v++) {
    vf x = load(result + v * LANES);
    store(g + v * LANES, keep(both(gt(x, splat(low)), gt(splat(high), x)), load(g + v * LANES)));
  }
}

// The pointwise network of one row: gradients of its parameters and of the stack from those of z0.
void pointwise_back(const Net& net, const Picture& p, const float* stack, int r, float* const* g_z, float* g_stack,
                    Desk& d, Sums& sums) {
  const int channels = net.channels, hidden = net.hidden, levels = net.levels;
  for (int c = 0; c < p.w; c += BLOCK) {
    const int n = pointwise(net, p, stack, r, c, d);
    const float *top[MAX_C], *in[MAX_S + MAX_L + 1], *back[MAX_S + MAX_C];
    for (int k = 0; k < channels; k++) top[k] = g_z[k] + c;
    std::copy(d.h, d.h + hidden, in);
    std::copy(d.v, d.v + levels, in + hidden);
    in[hidden + levels] = d.ones;
    outer(top, channels, in, hidden + levels + 1, n, sums.top);
    product(top, channels, net.x2_back, hidden, nullptr, n, Slope{d.g_h, d.h, 0.f, CLIP_H});
    outer(d.g_h, hidden, in + hidden, levels + 1, n, sums.x1);
    std::copy(d.g_h, d.g_h + hidden, back);
    std::copy(top, top + channels, back + hidden);
    product(back, hidden + channels, net.v_back, levels, nullptr, n, Slope{d.g_v, d.v, -CLIP_V, CLIP_V});
    const size_t at = (size_t)r * p.w + c, bytes = std::min(BLOCK, p.w - c) * sizeof(float);
    for (int l = 0; l < levels; l++) memcpy(g_stack + l * p.size() + at, d.g_v[l], bytes);
  }
}

struct Saved {
  const float *stack, *z0, *z1, *g;
};

void backward_band(const Net& net, const Picture& p, Saved saved, int band, float* g_stack, Sums& sums) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  memset(&sums, 0, sizeof(Sums));
  Desk d = make_desk(*mem, net);
  const int from = band * BAND, to = std::min(p.h, from + BAND), channels = net.channels, n = p.padded() / LANES;
  Plane g_out = read_plane(*mem, net, p, saved.g, from - 2, to + 2, false);
  Plane z1 = read_plane(*mem, net, p, saved.z1, from - 1, to + 1, true);
  Plane z0 = read_plane(*mem, net, p, saved.z0, from - 1, to + 1, true);
  Plane g1 = make_plane(*mem, p, channels, from - 1, to + 1), g0 = make_plane(*mem, p, channels, from, from + 1);
  float* room = (*mem).take<float>((size_t)channels * 3 * p.stride());
  float* ones = (*mem).take<float>(p.stride());
  std::fill(ones, ones + p.stride(), 1.f);
  float* rows[MAX_C];
  auto weights = [&](const Plane& z, const Plane& g, int r, double* out) {
    const float* in[MAX_C * TAPS + 1];
    neighbours(net, p, z, r, in);
    in[channels * TAPS] = ones;
    rows_of(net, g, r, rows);
    outer(rows, channels, in, channels * TAPS + 1, n, out);
  };
  for (int r = g1.first; r < g1.first + g1.rows; r++) {
    rows_of(net, g1, r, rows);
    conv_back(net, p, net.conv_back[1], g_out, r, room, rows);
    for (int k = 0; k < channels; k++) through_clip(rows[k], z1.row(k, r), 0.f, INFINITY, n);
    if (r >= from && r < to) weights(z1, g_out, r, sums.conv[1]);
  }
  for (int r = from; r < to; r++) {
    weights(z0, g1, r, sums.conv[0]);
    rows_of(net, g0, from, rows);
    conv_back(net, p, net.conv_back[0], g1, r, room, rows);
    for (int k = 0; k < channels; k++) through_clip(rows[k], z0.row(k, r), -CLIP_Z, CLIP_Z, n);
    pointwise_back(net, p, saved.stack, r, rows, g_stack, d, sums);
  }
}

using F32 = ffi::Buffer<ffi::F32>;
using Out = ffi::ResultBuffer<ffi::F32>;

struct Parameters {
  F32 x1, c1, x2, linear, c2, conv1, g1, conv2, g2;
};

// The network in the order that `product` wants, and the size of the picture; an empty message when all fits.
const char* read(const Parameters& q, const F32& stack, Net& net, Picture& p) {
  const int s = net.hidden = (int)q.x1.dimensions()[0], l = net.levels = (int)q.x1.dimensions()[1];
  const int c = net.channels = (int)q.x2.dimensions()[0];
  if (s > MAX_S || l > MAX_L || c > MAX_C) return "the synthesis kernel takes 16 levels, 32 features, 4 channels";
  if ((int)stack.dimensions()[0] != l) return "the stack has one plane per level";
  p = {(int)stack.dimensions()[1], (int)stack.dimensions()[2]};
  const float *x1 = q.x1.typed_data(), *x2 = q.x2.typed_data(), *linear = q.linear.typed_data();
  for (int j = 0; j < s; j++) {
    for (int k = 0; k < l; k++) net.x1[k * s + j] = net.v_back[j * l + k] = x1[j * l + k];
    for (int o = 0; o < c; o++) net.top[j * c + o] = net.x2_back[o * s + j] = x2[o * s + j];
    net.c1[j] = q.c1.typed_data()[j];
  }
  for (int o = 0; o < c; o++) {
    for (int k = 0; k < l; k++) net.top[(s + k) * c + o] = net.v_back[(s + o) * l + k] = linear[o * l + k];
    net.c2[o] = q.c2.typed_data()[o];
    net.g[0][o] = q.g1.typed_data()[o], net.g[1][o] = q.g2.typed_data()[o];
  }
  const float* conv[2] = {q.conv1.typed_data(), q.conv2.typed_data()};
  for (int m = 0; m < 2; m++)
    for (int o = 0; o < c; o++)
      for (int i = 0; i < c; i++)
        for (int t = 0; t < TAPS; t++) {
          const float w = conv[m][(o * c + i) * TAPS + t];
          net.conv[m][(i * TAPS + t) * c + o] = net.conv_back[m][(o * TAPS + t) * c + i] = w;
        }
  return "";
}

ffi::Error Forward(ffi::ThreadPool threads, F32 x1, F32 c1, F32 x2, F32 linear, F32 c2, F32 conv1, F32 g1, F32 conv2,
                   F32 g2, F32 stack, ffi::RemainingRets rets, int64_t n_threads) {
  Pool pool(threads, n_threads);
  Net net;
  Picture p;
  const char* wrong = read({x1, c1, x2, linear, c2, conv1, g1, conv2, g2}, stack, net, p);
  if (*wrong) return ffi::Error::InvalidArgument(wrong);
  auto result = [&](size_t k) {
    auto out = rets.get<F32>(k);
    return out.has_value() ? (*out)->typed_data() : nullptr;
  };
  Kept kept = {result(0), rets.size() == 3 ? result(1) : nullptr, rets.size() == 3 ? result(2) : nullptr};
  pool.run((p.h + BAND - 1) / BAND, [&](int b) { forward_band(net, p, stack.typed_data(), b, kept); });
  return ffi::Error::Success();
}

// out[j][k] = the sum of column k of row j over the bands; the last column goes to `bias`.
template <class F>
void add_up(const Sums* sums, int bands, F part, int outputs, int inputs, int from, int to, float* out, float* bias) {
  for (int j = 0; j < outputs; j++)
    for (int k = from; k < inputs; k++) {
      if (k >= to && k < inputs - 1) continue;
      double total = 0;
      for (int b = 0; b < bands; b++) total += part(sums[b])[j * inputs + k];
      if (k < to) out[j * (to - from) + k - from] = (float)total;
      if (k == inputs - 1 && bias) bias[j] = (float)total;
    }
}

ffi::Error Backward(ffi::ThreadPool threads, F32 x1, F32 c1, F32 x2, F32 linear, F32 c2, F32 conv1, F32 g1, F32 conv2,
                    F32 g2, F32 stack, F32 z0, F32 z1, F32 g, ffi::RemainingRets rets, int64_t n_threads) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  Pool pool(threads, n_threads);
  Net net;
  Picture p;
  const char* wrong = read({x1, c1, x2, linear, c2, conv1, g1, conv2, g2}, stack, net, p);
  if (*wrong) return ffi::Error::InvalidArgument(wrong);
  float* out[10];
  for (int k = 0; k < 10; k++) {
    auto r = rets.get<F32>(k);
    if (!r.has_value()) return ffi::Error::InvalidArgument("the synthesis kernel returns ten gradients");
    out[k] = (*r)->typed_data();
  }
  const int bands = (p.h + BAND - 1) / BAND, s = net.hidden, l = net.levels, c = net.channels;
  Sums* sums = (*mem).take<Sums>(bands);
  Saved saved = {stack.typed_data(), z0.typed_data(), z1.typed_data(), g.typed_data()};
  pool.run(bands, [&](int b) { backward_band(net, p, saved, b, out[9], sums[b]); });
  auto x = [](const Sums& q) { return q.x1; };
  auto top = [](const Sums& q) { return q.top; };
  auto first = [](const Sums& q) { return q.conv[0]; };
  auto second = [](const Sums& q) { return q.conv[1]; };
  const int taps = c * TAPS;
  add_up(sums, bands, x, s, l + 1, 0, l, out[0], out[1]);
  add_up(sums, bands, top, c, s + l + 1, 0, s, out[2], nullptr);
  add_up(sums, bands, top, c, s + l + 1, s, s + l, out[3], out[4]);
  add_up(sums, bands, first, c, taps + 1, 0, taps, out[5], out[6]);
  add_up(sums, bands, second, c, taps + 1, 0, taps, out[7], out[8]);
  return ffi::Error::Success();
}

}  // namespace

// clang-format off
#define PARAMETERS Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>()
XLA_FFI_DEFINE_HANDLER_SYMBOL(SynthesisForward, Forward, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .PARAMETERS.Arg<F32>().RemainingRets().Attr<int64_t>("n_threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(SynthesisBackward, Backward, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .PARAMETERS.Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().RemainingRets().Attr<int64_t>("n_threads"));
// clang-format on
