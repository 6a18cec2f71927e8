// Products of bfloat16 matrices, tile by tile, by tile registers (Intel AMX) or, where there are none, by dot products
// of pairs (AVX512-BF16: AMD from Zen 4 on). All of it is compiled for both instruction sets (by GCC), whatever the
// library is built for: call it only where unit() is not NONE, and include it last.
//
// C[16][16] += A[16][32] B[32][16] is one instruction of AMX, 256 of the other. A tiles hold rows, B tiles pairs of
// rows (B[2p][c], B[2p+1][c] side by side). Matrices lie tile by tile, 1 KB each, so that the depth is contiguous: A
// tile (r, k) is number r * depth + k, B tile (k, c) number c * depth + k.
#pragma once
#include <cstdint>
#include <cstring>

#include "simd.h"

#if LANES == 16 && defined(__linux__) && !defined(__clang__) && __GNUC__ >= 11
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#define HAS_TILES 1
#else
#define HAS_TILES 0
#endif

enum class Unit { NONE, PAIRS, TILES };

// What this CPU multiplies such tiles by, if the system lets this process do so.
static Unit unit() {
#if HAS_TILES
  static const Unit found = [] {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return Unit::NONE;        // AVX512-BF16
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d >> 22 & 5) != 5) return Unit::PAIRS;  // AMX-BF16, AMX-TILE
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0 ? Unit::TILES : Unit::PAIRS;
  }();
  return found;
#else
  return Unit::NONE;
#endif
}

#if HAS_TILES
#pragma GCC push_options
#pragma GCC target("amx-tile,amx-bf16,avx512bf16")

typedef uint16_t bf16;
constexpr int TILE = 512;  // bf16 of a tile

