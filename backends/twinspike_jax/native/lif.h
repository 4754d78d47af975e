// The leaky integrate-and-fire neuron over a block of neurons: one pass over memory forward, one backward (clauses LIF-*).
//
// A block's state stays in the caches while its time steps pass. Backward charges the potentials again, by the function
// that charged them forward. The compiler must not fuse multiply and add (-ffp-contract=off): then both passes, and
// all threads, have the same potentials bit for bit.
//
// Letters: x current, u potential before reset and v after, s spike; g, d and e are the gradients of s, u and v.

#pragma once

#include <algorithm>
#include <memory>

#include "surrogate.h"

// No two rows of a block overlap, which compilers can't see through all pointers.
#if defined(__clang__)
#define TWINSPIKE_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define TWINSPIKE_INDEPENDENT _Pragma("GCC ivdep")
#else
#define TWINSPIKE_INDEPENDENT
#endif

namespace twinspike {

// --- one block of neurons -------------------------------------------------------------------------------

// Decay, 1 - decay (or 1 where the current is not weighted) and threshold: one for all neurons, or one for each.
template <class P>
struct Shared {
  static constexpr bool kLearned = false;
  P decay_, gain_, threshold_;
  P decay(int64_t) const { return decay_; }
  P gain(int64_t) const { return gain_; }
  P threshold(int64_t) const { return threshold_; }
};

template <class P>
struct Own {
  static constexpr bool kLearned = true;
  const P *decay_, *gain_, *threshold_;
  P decay(int64_t i) const { return decay_[i]; }
  P gain(int64_t i) const { return gain_[i]; }
  P threshold(int64_t i) const { return threshold_[i]; }
};

template <class Q, class S, class P>
inline P charge(const Q& q, P before, S x, int64_t i) {
  return q.decay(i) * before + q.gain(i) * load(x);
}

template <bool kSoft, class P>
inline P reset(P u, P threshold, P v_reset) {
  return u >= threshold ? (kSoft ? u - threshold : v_reset) : u;
}

// One step of n neurons: v before it becomes v after it. Spikes and potentials are left out where their pointer is null.
template <bool kSoft, class Q, class S, class P, class O>
void step(const Q& q, P v_reset, int64_t n, const S* __restrict x, P* __restrict v, O* __restrict s, P* __restrict u) {
  if (s && u) {
    TWINSPIKE_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) {
      const P charged = charge(q, v[i], x[i], i);
      store(s[i], charged >= q.threshold(i) ? P(1) : P(0));
      u[i] = charged;
      v[i] = reset<kSoft>(charged, q.threshold(i), v_reset);
    }
  } else if (s) {
    TWINSPIKE_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) {
      const P charged = charge(q, v[i], x[i], i);
      store(s[i], charged >= q.threshold(i) ? P(1) : P(0));
      v[i] = reset<kSoft>(charged, q.threshold(i), v_reset);
    }
  } else {
    TWINSPIKE_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) {
      const P charged = charge(q, v[i], x[i], i);
      u[i] = charged;
      v[i] = reset<kSoft>(charged, q.threshold(i), v_reset);
    }
  }
}

// One step of n neurons back: e, the gradient of v after it, becomes that of v before it; d_x is that of the current.
// With quantities of their own also d, and the gradient of the threshold.
template <bool kSoft, class Q, class H, class S, class P, class D>
void step_back(const Q& q, const H& h, P v_reset, P through_reset, int64_t n, const P* __restrict u, const S* __restrict g,
               P* __restrict e, D* __restrict d_x, P* __restrict d_u, P* __restrict d_threshold) {
  TWINSPIKE_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) {
    const P potential = u[i], after = e[i], threshold = q.threshold(i);
    const bool fired = potential >= threshold;
    const P r = kSoft ? -threshold : v_reset - potential;
    const P through_spike = (load(g[i]) + through_reset * (after * r)) * h(potential - threshold);
    const P where_fired = fired ? after : P(0), elsewhere = fired ? P(0) : after;
    const P d = through_spike + (kSoft ? after : elsewhere);
    store(d_x[i], q.gain(i) * d);
    if constexpr (Q::kLearned) {
      d_u[i] = d;
      d_threshold[i] -= kSoft ? through_spike + where_fired : through_spike;
    }
    e[i] = q.decay(i) * d;
  }
}

