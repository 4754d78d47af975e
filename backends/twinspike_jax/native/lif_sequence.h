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
constexpr int64_t kLeast = 64, kMost = 2048;  // neurons of a block
constexpr int64_t kMostRows = 16;             // whose gradients one sum in the format of potentials takes
constexpr int64_t kLeastTasks = 8;            // fewer rows are taken at a time rather than fewer tasks made
constexpr int64_t kLeastCommon = kMost;          // entries of a channel that are worth blocks of their own

inline int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

// Neurons are cut into rows of `width`, and these into columns of `block`. A row is the run of a channel, which has its
// quantities in common; or all channels' runs, once or many times, with quantities for each; or everything where no
// channel has its own. A task takes a column of `group` rows.
struct Cut {
  int64_t width, block, columns, rows, group, groups;
  bool each;

  template <class S, class P>
  explicit Cut(const Arrays<S, P>& a) {
    const int64_t fitting = kBytes / static_cast<int64_t>(sizeof(P)) / std::max<int64_t>(a.steps, 1);
    const int64_t most = std::clamp(fitting / kLeast * kLeast, kLeast, kMost);
    const int64_t all_channels = a.channels * a.space;
    each = a.channels > 1 && a.space < kLeastCommon;
    width = a.channels == 1 ? a.neurons : !each ? a.space : all_channels * std::max<int64_t>(most / all_channels, 1);
    block = parts(parts(width, parts(width, most)), kLeast) * kLeast;
    columns = parts(width, block);
    rows = parts(a.neurons, width);
    group = each ? std::clamp<int64_t>(rows * columns / kLeastTasks, 1, kMostRows) : 1;
    groups = parts(rows, group);
  }

  int64_t tasks() const { return columns * groups; }
};

// Quantities of a channel, or those of all neurons.
template <class S, class P>
Common<P> common(const Arrays<S, P>& a, const Options& o, int64_t channel) {
  const P decay = a.decay ? a.decay[a.decays > 1 ? channel : 0] : P(o.decay);
  const P gain = !o.decay_input ? P(1) : a.decay ? 1 - decay : P(1 - o.decay);
  return {decay, gain, a.threshold ? a.threshold[a.thresholds > 1 ? channel : 0] : P(o.threshold)};
}

// A value for each of n neurons from `first` on, of what is learned for each of `count` channels or for all; or a constant.
template <class P>
void spread(const P* learned, int64_t count, int64_t space, double constant, int64_t first, int64_t n, P* to) {
  if (!learned || count == 1) {
    std::fill_n(to, n, learned ? *learned : P(constant));
    return;
  }
  int64_t channel = first / space % count;
  if (space == 1) {
    for (int64_t i = 0, run; i < n; i += run, channel = 0) {
      run = std::min(count - channel, n - i);
      std::copy_n(learned + channel, run, to + i);
    }
  } else {
    int64_t run = space - first % space;
    for (int64_t i = 0; i < n; i += run, run = space, channel = channel + 1 < count ? channel + 1 : 0) {
      run = std::min(run, n - i);
      std::fill_n(to + i, run, learned[channel]);
    }
  }
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

// What the tasks of a sequence need, and leave.
template <class S, class P>
struct Sequence {
  Arrays<S, P> a;
  Options o;
  Cut cut;
  bool learned;
  int64_t entries;  // gradients of what is learned: a row for each group, or one for each task of a channel's own blocks
  std::unique_ptr<P[]> d_decay, d_threshold;

  Sequence(const Arrays<S, P>& arrays, const Options& options)
      : a(arrays),
        o(options),
        cut(a),
        learned(a.d_decay || a.d_threshold),
        entries(cut.each ? cut.groups * cut.width : cut.tasks()) {
    const bool both = learned && !cut.each;  // a block that has its quantities in common adds up both gradients
    if (both || a.d_decay) d_decay.reset(new P[entries]);
    if (both || a.d_threshold) d_threshold.reset(new P[entries]);
  }

  // Entries of memory that a task takes at most.
  int64_t room() const { return cut.block * ((a.g ? std::max<int64_t>(a.steps, 1) : 1) + 6); }

  void task(int64_t number, P* memory) const {
    const int64_t inside = number % cut.columns * cut.block, group = number / cut.columns;
    const int64_t n = std::min(cut.block, cut.width - inside);
    Room<P> room{memory};
    if (cut.each) {
      P *const decays = zeroed(d_decay.get(), group * cut.width + inside, n);
      P *const thresholds = zeroed(d_threshold.get(), group * cut.width + inside, n);
      P *decay = room.take(n), *threshold = room.take(n);
      spread(a.decay, a.decays, a.space, o.decay, inside, n, decay);
      spread(a.threshold, a.thresholds, a.space, o.threshold, inside, n, threshold);
      const auto with = [&](auto own_decay, auto own_threshold) {
        const Rows<P, decltype(own_decay)::value, decltype(own_threshold)::value> q{common(a, o, 0), decay, threshold,
                                                                                  o.decay_input ? -1 : 0};
        for (int64_t row = group * cut.group; row < std::min((group + 1) * cut.group, cut.rows); ++row) {
          const int64_t first = row * cut.width + inside;
          if (first < a.neurons) run(q, first, std::min(n, a.neurons - first), room, decays, thresholds);
        }
      };
      const std::true_type own;
      const std::false_type in_common;
      a.decay && a.threshold ? with(own, own) : a.decay ? with(own, in_common) : with(in_common, own);
    } else {
      const int64_t first = group * cut.width + inside;
      P *const decays = zeroed(learned ? room.take(n) : nullptr, 0, n);
      P *const thresholds = zeroed(learned ? room.take(n) : nullptr, 0, n);
      run(common(a, o, first / a.space % a.channels), first, n, room, decays, thresholds);
      if (learned) d_decay[number] = P(total(decays, n)), d_threshold[number] = P(total(thresholds, n));
    }
  }

  // After all tasks.
  void finish() const {
    if (a.d_decay) sum(d_decay.get(), a.decays, a.d_decay);
    if (a.d_threshold) sum(d_threshold.get(), a.thresholds, a.d_threshold);
  }

 private:
  static P* zeroed(P* of, int64_t first, int64_t n) { return of ? std::fill_n(of + first, n, P(0)) - n : nullptr; }

  void sum(const P* from, int64_t count, P* to) const {
    sum_shared(from, entries, count, count == 1 ? entries : cut.each ? a.space : cut.columns, to);
  }

  template <class Q>
  void run(const Q& q, int64_t first, int64_t n, Room<P> room, P* decays, P* thresholds) const {
    o.soft ? run<true>(q, first, n, room, decays, thresholds) : run<false>(q, first, n, room, decays, thresholds);
  }

  template <bool kSoft, class Q>
  void run(const Q& q, int64_t first, int64_t n, Room<P> room, P* decays, P* thresholds) const {
    if (!a.g) return forward_block<kSoft>(a, o, q, first, n, room);
    with_surrogate<P>(o, [&](const auto& h) {
      if constexpr (!std::is_same_v<Q, Common<P>>) {
        backward_block<kSoft, Q::kDecay, Q::kThreshold>(a, o, q, h, first, n, room, decays, thresholds);
      } else if (learned) {
        backward_block<kSoft, true, true>(a, o, q, h, first, n, room, decays, thresholds);
      } else {
        backward_block<kSoft, false, false>(a, o, q, h, first, n, room, decays, thresholds);
      }
    });
  }
};

}  // namespace twinspike
