// The training loss (1 - k) L1 + k (1 - SSIM) / ... and its gradient in one pass, as an XLA FFI call.
//
// SSIM of Wang et al., 2004: Gaussian window 11, sigma 1.5, zero padding, per channel, mean over all pixels, as in
// 3DGS. Inputs image[H,W,3] float, truth[H,W,3] uint8 (255 = 1), weight[H,W] uint8 (both images are multiplied by
// weight / 255) or weight[1,1]. Outputs sums (sum of |difference|, sum of SSIM) and their gradients combined:
// grad = l1_scale * sign(difference) - ssim_scale * dSSIM/dimage, times the weight.
//
// With mu, E the window means of x (image) and y (truth): SSIM = A1 A2 / (B1 B2),
//   A1 = 2 mx my + C1, A2 = 2 (Exy - mx my) + C2, B1 = mx^2 + my^2 + C1, B2 = Exx - mx^2 + Eyy - my^2 + C2.
// Its gradient is the window mean of dS/dmx, plus 2 x times that of dS/dExx, plus y times that of dS/dExy.
#include <cmath>
#include <cstring>

#include "parallel.h"
#include "scratch.h"
#include "simd.h"
namespace ffi = xla::ffi;

static const int R = 5;                    // window radius
static const float C1 = 1e-4f, C2 = 9e-4f;  // (0.01)^2, (0.03)^2 for images in [0, 1]

struct Window {
  float k[2 * R + 1];
  Window() {
    double s = 0, g[2 * R + 1];
    for (int i = -R; i <= R; i++) s += g[i + R] = std::exp(-i * i / (2 * 1.5 * 1.5));
    for (int i = 0; i <= 2 * R; i++) k[i] = (float)(g[i] / s);
  }
};

// Planes have a zero border of R rows and R columns; rows end in zeros up to a multiple of 16 past the border, so
// that whole SIMD vectors can be read and written.
struct Planes {
  int height, width, stride;
  float* data;
  size_t plane() const { return (size_t)(height + 2 * R) * stride; }
  float* row(int p, int y) const { return data + p * plane() + (size_t)(y + R) * stride + R; }
};

static int row_length(int w) { return (w + 2 * R + 15) / 16 * 16 + 16; }

static Planes make_planes(Scratch& mem, int count, int h, int w) {
  Planes p = {h, w, row_length(w), nullptr};
  p.data = mem.take<float>(count * p.plane() + 64);
  return p;
}

static void clear_border(const Planes& p, int plane) {
  float* base = p.data + plane * p.plane();
  memset(base, 0, sizeof(float) * R * p.stride);
  memset(base + (size_t)(p.height + R) * p.stride, 0, sizeof(float) * R * p.stride);
  for (int y = 0; y < p.height; y++) {
    float* r = p.row(plane, y);
    memset(r - R, 0, sizeof(float) * R);
    memset(r + p.width, 0, sizeof(float) * (p.stride - p.width - R));
  }
}

struct Problem {
  int height, width;
  const float* image;
  const uint8_t *truth, *weight;
  bool weighted;  // some weight may differ from 255
  int row, step;  // strides of weight: (width, 1), or (0, 0) when there is one for all pixels
  float weight_at(int y, int i) const { return weight[(size_t)y * row + i * step] * (1.f / 255); }
  float l1_scale, ssim_scale;
  float* grad;
};

// Image and truth as planes: 2 c and 2 c + 1 for channel c.
static void unpack_row(const Problem& q, const Planes& in, int y) {
  for (int c = 0; c < 3; c++) {
    float *x = in.row(2 * c, y), *t = in.row(2 * c + 1, y);
    const float* image = q.image + (size_t)y * q.width * 3 + c;
    const uint8_t* truth = q.truth + (size_t)y * q.width * 3 + c;
    for (int i = 0; i < q.width; i++) x[i] = image[3 * i], t[i] = truth[3 * i] * (1.f / 255);
    if (!q.weighted) continue;
    for (int i = 0; i < q.width; i++) x[i] *= q.weight_at(y, i), t[i] *= q.weight_at(y, i);
  }
}

