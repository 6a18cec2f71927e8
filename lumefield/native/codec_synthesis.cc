// Upsampling and synthesis of the image codec (lumefield/codecs/neural) by bands of rows: exact integers, one result
// for any number of threads. Plain C functions, called without jax. What it computes is defined by the NumPy twin,
// `_twin.py`; names and bounds are in `_model.py`.
#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

#include "ints.h"

namespace {

constexpr int MAX_LEVELS = 7, MAX_SYNTHESIS = 32, MAX_CHANNELS = 4, BAND = 32;
constexpr int MAX_HIDDEN = (1 << 14) - 1, MAX_VALUE = (1 << 15) - 1, MAX_UPSAMPLED = (1 << 17) - 1;
constexpr int MAX_RESIDUAL = (1 << 13) - 1, FULL_BITS = 14;
constexpr int EDGE = LANES;  // room before a row: neighbours outside the picture

struct Model {  // weights in pairs, broadcast
  int levels, synthesis, channels, bits, subsampled, gain, more;
  int rows[MAX_LEVELS], columns[MAX_LEVELS];
  const int8_t* latents[MAX_LEVELS];
  int32_t u[MAX_LEVELS][4];
  vint X1[MAX_SYNTHESIS][4], X2[MAX_CHANNELS][MAX_SYNTHESIS / 2], Y[MAX_CHANNELS][4];
  vint G[2][MAX_CHANNELS][9][MAX_CHANNELS / 2];
  int32_t c1[MAX_SYNTHESIS], c2[MAX_CHANNELS], g[2][MAX_CHANNELS];
  const int32_t* added;  // [more, rows, columns] inputs of the synthesis after the levels
  void* planes[MAX_CHANNELS];
};

struct Rows {  // a window of rows of some channels; outside the level a row is its edge
  int first = 0, last = 0, stride = 0, height = 0;
  std::vector<int32_t> cells;
  void shape(int channels, int from, int to, int columns) {
    first = from, last = to, height = to - from, stride = round_up(columns + 2 * EDGE) + EDGE;
    cells.resize((size_t)channels * height * stride);
  }
  int32_t* at(int channel, int row) {
    row = std::min(std::max(row, first), last - 1) - first;
    return cells.data() + ((size_t)channel * height + row) * stride + EDGE;
  }
};

void repeat_edges(int32_t* row, int columns) {
  row[-1] = row[-2] = row[0];
  row[columns] = row[columns + 1] = row[columns - 1];
}

// A row twice as long; `row` has two cells beyond either end. Writes a little beyond `columns`.
void double_columns(const int32_t* row, const int32_t* u, int columns, int32_t* out) {
  for (int n = 0; 2 * n < columns; n++) {
    const int32_t even = u[0] * row[n - 2] + u[1] * row[n - 1] + u[2] * row[n] + u[3] * row[n + 1];
    const int32_t odd = u[3] * row[n - 1] + u[2] * row[n] + u[1] * row[n + 1] + u[0] * row[n + 2];
    out[2 * n] = clip(rshift(even, 10), -MAX_UPSAMPLED, MAX_UPSAMPLED);
    out[2 * n + 1] = clip(rshift(odd, 10), -MAX_UPSAMPLED, MAX_UPSAMPLED);
  }
}

// One row of a level out of the rows of the coarser one, already as long.
void double_rows(Rows& from, int channel, int row, const int32_t* u, int columns, int32_t* out) {
  const int n = row >> 1, odd = row & 1;
  const int32_t* in[4];
  vint w[4];
  for (int k = 0; k < 4; k++) {
    in[k] = from.at(channel, n - 2 + k + odd);
    w[k] = ints(u[odd ? 3 - k : k]);
  }
  for (int c = 0; c < columns; c += LANES) {
    vint sum = load_ints(in[0] + c) * w[0] + load_ints(in[1] + c) * w[1] + load_ints(in[2] + c) * w[2] +
               load_ints(in[3] + c) * w[3];
    store_ints(out + c, clip(rshift(sum, 10), -MAX_UPSAMPLED, MAX_UPSAMPLED));
  }
}

struct Band {  // scratch of one thread
  const Model& m;
  Rows stack, wide, z, e;
  std::vector<int32_t> row;

  explicit Band(const Model& model) : m(model) {}

  void run(int top) {
    const int rows = m.rows[0], bottom = std::min(top + BAND, rows);
    int from[MAX_LEVELS], to[MAX_LEVELS];
    from[0] = std::max(0, top - 2), to[0] = std::min(rows, bottom + 2);
    for (int i = 1; i < m.levels; i++) {
      from[i] = std::max(0, (from[i - 1] >> 1) - 2);
      to[i] = std::min(m.rows[i], ((to[i - 1] - 1) >> 1) + 3);
    }
    const int coarsest = m.levels - 1;
    stack.shape(m.levels, from[coarsest], to[coarsest], m.columns[coarsest]);
    for (int r = from[coarsest]; r < to[coarsest]; r++) put_latents(coarsest, r, stack.at(coarsest, r));
    for (int i = coarsest - 1; i >= 0; i--) {
      widen(i);
      if (i) {
        stack.shape(m.levels, from[i], to[i], m.columns[i]);
        for (int r = from[i]; r < to[i]; r++) {
          for (int k = i + 1; k < m.levels; k++) double_rows(wide, k, r, m.u[i], m.columns[i], stack.at(k, r));
          put_latents(i, r, stack.at(i, r));
        }
      }
    }
    first_layers(from[0], to[0]);
    residual(0, std::max(0, top - 1), std::min(rows, bottom + 1));
    residual(1, top, bottom);
    for (int c = 0; c < m.channels; c++) put_plane(c, top, bottom);
  }

