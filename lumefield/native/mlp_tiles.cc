// Multilayer perceptrons whose products are of bfloat16 tiles (Intel AMX, AVX512-BF16), as XLA FFI calls.
//
// Inputs and rules as in mlp.cc, relu only. Factors of products are rounded to bfloat16; biases, sums, outputs and
// gradients of weights are float32.
// Design  As in mlp.cc samples go through the whole network in blocks, and backward computes its hidden activations
//         again. Products are those of tiles.h. Pairs of rows of samples are the B of h^T g, and turned as 16 x 16
//         words they are its A.
//         Chunks of samples depend on N alone, so gradients do not depend on the number of threads.
#include <cstdint>
#include <cstring>

#include "mlp_args.h"
#include "parallel.h"
#include "scratch.h"
#include "simd.h"
#include "tiles.h"
namespace ffi = xla::ffi;

extern "C" int lumefield_has_tiles() { return unit() != Unit::NONE; }

namespace {  // mlp.cc has types of the same names in the same library

constexpr int MAX_WIDTH = 512;

struct Layer {
  int in, out;
  const float *w, *bias;  // as given; bias may be null
  int in32() const { return (in + 31) / 32; }
  int out32() const { return (out + 31) / 32; }
  uint16_t *straight, *turned;  // B tiles of w and of w^T
  float* first;                 // bias, 0 in the padding
  size_t grad;                  // offset of its gradients: C tiles [in32 * 2][out32 * 2], then [out32 * 32]
};

struct Net {
  int layers = 0;
  size_t n = 0, grads = 0;
  Layer layer[MAX_LAYERS];
};

#if HAS_TILES
#pragma GCC push_options
#pragma GCC target("amx-tile,amx-bf16,avx512bf16")

constexpr int BLOCK = 128;        // samples; a multiple of 32
constexpr int CHUNK = 8 * BLOCK;  // samples with weight gradients of their own, unless there are too many chunks
constexpr int MAX_CHUNKS = 32;

// What becomes of 32 features of a row: `tiles` A tiles to a row.
struct Relu {
  const float* bias;
  bf16* out;
  int tiles;
  void operator()(int r, int j, vf low, vf high) const {
    low = max_(zero(), low + load(bias + 32 * j)), high = max_(zero(), high + load(bias + 32 * j + 16));
    _mm512_store_si512(out + ((size_t)(r / 16) * tiles + j) * TILE + r % 16 * 32, rounded(low, high));
  }
};
struct Slope {  // g where the hidden activation is not 0
  const bf16* hidden;
  bf16* out;
  int tiles;
  void operator()(int r, int j, vf low, vf high) const {
    const size_t at = ((size_t)(r / 16) * tiles + j) * TILE + r % 16 * 32;
    __m512i h = _mm512_load_si512(hidden + at);
    _mm512_store_si512(out + at, _mm512_maskz_mov_epi16(_mm512_test_epi16_mask(h, h), rounded(low, high)));
  }
};
struct Rows {  // to a [.., width] array of float32
  const float* bias;
  float* out;
  int rows, width;
  void operator()(int r, int j, vf low, vf high) const {
    const int left = width - 32 * j;
    if (r >= rows || left <= 0) return;
    if (bias) low = low + load(bias + 32 * j), high = high + load(bias + 32 * j + 16);
    const uint32_t mask = left >= 32 ? ~0u : (1u << left) - 1;
    float* p = out + (size_t)r * width + 32 * j;
    _mm512_mask_storeu_ps(p, (vm)mask, low);
    if (left > 16) _mm512_mask_storeu_ps(p + 16, (vm)(mask >> 16), high);
  }
};

// C tiles of h^T g added to those there are; h turned and g in pairs of samples.
static void add_gradients(const bf16* h, int in32, const bf16* g, int out32, float* grads) {
  constexpr int DEPTH = BLOCK / 32;
  constexpr size_t LINE = (size_t)DEPTH * TILE;
  settle();
  for (int i = 0; i < in32; i++)
    for (int j = 0; j < out32; j++) {
      float* c = grads + ((size_t)2 * i * 2 * out32 + 2 * j) * 256;
      multiply(h + 2 * i * LINE, g + 2 * j * LINE, DEPTH, {c, c + (size_t)2 * out32 * 256}, false);
    }
  float* bias = grads + (size_t)4 * in32 * out32 * 256;
  const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3F80);
  for (int c = 0; c < 2 * out32; c++) {
    vf sum[2] = {load(bias + 16 * c), zero()};
    for (int p = 0; p < BLOCK / 2; p++)
      sum[p % 2] = _mm512_dpbf16_ps(sum[p % 2], (__m512bh)_mm512_load_si512(g + c * LINE + 32 * p), ones);
    store(bias + 16 * c, sum[0] + sum[1]);
  }
}

