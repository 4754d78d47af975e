// The leaky integrate-and-fire neuron over a block of neurons: one pass over memory forward, one backward (clauses LIF-*).
//
// A block's state stays in the caches while its time steps pass. Backward charges the potentials again, by the function
// that charged them forward. The compiler must not fuse multiply and add (-ffp-contract=off): then both passes, and
// all threads, have the same potentials bit for bit.
//
// Letters: x current, u potential before reset and v after, s spike; g, d and e are the gradients of s, u and v.

#pragma once

#include <algorithm>

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

// A choice by ?: that is the same for all neurons would be a branch, with which compilers don't vectorise.
template <class P>
inline P masked(P a, typename Format<P>::Bits mask) {
  typename Format<P>::Bits bits;
  std::memcpy(&bits, &a, sizeof bits);
  bits &= mask;
  std::memcpy(&a, &bits, sizeof bits);
  return a;
}

// Decay, 1 - decay (or 1 where the current is not weighted) and threshold that all neurons of a block have in common.
template <class P>
struct Common {
  P decay_, gain_, threshold_;
  P decay(int64_t) const { return decay_; }
  P gain(int64_t) const { return gain_; }
  P threshold(int64_t) const { return threshold_; }
};

// The same, with a row of decays, of thresholds or of both; `input` masks the decay's part in 1 - decay.
template <class P, bool kOwnDecay, bool kOwnThreshold>
struct Rows {
  static constexpr bool kDecay = kOwnDecay, kThreshold = kOwnThreshold;
  Common<P> all;
  const P *decay_, *threshold_;
  typename Format<P>::Bits input;
  P decay(int64_t i) const { return kOwnDecay ? decay_[i] : all.decay_; }
  P gain(int64_t i) const { return kOwnDecay ? 1 - masked(decay_[i], input) : all.gain_; }
  P threshold(int64_t i) const { return kOwnThreshold ? threshold_[i] : all.threshold_; }
};

template <class Q, class S, class P>
inline P charge(const Q& q, P before, S x, int64_t i) {
  return q.decay(i) * before + q.gain(i) * load(x);
}

template <bool kSoft, class P>
inline P reset(P u, P threshold, P v_reset) {
  return u >= threshold ? (kSoft ? u - threshold : v_reset) : u;
}

// One step of n neurons: v before it becomes v after it. Potentials are left out where their pointer is null.
template <bool kSoft, class Q, class S, class P, class O>
void step(const Q& q, P v_reset, int64_t n, const S* __restrict x, P* __restrict v, O* __restrict s, P* __restrict u) {
  if (u) {
    TWINSPIKE_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) {
      const P charged = charge(q, v[i], x[i], i);
      store(s[i], charged >= q.threshold(i) ? P(1) : P(0));
      u[i] = charged;
      v[i] = reset<kSoft>(charged, q.threshold(i), v_reset);
    }
  } else {
    TWINSPIKE_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) {
      const P charged = charge(q, v[i], x[i], i);
      store(s[i], charged >= q.threshold(i) ? P(1) : P(0));
      v[i] = reset<kSoft>(charged, q.threshold(i), v_reset);
    }
  }
}

// The same, of which only v after it is kept, and v before it too.
template <bool kSoft, class Q, class S, class P>
void advance(const Q& q, P v_reset, int64_t n, const S* __restrict x, const P* __restrict v, P* __restrict after) {
  TWINSPIKE_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) after[i] = reset<kSoft>(charge(q, v[i], x[i], i), q.threshold(i), v_reset);
}

// What is fixed of a step back.
template <class P>
struct Back {
  P v_reset, through_reset;
  typename Format<P>::Bits input;  // mask of the current in the derivative by decay: all bits if weighted, else none
};