  void put_latents(int i, int r, int32_t* out) {
    const int8_t* y = m.latents[i] + (size_t)r * m.columns[i];
    for (int c = 0; c < m.columns[i]; c++) out[c] = y[c] * m.gain;
  }

  // All rows of the stack of level i + 1, as long as those of level i.
  void widen(int i) {
    wide.shape(m.levels, stack.first, stack.last, m.columns[i]);
    for (int k = i + 1; k < m.levels; k++)
      for (int r = stack.first; r < stack.last; r++) {
        int32_t* row = stack.at(k, r);
        repeat_edges(row, m.columns[i + 1]);
        double_columns(row, m.u[i], m.columns[i], wide.at(k, r));
      }
  }

  // Upsampled latents of level 0 through the pointwise network, into z.
  void first_layers(int from, int to) {
    const int columns = m.columns[0], room = round_up(columns);
    z.shape(m.channels, from, to, columns);
    row.assign((size_t)8 * room, 0);
    for (int r = from; r < to; r++) {
      put_latents(0, r, row.data());
      for (int k = 1; k < m.levels; k++) double_rows(wide, k, r, m.u[0], columns, row.data() + (size_t)k * room);
      for (int k = 0; k < m.more; k++)
        std::copy_n(m.added + ((size_t)k * m.rows[0] + r) * columns, columns, row.data() + (size_t)(m.levels + k) * room);
      for (int c = 0; c < columns; c += LANES) {
        vint v[4], h[MAX_SYNTHESIS];
        for (int k = 0; k < 4; k++) {
          auto value = [&](int i) { return clip(load_ints(row.data() + (size_t)i * room + c), -MAX_VALUE, MAX_VALUE); };
          v[k] = pair(value(2 * k), value(2 * k + 1));
        }
        for (int s = 0; s < m.synthesis; s++) {
          vint sum = dot(v[0], m.X1[s][0]) + dot(v[1], m.X1[s][1]) + dot(v[2], m.X1[s][2]) + dot(v[3], m.X1[s][3]);
          h[s] = clip(rshift(sum, 10) + m.c1[s], 0, MAX_HIDDEN);
        }
        const int pairs = (m.synthesis + 1) / 2;
        for (int k = 0; k < pairs; k++) h[k] = pair(h[2 * k], 2 * k + 1 < m.synthesis ? h[2 * k + 1] : ints(0));
        for (int o = 0; o < m.channels; o++) {
          vint sum = ints(0);
          for (int k = 0; k < pairs; k++) sum += dot(h[k], m.X2[o][k]);
          vint line = dot(v[0], m.Y[o][0]) + dot(v[1], m.Y[o][1]) + dot(v[2], m.Y[o][2]) + dot(v[3], m.Y[o][3]);
          store_ints(z.at(o, r) + c, clip(rshift(sum, 8) + rshift(line, 8) + m.c2[o], -MAX_VALUE, MAX_VALUE));
        }
      }
    }
  }

  // z + conv(z) in rows [from, to); z has a row more at each end that is not one of the picture's.
  void residual(int which, int from, int to) {
    const int columns = m.columns[0], pairs = (m.channels + 1) / 2;
    e.shape(pairs, z.first, z.last, columns);
    for (int k = 0; k < pairs; k++)
      for (int r = z.first; r < z.last; r++) {
        const int32_t *low = z.at(2 * k, r), *high = 2 * k + 1 < m.channels ? z.at(2 * k + 1, r) : nullptr;
        int32_t* out = e.at(k, r);
        for (int c = 0; c < columns; c += LANES) {
          vint a = clip(rshift(load_ints(low + c), 2), -MAX_RESIDUAL, MAX_RESIDUAL);
          vint b = high ? clip(rshift(load_ints(high + c), 2), -MAX_RESIDUAL, MAX_RESIDUAL) : ints(0);
          store_ints(out + c, pair(a, b));
        }
        repeat_edges(out, columns);
      }
    const int least = which == 0 ? 0 : -MAX_VALUE;  // the ReLU between the two
    for (int r = from; r < to; r++)
      for (int o = 0; o < m.channels; o++) {
        int32_t* out = z.at(o, r);
        for (int c = 0; c < columns; c += LANES) {
          vint sum = ints(0);
          for (int dr = 0; dr < 3; dr++)
            for (int k = 0; k < pairs; k++) {
              const int32_t* in = e.at(k, r + dr - 1) + c;
              for (int dc = 0; dc < 3; dc++) sum += dot(load_ints(in + dc - 1), m.G[which][o][3 * dr + dc][k]);
            }
          vint changed = load_ints(out + c) + rshift(sum, 8) + m.g[which][o];
          store_ints(out + c, clip(changed, least, MAX_VALUE));
        }
      }
  }

