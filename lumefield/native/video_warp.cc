// Motion-compensated prediction: pictures read at displaced places with 8 x 8 taps, in two forms.
//
// Fitting (XLA FFI call): values and their slopes by the displacement, in floats.
//   Inputs  picture[C,H+32,W+32] with 16 repeated cells around it, flow[2,H,W] (x, y, in sixteenths of a pixel),
//           taps[16,8] and their slopes[16,8].
//   Outputs value[C,H,W], slope by x[C,H,W], slope by y[C,H,W], per sixteenth.
// Decoding (plain C functions, called without jax): exact integers, what the NumPy twin codecs/neural/_motion.py says.
// A pixel is one lane of eight: its eight rows of eight cells are first summed down, then across.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

#include "ints.h"
#include "parallel.h"
namespace ffi = xla::ffi;

namespace {

constexpr int MAX_UPSAMPLED = (1 << 17) - 1;
constexpr int TAPS = 8, PHASES = 16, PAD = 16, REACH = 8;  // cells beyond the edge that are told apart

// The sums of the lanes of three vectors, in lanes 0 to 2.
inline __m128 across(__m256 a, __m256 b, __m256 c) {
  auto half = [](__m256 v) { return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)); };
  const __m128 z = half(c);
  return _mm_hadd_ps(_mm_hadd_ps(half(a), half(b)), _mm_hadd_ps(z, z));
}
inline __m128i across(__m256i a, __m256i b, __m256i c) {
  auto half = [](__m256i v) { return _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)); };
  const __m128i z = half(c);
  return _mm_hadd_epi32(_mm_hadd_epi32(half(a), half(b)), _mm_hadd_epi32(z, z));
}

// Sixteenths of a pixel along an axis: first cell in the padded picture, and phase.
inline void place(int at, int moved, int size, int& cell, int& phase) {
  const int x = std::min(std::max(at * PHASES + moved, -REACH * PHASES), (size - 1 + REACH) * PHASES);
  cell = (x >> 4) + PAD - 3;
  phase = x & 15;
}

using F32 = ffi::Buffer<ffi::F32>;

ffi::Error Warp(ffi::ThreadPool threads, F32 picture, F32 flow, F32 taps, F32 slopes, ffi::ResultBuffer<ffi::F32> value,
                ffi::ResultBuffer<ffi::F32> by_x, ffi::ResultBuffer<ffi::F32> by_y, int64_t n_threads) {
  Pool pool(threads, n_threads);
  auto d = picture.dimensions(), e = flow.dimensions();
  if (d.size() != 3 || e.size() != 3 || e[0] != 2 || d[1] != e[1] + 2 * PAD || d[2] != e[2] + 2 * PAD ||
      taps.element_count() != TAPS * PHASES || slopes.element_count() != TAPS * PHASES)
    return ffi::Error::InvalidArgument("the warp takes a picture with 16 cells around it and a flow of its size");
  const int channels = (int)d[0], h = (int)e[1], w = (int)e[2], stride = w + 2 * PAD;
  const size_t plane = (size_t)(h + 2 * PAD) * stride, pixels = (size_t)h * w;
  const float *from = picture.typed_data(), *fx = flow.typed_data(), *fy = fx + pixels;
  const float *tap = taps.typed_data(), *slope = slopes.typed_data();
  float *out = value->typed_data(), *dx = by_x->typed_data(), *dy = by_y->typed_data();
  pool.run(h, [=](int r) {
    for (int c = 0; c < w; c++) {
      const size_t i = (size_t)r * w + c;
      int column, row, px, py;
      place(c, (int)std::floor(std::min(std::max(fx[i], -1e6f), 1e6f) + 0.5f), w, column, px);
      place(r, (int)std::floor(std::min(std::max(fy[i], -1e6f), 1e6f) + 0.5f), h, row, py);
      const __m256 tx = _mm256_loadu_ps(tap + TAPS * px), sx = _mm256_loadu_ps(slope + TAPS * px);
      const float *ty = tap + TAPS * py, *sy = slope + TAPS * py;
      for (int k = 0; k < channels; k++) {
        const float* p = from + k * plane + (size_t)row * stride + column;
        __m256 sum = _mm256_setzero_ps(), steep = sum;
#pragma GCC unroll 8
        for (int n = 0; n < TAPS; n++) {
          const __m256 cells = _mm256_loadu_ps(p + (size_t)n * stride);
          sum = _mm256_fmadd_ps(_mm256_broadcast_ss(ty + n), cells, sum);
          steep = _mm256_fmadd_ps(_mm256_broadcast_ss(sy + n), cells, steep);
        }
        alignas(16) float found[4];
        _mm_store_ps(found, across(_mm256_mul_ps(sum, tx), _mm256_mul_ps(sum, sx), _mm256_mul_ps(steep, tx)));
        out[k * pixels + i] = found[0];
        dx[k * pixels + i] = found[1];
        dy[k * pixels + i] = found[2];
      }
    }
  });
  return ffi::Error::Success();
}

