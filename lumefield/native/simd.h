// One vector type of the width that fits the instruction set, and the few operations the kernels need.
// AVX-512: 16 lanes and mask registers. AVX2: 8 lanes and full-width masks. Arithmetic uses the
// compiler's operators on vector types; a * b + c becomes one FMA under -ffp-contract=fast.
// Never build with -ffast-math: exp2_neg relies on exact rounding.
#pragma once
#include <immintrin.h>

#include <cstdint>

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define LANES 16
typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;
static inline vf splat(float x) { return _mm512_set1_ps(x); }
static inline vf zero() { return _mm512_setzero_ps(); }
static inline vf load(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, vf v) { _mm512_storeu_ps(p, v); }
static inline vf min_(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf max_(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf sqrt_(vf a) { return _mm512_sqrt_ps(a); }
static inline vm le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
static inline vm gt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
static inline vm gt(vm m, vf a, vf b) { return _mm512_mask_cmp_ps_mask(m, a, b, _CMP_GT_OQ); }
static inline bool any(vm m) { return m != 0; }
static inline vm both(vm a, vm b) { return a & b; }
static inline vm either(vm a, vm b) { return a | b; }
static inline vf keep(vm m, vf a) { return _mm512_maskz_mov_ps(m, a); }  // a where m, else 0
static inline vf select(vm m, vf a, vf b) { return _mm512_mask_mov_ps(b, m, a); }
static inline vf keep_min(vm m, vf a, vf b) { return _mm512_maskz_min_ps(m, a, b); }  // keep(m, min_(a, b))
static inline vf keep_mul(vm m, vf a, vf b) { return _mm512_maskz_mul_ps(m, a, b); }
static inline vf keep_sub_mul(vm m, vf c, vf a, vf b) { return _mm512_maskz_fnmadd_ps(m, a, b, c); }  // c - a b
static inline vf abs_(vf a) { return _mm512_abs_ps(a); }
static inline float sum(vf v) { return _mm512_reduce_add_ps(v); }
static inline vf ramp() {
  return _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
}
static inline vf gather(const float* p, int stride) {  // p[0], p[stride], p[2 stride], ...
  vi i = _mm512_mullo_epi32(_mm512_cvtps_epi32(ramp()), _mm512_set1_epi32(stride));
  return _mm512_i32gather_ps(i, p, 4);
}
static inline void scatter(float* p, int stride, vf v) {
  vi i = _mm512_mullo_epi32(_mm512_cvtps_epi32(ramp()), _mm512_set1_epi32(stride));
  _mm512_i32scatter_ps(p, i, v, 4);
}
// 1 / x to float precision for normal x: the 14-bit estimate and one Newton step.
static inline vf recip(vf x) {
  vf r = _mm512_rcp14_ps(x);
  return r * (splat(2.f) - x * r);
}
static inline vf scale2(vf p, vf n) { return _mm512_scalef_ps(p, n); }
static inline vf round_(vf x) { return _mm512_roundscale_ps(x, 0); }
// Sums over the lanes of eight vectors at once, as eight floats.
static inline void sum8(const vf* v, float* out) {
  auto pair = [](vf a, vf b) { return _mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b); };
  auto quad = [](vf a, vf b) {
    __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return _mm512_castpd_ps(_mm512_unpacklo_pd(x, y)) + _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
  };
  vf p = quad(pair(v[0], v[1]), pair(v[2], v[3]));
  vf q = quad(pair(v[4], v[5]), pair(v[6], v[7]));
  vf r = _mm512_shuffle_f32x4(p, q, 0x44) + _mm512_shuffle_f32x4(p, q, 0xEE);  // p0+p2 p1+p3 q0+q2 q1+q3
  vf s = r + _mm512_shuffle_f32x4(r, r, 0xB1);
  _mm_storeu_ps(out, _mm512_castps512_ps128(s));
  _mm_storeu_ps(out + 4, _mm512_extractf32x4_ps(s, 2));
}
#elif defined(__AVX2__) && defined(__FMA__)
#define LANES 8
typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm;
static inline vf splat(float x) { return _mm256_set1_ps(x); }
static inline vf zero() { return _mm256_setzero_ps(); }
static inline vf load(const float* p) { return _mm256_loadu_ps(p); }
static inline void store(float* p, vf v) { _mm256_storeu_ps(p, v); }
static inline vf min_(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf max_(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf sqrt_(vf a) { return _mm256_sqrt_ps(a); }
static inline vm le(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
static inline vm gt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
static inline vm both(vm a, vm b) { return _mm256_and_ps(a, b); }
static inline vm either(vm a, vm b) { return _mm256_or_ps(a, b); }
static inline vm gt(vm m, vf a, vf b) { return both(m, gt(a, b)); }
static inline bool any(vm m) { return _mm256_movemask_ps(m) != 0; }
static inline vf keep(vm m, vf a) { return _mm256_and_ps(m, a); }
static inline vf select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }
static inline vf keep_min(vm m, vf a, vf b) { return keep(m, min_(a, b)); }
static inline vf keep_mul(vm m, vf a, vf b) { return keep(m, a * b); }
static inline vf keep_sub_mul(vm m, vf c, vf a, vf b) { return keep(m, c - a * b); }
static inline vf abs_(vf a) { return _mm256_andnot_ps(splat(-0.f), a); }
static inline vf ramp() { return _mm256_set_ps(7, 6, 5, 4, 3, 2, 1, 0); }
static inline vf gather(const float* p, int stride) {
  vi i = _mm256_mullo_epi32(_mm256_cvtps_epi32(ramp()), _mm256_set1_epi32(stride));
  return _mm256_i32gather_ps(p, i, 4);
}
static inline void scatter(float* p, int stride, vf v) {
  float t[8];
  store(t, v);
  for (int i = 0; i < 8; i++) p[i * stride] = t[i];
}
static inline vf recip(vf x) { return splat(1.f) / x; }
static inline vf round_(vf x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf scale2(vf p, vf n) {  // p * 2^n; n below -126 gives 0
  n = max_(n, splat(-127.f));
  vi e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return p * _mm256_castsi256_ps(e);
}
static inline float sum(vf v) {
  __m128 a = _mm256_castps256_ps128(v) + _mm256_extractf128_ps(v, 1);
  a = a + _mm_movehl_ps(a, a);
  return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}
static inline void sum8(const vf* v, float* out) {
  vf p = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
  vf q = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
  store(out, _mm256_permute2f128_ps(p, q, 0x20) + _mm256_permute2f128_ps(p, q, 0x31));
}
#else
#error "the native kernels need AVX-512 or AVX2 with FMA"
#endif

// As many doubles as a vector has floats, for the few sums that must not round.
typedef double vd __attribute__((vector_size(LANES * sizeof(double))));
static inline vd wide(vf a) { return __builtin_convertvector(a, vd); }
static inline vf narrow(vd a) { return (vf)__builtin_convertvector(a, vf); }

// 2^x for x <= 0 (very negative x gives 0): nearest integer n, then a polynomial in x - n on
// [-1/2, 1/2]; minimax coefficients of 2^f in the relative error, largest error 2e-7 with rounding.
static inline vf exp2_neg(vf x) {
  vf n = round_(x), f = x - n;
  vf p = splat(1.3240888e-3f);
  p = p * f + splat(9.674739e-3f);
  p = p * f + splat(5.5508375e-2f);
  p = p * f + splat(0.24022155f);
  p = p * f + splat(0.6931469f);
  p = p * f + splat(1.f);
  return scale2(p, n);
}