  void put_plane(int channel, int top, int bottom) {
    const int white = (1 << m.bits) - 1, half = m.subsampled && (channel == 1 || channel == 2);
    const int columns = half ? (m.columns[0] + 1) / 2 : m.columns[0];
    row.resize(columns);
    for (int r = top; r < bottom; r += 1 + half) {
      const int32_t *a = z.at(channel, r), *b = r + 1 < bottom ? z.at(channel, r + 1) : a;
      const int odd = m.columns[0] & 1, whole = half ? columns - odd : columns;
      for (int c = 0; c < whole; c++)
        row[c] = half ? rshift(a[2 * c] + a[2 * c + 1] + b[2 * c] + b[2 * c + 1], 2) : a[c];
      if (half && odd) row[whole] = rshift(2 * a[2 * whole] + 2 * b[2 * whole], 2);
      const size_t start = (size_t)(half ? r / 2 : r) * columns;
      auto pixel = [&](int c) { return clip(rshift(clip(row[c], 0, 1 << FULL_BITS) * white, FULL_BITS), 0, white); };
      if (m.bits == 8)
        for (int c = 0; c < columns; c++) ((uint8_t*)m.planes[channel])[start + c] = (uint8_t)pixel(c);
      else
        for (int c = 0; c < columns; c++) ((uint16_t*)m.planes[channel])[start + c] = (uint16_t)pixel(c);
    }
  }
};

template <int N>
void paired(const int32_t* from, int rows, int columns, vint (*to)[N]) {
  for (int j = 0; j < rows; j++)
    for (int k = 0; k < N; k++) {
      auto at = [&](int i) { return i < columns ? from[j * columns + i] : 0; };
      to[j][k] = ints(pair(at(2 * k), at(2 * k + 1)));
    }
}

}  // namespace

// Pixels of a picture. `sizes`: rows, columns of each level, finest first. `parameters`: u X1 c1 X2 Y c2 G g as in
// `ImageModel`. `gain`: value of a latent of 1. `added`: `more` planes (levels + more <= 8) that follow the levels as
// inputs of the synthesis, 8 fractional bits. `planes`: one per channel, uint8 for 8 bits, else uint16.
extern "C" void lumefield_synthesise(int32_t levels, const int32_t* sizes, const int8_t* const* latents,
                                     int32_t synthesis, int32_t channels, const int32_t* const* parameters,
                                     int32_t bits, int32_t subsampled, int32_t gain, int32_t more, const int32_t* added,
                                     void* const* planes, int32_t threads) {
  Model m;
  m.levels = levels, m.synthesis = synthesis, m.channels = channels, m.bits = bits, m.subsampled = subsampled;
  m.gain = gain, m.more = more, m.added = added;
  for (int i = 0; i < levels; i++) m.rows[i] = sizes[2 * i], m.columns[i] = sizes[2 * i + 1], m.latents[i] = latents[i];
  for (int i = 0; i + 1 < levels; i++) std::copy_n(parameters[0] + 4 * i, 4, m.u[i]);
  paired(parameters[1], synthesis, levels + more, m.X1);
  for (int s = 0; s < synthesis; s++) m.c1[s] = rshift(parameters[2][s], 2);
  paired(parameters[3], channels, synthesis, m.X2);
  paired(parameters[4], channels, levels + more, m.Y);
  std::copy_n(parameters[5], channels, m.c2);
  for (int k = 0; k < 2; k++)
    for (int o = 0; o < channels; o++)
      for (int tap = 0; tap < 9; tap++) {
        int32_t inputs[MAX_CHANNELS] = {};
        for (int c = 0; c < channels; c++) inputs[c] = parameters[6][((k * channels + o) * channels + c) * 9 + tap];
        for (int p = 0; p < MAX_CHANNELS / 2; p++) m.G[k][o][tap][p] = ints(pair(inputs[2 * p], inputs[2 * p + 1]));
      }
  for (int k = 0; k < 2; k++) std::copy_n(parameters[7] + k * channels, channels, m.g[k]);
  std::copy_n(planes, channels, m.planes);
  std::atomic<int> next{0};
  auto work = [&] {
    Band band(m);
    for (int top; (top = next.fetch_add(BAND)) < m.rows[0];) band.run(top);
  };
  std::vector<std::thread> others;
  try {
    for (int i = 1; i < std::min(threads, (m.rows[0] + BAND - 1) / BAND); i++) others.emplace_back(work);
  } catch (const std::system_error&) {  // no more threads: those there are do the work
  }
  work();
  for (std::thread& other : others) other.join();
}