// --- a sequence -----------------------------------------------------------------------------------------

struct Options {
  double decay, threshold, v_reset;
  bool soft, detach, decay_input;
  int64_t surrogate;
  double scale;
};

// Where a sequence's arrays are; null: not given or not asked for. Rows of T steps are `neurons` apart, but for the
// current, whose rows are all the same one if it is constant.
template <class S, class P>
struct Arrays {
  int64_t steps, neurons, space, decays, thresholds;
  bool constant;
  const S* x;
  const P *v, *decay, *threshold;
  S* s;
  Boolean* booleans;  // in place of s
  P *u, *after;
  const S* g;
  const P* e;
  S* d_x;
  P *d_v, *d_decay, *d_threshold;

  // Of sequence `number`, where several stand one behind another.
  Arrays at(int64_t number) const {
    Arrays one = *this;
    const auto move = [&](auto*& array, int64_t length) {
      if (array) array += number * length;
    };
    const int64_t sequence = steps * neurons, currents = constant ? neurons : sequence;
    move(one.x, currents), move(one.d_x, currents);
    move(one.s, sequence), move(one.booleans, sequence), move(one.u, sequence), move(one.g, sequence);
    move(one.v, neurons), move(one.after, neurons), move(one.e, neurons), move(one.d_v, neurons);
    move(one.d_decay, neurons), move(one.d_threshold, neurons);
    move(one.decay, decays), move(one.threshold, thresholds);
    return one;
  }
};

// Memory that a block's rows are taken from, in turn.
template <class P>
struct Room {
  P* next;
  P* take(int64_t n) {
    next += n;
    return next - n;
  }
};

template <class P>
void copy_or_zero(P* to, const P* from, int64_t n) {
  if (from) {
    std::copy_n(from, n, to);
  } else {
    std::fill_n(to, n, P(0));
  }
}

// A value per neuron of a block, from one for each of `channels`, or one; neurons are (B, C, *d), `space` entries in *d.
template <class P>
void spread(const P* learned, int64_t channels, int64_t space, double constant, int64_t first, int64_t n, P* to) {
  if (!learned || channels == 1) {
    std::fill_n(to, n, learned ? *learned : P(constant));
    return;
  }
  int64_t channel = first / space % channels, left = space - first % space;
  for (int64_t i = 0; i < n; i += left, left = space, channel = channel + 1 < channels ? channel + 1 : 0) {
    left = std::min(left, n - i);
    std::fill_n(to + i, left, learned[channel]);
  }
}

template <class S, class P>
Own<P> own(const Arrays<S, P>& a, const Options& o, int64_t first, int64_t n, Room<P>& room) {
  P *decay = room.take(n), *gain = room.take(n), *threshold = room.take(n);
  spread(a.decay, a.decays, a.space, o.decay, first, n, decay);
  spread(a.threshold, a.thresholds, a.space, o.threshold, first, n, threshold);
  TWINSPIKE_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) gain[i] = !o.decay_input ? P(1) : a.decay ? 1 - decay[i] : P(1 - o.decay);
  return {decay, gain, threshold};
}

template <class P>
Shared<P> shared(const Options& o) {
  return {P(o.decay), o.decay_input ? P(1 - o.decay) : P(1), P(o.threshold)};
}

template <bool kSoft, class Q, class S, class P>
void forward_block(const Arrays<S, P>& a, const Options& o, const Q& q, int64_t first, int64_t n, Room<P>& room) {
  P* v = room.take(n);
  copy_or_zero(v, a.v ? a.v + first : nullptr, n);
  for (int64_t t = 0; t < a.steps; ++t) {
    const int64_t row = t * a.neurons + first;
    const S* x = a.x + (a.constant ? first : row);
    P* u = a.u ? a.u + row : nullptr;
    if (a.booleans) {
      step<kSoft>(q, P(o.v_reset), n, x, v, a.booleans + row, u);
    } else {
      step<kSoft>(q, P(o.v_reset), n, x, v, a.s + row, u);
    }
  }
  if (a.after) std::copy_n(v, n, a.after + first);
}

