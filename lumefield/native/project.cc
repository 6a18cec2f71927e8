// EWA projection of 3D Gaussians and their spherical-harmonics colour, forward and backward, as XLA FFI calls.
//
// Zwicker et al., "EWA Splatting", 2002; Kerbl et al., 2023. One SIMD lane is one Gaussian.
// Letters: p = (X, Y, Z) camera coordinates; t0, t1 the two rows of J R (Jacobian of the projection times the
// rotation, linearised at the clamped direction); q_k column k of the Gaussian's rotation; a0_k = s_k t0 . q_k,
// a1_k = s_k t1 . q_k, so that the 2D covariance is [[|a0|^2 + e, a0.a1], [a0.a1, |a1|^2 + e]] with the low-pass e.
// The shape goes out as the triangular factor (u, v, w) of its inverse; the determinant is a sum of squares
// (Cauchy-Binet), so that needles lose no digits.
#include <cmath>
#include <cstring>
#include <vector>

#include "parallel.h"
#include "simd.h"
namespace ffi = xla::ffi;

static const float LOW_PASS = 0.3f, TINY = 1e-24f;
static const float K1 = 0.4886025119029199f, K2A = 1.0925484305920792f, K2B = 0.31539156525252005f,
                   K2C = 0.5462742152960396f, K3A = 0.5900435899266435f, K3B = 2.890611442640554f,
                   K3C = 0.4570457994644658f, K3D = 0.3731763325901154f, K3E = 1.445305721320277f,
                   K0 = 0.28209479177387814f;

