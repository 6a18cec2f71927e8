// Small multilayer perceptrons, forward and backward, as XLA FFI calls.
//
// Inputs  x[N,i], then per layer weights[in,out], then (biased) per layer bias[out].
// Rules   h = act(h W + b) for all layers but the last, which is linear. act: relu (slope 0 at 0) or sine.
// Design  Samples go through the whole network in blocks of BLOCK rows, so activations stay in L1 and L2
//         (the idea of the fully fused MLP of Mueller et al. 2021, for a CPU). A lane is an output
//         feature; a tile of ROWS samples x V vectors is accumulated in registers, and the same tile
//         code does all three products: h W, g W^T and h^T g. Backward recomputes the hidden
//         activations of its block: nothing is stored between forward and backward but the inputs.
//         Samples are cut into chunks by N alone; a chunk sums its own weight gradients and the chunks
//         are added in order, so gradients do not depend on the number of threads.
#include <cstring>

#include "mlp_args.h"
#include "parallel.h"
#include "scratch.h"
#include "simd.h"
#include "sine.h"
namespace ffi = xla::ffi;

constexpr int BLOCK = 96;      // samples; a multiple of every ROWS
constexpr int MAX_CHUNKS = 64;  // of samples, each with weight gradients of its own
constexpr int MAX_WIDTH = 128;
constexpr int SLACK = 16;  // a tile may read this many features, or write this many rows, too many

#if LANES == 16
constexpr int VECTORS = 4;
constexpr int rows_of(int v) { return v == 4 ? 6 : 8; }
#else
constexpr int VECTORS = 2;
constexpr int rows_of(int v) { return v == 2 ? 6 : 8; }
#endif

static int padded(int n) { return (n + LANES - 1) / LANES * LANES; }

// What becomes of a finished vector of a tile: row r, first feature c.
struct Linear {
  float* out;
  size_t stride;
  void operator()(int r, int c, vf acc) const { store(out + r * stride + c, acc); }
};
struct Relu : Linear {  // max_ with 0 first keeps a nan
  void operator()(int r, int c, vf acc) const { store(out + r * stride + c, max_(zero(), acc)); }
};
struct Sine : Linear {
  void operator()(int r, int c, vf acc) const { store(out + r * stride + c, sin_(acc)); }
};
struct SineAndSlope : Linear {
  float* slope;
  void operator()(int r, int c, vf acc) const {
    store(out + r * stride + c, sin_(acc));
    store(slope + r * stride + c, cos_(acc));
  }
};
struct ReluSlope : Linear {
  const float* hidden;
  void operator()(int r, int c, vf acc) const {
    store(out + r * stride + c, keep(gt(load(hidden + r * stride + c), zero()), acc));
  }
};
struct SineSlope : Linear {
  const float* slope;
  void operator()(int r, int c, vf acc) const {
    store(out + r * stride + c, acc * load(slope + r * stride + c));
  }
};
struct Add : Linear {
  void operator()(int r, int c, vf acc) const {
    float* p = out + r * stride + c;
    store(p, load(p) + acc);
  }
};

// V vectors of columns from c on: end(r, c, init[c] + sum over k of a(r, k) w[k][c]), all rows r, in tiles.
// a(r, k) is a[r stride + k], or with TURNED a[k stride + r]. The last tile may do rows too many.
template <int V, bool TURNED, class End>
static void columns(const float* a, size_t stride, int rows, int depth, const float* w, size_t w_stride,
                    const float* init, int c, const End& end) {
  constexpr int R = rows_of(V);
  const float* b = w + c;
  for (int r0 = 0; r0 < rows; r0 += R) {
    vf acc[R][V];
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) {
      vf first = init ? load(init + c + v * LANES) : zero();
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) acc[r][v] = first;
    }
    const float* from = a + (TURNED ? r0 : r0 * stride);
    for (int k = 0; k < depth; k++) {
      vf col[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) col[v] = load(b + k * w_stride + v * LANES);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        vf x = splat(TURNED ? from[k * stride + r] : from[r * stride + k]);
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) acc[r][v] = acc[r][v] + x * col[v];
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) end(r0 + r, c + v * LANES, acc[r][v]);
  }
}