// All eight tile registers as 16 rows of 64 bytes, for as long as this lives.
struct Tiles {
  Tiles() {
    if (unit() != Unit::TILES) return;
    static const struct {
      uint8_t palette = 1, start = 0, none[14] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    static_assert(sizeof config == 64);
    _tile_loadconfig(&config);
  }
  ~Tiles() {
    if (unit() == Unit::TILES) _tile_release();
  }
};

// 32 floats as bf16, low half first.
static inline __m512i rounded(vf low, vf high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

// A tiles of `rows` rows of a [.., width] array, a multiple of 32 of them with 0 behind; `depth` tiles to a row.
static void to_tiles(const float* from, int rows, int width, int all_rows, int depth, bf16* to) {
  for (int r = 0; r < all_rows; r++) {
    bf16* at = to + (size_t)(r / 16) * depth * TILE + (r % 16) * 32;
    for (int k = 0; k < depth; k++, at += TILE) {
      const int left = r < rows ? std::clamp(width - 32 * k, 0, 32) : 0;
      const uint32_t mask = left == 32 ? ~0u : (1u << left) - 1;
      const float* p = from + (size_t)r * width + 32 * k;
      vf low = left ? _mm512_maskz_loadu_ps((vm)mask, p) : zero();
      vf high = left > 16 ? _mm512_maskz_loadu_ps((vm)(mask >> 16), p + 16) : zero();
      _mm512_store_si512(at, rounded(low, high));
    }
  }
}

// A 16 x 16 matrix of words, rows and columns exchanged.
static inline void turn(const __m512i* in, bf16* out) {
  __m512i a[16], b[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    a[2 * i] = _mm512_unpacklo_epi32(in[2 * i], in[2 * i + 1]);
    a[2 * i + 1] = _mm512_unpackhi_epi32(in[2 * i], in[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    b[4 * i] = _mm512_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
    b[4 * i + 1] = _mm512_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
    b[4 * i + 2] = _mm512_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
    b[4 * i + 3] = _mm512_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    __m512i p = _mm512_shuffle_i32x4(b[i], b[4 + i], 0x88), q = _mm512_shuffle_i32x4(b[8 + i], b[12 + i], 0x88);
    __m512i s = _mm512_shuffle_i32x4(b[i], b[4 + i], 0xDD), t = _mm512_shuffle_i32x4(b[8 + i], b[12 + i], 0xDD);
    _mm512_store_si512(out + 32 * i, _mm512_shuffle_i32x4(p, q, 0x88));
    _mm512_store_si512(out + 32 * (4 + i), _mm512_shuffle_i32x4(s, t, 0x88));
    _mm512_store_si512(out + 32 * (8 + i), _mm512_shuffle_i32x4(p, q, 0xDD));
    _mm512_store_si512(out + 32 * (12 + i), _mm512_shuffle_i32x4(s, t, 0xDD));
  }
}

static inline __m512i interleaving(int first) {
  alignas(64) uint16_t index[32];
  for (int i = 0; i < 16; i++) index[2 * i] = first + i, index[2 * i + 1] = 32 + first + i;
  return _mm512_load_si512(index);
}

// From A tiles of rows x depth (in tiles of 32): B tiles of the same matrix and A tiles of its transpose, where wanted.
static void pairs(const bf16* a, int rows32, int depth, bf16* b, bf16* turned) {
  const __m512i half[2] = {interleaving(0), interleaving(16)};
  for (int r = 0; r < rows32; r++)
    for (int k = 0; k < depth; k++)
      for (int side = 0; side < 2; side++) {
        __m512i words[16];
        for (int p = 0; p < 16; p++) {
          const bf16* from = a + ((size_t)(2 * r + p / 8) * depth + k) * TILE + (p % 8) * 64;
          words[p] = _mm512_permutex2var_epi16(_mm512_load_si512(from), half[side], _mm512_load_si512(from + 32));
        }
        const size_t tile = (size_t)(2 * k + side) * rows32 + r;
        if (b)
          for (int p = 0; p < 16; p++) _mm512_store_si512(b + tile * TILE + 32 * p, words[p]);
        if (turned) turn(words, turned + tile * TILE);
      }
}

// Loads of tiles are not known to the compiler as reads: what was stored before must be in memory.
static inline void settle() { __asm__ volatile("" ::: "memory"); }

// Four C tiles, two by two, at c, c + 256, below and below + 256.
struct Block {
  float *c, *below;
};

// Block (0 before if `fresh`) += two lines of A tiles from a, two of B tiles from b.
static inline void by_tiles(const bf16* a, const bf16* b, int depth, Block to, bool fresh) {
  const bf16 *a1 = a + (size_t)depth * TILE, *b1 = b + (size_t)depth * TILE;
  if (fresh) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, to.c, 64);
    _tile_loadd(1, to.c + 256, 64);
    _tile_loadd(2, to.below, 64);
    _tile_loadd(3, to.below + 256, 64);
  }
  for (int k = 0; k < depth; k++) {
    _tile_loadd(4, a + k * TILE, 64);
    _tile_loadd(6, b + k * TILE, 64);
    _tile_loadd(7, b1 + k * TILE, 64);
    _tile_loadd(5, a1 + k * TILE, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, to.c, 64);
  _tile_stored(1, to.c + 256, 64);
  _tile_stored(2, to.below, 64);
  _tile_stored(3, to.below + 256, 64);
}

// The same by dot products: ROWS rows of both columns at a time stay in registers.
static inline void by_pairs(const bf16* a, const bf16* b, int depth, Block to, bool fresh) {
  constexpr int ROWS = 8;
  const bf16* b1 = b + (size_t)depth * TILE;
  for (int first = 0; first < 32; first += ROWS) {
    const bf16* rows = a + first / 16 * (size_t)depth * TILE + first % 16 * 32;
    float* c = (first < 16 ? to.c : to.below) + first % 16 * 16;
    vf left[ROWS], right[ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
      left[r] = fresh ? zero() : load(c + 16 * r);
      right[r] = fresh ? zero() : load(c + 16 * r + 256);
    }
    for (int k = 0; k < depth; k++)
      for (int p = 0; p < 16; p++) {
        const __m512bh low = (__m512bh)_mm512_load_si512(b + k * TILE + 32 * p);
        const __m512bh high = (__m512bh)_mm512_load_si512(b1 + k * TILE + 32 * p);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
          int pair;
          memcpy(&pair, rows + k * TILE + r * 32 + 2 * p, sizeof pair);
          const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
          left[r] = _mm512_dpbf16_ps(left[r], both, low);
          right[r] = _mm512_dpbf16_ps(right[r], both, high);
        }
      }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) store(c + 16 * r, left[r]), store(c + 16 * r + 256, right[r]);
  }
}

static inline void multiply(const bf16* a, const bf16* b, int depth, Block to, bool fresh) {
  unit() == Unit::TILES ? by_tiles(a, b, depth, to, fresh) : by_pairs(a, b, depth, to, fresh);
}

// end(row, j, its 32 columns from 32 j on) for all rows and columns of a b.
template <class End>
static void product(const bf16* a, int rows32, int depth, const bf16* b, int width32, const End& end) {
  alignas(64) float c[4][256];
  const size_t line = (size_t)depth * TILE;
  settle();
  for (int j = 0; j < width32; j++)
    for (int i = 0; i < rows32; i++) {
      multiply(a + 2 * i * line, b + 2 * j * line, depth, {c[0], c[2]}, true);
      for (int r = 0; r < 32; r++) {
        const float* row = c[r / 16 * 2] + r % 16 * 16;
        end(32 * i + r, j, load(row), load(row + 256));
      }
    }
}

#pragma GCC pop_options
#endif