// f(0) ... f(rows - 1) on up to `threads` threads.
template <class F>
void run_rows(int rows, int threads, const F& f) {
  std::atomic<int> next{0};
  auto work = [&] {
    for (int first; (first = next.fetch_add(8)) < rows;)
      for (int r = first; r < std::min(rows, first + 8); r++) f(r);
  };
  std::vector<std::thread> others;
  try {
    for (int i = 1; i < std::min(threads, (rows + 31) / 32); i++) others.emplace_back(work);
  } catch (const std::system_error&) {  // no more threads: those there are do the work
  }
  work();
  for (std::thread& other : others) other.join();
}

}  // namespace

// clang-format off
XLA_FFI_DEFINE_HANDLER_SYMBOL(VideoWarp, Warp, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Attr<int64_t>("n_threads"));
// clang-format on

// The blend of two displaced pictures. Pictures: [3, rows + 32, columns + 32]; `motion`: [5, rows, columns]
// displacement x, y, what is added to `ratio` / 256 times it for the second picture, and the blend, with 4 fractional
// bits beyond sixteenths or 1/256; `taps`: [16, 8], sums 128; `out`: [3, rows, columns].
extern "C" void lumefield_predict(int32_t rows, int32_t columns, const int32_t* first,
                                  const int32_t* second, const int32_t* motion, int32_t ratio, const int32_t* taps,
                                  int32_t* out, int32_t threads) {
  const int stride = columns + 2 * PAD;
  const size_t plane = (size_t)(rows + 2 * PAD) * stride, pixels = (size_t)rows * columns;
  run_rows(rows, threads, [=](int r) {
    for (int c = 0; c < columns; c++) {
      const size_t i = (size_t)r * columns + c;
      const int32_t x = motion[i], y = motion[pixels + i];
      const int32_t weight = clip((rshift(motion[4 * pixels + i], 4)) + 128, 0, 256);
      auto other = [&](int32_t v, int axis) {
        const int32_t sum = rshift(v * ratio, 8) + motion[(2 + axis) * pixels + i];
        return rshift(clip(sum, -MAX_UPSAMPLED, MAX_UPSAMPLED), 4);
      };
      const int32_t moved[2][2] = {{rshift(x, 4), rshift(y, 4)}, {other(x, 0), other(y, 1)}};
      alignas(16) int32_t found[2][4] = {};
      for (int k = 0; k < 2; k++) {
        if ((k == 0 ? weight : 256 - weight) == 0) continue;
        int column, row, px, py;
        place(c, moved[k][0], columns, column, px);
        place(r, moved[k][1], rows, row, py);
        const __m256i tx = _mm256_loadu_si256((const __m256i*)(taps + TAPS * px));
        const int32_t* ty = taps + TAPS * py;
        __m256i sums[3];
        for (int q = 0; q < 3; q++) {
          const int32_t* p = (k == 0 ? first : second) + q * plane + (size_t)row * stride + column;
          __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 8
          for (int n = 0; n < TAPS; n++) {
            const __m256i cells = _mm256_loadu_si256((const __m256i*)(p + (size_t)n * stride));
            sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(_mm256_set1_epi32(ty[n]), cells));
          }
          sums[q] = _mm256_mullo_epi32(sum, tx);
        }
        const __m128i total = _mm_add_epi32(across(sums[0], sums[1], sums[2]), _mm_set1_epi32(1 << 13));
        _mm_store_si128((__m128i*)found[k], _mm_srai_epi32(total, 14));
      }
      for (int q = 0; q < 3; q++)
        out[q * pixels + i] = rshift(found[0][q] * weight + found[1][q] * (256 - weight), 8);
    }
  });
}

// Planes [channels, rows, columns] at twice the size, cut to `h` x `w`: bilinear, columns first, edges repeated.
extern "C" void lumefield_doubled(int32_t channels, int32_t rows, int32_t columns, int32_t h, int32_t w,
                                  const int32_t* in, int32_t* out, int32_t threads) {
  run_rows(channels * h, threads, [=](int task) {
    const int q = task / h, r = task % h, near = r >> 1, far = std::min(std::max(near + (r & 1 ? 1 : -1), 0), rows - 1);
    const int32_t *a = in + ((size_t)q * rows + near) * columns, *b = in + ((size_t)q * rows + far) * columns;
    int32_t* to = out + (size_t)task * w;
    for (int c = 0; c < w; c++) {
      const int n = c >> 1, m = std::min(std::max(n + (c & 1 ? 1 : -1), 0), columns - 1);
      to[c] = rshift(3 * rshift(3 * a[n] + a[m], 2) + rshift(3 * b[n] + b[m], 2), 2);
    }
  });
}