template <bool TURNED = false, class End>
static void product(const float* a, size_t stride, int rows, int depth, const float* w, int width,
                    const float* init, const End& end) {
  for (int c = 0; c < width; c += VECTORS * LANES) {
    switch (std::min(VECTORS, (width - c) / LANES)) {
      case 1: columns<1, TURNED>(a, stride, rows, depth, w, width, init, c, end); break;
      case 2: columns<2, TURNED>(a, stride, rows, depth, w, width, init, c, end); break;
#if LANES == 16
      case 3: columns<3, TURNED>(a, stride, rows, depth, w, width, init, c, end); break;
      case 4: columns<4, TURNED>(a, stride, rows, depth, w, width, init, c, end); break;
#endif
    }
  }
}

struct Layer {
  int in, out, in_pad, out_pad;
  const float *w, *bias;  // as given; bias may be null
  float *packed, *turned, *first;  // [in][out_pad], [out][in_pad], bias [out_pad]; 0 in the padding
  size_t grad;            // offset of its gradients: [in + SLACK][out_pad], then [out_pad]
};

struct Net {
  int layers = 0;
  size_t n = 0, grads = 0;
  Layer layer[MAX_LAYERS];
  int d_in() const { return layer[0].in; }
  int d_out() const { return layer[layers - 1].out; }
  int widest() const {
    int w = 0;
    for (int l = 0; l < layers; l++) w = std::max({w, layer[l].in_pad, layer[l].out_pad});
    return w;
  }
  int chunks() const { return (int)std::clamp<size_t>((n + BLOCK - 1) / BLOCK, 1, MAX_CHUNKS); }
  size_t chunk_size() const {  // whole blocks
    size_t each = (n + chunks() - 1) / chunks();
    return (each + BLOCK - 1) / BLOCK * BLOCK;
  }
  void pack(Scratch& mem, bool backward) {
    for (int l = 0; l < layers; l++) {
      Layer& y = layer[l];
      y.in_pad = padded(y.in), y.out_pad = padded(y.out);
      y.packed = mem.take<float>((size_t)y.in * y.out_pad);
      y.first = mem.take<float>(y.out_pad);
      memset(y.packed, 0, (size_t)y.in * y.out_pad * sizeof(float));
      memset(y.first, 0, y.out_pad * sizeof(float));
      for (int i = 0; i < y.in; i++) memcpy(y.packed + i * y.out_pad, y.w + i * y.out, y.out * sizeof(float));
      if (y.bias) memcpy(y.first, y.bias, y.out * sizeof(float));
      if (!backward) continue;
      y.turned = mem.take<float>((size_t)y.out * y.in_pad);
      memset(y.turned, 0, (size_t)y.out * y.in_pad * sizeof(float));
      for (int i = 0; i < y.in; i++)
        for (int o = 0; o < y.out; o++) y.turned[o * y.in_pad + i] = y.w[i * y.out + o];
      y.grad = grads;
      grads += (size_t)(y.in + SLACK + 1) * y.out_pad;
    }
  }
};

// Rows of a [N, width] array as a block: the array itself where tiles may read all they like, else a copy
// with zeros behind, padded to `stride`.
static const float* block_of(const float* all, int width, int stride, size_t at, size_t end, int rows, float* buffer) {
  const float* from = all + at * width;
  if (stride == width && rows == BLOCK && (end - at - rows) * width >= SLACK) return from;
  memset(buffer, 0, ((size_t)BLOCK * stride + SLACK) * sizeof(float));
  for (int r = 0; r < rows; r++) memcpy(buffer + (size_t)r * stride, from + (size_t)r * width, width * sizeof(float));
  return buffer;
}

// The product of a block, to rows of `width` in a [N, width] array.
static void product_out(const float* a, int stride, int rows, int depth, const float* w, int padded_width,
                        const float* init, float* out, int width, float* buffer) {
  bool direct = width == padded_width && rows == BLOCK;
  Linear end = {direct ? out : buffer, (size_t)padded_width};
  product(a, stride, rows, depth, w, padded_width, init, end);
  if (direct) return;
  const size_t bytes = width * sizeof(float);
  for (int r = 0; r < rows; r++) memcpy(out + (size_t)r * width, buffer + (size_t)r * padded_width, bytes);
}