static void pack(Net& net, Scratch& mem, bool backward) {
  for (int l = 0; l < net.layers; l++) {
    Layer& y = net.layer[l];
    const size_t size = (size_t)2 * y.in32() * y.out32() * TILE;
    bf16* tiles = mem.take<bf16>(size);
    y.straight = mem.take<bf16>(size);
    y.first = mem.take<float>(32 * y.out32());
    memset(y.first, 0, 32 * y.out32() * sizeof(float));
    if (y.bias) memcpy(y.first, y.bias, y.out * sizeof(float));
    to_tiles(y.w, y.in, y.out, 32 * y.in32(), y.out32(), tiles);
    pairs(tiles, y.in32(), y.out32(), y.straight, nullptr);
    y.grad = net.grads;
    net.grads += size + 32 * y.out32();
    if (!backward) continue;
    y.turned = mem.take<bf16>(size);
    // An A tile of w, turned as words, is a B tile of w^T: pairs of outputs, 16 inputs.
    for (int r = 0; r < 2 * y.in32(); r++)
      for (int k = 0; k < y.out32(); k++) {
        const size_t tile = (size_t)r * y.out32() + k;
        turn((const __m512i*)(tiles + tile * TILE), y.turned + tile * TILE);
      }
  }
}

static size_t chunk_size(size_t n, size_t least) {  // whole blocks
  return (std::max(least, (n + MAX_CHUNKS - 1) / MAX_CHUNKS) + BLOCK - 1) / BLOCK * BLOCK;
}

static void forward_chunk(const Net& net, const float* x, float* y, size_t at, size_t end) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  Tiles tiles;
  bf16* buffer[2];
  for (bf16*& b : buffer) b = (*mem).take<bf16>((size_t)BLOCK * MAX_WIDTH);
  for (; at < end; at += BLOCK) {
    const int rows = (int)std::min<size_t>(BLOCK, end - at), last = net.layers - 1;
    const int rows32 = (rows + 31) / 32;
    to_tiles(x + at * net.layer[0].in, rows, net.layer[0].in, 32 * rows32, net.layer[0].in32(), buffer[0]);
    for (int l = 0; l < last; l++) {
      const Layer& z = net.layer[l];
      Relu to = {z.first, buffer[(l + 1) % 2], z.out32()};
      product(buffer[l % 2], rows32, z.in32(), z.straight, z.out32(), to);
    }
    const Layer& z = net.layer[last];
    Rows to = {z.first, y + at * z.out, rows, z.out};
    product(buffer[last % 2], rows32, z.in32(), z.straight, z.out32(), to);
  }
}

static void backward_chunk(const Net& net, const float* x, const float* g_out, Wanted want, float* g_x, float* grads,
                           size_t at, size_t end) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  Tiles tiles;
  constexpr size_t SIZE = (size_t)BLOCK * MAX_WIDTH;
  constexpr int ROWS = BLOCK / 32;
  bf16 *h[MAX_LAYERS], *g[2], *turned = (*mem).take<bf16>(SIZE), *paired = (*mem).take<bf16>(SIZE);
  for (bf16*& b : g) b = (*mem).take<bf16>(SIZE);
  for (int l = 0; l < net.layers; l++) h[l] = (*mem).take<bf16>(SIZE);
  const int last = net.layers - 1;
  for (; at < end; at += BLOCK) {
    const int rows = (int)std::min<size_t>(BLOCK, end - at);
    to_tiles(x + at * net.layer[0].in, rows, net.layer[0].in, BLOCK, net.layer[0].in32(), h[0]);
    for (int l = 0; l < last; l++) {
      const Layer& y = net.layer[l];
      product(h[l], ROWS, y.in32(), y.straight, y.out32(), Relu{y.first, h[l + 1], y.out32()});
    }
    const Layer& top = net.layer[last];
    to_tiles(g_out + at * top.out, rows, top.out, BLOCK, top.out32(), g[last % 2]);
    for (int l = last; l >= 0; l--) {
      const Layer& y = net.layer[l];
      if (want.weights) {
        pairs(h[l], ROWS, y.in32(), nullptr, turned);
        pairs(g[l % 2], ROWS, y.out32(), paired, nullptr);
        add_gradients(turned, y.in32(), paired, y.out32(), grads + y.grad);
      }
      if (l) {
        product(g[l % 2], ROWS, y.out32(), y.turned, y.in32(), Slope{h[l], g[(l - 1) % 2], y.in32()});
      } else if (want.x) {
        product(g[0], ROWS, y.out32(), y.turned, y.in32(), Rows{nullptr, g_x + at * y.in, rows, y.in});
      }
    }
  }
}

