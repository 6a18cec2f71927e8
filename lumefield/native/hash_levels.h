// Levels of a multiresolution grid: their shape, and where samples lie in them.
#pragma once
#include <algorithm>

#include "simd.h"
#include "xla/ffi/api/ffi.h"

typedef int32_t ints __attribute__((vector_size(4 * LANES)));

static const int64_t FITS = 1 << 18;  // floats of a level's table above which entries are prefetched
static const uint32_t PRIMES[4] = {1u, 2654435761u, 805459861u, 3674653429u};

struct Level {
  float half;        // cells / 2: x + 1 times half counts cells
  int32_t last;      // the last cell
  bool dense, big;   // index by row, column, ...; else by hash. big: prefetch
  uint32_t mult[4];  // what one step along an axis adds, to the index or to the hashed coordinate
  uint32_t mask;
  int64_t offset, floats;  // of the level's entries in the table
};

// The levels of a grid of the given cells per axis, as the Python side lays them out (_hash_encode.py, Levels).
static inline int64_t make_levels(xla::ffi::Span<const int64_t> cells, int d, int64_t capacity, Level* out) {
  int64_t offset = 0;
  for (size_t l = 0; l < cells.size(); l++) {
    Level& q = out[l];
    int64_t entries = 1, side = cells[l] + 1;
    for (int k = 0; k < d; k++) entries = std::min(entries * side, capacity + 1);
    q.dense = entries <= capacity;
    entries = q.dense ? entries : capacity;
    q.half = 0.5f * cells[l], q.last = (int32_t)cells[l] - 1, q.mask = (uint32_t)(capacity - 1);
    q.mult[0] = 1;
    for (int k = 1; k < d; k++) q.mult[k] = q.dense ? (uint32_t)(q.mult[k - 1] * side) : PRIMES[k];
    q.offset = 2 * offset, q.floats = 2 * entries, q.big = q.floats > FITS;
    offset += entries;
  }
  return offset;
}

// The cell of LANES samples as multiples of the level's steps, and the place in the cell: in [0, 1] inside the grid.
template <int D>
static inline void place(const Level& q, const float* u, int64_t stride, ints* cell, vf* f) {
  for (int k = 0; k < D; k++) {
    vf p = load(u + k * stride) * splat(q.half);
    ints i = __builtin_convertvector(p, ints), none = i ^ i, last = none + q.last;
    i = i > none ? i : none;  // also what a NaN converts to
    i = i < last ? i : last;
    f[k] = p - (vf)__builtin_convertvector(i, vf);
    cell[k] = i * (int32_t)q.mult[k];
  }
}

// Index of corner number m: bit k of m is the step along axis k.
template <int D>
static inline ints corner(const Level& q, const ints* cell, int m) {
  ints i = cell[0] + ((m & 1) ? (int32_t)q.mult[0] : 0);
  if (q.dense) {
    for (int k = 1; k < D; k++) i += cell[k] + ((m >> k & 1) ? (int32_t)q.mult[k] : 0);
    return i;
  }
  for (int k = 1; k < D; k++) i ^= cell[k] + ((m >> k & 1) ? (int32_t)q.mult[k] : 0);
  return i & (int32_t)q.mask;
}
