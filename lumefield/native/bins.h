// Tile lists of depth-sorted Gaussians, the same for any number of threads.
//
// 1. Cull: opacity below 1/255, or the ellipse sigma = cut outside the image.
// 2. Sort the visible depths once (stable radix sort: ties keep input order).
// 3. Gather them into records in depth order; each names, per tile row, the span of tiles its ellipse meets (exact ellipse-row test).
// 4. Counting sort into tiles: parts of the Gaussians count in parallel, a prefix over (tile, part)
//    gives every part its own cursor, so the order inside a tile is the depth order.
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

// Few parts, so that neighbouring keys of the output come from one thread.
static inline int sort_parts(const Pool& pool) { return std::min(pool.threads(), 16); }

// One stable counting pass over digits of the keys, the parts in parallel. Part c of the input is
// from[first(c)] ... from[first(c) + n(c) - 1]; the output has no gaps.
template <class First, class Count>
static inline void radix_pass(Pool& pool, uint32_t* counts, const uint64_t* from, uint64_t* to, int shift, First first,
                              Count n) {
  const int parts = sort_parts(pool), DIGITS = 2048;
  auto digit = [shift](uint64_t k) { return (uint32_t)(k >> shift) & (DIGITS - 1); };
  pool.run(parts, [&](int c) {
    uint32_t* h = counts + (size_t)c * DIGITS;
    memset(h, 0, sizeof(uint32_t) * DIGITS);
    for (int i = first(c), e = i + n(c); i < e; i++) h[digit(from[i])]++;
  });
  uint32_t total = 0;
  for (int d = 0; d < DIGITS; d++)
    for (int c = 0; c < parts; c++) {
      uint32_t& h = counts[(size_t)c * DIGITS + d];
      uint32_t count = h;
      h = total;
      total += count;
    }
  pool.run(parts, [&](int c) {
    uint32_t* h = counts + (size_t)c * DIGITS;
    for (int i = first(c), e = i + n(c); i < e; i++) to[h[digit(from[i])]++] = from[i];
  });
}

// Indices of the visible Gaussians sorted by depth; ties keep input order. order has room for in.n.
static inline int sort_visible(Pool& pool, Scratch& mem, const Inputs& in, int* order) {
  uint64_t *key = mem.take<uint64_t>(in.n), *tmp = mem.take<uint64_t>(in.n);  // depth << 32 | index
  const int parts = sort_parts(pool);
  uint32_t* counts = mem.take<uint32_t>((size_t)parts * 2048);
  std::vector<int> seen(parts);
  pool.run(parts, [&](int c) {
    int a = pool.begin(in.n, c, parts), b = pool.begin(in.n, c + 1, parts), n = a;
    for (int i = a; i < b; i++) {
      if (!visible(in, i)) continue;
      int32_t d;  // float bits; negative depths (ortho) are mirrored so that they sort as integers
      memcpy(&d, in.depth + i, 4);
      uint32_t bits = d < 0 ? ~(uint32_t)d : (uint32_t)d | 0x80000000u;
      key[n++] = (uint64_t)bits << 32 | (uint32_t)i;
    }
    seen[c] = n - a;
  });
  int m = 0;
  for (int c = 0; c < parts; c++) m += seen[c];
  auto first = [&](int c) { return pool.begin(m, c, parts); };
  auto count = [&](int c) { return pool.begin(m, c + 1, parts) - pool.begin(m, c, parts); };
  radix_pass(pool, counts, key, tmp, 32, [&](int c) { return pool.begin(in.n, c, parts); }, [&](int c) { return seen[c]; });
  radix_pass(pool, counts, tmp, key, 43, first, count);
  radix_pass(pool, counts, key, tmp, 54, first, count);
  pool.run(parts, [&](int c) {
    for (int i = first(c), e = first(c + 1); i < e; i++) order[i] = (int)(uint32_t)tmp[i];
  });
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

// Rows of tiles that the height of a Gaussian may meet: as many spans, or fewer.
template <class R>
static inline int most_spans(const R& g, const Inputs& in) {
  int ty0 = (int)std::floor(std::max(g.y - g.half_height, 0.f) / TILE_H);
  return std::max(0, (int)std::floor(std::min(g.y + g.half_height, in.height + 1.f) / TILE_H) - ty0 + 1);
}

// keep_slots: also list the slots of each Gaussian (the backward pass gathers its sums by them).
template <class R>
static inline void make_bins(Pool& pool, Scratch& mem, const Inputs& in, const R* rec, bool keep_slots, Bins& b) {
  b.tiles_x = (in.width + TILE_W - 1) / TILE_W;
  b.tiles_y = (in.height + TILE_H - 1) / TILE_H;
  const int n_tiles = b.tiles(), m = b.visible, parts = pool.parts();
  int* cursor = mem.take<int>((size_t)parts * n_tiles);  // counts per part and tile, then first slots
  int *n_spans = mem.take<int>(m + 1), *n_slots = mem.take<int>(m + 1);
  std::vector<size_t> room(parts + 1, 0);  // first span of each part
  std::vector<int> first(parts + 1, 0);    // first entry of slots of each part
  pool.run(parts, [&](int c) {
    size_t spans = 0;
    for (int k = pool.begin(m, c), e = pool.begin(m, c + 1); k < e; k++) spans += most_spans(rec[k], in);
    room[c + 1] = spans;
  });
  for (int c = 0; c < parts; c++) room[c + 1] += room[c];
  Span* spans = mem.take<Span>(room[parts]);
  pool.run(parts, [&](int c) {
    int* count = cursor + (size_t)c * n_tiles;
    memset(count, 0, sizeof(int) * n_tiles);
    Span* s = spans + room[c];
    int all = 0;
    for (int k = pool.begin(m, c), e = pool.begin(m, c + 1); k < e; k++) {
      const Span* before = s;
      int slots = 0;
      for_spans(rec[k], in, b, [&](int tile, int n) {
        *s++ = {tile, n};
        slots += n;
        for (int j = 0; j < n; j++) count[tile + j]++;
      });
      n_spans[k] = (int)(s - before);
      n_slots[k] = slots;
      all += slots;
    }
    first[c + 1] = all;
  });
  b.start = mem.take<int>(n_tiles + 1);
  b.total = 0;
  for (int t = 0; t < n_tiles; t++) {
    b.start[t] = b.total;
    for (int c = 0; c < parts; c++) {
      int& cur = cursor[(size_t)c * n_tiles + t];
      int count = cur;
      cur = b.total;
      b.total += count;
    }
  }
  b.start[n_tiles] = b.total;
  for (int c = 0; c < parts; c++) first[c + 1] += first[c];
  b.items = mem.take<int>(b.total);
  b.first_slot = mem.take<int>(keep_slots ? m + 1 : 0);
  b.slots = mem.take<int>(keep_slots ? b.total : 0);
  if (keep_slots) b.first_slot[m] = b.total;
  pool.run(parts, [&](int c) {
    int* cur = cursor + (size_t)c * n_tiles;
    const Span* s = spans + room[c];
    int next = first[c];
    for (int k = pool.begin(m, c), e = pool.begin(m, c + 1); k < e; k++) {
      if (keep_slots) b.first_slot[k] = next;
      for (int j = 0; j < n_spans[k]; j++, s++)
        for (int t = s->tile; t < s->tile + s->count; t++) {
          int slot = cur[t]++;
          b.items[slot] = k;
          if (keep_slots) b.slots[next++] = slot;
        }
    }
  });
}
