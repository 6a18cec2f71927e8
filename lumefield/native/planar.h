// Small networks over blocks of pixels: a lane is a pixel, a feature is a row of numbers that may lie anywhere, so
// the neighbours of a pixel are the same row read elsewhere. Work is cut into tiles that stay in registers.
#pragma once
#include <algorithm>
#include <cstring>

#include "simd.h"

constexpr int STEP = 4;  // blocks are a multiple of this many vectors
constexpr int CHUNK = STEP * LANES;

// Pixels rounded up to whole chunks.
static inline int chunks_of(int w) { return (w + CHUNK - 1) / CHUNK * CHUNK; }

#if LANES == 16
constexpr int TILE = 12;  // outputs of a product's tile, at most
constexpr int vectors_of(int outputs) { return outputs <= 6 ? 4 : 2; }
constexpr int OUTER = 6;  // second factors of an outer product's tile, with four first ones
#else
constexpr int TILE = 6;
constexpr int vectors_of(int outputs) { return outputs <= 3 ? 4 : 2; }
constexpr int OUTER = 2;
#endif

template <int J, class End>
static inline void product_tile(const float* const* in, int depth, const float* w, int outputs, const float* init,
                                int first, int n, const End& end) {
  constexpr int V = vectors_of(J);
  w += first;
  for (int at = 0; at < n; at += V) {
    vf acc[J][V];
#pragma GCC unroll 16
    for (int j = 0; j < J; j++) {
      vf start = init ? splat(init[first + j]) : zero();
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) acc[j][v] = start;
    }
    for (int k = 0; k < depth; k++) {
      const float* p = in[k] + at * LANES;
      vf x[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) x[v] = load(p + v * LANES);
#pragma GCC unroll 16
      for (int j = 0; j < J; j++) {
        vf c = splat(w[k * outputs + j]);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) acc[j][v] = acc[j][v] + c * x[v];
      }
    }
#pragma GCC unroll 16
    for (int j = 0; j < J; j++)
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) end(first + j, at + v, acc[j][v]);
  }
}

template <int J, class End>
static inline void product_of(int width, const float* const* in, int depth, const float* w, int outputs,
                              const float* init, int first, int n, const End& end) {
  if (width == J) {
    product_tile<J>(in, depth, w, outputs, init, first, n, end);
  } else if constexpr (J > 1) {
    product_of<J - 1>(width, in, depth, w, outputs, init, first, n, end);
  }
}

// end(j, v, init[j] + sum over k of w[k][j] in[k][v]) for all outputs j and vectors v < n, a multiple of STEP.
template <class End>
static void product(const float* const* in, int depth, const float* w, int outputs, const float* init, int n,
                    const End& end) {
  const int tiles = (outputs + TILE - 1) / TILE;
  for (int t = 0; t < tiles; t++) {
    const int first = outputs * t / tiles, width = outputs * (t + 1) / tiles - first;
    product_of<TILE>(width, in, depth, w, outputs, init, first, n, end);
  }
}

template <int J, int K>
static inline void outer_tile(const float* const* g, const float* const* x, int n, double* sums, int stride) {
  vf acc[J * K];
#pragma GCC unroll 32
  for (int i = 0; i < J * K; i++) acc[i] = zero();
  for (int v = 0; v < n; v++) {
    vf b[K];
#pragma GCC unroll 8
    for (int k = 0; k < K; k++) b[k] = load(x[k] + v * LANES);
#pragma GCC unroll 8
    for (int j = 0; j < J; j++) {
      vf a = load(g[j] + v * LANES);
#pragma GCC unroll 8
      for (int k = 0; k < K; k++) acc[j * K + k] = acc[j * K + k] + a * b[k];
    }
  }
  constexpr int PADDED = (J * K + 7) / 8 * 8;
  float total[PADDED];
#pragma GCC unroll 4
  for (int i = 0; i < PADDED; i += 8) {
    vf part[8];
#pragma GCC unroll 8
    for (int m = 0; m < 8; m++) part[m] = i + m < J * K ? acc[std::min(i + m, J * K - 1)] : zero();
    sum8(part, total + i);
  }
  for (int j = 0; j < J; j++)
    for (int k = 0; k < K; k++) sums[j * stride + k] += total[j * K + k];
}

template <int J>
static inline void outer_rows(const float* const* g, const float* const* x, int inputs, int n, double* sums) {
  int k = 0;
  for (; k + OUTER <= inputs; k += OUTER) outer_tile<J, OUTER>(g, x + k, n, sums + k, inputs);
  for (; k + 2 <= inputs; k += 2) outer_tile<J, 2>(g, x + k, n, sums + k, inputs);
  for (; k < inputs; k++) outer_tile<J, 1>(g, x + k, n, sums + k, inputs);
}

// sums[j][k] += sum over n vectors of g[j] x[k]: the gradient of the weights of a product.
static void outer(const float* const* g, int outputs, const float* const* x, int inputs, int n, double* sums) {
  int j = 0;
  for (; j + 4 <= outputs; j += 4) outer_rows<4>(g + j, x, inputs, n, sums + j * inputs);
  if (outputs - j == 3) return outer_rows<3>(g + j, x, inputs, n, sums + j * inputs);
  for (; j + 2 <= outputs; j += 2) outer_rows<2>(g + j, x, inputs, n, sums + j * inputs);
  for (; j < outputs; j++) outer_rows<1>(g + j, x, inputs, n, sums + j * inputs);
}

// log2 of positive normal numbers, to 2e-7 absolute for x near 1 and relative elsewhere.
static inline vf log2_(vf x) {
#if LANES == 16
  vf m = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_zero);
  vf e = _mm512_getexp_ps(x) + keep(gt(splat(1.f), m), splat(1.f));
#else
  vi bits = _mm256_castps_si256(x), offset = _mm256_set1_epi32(0x3f400000);  // of 0.75
  vi shift = _mm256_srai_epi32(_mm256_sub_epi32(bits, offset), 23);
  vf e = _mm256_cvtepi32_ps(shift);
  vf m = _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(shift, 23)));
#endif
  vf s = (m - splat(1.f)) / (m + splat(1.f)), q = s * s;  // log m = 2 artanh s, |s| <= 1/5
  vf p = splat(2.f / 11 * 1.44269504f);
  p = p * q + splat(2.f / 9 * 1.44269504f);
  p = p * q + splat(2.f / 7 * 1.44269504f);
  p = p * q + splat(2.f / 5 * 1.44269504f);
  p = p * q + splat(2.f / 3 * 1.44269504f);
  p = p * q + splat(2.f * 1.44269504f);
  return e + s * p;
}