template <bool SINE>
static void forward_chunk(const Net& net, const float* x, float* y, size_t at, size_t end) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  const int wide = net.widest();
  float* buffer[3];
  for (float*& b : buffer) b = (*mem).take<float>((size_t)BLOCK * wide + SLACK);
  for (; at < end; at += BLOCK) {
    const int rows = (int)std::min<size_t>(BLOCK, end - at);
    const float* h = block_of(x, net.d_in(), net.d_in(), at, net.n, rows, buffer[2]);
    int stride = net.d_in();
    for (int l = 0; l + 1 < net.layers; l++) {
      const Layer& y = net.layer[l];
      Linear to = {buffer[l % 2], (size_t)y.out_pad};
      if (SINE) {
        product(h, stride, rows, y.in, y.packed, y.out_pad, y.first, Sine{to});
      } else {
        product(h, stride, rows, y.in, y.packed, y.out_pad, y.first, Relu{to});
      }
      h = buffer[l % 2], stride = y.out_pad;
    }
    const Layer& last = net.layer[net.layers - 1];
    product_out(h, stride, rows, last.in, last.packed, last.out_pad, last.first, y + at * last.out, last.out,
                buffer[net.layers > 1 ? 2 : 0]);
  }
}

// Gradients of the weights of one layer from its inputs and the gradient of its outputs.
static void add_gradients(const Layer& y, const float* h, int stride, const float* g, int rows, float* grads) {
  float* out = grads + y.grad;
  Add end = {{out, (size_t)y.out_pad}};
  product<true>(h, stride, y.in, rows, g, y.out_pad, nullptr, end);
  float* bias = out + (size_t)(y.in + SLACK) * y.out_pad;
  for (int c = 0; c < y.out_pad; c += LANES) {
    vf sum[4] = {zero(), zero(), zero(), zero()};
    int r = 0;
    for (; r + 4 <= rows; r += 4)
      for (int j = 0; j < 4; j++) sum[j] = sum[j] + load(g + (size_t)(r + j) * y.out_pad + c);
    for (; r < rows; r++) sum[0] = sum[0] + load(g + (size_t)r * y.out_pad + c);
    store(bias + c, load(bias + c) + ((sum[0] + sum[1]) + (sum[2] + sum[3])));
  }
}

template <bool SINE>
static void backward_chunk(const Net& net, const float* x, const float* g_out, Wanted want, float* g_x, float* grads,
                           size_t at, size_t end) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  const size_t size = (size_t)BLOCK * net.widest() + SLACK;
  float *in = (*mem).take<float>(size), *g_buffer[2], *hidden[MAX_LAYERS], *slope[MAX_LAYERS];
  for (float*& b : g_buffer) b = (*mem).take<float>(size);
  for (int l = 0; l + 1 < net.layers; l++) {
    hidden[l] = (*mem).take<float>(size);
    slope[l] = SINE ? (*mem).take<float>(size) : hidden[l];
  }
  const int last = net.layers - 1;
  for (; at < end; at += BLOCK) {
    const int rows = (int)std::min<size_t>(BLOCK, end - at);
    const float* x_block = block_of(x, net.d_in(), net.d_in(), at, net.n, rows, in);
    for (int l = 0; l < last; l++) {
      const Layer& y = net.layer[l];
      const float* h = l ? hidden[l - 1] : x_block;
      const int stride = l ? y.in_pad : y.in;
      Linear to = {hidden[l], (size_t)y.out_pad};
      if (SINE) {
        product(h, stride, rows, y.in, y.packed, y.out_pad, y.first, SineAndSlope{to, slope[l]});
      } else {
        product(h, stride, rows, y.in, y.packed, y.out_pad, y.first, Relu{to});
      }
    }
    const Layer& top = net.layer[last];
    const float* g = block_of(g_out, top.out, top.out_pad, at, net.n, rows, g_buffer[last % 2]);
    for (int l = last; l >= 0; l--) {
      const Layer& y = net.layer[l];
      if (want.weights) {
        add_gradients(y, l ? hidden[l - 1] : x_block, l ? y.in_pad : y.in, g, rows, grads);
      }
      if (l == 0) break;
      Linear to = {g_buffer[(l - 1) % 2], (size_t)y.in_pad};
      if (SINE) {
        product(g, y.out_pad, rows, y.out, y.turned, y.in_pad, nullptr, SineSlope{to, slope[l - 1]});
      } else {
        product(g, y.out_pad, rows, y.out, y.turned, y.in_pad, nullptr, ReluSlope{to, slope[l - 1]});
      }
      g = to.out;
    }
    const Layer& bottom = net.layer[0];
    if (want.x) {
      product_out(g, bottom.out_pad, rows, bottom.out, bottom.turned, bottom.in_pad, nullptr,
                  g_x + at * bottom.in, bottom.in, in);
    }
  }
}