template <bool kSoft, class Q, class H, class S, class P>
void backward_block(const Arrays<S, P>& a, const Options& o, const Q& q, const H& h, int64_t first, int64_t n,
                    Room<P>& room) {
  P *v = room.take(n), *e = room.take(n), *u = room.take(n * a.steps);
  const P v_reset = P(o.v_reset), through_reset = o.detach ? P(0) : P(1);
  copy_or_zero(v, a.v ? a.v + first : nullptr, n);
  copy_or_zero(e, a.e ? a.e + first : nullptr, n);
  const auto current = [&](int64_t t) { return a.x + first + (a.constant ? 0 : t * a.neurons); };
  for (int64_t t = 0; t < a.steps; ++t) step<kSoft, Q, S, P, S>(q, v_reset, n, current(t), v, nullptr, u + t * n);
  if constexpr (!Q::kLearned) {
    for (int64_t t = a.steps; t-- > 0;) {
      const int64_t row = t * a.neurons + first;
      step_back<kSoft, Q, H, S, P, S>(q, h, v_reset, through_reset, n, u + t * n, a.g + row, e, a.d_x + row, nullptr, nullptr);
    }
  } else {
    P *d_x = room.take(n), *d_u = room.take(n), *sum = room.take(n), *d_decay = room.take(n), *d_threshold = room.take(n);
    for (P* zeroed : {sum, d_decay, d_threshold}) std::fill_n(zeroed, n, P(0));
    for (int64_t t = a.steps; t-- > 0;) {
      const int64_t row = t * a.neurons + first;
      step_back<kSoft, Q, H, S, P, P>(q, h, v_reset, through_reset, n, u + t * n, a.g + row, e, d_x, d_u, d_threshold);
      if (t) {
        TWINSPIKE_INDEPENDENT
        for (int64_t i = 0; i < n; ++i) v[i] = reset<kSoft>(u[(t - 1) * n + i], q.threshold(i), v_reset);
      } else {
        copy_or_zero(v, a.v ? a.v + first : nullptr, n);
      }
      if (o.decay_input) {
        const S* x = current(t);
        TWINSPIKE_INDEPENDENT
        for (int64_t i = 0; i < n; ++i) d_decay[i] += d_u[i] * (v[i] - load(x[i]));
      } else {
        TWINSPIKE_INDEPENDENT
        for (int64_t i = 0; i < n; ++i) d_decay[i] += d_u[i] * v[i];
      }
      if (a.constant) {
        TWINSPIKE_INDEPENDENT
        for (int64_t i = 0; i < n; ++i) sum[i] += d_x[i];
      } else {
        TWINSPIKE_INDEPENDENT
        for (int64_t i = 0; i < n; ++i) store(a.d_x[row + i], d_x[i]);
      }
    }
    if (a.constant)
      TWINSPIKE_INDEPENDENT
      for (int64_t i = 0; i < n; ++i) store(a.d_x[first + i], sum[i]);
    if (a.d_decay) std::copy_n(d_decay, n, a.d_decay + first);
    if (a.d_threshold) std::copy_n(d_threshold, n, a.d_threshold + first);
  }
  if (a.d_v) std::copy_n(e, n, a.d_v + first);
}

template <bool kSoft, class Q, class S, class P>
void backward_block(const Arrays<S, P>& a, const Options& o, const Q& q, int64_t first, int64_t n, Room<P>& room) {
  const auto with = [&](const auto& h) { backward_block<kSoft>(a, o, q, h, first, n, room); };
  switch (o.surrogate) {
    case 0: return with(Rectangle<P>(o.scale));
    case 1: return with(Triangle<P>(o.scale));
    case 2: return with(Sigmoid<P>(o.scale));
    case 3: return with(Arctan<P>(o.scale));
    case 4: return with(FastSigmoid<P>(o.scale));
    default: return with(Tanh<P>(o.scale));
  }
}

template <class S, class P>
void block(const Arrays<S, P>& a, const Options& o, int64_t first, int64_t n, P* memory) {
  Room<P> room{memory};
  const auto run = [&](const auto& q) {
    if (a.g) {
      o.soft ? backward_block<true>(a, o, q, first, n, room) : backward_block<false>(a, o, q, first, n, room);
    } else {
      o.soft ? forward_block<true>(a, o, q, first, n, room) : forward_block<false>(a, o, q, first, n, room);
    }
  };
  if (a.decay || a.threshold || (a.g && a.constant)) {
    run(own(a, o, first, n, room));
  } else {
    run(shared<P>(o));
  }
}

}  // namespace twinspike
