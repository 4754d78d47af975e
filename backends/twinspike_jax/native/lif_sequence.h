// A whole sequence of the neuron: how it is cut into blocks, and the sums over neurons that share what is learned.
//
// No order of additions depends on threads: a block adds up what its neurons share, blocks are then added in their order.

#pragma once

#include <algorithm>
#include <memory>
#include <type_traits>
#include <vector>

#include "lif.h"

namespace twinspike {

// Bytes of a block's potentials, which must stay in the second-level cache between the two passes of backward.
constexpr int64_t kBytes = 1 << 18;
constexpr int64_t kLeast = 64, kMost = 1024;  // neurons of a block
constexpr int64_t kMostLearned = 512;         // fewer where there are more rows, for the first-level cache
constexpr int64_t kLeastCommon = 256;         // entries of a channel that are worth blocks of their own

inline int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

// Neurons are cut into units, and each of these into blocks: the run of a channel, which has its quantities in common;
// or all channels' runs, once or many times, with rows of quantities; or everything where no channel has its own.
struct Cut {
  int64_t unit, block, per_unit, units;
  bool rows;

  template <class S, class P>
  explicit Cut(const Arrays<S, P>& a) {
    const bool learned = a.decay || a.threshold;
    const int64_t fitting = kBytes / static_cast<int64_t>(sizeof(P)) / std::max<int64_t>(a.steps, 1);
    const int64_t most = std::clamp(fitting / kLeast * kLeast, kLeast, learned ? kMostLearned : kMost);
    const int64_t all_channels = a.channels * a.space;
    rows = a.channels > 1 && a.space < kLeastCommon;
    unit = a.channels == 1 ? a.neurons : !rows ? a.space : all_channels * std::max<int64_t>(most / all_channels, 1);
    block = parts(parts(unit, parts(unit, most)), kLeast) * kLeast;
    per_unit = parts(unit, block);
    units = parts(a.neurons, unit);
  }

  int64_t blocks() const { return units * per_unit; }
};

// Quantities of a channel, or those of all neurons.
template <class S, class P>
Common<P> common(const Arrays<S, P>& a, const Options& o, int64_t channel) {
  const P decay = a.decay ? a.decay[a.decays > 1 ? channel : 0] : P(o.decay);
  const P gain = !o.decay_input ? P(1) : a.decay ? 1 - decay : P(1 - o.decay);
  return {decay, gain, a.threshold ? a.threshold[a.thresholds > 1 ? channel : 0] : P(o.threshold)};
}

// The three rows of a unit's quantities.
template <class S, class P>
std::vector<P> rows(const Arrays<S, P>& a, const Options& o, int64_t unit) {
  std::vector<P> made(3 * unit);
  P* to = made.data();
  for (int64_t first = 0, channel = 0; first < unit; first += a.space, channel = channel + 1 < a.channels ? channel + 1 : 0) {
    const Common<P> q = common(a, o, channel);
    for (int64_t i = first; i < first + a.space; ++i) to[i] = q.decay_, to[unit + i] = q.gain_, to[2 * unit + i] = q.threshold_;
  }
  return made;
}

// Sum of n entries, in an order that n alone decides.
template <class P>
double total(const P* from, int64_t n) {
  constexpr int64_t kLanes = 16;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += from[i + lane];
  for (int64_t lane = 0; i < n; ++i, ++lane) lanes[lane] += from[i];
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

// Sums of (B, channels, inner) over all but channels.
template <class P>
void sum_shared(const P* from, int64_t entries, int64_t channels, int64_t inner, P* to) {
  std::vector<double> sums(channels);
  for (const P* end = from + entries; from < end; from += channels * inner) {
    if (inner == 1) {
      for (int64_t c = 0; c < channels; ++c) sums[c] += from[c];
    } else {
      for (int64_t c = 0; c < channels; ++c) sums[c] += total(from + c * inner, inner);
    }
  }
  for (int64_t c = 0; c < channels; ++c) to[c] = static_cast<P>(sums[c]);
}

// What the blocks of a sequence need, and leave.
template <class S, class P>
struct Sequence {
  Arrays<S, P> a;
  Options o;
  Cut cut;
  bool learned;
  int64_t entries;            // of gradients of what is learned: one for each neuron of rows, else for each block
  std::vector<P> quantities;  // rows
  std::unique_ptr<P[]> d_decay, d_threshold;

  Sequence(const Arrays<S, P>& arrays, const Options& options)
      : a(arrays), o(options), cut(a), learned(a.d_decay || a.d_threshold), entries(cut.rows ? a.neurons : cut.blocks()) {
    if (cut.rows) quantities = rows(a, o, cut.unit);
    if (learned) d_decay.reset(new P[entries]), d_threshold.reset(new P[entries]);
  }

  // Entries of memory that a block takes at most.
  int64_t room() const { return cut.block * ((a.g ? std::max<int64_t>(a.steps, 1) : 0) + 6); }

  void block(int64_t number, P* memory) const {
    const int64_t inside = number % cut.per_unit * cut.block, first = number / cut.per_unit * cut.unit + inside;
    const int64_t n = std::min({cut.block, cut.unit - inside, a.neurons - first});
    Room<P> room{memory};
    if (cut.rows) {
      const P* row = quantities.data() + inside;
      run(Rows<P>{row, row + cut.unit, row + 2 * cut.unit}, number, first, n, room);
    } else {
      run(common(a, o, first / a.space % a.channels), number, first, n, room);
    }
  }

  // After all blocks.
  void finish() const {
    if (a.d_decay) sum(d_decay.get(), a.decays, a.d_decay);
    if (a.d_threshold) sum(d_threshold.get(), a.thresholds, a.d_threshold);
  }

 private:
  void sum(const P* from, int64_t count, P* to) const {
    sum_shared(from, entries, count, count == 1 ? entries : cut.rows ? a.space : cut.per_unit, to);
  }

  template <class Q>
  void run(const Q& q, int64_t number, int64_t first, int64_t n, Room<P>& room) const {
    if (a.g) {
      o.soft ? backward<true>(q, number, first, n, room) : backward<false>(q, number, first, n, room);
    } else {
      o.soft ? forward_block<true>(a, o, q, first, n, room) : forward_block<false>(a, o, q, first, n, room);
    }
  }

  template <bool kSoft, class Q>
  void backward(const Q& q, int64_t number, int64_t first, int64_t n, Room<P>& room) const {
    const auto with = [&](auto any, P* decays, P* thresholds) {
      with_surrogate<P>(o, [&](const auto& h) {
        backward_block<kSoft, decltype(any)::value>(a, o, q, h, first, n, room, decays, thresholds);
      });
    };
    if (!learned) return with(std::false_type{}, nullptr, nullptr);
    P* decays = cut.rows ? d_decay.get() + first : room.take(n);
    P* thresholds = cut.rows ? d_threshold.get() + first : room.take(n);
    std::fill_n(decays, n, P(0)), std::fill_n(thresholds, n, P(0));
    with(std::true_type{}, decays, thresholds);
    if (!cut.rows) d_decay[number] = P(total(decays, n)), d_threshold[number] = P(total(thresholds, n));
  }
};

}  // namespace twinspike
