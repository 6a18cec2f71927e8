// Tile lists of depth-sorted Gaussians, the same for any number of threads.
//
// 1. Cull: opacity below 1/255, or the ellipse sigma = cut outside the image.
// 2. Sort the visible depths once (stable radix sort: ties keep input order).
// 3. Gather them into records in depth order; each names, per tile row, the span of tiles its ellipse meets (exact ellipse-row test).
// 4. Counting sort into tiles: chunks of Gaussians count in parallel, a prefix over (tile, chunk)
//    gives every chunk its own cursor, so the order inside a tile is the depth order.
#pragma once
#include <cmath>
#include <cstring>

#include "parallel.h"
#include "scratch.h"
#include "simd.h"

static const int TILE_W = LANES, TILE_H = LANES == 16 ? 16 : 8;
static const float ALPHA_MIN = 1.f / 255, ALPHA_MAX = 0.999f, T_MIN = 1e-4f;
static const float HALF_LOG2E = 0.849321800288019f;  // sqrt(log2(e) / 2)
static const float LOG2E = 1.44269504088896341f;

// What a tile loop reads of a Gaussian: 32 bytes and C values. sigma * log2(e) = (u dx + v dy)^2 + (w dy)^2.
template <int C>
struct alignas(16) Record {
  float x, y, u, v, w;
  float log2_opacity;
  float cut;  // sigma * log2(e) above this means alpha < 1/255
  float half_height;
  float values[C];
};

struct Inputs {
  int n, height, width;
  const float *xy, *factor, *opacity, *depth;
};

struct Bins {
  int tiles_x, tiles_y;
  int visible;      // number of visible Gaussians
  int* order;       // [visible] front to back: input index
  int total;        // number of slots
  int* start;       // [tiles + 1] first slot of each tile
  int* items;       // [total] slot -> position in order
  int* first_slot;  // [visible + 1] position in order -> first entry of slots
  int* slots;       // [total] the slots of each Gaussian (only when asked for)
  int tiles() const { return tiles_x * tiles_y; }
};

struct Extent {
  float half_width, half_height;
};

static inline Extent extent(float cut_nat, const float* f) {
  float k = std::sqrt(2 * cut_nat), u = f[0], v = f[1], w = f[2];
  return {k * std::sqrt(w * w + v * v) / (u * w), k / w};
}

static inline bool visible(const Inputs& in, int i) {
  float o = in.opacity[i];
  if (!(o >= ALPHA_MIN)) return false;
  Extent e = extent(std::log(255.f * o), in.factor + 3 * i);
  float x = in.xy[2 * i], y = in.xy[2 * i + 1];
  return x + e.half_width > 0 && x - e.half_width < in.width && y + e.half_height > 0 &&
         y - e.half_height < in.height;
}

static const int CHUNKS = 16;
static inline int chunk_begin(int n, int c) { return (int)((int64_t)n * c / CHUNKS); }

// Indices of the visible Gaussians sorted by depth; ties keep input order. order has room for in.n.
static inline int sort_visible(Pool& pool, Scratch& mem, const Inputs& in, int* order) {
  uint64_t *key = mem.take<uint64_t>(in.n), *tmp = mem.take<uint64_t>(in.n);  // depth << 32 | index
  int count[CHUNKS];
  pool.run(CHUNKS, [&, key](int c) {
    int a = chunk_begin(in.n, c), b = chunk_begin(in.n, c + 1), n = a;
    for (int i = a; i < b; i++) {
      if (!visible(in, i)) continue;
      int32_t d;  // float bits; negative depths (ortho) are mirrored so that they sort as integers
      memcpy(&d, in.depth + i, 4);
      uint32_t bits = d < 0 ? ~(uint32_t)d : (uint32_t)d | 0x80000000u;
      key[n++] = (uint64_t)bits << 32 | (uint32_t)i;
    }
    count[c] = n - a;
  });
  int m = 0;
  uint32_t h[3][2048] = {};
  for (int c = 0; c < CHUNKS; c++)
    for (int i = chunk_begin(in.n, c), e = i + count[c]; i < e; i++) {
      uint64_t k = key[i];
      uint32_t d = (uint32_t)(k >> 32);
      h[0][d & 2047]++, h[1][(d >> 11) & 2047]++, h[2][d >> 22]++;
      key[m++] = k;
    }
  for (int p = 0; p < 3; p++) {
    uint32_t total = 0;
    for (int i = 0; i < 2048; i++) {
      uint32_t c = h[p][i];
      h[p][i] = total;
      total += c;
    }
    for (int i = 0; i < m; i++) tmp[h[p][((key[i] >> 32) >> (11 * p)) & 2047]++] = key[i];
    std::swap(key, tmp);
  }
  for (int i = 0; i < m; i++) order[i] = (int)(uint32_t)key[i];
  return m;
}

