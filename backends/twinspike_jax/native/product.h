// Matrix products in tiles that stay in registers, out of operands that are read where they lie.
//
// A tile is kRows rows by kWidth columns of the result. Rows of the left operand are given by pointers, so that they may be
// pixels of a map, shifted by a kernel's tap, or columns of a matrix; nobody copies them. Of the right operand each thread
// packs as much as its second-level cache holds: panels of kWidth columns, depth after depth. What is added up in which order
// depends on shapes alone, never on threads. The compiler may and should fuse multiply and add.

#pragma once

#include <algorithm>
#include <cstdint>

namespace twinspike {

// Bytes of a vector, and rows of a tile: with two vectors a row they fill the registers, and leave some for operands.
#if defined(__AVX512F__)
constexpr int64_t kBytes = 64, kRows = 8;
#elif defined(__AVX__)
constexpr int64_t kBytes = 32, kRows = 6;
#elif defined(__aarch64__)
constexpr int64_t kBytes = 16, kRows = 8;
#else
constexpr int64_t kBytes = 16, kRows = 6;
#endif
constexpr int64_t kDepth = 512;     // terms of a sum before it goes to memory
constexpr int64_t kColumns = 128;   // of the result, for which a thread packs the right operand

template <class P>
struct Wide;
template <>
struct Wide<float> {
  typedef float Vector __attribute__((vector_size(kBytes), aligned(alignof(float)), may_alias));
  typedef float Four __attribute__((vector_size(4 * sizeof(float)), aligned(alignof(float)), may_alias));
};
template <>
struct Wide<double> {
  typedef double Vector __attribute__((vector_size(kBytes), aligned(alignof(double)), may_alias));
  typedef double Four __attribute__((vector_size(4 * sizeof(double)), aligned(alignof(double)), may_alias));
};

template <class P>
constexpr int64_t kLanes = kBytes / static_cast<int64_t>(sizeof(P));
template <class P>
constexpr int64_t kWidth = 2 * kLanes<P>;

// `n` terms of a tile's sums: term k is a[row][k step] times row (first + k) of a panel.
template <class P>
struct Segment {
  const P* a[kRows];
  int64_t first, n;
};

// Add up segments into a tile, or set it if `fresh`; `shift` is added to all rows' pointers.
template <class P>
void tile(const Segment<P>* segments, int64_t count, const P* panel, int64_t step, int64_t shift, bool fresh, P* const* to,
          int64_t rows, int64_t columns) {
  using Vector = typename Wide<P>::Vector;
  Vector sums[kRows][2];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = Vector{};
  for (const Segment<P>* s = segments; s != segments + count; ++s) {
    const P* a[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) a[r] = s->a[r] + shift;
    const P* b = panel + s->first * kWidth<P>;
    for (int64_t k = 0, at = 0; k < s->n; ++k, at += step, b += kWidth<P>) {
      const Vector low = *reinterpret_cast<const Vector*>(b), high = *reinterpret_cast<const Vector*>(b + kLanes<P>);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const P value = a[r][at];
        sums[r][0] += value * low;
        sums[r][1] += value * high;
      }
    }
  }
  if (rows == kRows && columns >= kWidth<P>) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      Vector *low = reinterpret_cast<Vector*>(to[r]), *high = reinterpret_cast<Vector*>(to[r] + kLanes<P>);
      *low = fresh ? sums[r][0] : *low + sums[r][0];
      *high = fresh ? sums[r][1] : *high + sums[r][1];
    }
    return;
  }
  P all[kRows][kWidth<P>];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    *reinterpret_cast<Vector*>(all[r]) = sums[r][0];
    *reinterpret_cast<Vector*>(all[r] + kLanes<P>) = sums[r][1];
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < std::min(columns, kWidth<P>); ++j) to[r][j] = fresh ? all[r][j] : to[r][j] + all[r][j];
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define TWINSPIKE_SHUFFLE __builtin_shufflevector
#endif
#endif

