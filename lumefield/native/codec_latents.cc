// The decoder of latents of the image codec (lumefield/codecs/neural): integer context network and interleaved
// rANS over the wavefront steps of a level. Plain C functions, called without jax. What it computes is defined by
// the NumPy twin, `_twin.py`; names and bounds are in `_model.py`, the order in `_levels.py`.
#include <algorithm>
#include <vector>

#include "ints.h"

namespace {

constexpr int INPUTS = 17, PAIRS = 9, MAX_WIDTH = 24, STRIDE = 264, BUCKETS = 512, RING = 2;
constexpr int NEAR = 12, MAX_HIDDEN = (1 << 14) - 1, MAX_LATENT = 127;

// The causal neighbours, in the order of `NEIGHBOURS`.
constexpr int ROWS_UP[NEAR] = {1, 0, 1, 1, 2, 0, 2, 2, 1, 1, 2, 2};
constexpr int COLUMNS[NEAR] = {0, -1, -1, 1, 0, -2, -1, 1, -2, 2, -2, 2};

struct Network {  // weights in pairs, broadcast
  vint first[MAX_WIDTH][PAIRS], middle[MAX_WIDTH][MAX_WIDTH / 2], last[2][MAX_WIDTH / 2], linear[2][PAIRS];
  int32_t b1[MAX_WIDTH], b2[MAX_WIDTH], b3[2];
  int width;
};

// Rows of a matrix as broadcast pairs; what is missing counts 0.
template <int N>
void paired(const int32_t* from, int rows, int columns, vint (*to)[N]) {
  for (int j = 0; j < rows; j++)
    for (int k = 0; k < N; k++) {
      auto at = [&](int i) { return i < columns ? from[j * columns + i] : 0; };
      to[j][k] = ints(pair(at(2 * k), at(2 * k + 1)));
    }
}

// A level with a ring of zeros around it.
struct Canvas {
  int rows, columns, stride;
  std::vector<int8_t> cells;
  Canvas(int rows, int columns)
      : rows(rows), columns(columns), stride(columns + 2 * RING), cells((size_t)(rows + 2 * RING) * stride) {}
  int8_t* at(int r, int c) { return cells.data() + (size_t)(r + RING) * stride + c + RING; }
};

// Inputs of the latents of a step in rows first, first + 1 ..., as pairs.
void gather(Canvas& y, Canvas& coarse, Canvas& coarser, int step, int first, int count, int32_t* x, int room) {
  int offset[NEAR];
  for (int k = 0; k < NEAR; k++) offset[k] = COLUMNS[k] - ROWS_UP[k] * y.stride;
  for (int i = 0; i < count; i++) {
    const int r = first + i, c = step - 3 * r;
    const int8_t* here = y.at(r, c);
    for (int k = 0; k < NEAR / 2; k++) x[k * room + i] = pair(here[offset[2 * k]], here[offset[2 * k + 1]]);
    const int8_t* up = coarse.at(r >> 1, c >> 1);
    const int down = r & 1 ? coarse.stride : -coarse.stride, aside = c & 1 ? 1 : -1;
    x[6 * room + i] = pair(up[0], up[aside]);
    x[7 * room + i] = pair(up[down], up[down + aside]);
    x[8 * room + i] = pair(*coarser.at(r >> 2, c >> 2), 0);
  }
}

// Row of the frequency table and centre of `count` latents.
void predict(const Network& net, const int32_t* x, int room, int count, int32_t* line, int32_t* centre) {
  const int a = net.width;
  for (int i = 0; i < count; i += LANES) {
    vint in[PAIRS], hidden[MAX_WIDTH + 1], packed[MAX_WIDTH / 2];
    for (int k = 0; k < PAIRS; k++) in[k] = load_ints(x + k * room + i);
    for (int j = 0; j < a; j++) {
      vint sum = ints(net.b1[j]);
      for (int k = 0; k < PAIRS; k++) sum += dot(in[k], net.first[j][k]);
      hidden[j] = clip(rshift(sum, 2), 0, MAX_HIDDEN);
    }
    hidden[a] = ints(0);
    const int half = (a + 1) / 2;
    for (int k = 0; k < half; k++) packed[k] = pair(hidden[2 * k], hidden[2 * k + 1]);
    for (int j = 0; j < a; j++) {
      vint sum = ints(net.b2[j] * 256);
      for (int k = 0; k < half; k++) sum += dot(packed[k], net.middle[j][k]);
      hidden[j] = clip(hidden[j] + clip(rshift(sum, 10), 0, MAX_HIDDEN), 0, MAX_HIDDEN);
    }
    for (int k = 0; k < half; k++) packed[k] = pair(hidden[2 * k], hidden[2 * k + 1]);
    vint out[2];
    for (int j = 0; j < 2; j++) {
      vint sum = ints(0), straight = ints(net.b3[j]);
      for (int k = 0; k < half; k++) sum += dot(packed[k], net.last[j][k]);
      for (int k = 0; k < PAIRS; k++) straight += dot(in[k], net.linear[j][k]);
      out[j] = rshift(sum, 8) + straight;
    }
    vint place = clip(rshift(out[0], 6), -MAX_LATENT * 16, MAX_LATENT * 16);
    vint scale = clip(rshift(clip(out[1], -(1 << 17), 1 << 17) * 5, 10) + 30, 0, 63);
    vint whole = rshift(place, 4);
    store_ints(line + i, scale * 16 + place - whole * 16 + 8);
    store_ints(centre + i, whole);
  }
}

struct Coder {
  const int32_t* sums;
  const uint8_t* starts;
  uint32_t* states;
  const uint8_t* code;
  int64_t n_code, taken;
  int lanes;

