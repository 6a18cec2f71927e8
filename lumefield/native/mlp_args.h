// Arguments of the mlp kernels: the network that comes in, the gradients that go out.
#pragma once
#include <string>

#include "xla/ffi/api/ffi.h"

constexpr int MAX_LAYERS = 8;
using F32 = xla::ffi::Buffer<xla::ffi::F32>;

struct Wanted {
  bool x, weights;
};

struct Gradients {  // null where not wanted
  float *x = nullptr, *weights[MAX_LAYERS] = {}, *biases[MAX_LAYERS] = {};
};

// The network in the arguments (weights, then biases); an empty message when all fits. Net has `n`, `layers` and
// `layer[]`, whose members have `in`, `out`, `w` and `bias` (null for none).
template <class Net>
static std::string read_net(xla::ffi::RemainingArgs args, int layers, bool biased, const F32& x, int most, Net& net) {
  if (layers < 1 || layers > MAX_LAYERS) return "the mlp kernel takes 1 to 8 layers";
  if (args.size() != (size_t)layers * (biased ? 2 : 1)) return "the mlp kernel takes one array per weight and bias";
  net.n = x.dimensions()[0], net.layers = layers;
  for (int l = 0; l < layers; l++) {
    auto w = args.get<F32>(l);
    if (!w.has_value() || w->dimensions().size() != 2) return "mlp weights are float32 matrices";
    auto& y = net.layer[l];
    y.in = (int)w->dimensions()[0], y.out = (int)w->dimensions()[1];
    y.w = w->typed_data(), y.bias = nullptr;
    const std::string range = "mlp layers are 1 to " + std::to_string(most) + " wide";
    if (y.in < 1 || y.out < 1 || y.in > most || y.out > most) return range;
    if (y.in != (l ? net.layer[l - 1].out : (int)x.dimensions()[1])) return "mlp weights do not follow one another";
    if (!biased) continue;
    auto b = args.get<F32>(layers + l);
    if (!b.has_value() || (int)b->element_count() != y.out) return "mlp biases are float32 vectors, one per output";
    y.bias = b->typed_data();
  }
  return "";
}

// Where the wanted gradients go: x, weights, biases; an empty message when there is one array for each.
static inline std::string read_gradients(xla::ffi::RemainingRets rets, int layers, bool biased, Wanted want,
                                         Gradients& to) {
  size_t next = 0;
  auto take = [&](bool wanted) -> float* {
    auto out = wanted ? rets.get<F32>(next++) : rets.get<F32>(rets.size());
    return out.has_value() ? (*out)->typed_data() : nullptr;
  };
  to.x = take(want.x);
  for (int l = 0; l < layers; l++) to.weights[l] = take(want.weights);
  for (int l = 0; l < layers; l++) to.biases[l] = take(want.weights && biased);
  return next == rets.size() ? "" : "the mlp kernel returns one array per wanted gradient";
}