template <bool SINE>
static void forward(Pool& pool, Net& net, const float* x, float* y) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  net.pack(*mem, false);
  const size_t each = net.chunk_size();
  pool.run(net.chunks(), [&, x, y](int c) {
    forward_chunk<SINE>(net, x, y, c * each, std::min(net.n, (c + 1) * each));
  });
}

template <bool SINE>
static void backward(Pool& pool, Net& net, const float* x, const float* g_out, Wanted want, const Gradients& to) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  net.pack(*mem, true);
  const size_t each = net.chunk_size(), n_grads = net.grads;
  const int chunks = net.chunks();
  float* grads = (*mem).take<float>(want.weights ? n_grads * chunks : 0);
  pool.run(chunks, [&, grads](int c) {
    float* own = grads + c * n_grads;
    if (want.weights) memset(own, 0, n_grads * sizeof(float));
    backward_chunk<SINE>(net, x, g_out, want, to.x, own, c * each, std::min(net.n, (c + 1) * each));
  });
  if (!want.weights) return;
  constexpr size_t SLICE = 1024;
  pool.run((int)((n_grads + SLICE - 1) / SLICE), [=](int s) {
    for (int c = 1; c < chunks; c++)
      for (size_t i = s * SLICE; i < std::min(n_grads, (s + 1) * SLICE); i++) grads[i] += grads[c * n_grads + i];
  });
  for (int l = 0; l < net.layers; l++) {
    const Layer& y = net.layer[l];
    const float* from = grads + y.grad;
    for (int i = 0; i < y.in; i++)
      memcpy(to.weights[l] + (size_t)i * y.out, from + (size_t)i * y.out_pad, y.out * sizeof(float));
    if (y.bias) memcpy(to.biases[l], from + (size_t)(y.in + SLACK) * y.out_pad, y.out * sizeof(float));
  }
}

static ffi::Error Forward(ffi::ThreadPool threads, F32 x, ffi::RemainingArgs args, ffi::ResultBuffer<ffi::F32> y,
                          int64_t n_threads, int64_t layers, bool biased, bool sine) {
  Pool pool(threads, n_threads);
  Net net;
  const std::string wrong = read_net(args, (int)layers, biased, x, MAX_WIDTH, net);
  if (!wrong.empty()) return ffi::Error::InvalidArgument(wrong);
  (sine ? forward<true> : forward<false>)(pool, net, x.typed_data(), y->typed_data());
  return ffi::Error::Success();
}

static ffi::Error Backward(ffi::ThreadPool threads, F32 x, F32 g, ffi::RemainingArgs args, ffi::RemainingRets rets,
                           int64_t n_threads, int64_t layers, bool biased, bool sine, bool want_x, bool want_weights) {
  Pool pool(threads, n_threads);
  Net net;
  Gradients to;
  const Wanted want = {want_x, want_weights};
  std::string wrong = read_net(args, (int)layers, biased, x, MAX_WIDTH, net);
  if (wrong.empty()) wrong = read_gradients(rets, net.layers, biased, want, to);
  if (!wrong.empty()) return ffi::Error::InvalidArgument(wrong);
  (sine ? backward<true> : backward<false>)(pool, net, x.typed_data(), g.typed_data(), want, to);
  return ffi::Error::Success();
}

// clang-format off
XLA_FFI_DEFINE_HANDLER_SYMBOL(MlpForward, Forward, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().RemainingArgs().Ret<F32>()
    .Attr<int64_t>("n_threads").Attr<int64_t>("layers").Attr<bool>("biased").Attr<bool>("sine"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(MlpBackward, Backward, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().Arg<F32>().RemainingArgs().RemainingRets()
    .Attr<int64_t>("n_threads").Attr<int64_t>("layers").Attr<bool>("biased").Attr<bool>("sine")
    .Attr<bool>("want_x").Attr<bool>("want_weights"));
// clang-format on