// Mean under the window along a row, of the LANES pixels from m on (m has R values to the left).
static inline vf along_row(const float* m, const Window& g) {
  vf total = splat(g.k[0]) * load(m);
  for (int j = 1; j <= 2 * R; j++) total = total + splat(g.k[j]) * load(m + j);
  return total;
}

// SSIM of one row of one channel: adds it up and writes the three maps of partial derivatives.
static double ssim_row(const Planes& in, const Planes& maps, const Window& g, int c, int y, float* tmp) {
  const int w = in.width, n = row_length(w);
  float *mx = tmp, *my = mx + n, *xx = my + n, *yy = xx + n, *xy = yy + n;  // vertical means, with side borders
  for (int i = 0; i + LANES <= n; i += LANES) {
    vf a[5] = {zero(), zero(), zero(), zero(), zero()};
    for (int j = -R; j <= R; j++) {
      vf x = load(in.row(2 * c, y + j) - R + i), t = load(in.row(2 * c + 1, y + j) - R + i), k = splat(g.k[j + R]);
      vf kx = k * x, kt = k * t;
      a[0] = a[0] + kx, a[1] = a[1] + kt;
      a[2] = a[2] + kx * x, a[3] = a[3] + kt * t, a[4] = a[4] + kx * t;
    }
    store(mx + i, a[0]), store(my + i, a[1]), store(xx + i, a[2]), store(yy + i, a[3]), store(xy + i, a[4]);
  }
  float *p_mx = maps.row(3 * c, y), *p_xx = maps.row(3 * c + 1, y), *p_xy = maps.row(3 * c + 2, y);
  const vf one = splat(1.f), two = splat(2.f), c1 = splat(C1), c2 = splat(C2);
  double total = 0;
  for (int i = 0; i < w; i += LANES) {
    vf a = along_row(mx + i, g), b = along_row(my + i, g), ab = a * b, aa = a * a, bb = b * b;
    vf a1 = two * ab + c1, a2 = two * (along_row(xy + i, g) - ab) + c2, b1 = aa + bb + c1;
    vf b2 = (along_row(xx + i, g) - aa) + (along_row(yy + i, g) - bb) + c2;
    vf d = one / (b1 * b2), s = a1 * a2 * d;
    vm inside = gt(splat((float)(w - i)), ramp());
    store(p_mx + i, keep(inside, two * (b * (a2 - a1) * d - a * s * (b2 - b1) * d)));
    store(p_xx + i, keep(inside, zero() - s / b2));
    store(p_xy + i, keep(inside, two * a1 * d));
    total += sum(keep(inside, s));
  }
  return total;
}

// The gradient of one row of one channel; returns the row's sum of |image - truth|.
static double grad_row(const Problem& q, const Planes& in, const Planes& maps, const Window& g, int c, int y,
                       float* tmp) {
  const int w = in.width, n = row_length(w);
  float *pm = tmp, *px = pm + n, *pc = px + n;
  for (int i = 0; i + LANES <= n; i += LANES) {
    vf a[3] = {zero(), zero(), zero()};
    for (int j = -R; j <= R; j++)
      for (int m = 0; m < 3; m++) a[m] = a[m] + splat(g.k[j + R]) * load(maps.row(3 * c + m, y + j) - R + i);
    store(pm + i, a[0]), store(px + i, a[1]), store(pc + i, a[2]);
  }
  const float *x = in.row(2 * c, y), *t = in.row(2 * c + 1, y);
  float* out = q.grad + (size_t)y * q.width * 3 + c;
  const vf two = splat(2.f), l1 = splat(q.l1_scale), scale = splat(q.ssim_scale);
  double total = 0;
  for (int i = 0; i < w; i += LANES) {
    vf xi = load(x + i), ti = load(t + i), diff = xi - ti;  // zero beyond the row
    vf sign = keep(gt(diff, zero()), l1) - keep(gt(zero(), diff), l1);
    vf slope = along_row(pm + i, g) + two * xi * along_row(px + i, g) + ti * along_row(pc + i, g);
    float grad[LANES];
    store(grad, sign - scale * slope);
    total += sum(abs_(diff));
    for (int k = 0; k < LANES && i + k < w; k++)
      out[3 * (i + k)] = q.weighted ? grad[k] * q.weight_at(y, i + k) : grad[k];
  }
  return total;
}

