// Arithmetic and memory traffic as the launch code of the kernels counts it: what an op needs by
// its definition, the same for every variant and device, so that it can be compared with a
// prediction.
#pragma once

namespace rk::kernels {

struct Work {
  double flops = 0;  ///< a multiply and an add are two
  double bytes = 0;  ///< every operand once a call: weights, stored rows, activations, results

  Work& operator+=(const Work& other) {
    flops += other.flops;
    bytes += other.bytes;
    return *this;
  }
  friend Work operator+(Work a, const Work& b) { return a += b; }
  friend Work operator-(const Work& a, const Work& b) {
    return {a.flops - b.flops, a.bytes - b.bytes};
  }
  friend Work operator*(const Work& a, double n) { return {a.flops * n, a.bytes * n}; }
};

/// y [m, n] (+)= x [m, k] w: `x_bytes` and `y_bytes` an element, a sum into y reads it too.
inline Work gemm_work(double m, double n, double k, double weight_bytes, double x_bytes,
                      double y_bytes, bool accumulate) {
  return {2 * m * n * k, weight_bytes + m * k * x_bytes + m * n * y_bytes * (accumulate ? 2 : 1)};
}

/// Attention of `rows` queries of `heads` heads each, `dim` wide: two products for every visible
/// (query head, key) pair; K and V of every row seen, queries and results.
inline Work attention_work(double pairs, double kv_bytes, double rows, double heads, double dim,
                           double q_bytes) {
  return {4 * dim * pairs, kv_bytes + 2 * rows * heads * dim * q_bytes};
}

/// Attention mass: one product a pair, K only.
inline Work mass_work(double pairs, double k_bytes, double rows, double heads, double dim,
                      double q_bytes) {
  return {2 * dim * pairs, k_bytes + rows * heads * dim * q_bytes};
}

}  // namespace rk::kernels