  // Index of the next symbol of a lane.
  int symbol(int line, int lane) {
    const uint32_t state = states[lane], low = state & 0xFFFF;
    const uint32_t near = std::min(low, 0xFFFF - low) + 1;
    const int octave = 31 - __builtin_clz(near);
    const int cut = octave >= 4 ? near >> (octave - 4) : near << (4 - octave);  // leading 1 and 4 bits
    const int bucket = octave * 16 + (cut & 15) + (low >> 15) * (BUCKETS / 2);
    const int32_t* row = sums + line * STRIDE;
    int index = starts[line * BUCKETS + bucket];
    while (row[index + 1] <= (int32_t)low) index++;
    uint32_t next = (uint32_t)(row[index + 1] - row[index]) * (state >> 16) + low - row[index];
    while (next < 1 << 24) {
      next = next << 8 | (taken < n_code ? code[taken] : 0);
      taken++;
    }
    states[lane] = next;
    return index;
  }
};

void decode_level(Canvas& y, Canvas& coarse, Canvas& coarser, int slots, const Network& net, Coder& coder) {
  const int room = round_up(std::min(y.rows, (y.columns + 2) / 3));
  std::vector<int32_t> x((size_t)PAIRS * room), line(room), centre(room);
  const int steps = y.columns + 3 * (y.rows - 1);
  for (int step = 0; step < steps && coder.taken <= coder.n_code; step++) {
    const int first = std::max(0, (step - y.columns + 3) / 3), last = std::min(y.rows - 1, step / 3);
    if (last < first) continue;  // a picture narrower than three columns has steps without latents
    gather(y, coarse, coarser, step, first, last - first + 1, x.data(), room);
    predict(net, x.data(), room, last - first + 1, line.data(), centre.data());
    // In the order of slots: the rows after a multiple of `slots`, then those before it.
    const int wrap = last / slots * slots;
    auto decode = [&](int from, int to) {
      for (int r = from, slot = from % slots; r < to; r++, slot++) {
        const int i = r - first;
        const int value = centre[i] + coder.symbol(line[i], slot & (coder.lanes - 1)) - MAX_LATENT;
        *y.at(r, step - 3 * r) = (int8_t)clip(value, -MAX_LATENT, MAX_LATENT);
      }
    };
    decode(std::max(first, wrap), last + 1);
    decode(first, std::max(first, wrap));
  }
}

}  // namespace

// Decodes all coded levels, coarsest first, into `latents`; returns the number of bytes read, more than there
// are (and part of the latents) when the stream is too short. `sizes`: rows, columns, slots of each level, finest first.
// `parameters`: W1 W2 W3 V b1 b2 b3 as in `ImageModel`. `states` become the last ones.
extern "C" int64_t lumefield_decode_latents(int32_t levels, const int32_t* sizes, const uint8_t* coded,
                                            int32_t width, const int32_t* const* parameters, const int32_t* sums,
                                            const uint8_t* starts, int32_t lanes, uint32_t* states,
                                            const uint8_t* code, int64_t n_code, int8_t* const* latents) {
  Network net;
  net.width = width;
  paired(parameters[0], width, INPUTS, net.first);
  paired(parameters[1], width, width, net.middle);
  paired(parameters[2], 2, width, net.last);
  paired(parameters[3], 2, INPUTS, net.linear);
  std::copy_n(parameters[5], width, net.b2);
  std::copy_n(parameters[6], 2, net.b3);
  Coder coder{sums, starts, states, code, n_code, 0, lanes};
  const int rows = sizes[3 * (levels - 1)], columns = sizes[3 * (levels - 1) + 1];
  Canvas coarser((rows + 3) / 4, (columns + 3) / 4), coarse((rows + 1) / 2, (columns + 1) / 2);
  for (int i = levels - 1; i >= 0 && coder.taken <= n_code; i--) {
    Canvas y(sizes[3 * i], sizes[3 * i + 1]);
    std::copy_n(parameters[4] + i * width, width, net.b1);
    if (coded[i]) decode_level(y, coarse, coarser, sizes[3 * i + 2], net, coder);
    for (int r = 0; r < y.rows; r++) std::copy_n(y.at(r, 0), y.columns, latents[i] + (size_t)r * y.columns);
    coarser = std::move(coarse);
    coarse = std::move(y);
  }
  return coder.taken;
}