static void forward(Pool& pool, Net& net, const float* x, float* y) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  pack(net, *mem, false);
  const size_t each = chunk_size(net.n, BLOCK);
  pool.run((int)((net.n + each - 1) / each), [&, x, y](int c) {
    forward_chunk(net, x, y, c * each, std::min(net.n, (c + 1) * each));
  });
}

static void backward(Pool& pool, Net& net, const float* x, const float* g_out, Wanted want, const Gradients& to) {
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  pack(net, *mem, true);
  const size_t each = chunk_size(net.n, CHUNK), n_grads = net.grads;
  const int chunks = (int)std::max<size_t>(1, (net.n + each - 1) / each);
  float* grads = (*mem).take<float>(want.weights ? n_grads * chunks : 0);
  pool.run(chunks, [&, grads](int c) {
    float* own = grads + c * n_grads;
    if (want.weights) memset(own, 0, n_grads * sizeof(float));
    backward_chunk(net, x, g_out, want, to.x, own, c * each, std::min(net.n, (c + 1) * each));
  });
  if (!want.weights) return;
  constexpr size_t SLICE = 4096;
  pool.run((int)((n_grads + SLICE - 1) / SLICE), [=](int s) {
    for (int c = 1; c < chunks; c++)
      for (size_t i = s * SLICE; i < std::min(n_grads, (s + 1) * SLICE); i++) grads[i] += grads[c * n_grads + i];
  });
  for (int l = 0; l < net.layers; l++) {
    const Layer& y = net.layer[l];
    const int across = 2 * y.out32();
    for (int i = 0; i < y.in; i++)
      for (int c = 0; c < across; c++) {
        const float* row = grads + y.grad + ((size_t)(i / 16) * across + c) * 256 + i % 16 * 16;
        const int left = std::clamp(y.out - 16 * c, 0, 16);
        memcpy(to.weights[l] + (size_t)i * y.out + 16 * c, row, left * sizeof(float));
      }
    const float* bias = grads + y.grad + (size_t)2 * y.in32() * across * 256;
    if (y.bias) memcpy(to.biases[l], bias, y.out * sizeof(float));
  }
}
#pragma GCC pop_options
#else
static void forward(Pool&, Net&, const float*, float*) {}
static void backward(Pool&, Net&, const float*, const float*, Wanted, const Gradients&) {}
#endif
}  // namespace

static const char NO_TILES[] = "this CPU does not multiply bfloat16 (AMX or AVX512-BF16)";

static ffi::Error Forward(ffi::ThreadPool threads, F32 x, ffi::RemainingArgs args, ffi::ResultBuffer<ffi::F32> y,
                          int64_t n_threads, int64_t layers, bool biased) {
  Pool pool(threads, n_threads);
  Net net;
  const std::string wrong = unit() != Unit::NONE ? read_net(args, (int)layers, biased, x, MAX_WIDTH, net) : NO_TILES;
  if (!wrong.empty()) return ffi::Error::InvalidArgument(wrong);
  forward(pool, net, x.typed_data(), y->typed_data());
  return ffi::Error::Success();
}

static ffi::Error Backward(ffi::ThreadPool threads, F32 x, F32 g, ffi::RemainingArgs args, ffi::RemainingRets rets,
                           int64_t n_threads, int64_t layers, bool biased, bool want_x, bool want_weights) {
  Pool pool(threads, n_threads);
  Net net;
  Gradients to;
  const Wanted want = {want_x, want_weights};
  std::string wrong = unit() != Unit::NONE ? read_net(args, (int)layers, biased, x, MAX_WIDTH, net) : NO_TILES;
  if (wrong.empty()) wrong = read_gradients(rets, net.layers, biased, want, to);
  if (!wrong.empty()) return ffi::Error::InvalidArgument(wrong);
  backward(pool, net, x.typed_data(), g.typed_data(), want, to);
  return ffi::Error::Success();
}

// clang-format off
XLA_FFI_DEFINE_HANDLER_SYMBOL(MlpTilesForward, Forward, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().RemainingArgs().Ret<F32>()
    .Attr<int64_t>("n_threads").Attr<int64_t>("layers").Attr<bool>("biased"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(MlpTilesBackward, Backward, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().Arg<F32>().RemainingArgs().RemainingRets()
    .Attr<int64_t>("n_threads").Attr<int64_t>("layers").Attr<bool>("biased")
    .Attr<bool>("want_x").Attr<bool>("want_weights"));
// clang-format on