// One step of n neurons back, from v before it: e, the gradient of v after it, becomes that of v before it; d_x is that
// of the current. Gradients of decay and threshold that are asked for are added up, neuron by neuron.
template <bool kSoft, bool kDecay, bool kThreshold, class Q, class H, class S, class P, class D>
void step_back(const Q& q, const H& h, Back<P> o, int64_t n, const S* __restrict x, const P* __restrict v,
               const S* __restrict g, P* __restrict e, D* __restrict d_x, P* __restrict d_decay, P* __restrict d_threshold) {
  TWINSPIKE_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) {
    const P before = v[i], after = e[i], current = load(x[i]), threshold = q.threshold(i), u = charge(q, before, x[i], i);
    const bool fired = u >= threshold;
    const P r = kSoft ? -threshold : o.v_reset - u;
    const P through_spike = (load(g[i]) + o.through_reset * (after * r)) * h(u - threshold);
    const P where_fired = fired ? after : P(0), elsewhere = fired ? P(0) : after;
    const P d = through_spike + (kSoft ? after : elsewhere);
    store(d_x[i], q.gain(i) * d);
    if constexpr (kDecay) d_decay[i] += d * (before - masked(current, o.input));
    if constexpr (kThreshold) d_threshold[i] -= kSoft ? through_spike + where_fired : through_spike;
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
  int64_t steps, neurons, channels, space;  // channels: 1 if nothing is learned for each
  int64_t decays, thresholds;               // how many are learned
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
    move(one.decay, decays), move(one.threshold, thresholds);
    move(one.d_decay, decays), move(one.d_threshold, thresholds);
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

template <bool kSoft, class Q, class S, class P>
void forward_block(const Arrays<S, P>& a, const Options& o, const Q& q, int64_t first, int64_t n, Room<P> room) {
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

// Gradients of what is learned go to `d_decay` and `d_threshold`, one for each of n neurons.
template <bool kSoft, bool kDecay, bool kThreshold, class Q, class H, class S, class P>
void backward_block(const Arrays<S, P>& a, const Options& o, const Q& q, const H& h, int64_t first, int64_t n,
                    Room<P> room, P* d_decay, P* d_threshold) {
  P *v = room.take(n * std::max<int64_t>(a.steps, 1)), *e = room.take(n);
  const Back<P> fixed{P(o.v_reset), o.detach ? P(0) : P(1), o.decay_input ? -1 : 0};
  copy_or_zero(v, a.v ? a.v + first : nullptr, n);
  copy_or_zero(e, a.e ? a.e + first : nullptr, n);
  const auto current = [&](int64_t t) { return a.x + first + (a.constant ? 0 : t * a.neurons); };
  for (int64_t t = 0; t + 1 < a.steps; ++t) advance<kSoft>(q, fixed.v_reset, n, current(t), v + t * n, v + (t + 1) * n);
  const auto back = [&](int64_t t, auto* d_x) {
    const S* g = a.g + t * a.neurons + first;
    step_back<kSoft, kDecay, kThreshold>(q, h, fixed, n, current(t), v + t * n, g, e, d_x, d_decay, d_threshold);
  };
  if (a.constant) {
    P *d_x = room.take(n), *sum = room.take(n);
    std::fill_n(sum, n, P(0));
    for (int64_t t = a.steps; t-- > 0;) {
      back(t, d_x);
      TWINSPIKE_INDEPENDENT
      for (int64_t i = 0; i < n; ++i) sum[i] += d_x[i];
    }
    TWINSPIKE_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) store(a.d_x[first + i], sum[i]);
  } else {
    for (int64_t t = a.steps; t-- > 0;) back(t, a.d_x + t * a.neurons + first);
  }
  if (a.d_v) std::copy_n(e, n, a.d_v + first);
}

// Call `use` with the surrogate; whether there is one of its number.
template <class P, class Use>
bool with_surrogate(const Options& o, const Use& use) {
  switch (o.surrogate) {
    case 0: use(Rectangle<P>(o.scale)); return true;
    case 1: use(Triangle<P>(o.scale)); return true;
    case 2: use(Sigmoid<P>(o.scale)); return true;
    case 3: use(Arctan<P>(o.scale)); return true;
    case 4: use(FastSigmoid<P>(o.scale)); return true;
    case 5: use(Tanh<P>(o.scale)); return true;
    default: return false;
  }
}

}  // namespace twinspike
