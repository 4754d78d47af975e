// The neuron as two calls of XLA's foreign function interface, on CPUs.
//
// Compiled at first use against the headers that jaxlib ships: `native_build.py` compiles and registers it, and
// `neuron_native.py` calls it. A sequence is T steps of N neurons, in whatever axes; more than one comes from vmap. An array with no
// entries is one that is not given or not asked for. Blocks of neurons are shared among the threads of XLA's pool.

#include <functional>
#include <memory>
#include <vector>

#include "lif_sequence.h"
#include "threads.h"

namespace twinspike {
namespace {

namespace ffi = xla::ffi;
using Argument = ffi::AnyBuffer;
using Result = ffi::Result<ffi::AnyBuffer>;

constexpr int64_t kWorthAThread = 1 << 16;  // steps of neurons

// --- arrays ---------------------------------------------------------------------------------------------

template <class T>
T* given(const Argument& a) {
  return a.element_count() ? static_cast<T*>(a.untyped_data()) : nullptr;
}

int64_t size(const Argument& a) { return static_cast<int64_t>(a.element_count()); }

int64_t last(const Argument& a) { return a.dimensions().back(); }

template <class Use>
ffi::Error by_format(const Argument& x, const Use& use) {
  switch (x.element_type()) {
    case ffi::F32: use(float{}, float{}); break;
    case ffi::F64: use(double{}, double{}); break;
    case ffi::BF16: use(Bfloat16{}, float{}); break;
    default: return ffi::Error::InvalidArgument("current x: expected float32, float64 or bfloat16");
  }
  return ffi::Error::Success();
}

template <class S, class P>
void run(ffi::ThreadPool& pool, const Arrays<S, P>& whole, const Options& o, int64_t count) {
  std::vector<Sequence<S, P>> sequences;
  for (int64_t i = 0; i < count; ++i) sequences.emplace_back(whole.at(i), o);
  const auto work = std::make_shared<Work>();
  const int64_t tasks = sequences[0].cut.tasks();
  work->count = count * tasks;
  work->bytes = static_cast<int64_t>(sizeof(P)) * sequences[0].room();
  work->run = [&](int64_t number, void* memory) {
    sequences[number / tasks].task(number % tasks, static_cast<P*>(memory));
  };
  share(pool, work, count * whole.steps * whole.neurons / kWorthAThread);
  for (const auto& sequence : sequences) sequence.finish();
}

// --- handlers -------------------------------------------------------------------------------------------

ffi::Error forward(ffi::ThreadPool pool, Argument x, Argument v, Argument decay, Argument threshold, Result s, Result u,
                   Result after, double decay_constant, double threshold_constant, double v_reset, bool soft,
                   bool decay_input, int64_t steps, int64_t neurons, int64_t space, bool constant) {
  return by_format(x, [&](auto stored, auto potential) {
    using S = decltype(stored);
    using P = decltype(potential);
    Arrays<S, P> a{};
    a.steps = steps, a.neurons = neurons, a.space = space, a.constant = constant;
    a.x = given<S>(x), a.v = given<P>(v);
    a.decay = given<P>(decay), a.threshold = given<P>(threshold);
    a.decays = last(decay), a.thresholds = last(threshold);
    a.channels = std::max({a.decays, a.thresholds, int64_t{1}});
    const bool booleans = s->element_type() == ffi::PRED;
    a.s = booleans ? nullptr : given<S>(*s), a.booleans = booleans ? given<Boolean>(*s) : nullptr;
    a.u = given<P>(*u), a.after = given<P>(*after);
    const Options o{decay_constant, threshold_constant, v_reset, soft, false, decay_input, 0, 1.0};
    if (size(*s)) run(pool, a, o, size(*s) / (a.steps * a.neurons));
  });
}

ffi::Error backward(ffi::ThreadPool pool, Argument x, Argument v, Argument decay, Argument threshold, Argument g, Argument e,
                    Result d_x, Result d_v, Result d_decay, Result d_threshold, double decay_constant,
                    double threshold_constant, double v_reset, bool soft, bool decay_input, int64_t steps, int64_t neurons,
                    int64_t space, bool constant, bool detach, int64_t surrogate, double scale) {
  const Options o{decay_constant, threshold_constant, v_reset, soft, detach, decay_input, surrogate, scale};
  if (!with_surrogate<float>(o, [](const auto&) {})) return ffi::Error::InvalidArgument("unknown surrogate");
  return by_format(x, [&](auto stored, auto potential) {
    using S = decltype(stored);
    using P = decltype(potential);
    Arrays<S, P> a{};
    a.steps = steps, a.neurons = neurons, a.space = space, a.constant = constant;
    a.x = given<S>(x), a.v = given<P>(v);
    a.decay = given<P>(decay), a.threshold = given<P>(threshold);
    a.decays = last(decay), a.thresholds = last(threshold);
    a.channels = std::max({a.decays, a.thresholds, int64_t{1}});
    a.g = given<S>(g), a.e = given<P>(e);
    a.d_x = given<S>(*d_x), a.d_v = given<P>(*d_v);
    a.d_decay = given<P>(*d_decay), a.d_threshold = given<P>(*d_threshold);
    if (size(g)) run(pool, a, o, size(g) / (a.steps * a.neurons));
  });
}

}  // namespace
}  // namespace twinspike

XLA_FFI_DEFINE_HANDLER_SYMBOL(twinspike_lif_forward, twinspike::forward,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()  // x
                                  .Arg<xla::ffi::AnyBuffer>()  // v
                                  .Arg<xla::ffi::AnyBuffer>()  // decay
                                  .Arg<xla::ffi::AnyBuffer>()  // threshold
                                  .Ret<xla::ffi::AnyBuffer>()  // s
                                  .Ret<xla::ffi::AnyBuffer>()  // u
                                  .Ret<xla::ffi::AnyBuffer>()  // v after
                                  .Attr<double>("decay")
                                  .Attr<double>("threshold")
                                  .Attr<double>("v_reset")
                                  .Attr<bool>("soft")
                                  .Attr<bool>("decay_input")
                                  .Attr<int64_t>("steps")
                                  .Attr<int64_t>("neurons")
                                  .Attr<int64_t>("space")
                                  .Attr<bool>("constant"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(twinspike_lif_backward, twinspike::backward,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()  // x
                                  .Arg<xla::ffi::AnyBuffer>()  // v
                                  .Arg<xla::ffi::AnyBuffer>()  // decay
                                  .Arg<xla::ffi::AnyBuffer>()  // threshold
                                  .Arg<xla::ffi::AnyBuffer>()  // g
                                  .Arg<xla::ffi::AnyBuffer>()  // e
                                  .Ret<xla::ffi::AnyBuffer>()  // d_x
                                  .Ret<xla::ffi::AnyBuffer>()  // d_v
                                  .Ret<xla::ffi::AnyBuffer>()  // d_decay
                                  .Ret<xla::ffi::AnyBuffer>()  // d_threshold
                                  .Attr<double>("decay")
                                  .Attr<double>("threshold")
                                  .Attr<double>("v_reset")
                                  .Attr<bool>("soft")
                                  .Attr<bool>("decay_input")
                                  .Attr<int64_t>("steps")
                                  .Attr<int64_t>("neurons")
                                  .Attr<int64_t>("space")
                                  .Attr<bool>("constant")
                                  .Attr<bool>("detach")
                                  .Attr<int64_t>("surrogate")
                                  .Attr<double>("scale"));