// Four rows of four, `from_step` apart, become columns, `to_step` apart.
template <class P>
inline void transpose(const P* from, int64_t from_step, P* to, int64_t to_step) {
#ifdef TWINSPIKE_SHUFFLE
  using Four = typename Wide<P>::Four;
  Four in[4], mixed[4];
  for (int i = 0; i < 4; ++i) in[i] = *reinterpret_cast<const Four*>(from + i * from_step);
  for (int i = 0; i < 4; i += 2) {
    mixed[i] = TWINSPIKE_SHUFFLE(in[i], in[i + 1], 0, 4, 1, 5);
    mixed[i + 1] = TWINSPIKE_SHUFFLE(in[i], in[i + 1], 2, 6, 3, 7);
  }
  for (int i = 0; i < 2; ++i) {
    *reinterpret_cast<Four*>(to + 2 * i * to_step) = TWINSPIKE_SHUFFLE(mixed[i], mixed[i + 2], 0, 1, 4, 5);
    *reinterpret_cast<Four*>(to + (2 * i + 1) * to_step) = TWINSPIKE_SHUFFLE(mixed[i], mixed[i + 2], 2, 3, 6, 7);
  }
#else
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) to[j * to_step + i] = from[i * from_step + j];
#endif
}

// Copy `depth` x `columns` entries, from[k k_step + j j_step], into panels of kWidth columns that are `rows` deep, zeros behind.
// One of the steps is 1.
template <class P>
void pack(const P* from, int64_t k_step, int64_t j_step, int64_t depth, int64_t columns, int64_t rows, P* to) {
  for (int64_t j = 0; j < columns; j += kWidth<P>, to += rows * kWidth<P>) {
    const int64_t n = std::min(kWidth<P>, columns - j);
    const P* source = from + j * j_step;
    if (n < kWidth<P>) std::fill_n(to, depth * kWidth<P>, P(0));
    if (j_step == 1) {
      for (int64_t k = 0; k < depth; ++k) std::copy_n(source + k * k_step, n, to + k * kWidth<P>);
      continue;
    }
    const int64_t fours = depth / 4 * 4;
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
      for (int64_t k = 0; k < fours; k += 4) transpose(source + i * j_step + k, j_step, to + k * kWidth<P> + i, kWidth<P>);
      for (int64_t k = fours; k < depth; ++k)
        for (int64_t l = i; l < i + 4; ++l) to[k * kWidth<P> + l] = source[l * j_step + k];
    }
    for (; i < n; ++i)
      for (int64_t k = 0; k < depth; ++k) to[k * kWidth<P> + i] = source[i * j_step + k];
  }
}

// --- transposed factors ---------------------------------------------------------------------------------

// c = a' diag(weights of terms) b' diag(weights of columns): a (terms, rows), b (columns, terms), c (rows, columns).
template <class P>
struct Product {
  const P *a, *b, *of_terms, *of_columns;  // weights may be null
  P* c;
  int64_t rows, columns, terms;

  static int64_t bytes() { return kDepth * kColumns * sizeof(P); }
  int64_t blocks() const { return (columns + kColumns - 1) / kColumns; }

  // Block `number` of columns.
  void run(int64_t number, P* packed) const {
    const int64_t first = number * kColumns, n = std::min(kColumns, columns - first);
    for (int64_t k = 0; k < terms; k += kDepth) {
      const int64_t depth = std::min(kDepth, terms - k);
      pack(b + first * terms + k, int64_t(1), terms, depth, n, depth, packed);
      weigh(packed, k, depth, first, n);
      for (int64_t i = 0; i < rows; i += kRows) {
        const int64_t high = std::min(kRows, rows - i);
        Segment<P> segment{{}, 0, depth};
        P* to[kRows];
        for (int64_t r = 0; r < kRows; ++r) {
          const int64_t row = i + std::min(r, high - 1);
          segment.a[r] = a + k * rows + row;
          to[r] = c + row * columns + first;
        }
        for (int64_t j = 0; j < n; j += kWidth<P>) {
          tile(&segment, 1, packed + j * depth, rows, 0, k == 0, to, high, n - j);
          for (P*& row : to) row += kWidth<P>;
        }
      }
    }
  }

  void weigh(P* packed, int64_t k, int64_t depth, int64_t first, int64_t n) const {
    if (!of_terms && !of_columns) return;
    for (int64_t j = 0; j < n; j += kWidth<P>, packed += depth * kWidth<P>) {
      P weights[kWidth<P>] = {};
      if (of_columns) std::copy_n(of_columns + first + j, std::min(kWidth<P>, n - j), weights);
      for (int64_t l = 0; l < depth; ++l) {
        if (of_terms) std::fill_n(weights, kWidth<P>, of_terms[k + l]);
        for (int64_t i = 0; i < kWidth<P>; ++i) packed[l * kWidth<P> + i] *= weights[i];
      }
    }
  }
};

}  // namespace twinspike
