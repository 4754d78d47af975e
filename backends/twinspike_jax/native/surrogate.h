// Formats of arrays, and surrogate derivatives h(z) of the spike, z = u - threshold (clauses SUR-*).

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

namespace twinspike {

using std::int64_t;

// --- formats ------------------------------------------------------------------------------------------

struct Bfloat16 {
  std::uint16_t bits;
};

inline float load(float a) { return a; }
inline double load(double a) { return a; }
inline float load(Bfloat16 a) {
  const std::uint32_t wide = static_cast<std::uint32_t>(a.bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

struct Boolean {
  std::uint8_t byte;
};

template <class P>
inline void store(Boolean& to, P value) {
  to.byte = value != 0;
}
inline void store(float& to, float value) { to = value; }
inline void store(double& to, double value) { to = value; }
inline void store(Bfloat16& to, float value) {  // to nearest, ties to even
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to.bits = static_cast<std::uint16_t>(value == value ? rounded : 0x7fc0u);
}

// --- surrogate derivatives h(z), z = u - threshold; clauses SUR-* ---------------------------------------

template <class P>
struct Format;

template <>
struct Format<float> {
  using Bits = std::int32_t;
  static constexpr int kSignificand = 23, kDegree = 7;
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f, kLargest = 87.0f;
};

template <>
struct Format<double> {
  using Bits = std::int64_t;
  static constexpr int kSignificand = 52, kDegree = 13;
  static constexpr double kLn2High = 6.93145751953125e-1, kLn2Low = 1.42860682030941723212e-6, kLargest = 708.0;
};

// a b + c, rounded once where the processor can do so. Never for potentials, whose roundings are stated (LIF-11).
template <class P>
inline P multiply_add(P a, P b, P c) {
#if defined(__FMA__) || defined(__aarch64__)
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

constexpr double factorial(int k) { return k < 2 ? 1 : k * factorial(k - 1); }

// Sum of r^(i-k)/i! for i from k to the degree. No loop, since that would be the one that is not vectorised.
template <int k, int kDegree, class P>
inline P taylor(P r) {
  if constexpr (k == kDegree) {
    return P(1 / factorial(k));
  } else {
    return multiply_add(taylor<k + 1, kDegree>(r), r, P(1 / factorial(k)));
  }
}

// exp(-y) for y >= 0, within 3 units of the last place, and 0 where it leaves the normal numbers. Written out, since
// the library's own is not vectorised: -y = n ln 2 + r with |r| <= ln(2)/2, and the Taylor polynomial of exp(r), whose
// remainder is below a tenth of a unit.
template <class P>
inline P exp_minus(P y) {
  using F = Format<P>;
  using Bits = typename F::Bits;
  constexpr P kRound = P(3) * P(Bits(1) << (F::kSignificand - 1));  // adding it leaves a whole number in the last bits
  const P inside = y < F::kLargest ? y : F::kLargest;
  const P shifted = multiply_add(inside, P(-1.44269504088896340736), kRound);
  const P n = shifted - kRound;
  const P r = multiply_add(n, -F::kLn2Low, multiply_add(n, -F::kLn2High, -inside));
  const P sum = taylor<0, F::kDegree>(r);
  Bits bits, base;
  std::memcpy(&bits, &shifted, sizeof bits);
  std::memcpy(&base, &kRound, sizeof base);
  bits = (bits - base) * (Bits(1) << F::kSignificand);
  Bits scaled;
  std::memcpy(&scaled, &sum, sizeof scaled);
  scaled += bits;
  P value;
  std::memcpy(&value, &scaled, sizeof value);
  return y < F::kLargest ? value : P(0);
}

template <class P>
inline P square(P a) {
  return a * a;
}

template <class P>
struct Rectangle {
  P half, height;
  explicit Rectangle(double width) : half(P(width / 2)), height(P(1 / width)) {}
  P operator()(P z) const { return P(std::fabs(z) < half) * height; }
};

template <class P>
struct Triangle {
  P width;
  explicit Triangle(double width) : width(P(width)) {}
  P operator()(P z) const {
    const P h = 1 - std::fabs(z) / width;
    return (h > 0 ? h : P(0)) / width;
  }
};

template <class P>
struct Sigmoid {
  P slope;
  explicit Sigmoid(double slope) : slope(P(slope)) {}
  P operator()(P z) const {
    const P q = exp_minus(slope * std::fabs(z));
    return slope * q / square(1 + q);
  }
};

template <class P>
struct Arctan {
  P half, inner;
  explicit Arctan(double slope) : half(P(slope / 2)), inner(P(3.14159265358979323846 * slope / 2)) {}
  P operator()(P z) const { return half / (1 + square(inner * z)); }
};

template <class P>
struct FastSigmoid {
  P half, slope;
  explicit FastSigmoid(double slope) : half(P(slope / 2)), slope(P(slope)) {}
  P operator()(P z) const { return half / square(1 + slope * std::fabs(z)); }
};

template <class P>
struct Tanh {
  P twice;
  explicit Tanh(double slope) : twice(P(2 * slope)) {}
  P operator()(P z) const {
    const P q = exp_minus(twice * std::fabs(z));
    return twice * q / square(1 + q);
  }
};

}  // namespace twinspike
