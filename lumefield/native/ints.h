// Vectors of LANES int32 with the compiler's own operators, and the two things these lack: the sum of two
// 16-bit products per lane, and clips. Everything is exact; nothing here depends on rounding.
#pragma once
#include <cstdint>
#include <cstring>

#include "simd.h"

typedef int32_t vint __attribute__((vector_size(4 * LANES)));

static inline vint ints(int32_t x) { return vint{} + x; }
static inline vint load_ints(const int32_t* p) {
  vint v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
static inline void store_ints(int32_t* p, vint v) { std::memcpy(p, &v, sizeof v); }
static inline vint clip(vint v, int32_t lo, int32_t hi) {
  v = v < lo ? ints(lo) : v;
  return v > hi ? ints(hi) : v;
}
static inline int32_t clip(int32_t v, int32_t lo, int32_t hi) { return v < lo ? lo : v > hi ? hi : v; }
// v / 2^n to the nearest integer, halves up.
template <class V>
static inline V rshift(V v, int n) {
  return (v + (1 << (n - 1))) >> n;
}
// Two 16-bit numbers in one lane, low half first.
static inline int32_t pair(int32_t low, int32_t high) { return (low & 0xFFFF) | (int32_t)((uint32_t)high << 16); }
static inline vint pair(vint low, vint high) { return (low & 0xFFFF) | (high << 16); }
// low * low + high * high of the pairs in each lane.
static inline vint dot(vint a, vint b) {
#if LANES == 16
  return (vint)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#else
  return (vint)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#endif
}
static inline int round_up(int n) { return (n + LANES - 1) / LANES * LANES; }