static const int BAND = 16;  // rows per task; fixed, so that sums do not depend on the threads

static ffi::Error Loss(ffi::ThreadPool threads, ffi::Buffer<ffi::F32> image, ffi::Buffer<ffi::U8> truth,
                       ffi::Buffer<ffi::U8> weight, ffi::ResultBuffer<ffi::F32> sums,
                       ffi::ResultBuffer<ffi::F32> grad, int64_t n_threads, float l1_scale, float ssim_scale) {
  static const Window window;
  static Borrowed::Pile pile;
  Borrowed mem(pile);
  Pool pool(threads, n_threads);
  const int h = (int)image.dimensions()[0], w = (int)image.dimensions()[1];
  const bool each = weight.element_count() > 1;
  Problem q = {h, w, image.typed_data(), truth.typed_data(), weight.typed_data(), each || weight.typed_data()[0] != 255,
               each ? w : 0, each, l1_scale, ssim_scale, grad->typed_data()};
  if (each && weight.element_count() != (size_t)h * w)
    return ffi::Error::InvalidArgument("weight must have one entry, or one per pixel");
  Planes in = make_planes(*mem, 6, h, w), maps = make_planes(*mem, 9, h, w);
  const int bands = (h + BAND - 1) / BAND, row = 5 * row_length(w);
  float* tmp = (*mem).take<float>((size_t)bands * 3 * row);
  double* part = (*mem).take<double>(2 * (size_t)bands * 3);
  pool.run(bands, [&](int band) {
    for (int y = band * BAND; y < std::min(h, (band + 1) * BAND); y++) unpack_row(q, in, y);
  });
  for (int p = 0; p < 6; p++) clear_border(in, p);
  for (int p = 0; p < 9; p++) clear_border(maps, p);
  auto each_row = [&](auto f, double* out) {  // f(channel, row, scratch row) -> number to add up
    pool.run(bands * 3, [&, f](int task) {
      int c = task % 3, band = task / 3;
      double total = 0;
      for (int y = band * BAND; y < std::min(h, (band + 1) * BAND); y++) total += f(c, y, tmp + (size_t)task * row);
      out[task] = total;
    });
  };
  each_row([&](int c, int y, float* t) { return ssim_row(in, maps, window, c, y, t); }, part);
  each_row([&](int c, int y, float* t) { return grad_row(q, in, maps, window, c, y, t); }, part + bands * 3);
  double s[2] = {0, 0};
  for (int k = 0; k < bands * 3; k++) s[1] += part[k], s[0] += part[bands * 3 + k];
  sums->typed_data()[0] = (float)s[0], sums->typed_data()[1] = (float)s[1];
  return ffi::Error::Success();
}

// clang-format off
XLA_FFI_DEFINE_HANDLER_SYMBOL(PhotometricLoss, Loss, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<ffi::Buffer<ffi::F32>>().Arg<ffi::Buffer<ffi::U8>>().Arg<ffi::Buffer<ffi::U8>>()
    .Ret<ffi::Buffer<ffi::F32>>().Ret<ffi::Buffer<ffi::F32>>()
    .Attr<int64_t>("n_threads").Attr<float>("l1_scale").Attr<float>("ssim_scale"));
// clang-format on