struct vec3 {
  vf x, y, z;
};
static inline vec3 operator+(vec3 a, vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
static inline vec3 operator-(vec3 a, vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
static inline vec3 operator*(vf s, vec3 a) { return {s * a.x, s * a.y, s * a.z}; }
static inline vf dot(vec3 a, vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
static inline vec3 cross(vec3 a, vec3 b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
static inline vec3 keep(vm m, vec3 a) { return {keep(m, a.x), keep(m, a.y), keep(m, a.z)}; }
static inline vec3 load3(const float* p) { return {gather(p, 3), gather(p + 1, 3), gather(p + 2, 3)}; }
static inline void store3(float* p, vec3 v) { scatter(p, 3, v.x), scatter(p + 1, 3, v.y), scatter(p + 2, 3, v.z); }

struct Camera {
  float r[3][3], c[3], fx, fy, cx, cy;  // rows of cam_from_world; position; intrinsics in pixels
  float width, height, near;
  bool antialiased;
  vec3 row(int i) const { return {splat(r[i][0]), splat(r[i][1]), splat(r[i][2])}; }
};

// The Gaussians of one SIMD group, as pointers to their first member.
struct Group {
  const float *means, *quats, *scales, *opacities, *sh;
};

struct Geometry {
  vm front;
  vd X, Y, Z;  // p before it is rounded: a float near pixel 1000 is already 3e-5 px off
  vec3 rel, p, t0, t1, q[3], a0, a1, s;
  vf iz, tx, ty, quat_len_inv, w, x, y, z;  // w, x, y, z: the unit quaternion
  vm free_x, free_y;                        // the linearisation point is not clamped
  vf a, b, c, det, det0, comp;
};

static inline vf clamp(vf v, float lo, float hi) { return min_(max_(v, splat(lo)), splat(hi)); }

static inline Geometry geometry(const Camera& cam, const Group& g) {
  Geometry o;
  vec3 r0 = cam.row(0), r1 = cam.row(1), r2 = cam.row(2);
  vec3 mean = load3(g.means);
  vd rx = wide(mean.x) - cam.c[0], ry = wide(mean.y) - cam.c[1], rz = wide(mean.z) - cam.c[2];
  auto along = [&](const float* r) { return rx * (double)r[0] + ry * (double)r[1] + rz * (double)r[2]; };
  o.X = along(cam.r[0]), o.Y = along(cam.r[1]), o.Z = along(cam.r[2]);
  o.rel = {narrow(rx), narrow(ry), narrow(rz)};
  o.p = {narrow(o.X), narrow(o.Y), narrow(o.Z)};
  o.front = gt(o.p.z, splat(cam.near));
  o.iz = splat(1.f) / select(o.front, o.p.z, splat(1.f));
  vf dx = o.p.x * o.iz, dy = o.p.y * o.iz;
  float mx = 0.15f * cam.width / cam.fx, my = 0.15f * cam.height / cam.fy;  // 0.3 of the half field of view
  o.tx = clamp(dx, -(cam.cx / cam.fx + mx), (cam.width - cam.cx) / cam.fx + mx);
  o.ty = clamp(dy, -(cam.cy / cam.fy + my), (cam.height - cam.cy) / cam.fy + my);
  o.free_x = both(le(o.tx, dx), le(dx, o.tx)), o.free_y = both(le(o.ty, dy), le(dy, o.ty));
  o.t0 = (splat(cam.fx) * o.iz) * (r0 - o.tx * r2);
  o.t1 = (splat(cam.fy) * o.iz) * (r1 - o.ty * r2);
  vf w = gather(g.quats, 4), x = gather(g.quats + 1, 4), y = gather(g.quats + 2, 4), z = gather(g.quats + 3, 4);
  o.quat_len_inv = splat(1.f) / sqrt_(w * w + x * x + y * y + z * z + splat(TINY));
  o.w = w = w * o.quat_len_inv, o.x = x = x * o.quat_len_inv;
  o.y = y = y * o.quat_len_inv, o.z = z = z * o.quat_len_inv;
  vf one = splat(1.f), two = splat(2.f);
  o.q[0] = {one - two * (y * y + z * z), two * (x * y + w * z), two * (x * z - w * y)};
  o.q[1] = {two * (x * y - w * z), one - two * (x * x + z * z), two * (y * z + w * x)};
  o.q[2] = {two * (x * z + w * y), two * (y * z - w * x), one - two * (x * x + y * y)};
  o.s = load3(g.scales);
  o.a0 = {dot(o.t0, o.q[0]) * o.s.x, dot(o.t0, o.q[1]) * o.s.y, dot(o.t0, o.q[2]) * o.s.z};
  o.a1 = {dot(o.t1, o.q[0]) * o.s.x, dot(o.t1, o.q[1]) * o.s.y, dot(o.t1, o.q[2]) * o.s.z};
  vec3 n = cross(o.a0, o.a1);
  vf aa = dot(o.a0, o.a0), cc = dot(o.a1, o.a1), e = splat(LOW_PASS);
  o.b = dot(o.a0, o.a1);
  o.a = aa + e, o.c = cc + e;
  o.det0 = max_(dot(n, n), splat(TINY));
  o.det = o.det0 + e * (aa + cc) + e * e;
  o.comp = cam.antialiased ? sqrt_(o.det0 / o.det) : one;
  return o;
}

// Values of the first K basis functions at the unit direction d, 3DGS order and signs.
static inline void sh_basis(vec3 d, int K, vf* b) {
  vf x = d.x, y = d.y, z = d.z;
  b[0] = splat(K0);
  if (K > 1) b[1] = splat(-K1) * y, b[2] = splat(K1) * z, b[3] = splat(-K1) * x;
  if (K <= 4) return;
  vf xx = x * x, yy = y * y, zz = z * z;
  b[4] = splat(K2A) * x * y, b[5] = splat(-K2A) * y * z, b[7] = splat(-K2A) * x * z;
  b[6] = splat(K2B) * (zz + zz - xx - yy), b[8] = splat(K2C) * (xx - yy);
  if (K <= 9) return;
  vf three = splat(3.f), f = splat(4.f) * zz - xx - yy;
  b[9] = splat(-K3A) * y * (three * xx - yy), b[10] = splat(K3B) * x * y * z, b[11] = splat(-K3C) * y * f;
  b[12] = splat(K3D) * z * (zz + zz - three * (xx + yy)), b[13] = splat(-K3C) * x * f;
  b[14] = splat(K3E) * z * (xx - yy), b[15] = splat(-K3A) * x * (xx - three * yy);
}

// Gradient with respect to d of sum_k s[k] * basis_k(d), d taken as three free numbers.
static inline vec3 sh_slope(vec3 d, int K, const vf* s) {
  vf x = d.x, y = d.y, z = d.z;
  vec3 g = {zero(), zero(), zero()};
  if (K > 1) g = {splat(-K1) * s[3], splat(-K1) * s[1], splat(K1) * s[2]};
  if (K <= 4) return g;
  vf A = splat(K2A), B = splat(2 * K2B), C = splat(2 * K2C);
  g.x = g.x + A * (y * s[4] - z * s[7]) - B * x * s[6] + C * x * s[8];
  g.y = g.y + A * (x * s[4] - z * s[5]) - B * y * s[6] - C * y * s[8];
  g.z = g.z - A * (y * s[5] + x * s[7]) + splat(2.f) * B * z * s[6];
  if (K <= 9) return g;
  vf xx = x * x, yy = y * y, zz4 = splat(4.f) * z * z, three = splat(3.f), two = splat(2.f);
  vf a9 = splat(-K3A) * s[9], a10 = splat(K3B) * s[10], a11 = splat(-K3C) * s[11], a12 = splat(K3D) * s[12],
     a13 = splat(-K3C) * s[13], a14 = splat(K3E) * s[14], a15 = splat(-K3A) * s[15], six = splat(6.f),
     eight = splat(8.f), xy2 = two * x * y;
  g.x = g.x + three * xy2 * a9 + y * z * a10 - xy2 * a11 - six * x * z * a12 + (zz4 - three * xx - yy) * a13 +
        two * x * z * a14 + three * (xx - yy) * a15;
  g.y = g.y + three * (xx - yy) * a9 + x * z * a10 + (zz4 - xx - three * yy) * a11 - six * y * z * a12 - xy2 * a13 -
        two * y * z * a14 - three * xy2 * a15;
  g.z = g.z + x * y * a10 + eight * y * z * a11 + (six * z * z - three * (xx + yy)) * a12 + eight * x * z * a13 +
        (xx - yy) * a14;
  return g;
}

struct Direction {
  vec3 d;
  vf inv;  // 1 / distance from the camera
};
static inline Direction direction(vec3 rel) {
  vf inv = splat(1.f) / sqrt_(dot(rel, rel) + splat(TINY));
  return {inv * rel, inv};
}

struct Outputs {
  float *xy, *factor, *depth, *opacity, *rgb;
};

static void group_forward(const Camera& cam, const Group& g, int K, const Outputs& out) {
  Geometry o = geometry(cam, g);
  vf sx = sqrt_(o.c), inv_c = splat(1.f) / sx, inv_d = splat(1.f) / sqrt_(o.det);
  vd Z = wide(select(o.front, o.p.z, splat(1.f)));
  vf x = narrow((double)cam.fx * o.X / Z + (double)cam.cx), y = narrow((double)cam.fy * o.Y / Z + (double)cam.cy);
  vf opacity = keep(o.front, gather(g.opacities, 1) * o.comp);
  scatter(out.xy, 2, x), scatter(out.xy + 1, 2, y);
  store3(out.factor, {sx * inv_d, zero() - o.b * inv_c * inv_d, inv_c});
  store(out.depth, o.p.z);
  store(out.opacity, opacity);
  vec3 colour = {zero(), zero(), zero()};
  if (any(gt(opacity, zero()))) {
    vf basis[16];
    sh_basis(direction(o.rel).d, K, basis);
    colour = {splat(0.5f), splat(0.5f), splat(0.5f)};
    for (int k = 0; k < K; k++)
      colour = colour + basis[k] * vec3{gather(g.sh + 3 * k, 3 * K), gather(g.sh + 3 * k + 1, 3 * K),
                                        gather(g.sh + 3 * k + 2, 3 * K)};
    colour = {max_(colour.x, zero()), max_(colour.y, zero()), max_(colour.z, zero())};
  }
  store3(out.rgb, colour);
}

struct GroupGradients {
  const float *xy, *factor, *depth, *opacity, *rgb;         // incoming
  float *means, *quats, *scales, *opacities, *sh;           // outgoing
};

// Sums over a chunk: rows of cam_from_world, position, fx, fy, cx, cy.
struct PoseSums {
  double v[16] = {};
  void add(int i, vf x) { v[i] += sum(x); }
  void add3(int i, vec3 x) { add(i, x.x), add(i + 1, x.y), add(i + 2, x.z); }
};

static void zero_group(const GroupGradients& io, int lanes, int K) {
  memset(io.means, 0, lanes * 12), memset(io.quats, 0, lanes * 16), memset(io.scales, 0, lanes * 12);
  memset(io.opacities, 0, lanes * 4), memset(io.sh, 0, (size_t)lanes * 12 * K);
}

static void group_backward(const Camera& cam, const Group& g, int K, const GroupGradients& io, PoseSums& pose) {
  vec3 g_rgb = load3(io.rgb), g_factor = load3(io.factor);
  vf gx = gather(io.xy, 2), gy = gather(io.xy + 1, 2), g_depth = load(io.depth), g_opacity = load(io.opacity);
  vf size = abs_(gx) + abs_(gy) + abs_(g_factor.x) + abs_(g_factor.y) + abs_(g_factor.z) + abs_(g_rgb.x) +
            abs_(g_rgb.y) + abs_(g_rgb.z) + abs_(g_opacity) + abs_(g_depth);
  if (!any(gt(size, zero()))) return zero_group(io, LANES, K);
  Geometry o = geometry(cam, g);
  vm ok = o.front;
  gx = keep(ok, gx), gy = keep(ok, gy), g_factor = keep(ok, g_factor), g_rgb = keep(ok, g_rgb);
  g_opacity = keep(ok, g_opacity);  // depth is Z everywhere, also behind the camera

  // opacity and the Mip-Splatting compensation sqrt(det0 / det)
  vf half = splat(0.5f), two = splat(2.f);
  store(io.opacities, g_opacity * o.comp);
  // factor: u = sqrt(c / det), v = -b / sqrt(c det), w = 1 / sqrt(c)
  vf inv_det = splat(1.f) / o.det, inv_c = splat(1.f) / o.c, root = sqrt_(inv_c * inv_det);
  vf u = o.c * root, v = zero() - o.b * root, w = sqrt_(inv_c);
  vf along_v = half * v * g_factor.y;
  vf g_det = zero() - (half * u * g_factor.x + along_v) * inv_det;
  vf g_c = (half * u * g_factor.x - along_v - half * w * g_factor.z) * inv_c;
  vf g_b = zero() - root * g_factor.y, g_det0 = zero();
  if (cam.antialiased) {
    vf k = half * o.comp * g_opacity * gather(g.opacities, 1);
    g_det0 = k / o.det0;
    g_det = g_det - k * inv_det;
  }
  // det = det0 + e (|a0|^2 + |a1|^2) + e^2 with det0 = |a0 x a1|^2; not by a c - b^2, which cancels for needles
  vf g_n = keep(gt(o.det0, splat(TINY)), two * (g_det + g_det0)), g_e = two * splat(LOW_PASS) * g_det;
  vec3 n = cross(o.a0, o.a1);
  vec3 g_a0 = g_n * cross(o.a1, n) + g_e * o.a0 + g_b * o.a1;
  vec3 g_a1 = g_n * cross(n, o.a0) + (g_e + two * g_c) * o.a1 + g_b * o.a0;
  vf h0[3] = {dot(o.t0, o.q[0]), dot(o.t0, o.q[1]), dot(o.t0, o.q[2])};
  vf h1[3] = {dot(o.t1, o.q[0]), dot(o.t1, o.q[1]), dot(o.t1, o.q[2])};
  store3(io.scales, keep(ok, {g_a0.x * h0[0] + g_a1.x * h1[0], g_a0.y * h0[1] + g_a1.y * h1[1],
                              g_a0.z * h0[2] + g_a1.z * h1[2]}));
  vec3 b0 = {g_a0.x * o.s.x, g_a0.y * o.s.y, g_a0.z * o.s.z}, b1 = {g_a1.x * o.s.x, g_a1.y * o.s.y, g_a1.z * o.s.z};
  vec3 g_t0 = b0.x * o.q[0] + b0.y * o.q[1] + b0.z * o.q[2], g_t1 = b1.x * o.q[0] + b1.y * o.q[1] + b1.z * o.q[2];
  vec3 gq0 = b0.x * o.t0 + b1.x * o.t1, gq1 = b0.y * o.t0 + b1.y * o.t1, gq2 = b0.z * o.t0 + b1.z * o.t1;
  // rotation columns -> unit quaternion -> quaternion of any length
  vf gw = two * (o.x * (gq1.z - gq2.y) + o.y * (gq2.x - gq0.z) + o.z * (gq0.y - gq1.x));
  vf gqx = two * (o.y * (gq0.y + gq1.x) + o.z * (gq0.z + gq2.x) + o.w * (gq1.z - gq2.y)) -
           splat(4.f) * o.x * (gq1.y + gq2.z);
  vf gqy = two * (o.x * (gq0.y + gq1.x) + o.z * (gq1.z + gq2.y) + o.w * (gq2.x - gq0.z)) -
           splat(4.f) * o.y * (gq0.x + gq2.z);
  vf gqz = two * (o.x * (gq0.z + gq2.x) + o.y * (gq1.z + gq2.y) + o.w * (gq0.y - gq1.x)) -
           splat(4.f) * o.z * (gq0.x + gq1.y);
  vf along = gw * o.w + gqx * o.x + gqy * o.y + gqz * o.z;
  scatter(io.quats, 4, keep(ok, (gw - along * o.w) * o.quat_len_inv));
  scatter(io.quats + 1, 4, keep(ok, (gqx - along * o.x) * o.quat_len_inv));
  scatter(io.quats + 2, 4, keep(ok, (gqy - along * o.y) * o.quat_len_inv));
  scatter(io.quats + 3, 4, keep(ok, (gqz - along * o.z) * o.quat_len_inv));
  // t0 = fx iz (r0 - tx r2), t1 = fy iz (r1 - ty r2), x = fx X iz + cx, y = fy Y iz + cy
  vec3 r0 = cam.row(0), r1 = cam.row(1), r2 = cam.row(2);
  vf fx = splat(cam.fx), fy = splat(cam.fy), k0 = fx * o.iz, k1 = fy * o.iz;
  vf g_k0 = dot(g_t0, r0 - o.tx * r2), g_k1 = dot(g_t1, r1 - o.ty * r2);
  vf g_tx = zero() - k0 * dot(g_t0, r2), g_ty = zero() - k1 * dot(g_t1, r2);
  vf free_tx = keep(o.free_x, g_tx), free_ty = keep(o.free_y, g_ty);
  vf g_iz = g_k0 * fx + g_k1 * fy + (gx * fx + free_tx) * o.p.x + (gy * fy + free_ty) * o.p.y;
  vec3 g_p = {(gx * fx + free_tx) * o.iz, (gy * fy + free_ty) * o.iz, zero() - g_iz * o.iz * o.iz};
  g_p = keep(ok, g_p);
  g_p.z = g_p.z + g_depth;
  vec3 g_rel = g_p.x * r0 + g_p.y * r1 + g_p.z * r2;

  // colour
  Direction dir = direction(o.rel);
  vf basis[16], s[16];
  sh_basis(dir.d, K, basis);
  vec3 colour = {splat(0.5f), splat(0.5f), splat(0.5f)};
  vec3 coefficient[16];
  for (int k = 0; k < K; k++) {
    coefficient[k] = {gather(g.sh + 3 * k, 3 * K), gather(g.sh + 3 * k + 1, 3 * K), gather(g.sh + 3 * k + 2, 3 * K)};
    colour = colour + basis[k] * coefficient[k];
  }
  g_rgb = {keep(gt(colour.x, zero()), g_rgb.x), keep(gt(colour.y, zero()), g_rgb.y),
           keep(gt(colour.z, zero()), g_rgb.z)};
  for (int k = 0; k < K; k++) {
    s[k] = dot(g_rgb, coefficient[k]);
    vec3 out = basis[k] * g_rgb;
    scatter(io.sh + 3 * k, 3 * K, out.x), scatter(io.sh + 3 * k + 1, 3 * K, out.y);
    scatter(io.sh + 3 * k + 2, 3 * K, out.z);
  }
  vec3 g_dir = sh_slope(dir.d, K, s);
  g_rel = g_rel + dir.inv * (g_dir - dot(g_dir, dir.d) * dir.d);
  store3(io.means, g_rel);

  // camera: rows of the rotation, position (rel = mean - position), intrinsics; clamped tx moves with fx and cx
  vec3 none = {zero(), zero(), zero()};
  pose.add3(0, g_p.x * o.rel + keep(ok, k0 * g_t0));
  pose.add3(3, g_p.y * o.rel + keep(ok, k1 * g_t1));
  pose.add3(6, g_p.z * o.rel - keep(ok, (k0 * o.tx) * g_t0 + (k1 * o.ty) * g_t1));
  pose.add3(9, none - g_rel);
  vf held_tx = keep(ok, (g_tx - free_tx) / fx), held_ty = keep(ok, (g_ty - free_ty) / fy);
  pose.add(12, keep(ok, (gx * o.p.x + g_k0) * o.iz) - held_tx * o.tx);
  pose.add(13, keep(ok, (gy * o.p.y + g_k1) * o.iz) - held_ty * o.ty);
  pose.add(14, gx - held_tx);
  pose.add(15, gy - held_ty);
}

using F32 = ffi::Buffer<ffi::F32>;
using OutF = ffi::ResultBuffer<ffi::F32>;

static Camera make_camera(F32 pose, F32 focal, F32 centre, int64_t height, int64_t width, float near, bool aa) {
  Camera c;
  const float* m = pose.typed_data();  // world_from_cam, [3,4]
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++) c.r[i][j] = m[4 * j + i];
    c.c[i] = m[4 * i + 3];
  }
  c.fx = focal.typed_data()[0], c.fy = focal.typed_data()[1];
  c.cx = centre.typed_data()[0], c.cy = centre.typed_data()[1];
  c.width = (float)width, c.height = (float)height, c.near = near, c.antialiased = aa;
  return c;
}

static const int BLOCK = 2048;  // Gaussians per task; fixed, so that sums do not depend on the threads

// Copies the last, incomplete group of an array [n, size] into a full group.
struct Tail {
  std::vector<std::vector<float>> arrays;
  float* get(const float* from, int lanes, int size) {
    arrays.emplace_back((size_t)LANES * size, 0.f);
    if (from) memcpy(arrays.back().data(), from, sizeof(float) * lanes * size);
    return arrays.back().data();
  }
};

static ffi::Error Forward(ffi::ThreadPool threads, F32 means, F32 quats, F32 scales, F32 opacities, F32 sh, F32 pose,
                          F32 focal, F32 centre, OutF xy, OutF factor, OutF depth, OutF opacity, OutF rgb,
                          int64_t n_threads, int64_t height, int64_t width, float near, bool antialiased) {
  Pool pool(threads, n_threads);
  const int n = (int)means.dimensions()[0], K = (int)sh.dimensions()[1];
  if (K > 16) return ffi::Error::InvalidArgument("the projection kernel takes SH degree 0 to 3");
  Camera cam = make_camera(pose, focal, centre, height, width, near, antialiased);
  const float *m = means.typed_data(), *q = quats.typed_data(), *s = scales.typed_data(), *o = opacities.typed_data(),
              *c = sh.typed_data();
  Outputs out = {xy->typed_data(), factor->typed_data(), depth->typed_data(), opacity->typed_data(), rgb->typed_data()};
  pool.run((n + BLOCK - 1) / BLOCK, [&](int block) {
    int end = std::min(n, (block + 1) * BLOCK), i = block * BLOCK;
    for (; i + LANES <= end; i += LANES)
      group_forward(cam, {m + 3 * i, q + 4 * i, s + 3 * i, o + i, c + (size_t)3 * K * i}, K,
                    {out.xy + 2 * i, out.factor + 3 * i, out.depth + i, out.opacity + i, out.rgb + 3 * i});
    if (i == end) return;
    int left = end - i;
    Tail t;
    Group g = {t.get(m + 3 * i, left, 3), t.get(q + 4 * i, left, 4), t.get(s + 3 * i, left, 3), t.get(o + i, left, 1),
               t.get(c + (size_t)3 * K * i, left, 3 * K)};
    Outputs r = {t.get(nullptr, 0, 2), t.get(nullptr, 0, 3), t.get(nullptr, 0, 1), t.get(nullptr, 0, 1),
                 t.get(nullptr, 0, 3)};
    group_forward(cam, g, K, r);
    memcpy(out.xy + 2 * i, r.xy, 8 * left), memcpy(out.factor + 3 * i, r.factor, 12 * left);
    memcpy(out.depth + i, r.depth, 4 * left), memcpy(out.opacity + i, r.opacity, 4 * left);
    memcpy(out.rgb + 3 * i, r.rgb, 12 * left);
  });
  return ffi::Error::Success();
}

static ffi::Error Backward(ffi::ThreadPool threads, F32 means, F32 quats, F32 scales, F32 opacities, F32 sh, F32 pose,
                           F32 focal, F32 centre, F32 xy, F32 factor, F32 depth, F32 opacity, F32 rgb, OutF g_means,
                           OutF g_quats, OutF g_scales, OutF g_opacities, OutF g_sh, OutF g_pose, OutF g_focal,
                           OutF g_centre, int64_t n_threads, int64_t height, int64_t width, float near,
                           bool antialiased) {
  Pool pool(threads, n_threads);
  const int n = (int)means.dimensions()[0], K = (int)sh.dimensions()[1];
  if (K > 16) return ffi::Error::InvalidArgument("the projection kernel takes SH degree 0 to 3");
  Camera cam = make_camera(pose, focal, centre, height, width, near, antialiased);
  const float *m = means.typed_data(), *q = quats.typed_data(), *s = scales.typed_data(), *o = opacities.typed_data(),
              *c = sh.typed_data();
  GroupGradients io = {xy.typed_data(), factor.typed_data(), depth.typed_data(), opacity.typed_data(),
                       rgb.typed_data(), g_means->typed_data(), g_quats->typed_data(), g_scales->typed_data(),
                       g_opacities->typed_data(), g_sh->typed_data()};
  const int blocks = (n + BLOCK - 1) / BLOCK;
  std::vector<PoseSums> sums(blocks);
  pool.run(blocks, [&](int block) {
    int end = std::min(n, (block + 1) * BLOCK), i = block * BLOCK;
    PoseSums& pose_sum = sums[block];
    for (; i + LANES <= end; i += LANES)
      group_backward(cam, {m + 3 * i, q + 4 * i, s + 3 * i, o + i, c + (size_t)3 * K * i}, K,
                     {io.xy + 2 * i, io.factor + 3 * i, io.depth + i, io.opacity + i, io.rgb + 3 * i,
                      io.means + 3 * i, io.quats + 4 * i, io.scales + 3 * i, io.opacities + i,
                      io.sh + (size_t)3 * K * i},
                     pose_sum);
    if (i == end) return;
    int left = end - i;
    Tail t;
    Group g = {t.get(m + 3 * i, left, 3), t.get(q + 4 * i, left, 4), t.get(s + 3 * i, left, 3), t.get(o + i, left, 1),
               t.get(c + (size_t)3 * K * i, left, 3 * K)};
    GroupGradients r = {t.get(io.xy + 2 * i, left, 2), t.get(io.factor + 3 * i, left, 3), t.get(io.depth + i, left, 1),
                        t.get(io.opacity + i, left, 1), t.get(io.rgb + 3 * i, left, 3), t.get(nullptr, 0, 3),
                        t.get(nullptr, 0, 4), t.get(nullptr, 0, 3), t.get(nullptr, 0, 1), t.get(nullptr, 0, 3 * K)};
    group_backward(cam, g, K, r, pose_sum);
    memcpy(io.means + 3 * i, r.means, 12 * left), memcpy(io.quats + 4 * i, r.quats, 16 * left);
    memcpy(io.scales + 3 * i, r.scales, 12 * left), memcpy(io.opacities + i, r.opacities, 4 * left);
    memcpy(io.sh + (size_t)3 * K * i, r.sh, (size_t)12 * K * left);
  });
  double total[16] = {};
  for (auto& b : sums)
    for (int k = 0; k < 16; k++) total[k] += b.v[k];
  float* p = g_pose->typed_data();
  for (int j = 0; j < 3; j++) {
    for (int k = 0; k < 3; k++) p[4 * j + k] = (float)total[3 * k + j];
    p[4 * j + 3] = (float)total[9 + j];
  }
  for (int k = 0; k < 2; k++) {
    g_focal->typed_data()[k] = (float)total[12 + k];
    g_centre->typed_data()[k] = (float)total[14 + k];
  }
  return ffi::Error::Success();
}

// clang-format off
XLA_FFI_DEFINE_HANDLER_SYMBOL(ProjectForward, Forward, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>()
    .Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>()
    .Attr<int64_t>("n_threads").Attr<int64_t>("height").Attr<int64_t>("width").Attr<float>("near")
    .Attr<bool>("antialiased"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(ProjectBackward, Backward, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()
    .Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>()
    .Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>().Arg<F32>()
    .Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>()
    .Attr<int64_t>("n_threads").Attr<int64_t>("height").Attr<int64_t>("width").Attr<float>("near")
    .Attr<bool>("antialiased"));
// clang-format on