// Calls f(first tile, number of tiles) for every tile row that the ellipse of a Gaussian meets.
template <class R, class F>
static inline void for_spans(const R& g, const Inputs& in, const Bins& b, F f) {
  float k = std::sqrt(g.cut), ey = g.half_height, inv = 1 / g.u, ww = g.w * g.w, slope = -g.v * inv;
  int ty0 = std::max(0, (int)std::floor(std::max(g.y - ey, -1.f) / TILE_H));
  int ty1 = std::min(b.tiles_y - 1, (int)std::floor(std::min(g.y + ey, in.height + 1.f) / TILE_H));
  // On row dy the ellipse spans x = (-v dy -+ sqrt(cut - w^2 dy^2)) / u; its right end is largest at:
  float dy_right = -g.v * k / (g.w * std::sqrt(ww + g.v * g.v));
  for (int ty = ty0; ty <= ty1; ty++) {
    float lo = std::max(ty * TILE_H - g.y, -ey), hi = std::min((ty + 1) * TILE_H - g.y, ey);
    float dr = std::min(std::max(dy_right, lo), hi), dl = std::min(std::max(-dy_right, lo), hi);
    float right = g.x + slope * dr + std::sqrt(std::max(0.f, g.cut - ww * dr * dr)) * inv;
    float left = g.x + slope * dl - std::sqrt(std::max(0.f, g.cut - ww * dl * dl)) * inv;
    int x0 = std::max(0, (int)std::floor(std::max(left, -1.f) / TILE_W));
    int x1 = std::min(b.tiles_x - 1, (int)std::floor(std::min(right, in.width + 1.f) / TILE_W));
    if (x1 >= x0) f(ty * b.tiles_x + x0, x1 - x0 + 1);
  }
}

struct Span {
  int tile, count;
};

// keep_slots: also list the slots of each Gaussian (the backward pass gathers its sums by them).
template <class R>
static inline void make_bins(Pool& pool, Scratch& mem, const Inputs& in, const R* rec, bool keep_slots, Bins& b) {
  b.tiles_x = (in.width + TILE_W - 1) / TILE_W;
  b.tiles_y = (in.height + TILE_H - 1) / TILE_H;
  int n_tiles = b.tiles(), m = b.visible;
  int* cursor = mem.take<int>((size_t)CHUNKS * n_tiles);  // counts per chunk and tile, then first slots
  int *n_spans = mem.take<int>(m + 1), *n_slots = mem.take<int>(m + 1);
  std::vector<Span> spans[CHUNKS];
  pool.run(CHUNKS, [&](int c) {
    int a = chunk_begin(m, c), e = chunk_begin(m, c + 1);
    int* count = cursor + (size_t)c * n_tiles;
    memset(count, 0, sizeof(int) * n_tiles);
    spans[c].reserve((size_t)(e - a) * 4);
    for (int k = a; k < e; k++) {
      size_t before = spans[c].size();
      int slots = 0;
      for_spans(rec[k], in, b, [&](int tile, int n) {
        spans[c].push_back({tile, n});
        slots += n;
        for (int j = 0; j < n; j++) count[tile + j]++;
      });
      n_spans[k] = (int)(spans[c].size() - before);
      n_slots[k] = slots;
    }
  });
  b.start = mem.take<int>(n_tiles + 1);
  b.total = 0;
  for (int t = 0; t < n_tiles; t++) {
    b.start[t] = b.total;
    for (int c = 0; c < CHUNKS; c++) {
      int& cur = cursor[(size_t)c * n_tiles + t];
      int count = cur;
      cur = b.total;
      b.total += count;
    }
  }
  b.start[n_tiles] = b.total;
  b.items = mem.take<int>(b.total);
  b.first_slot = mem.take<int>(keep_slots ? m + 1 : 0);
  b.slots = mem.take<int>(keep_slots ? b.total : 0);
  if (keep_slots) {
    int sum = 0;
    for (int k = 0; k < m; k++) {
      b.first_slot[k] = sum;
      sum += n_slots[k];
    }
    b.first_slot[m] = sum;
  }
  pool.run(CHUNKS, [&](int c) {
    int a = chunk_begin(m, c), e = chunk_begin(m, c + 1);
    int* cur = cursor + (size_t)c * n_tiles;
    const Span* s = spans[c].data();
    int* out = keep_slots && a < e ? b.slots + b.first_slot[a] : nullptr;
    for (int k = a; k < e; k++)
      for (int j = 0; j < n_spans[k]; j++, s++)
        for (int t = s->tile; t < s->tile + s->count; t++) {
          int slot = cur[t]++;
          b.items[slot] = k;
          if (out) *out++ = slot;
        }
  });
}
