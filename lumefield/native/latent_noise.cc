// Noisy stand-ins of rounded latents and their slopes, elementwise, as an XLA FFI call.
//
// Inputs  x[...], seed[2] (uint32), shape[2] (temperature T, deviation of the noise). Outputs y and dy/dx, of x's shape.
// Rules   fields/latent/_quantise.py, noisy, with the same random numbers: y = s(s(x) + n), where s is soft rounding
//         at temperature T and n noise that is nearly normal: the sum of the four bytes of a hash.
// Design  One pass over vectors. A random number is a hash of the seed and the element's place, so nothing depends
//         on how the work is cut.
#include <cmath>
#include <cstring>

#include "parallel.h"
#include "planar.h"
namespace ffi = xla::ffi;

namespace {

constexpr int CHUNK_SIZE = 1 << 14;  // elements per task; a multiple of LANES
constexpr float LOG2E = 1.44269504f;

typedef uint32_t vu __attribute__((vector_size(LANES * 4)));

vu mix(vu x) {  // Wellons, "Prospecting for Hash Functions", 2018: lowbias32
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

struct Shape {
  float temperature, half, spread;  // 1 / (2 tanh(1 / 2 T)), deviation of the noise / that of the sum of four bytes
  uint32_t seed[2];
};

vf floor_(vf x) {
  vf n = round_(x);
  return n - keep(gt(n, x), splat(1.f));
}

// Sums of four random bytes of the elements from `first` on, less their mean.
vf bell(const Shape& q, uint32_t first) {
  vu at;
  for (int i = 0; i < LANES; i++) at[i] = first + i;
  vu bits = mix(mix(at ^ q.seed[0]) + q.seed[1]);
  vu pairs = (bits & 0x00ff00ffu) + ((bits >> 8) & 0x00ff00ffu);
  typedef int32_t vs __attribute__((vector_size(LANES * 4)));
  return (vf)__builtin_convertvector((vs)((pairs & 0xffffu) + (pairs >> 16)), vf) - splat(510.f);
}

vf soft_round(const Shape& q, vf x, vf& slope) {
  const vf one = splat(1.f), t = splat(q.temperature), half = splat(q.half);
  vf middle = floor_(x) + splat(0.5f), r = (x - middle) / t;
  vf e = exp2_neg(splat(-2 * LOG2E) * abs_(r)), plus = one + e;
  vf tanh_r = (one - e) / plus;
  tanh_r = select(gt(zero(), r), zero() - tanh_r, tanh_r);
  slope = half / t * splat(4.f) * e / (plus * plus);  // 1 - tanh^2 = 4 e / (1 + e)^2
  return middle + half * tanh_r;
}

void noisy(const Shape& q, vf x, uint32_t first, vf& y, vf& slope) {
  vf inner, outer;
  x = soft_round(q, x, inner) + splat(q.spread) * bell(q, first);
  y = soft_round(q, x, outer);
  slope = inner * outer;
}

using F32 = ffi::Buffer<ffi::F32>;

ffi::Error Noise(ffi::ThreadPool threads, F32 x, ffi::Buffer<ffi::U32> seed, F32 shape, ffi::ResultBuffer<ffi::F32> y,
                 ffi::ResultBuffer<ffi::F32> slope, int64_t n_threads) {
  Pool pool(threads, n_threads);
  if (seed.element_count() != 2 || shape.element_count() != 2)
    return ffi::Error::InvalidArgument("the noise kernel takes a seed of two words, a temperature and a deviation");
  const double t = shape.typed_data()[0], deviation = shape.typed_data()[1];
  const Shape q = {(float)t, (float)(0.5 / std::tanh(0.5 / t)), (float)(deviation / std::sqrt((256.0 * 256 - 1) / 3)),
                   {seed.typed_data()[0], seed.typed_data()[1]}};
  const size_t n = x.element_count();
  const float* from = x.typed_data();
  float *to = y->typed_data(), *slopes = slope->typed_data();
  pool.run((int)((n + CHUNK_SIZE - 1) / CHUNK_SIZE), [=](int c) {
    const size_t last = std::min(n, (size_t)(c + 1) * CHUNK_SIZE);
    size_t i = (size_t)c * CHUNK_SIZE;
    for (vf a, b; i + LANES <= last; i += LANES) {
      noisy(q, load(from + i), (uint32_t)i, a, b);
      store(to + i, a), store(slopes + i, b);
    }
    if (i == last) return;
    float some[3][LANES] = {};
    memcpy(some[0], from + i, (last - i) * sizeof(float));
    vf a, b;
    noisy(q, load(some[0]), (uint32_t)i, a, b);
    store(some[1], a), store(some[2], b);
    memcpy(to + i, some[1], (last - i) * sizeof(float));
    memcpy(slopes + i, some[2], (last - i) * sizeof(float));
  });
  return ffi::Error::Success();
}

}  // namespace

// clang-format off
XLA_FFI_DEFINE_HANDLER_SYMBOL(LatentNoise, Noise, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().Arg<ffi::Buffer<ffi::U32>>().Arg<F32>().Ret<F32>().Ret<F32>().Attr<int64_t>("n_threads"));
// clang-format on
