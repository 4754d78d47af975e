// Convolutions, their gradients and products of factors as calls of XLA's foreign function interface, on CPUs.
//
// Compiled at first use against the headers that jaxlib ships: `native_build.py` compiles and registers it, and
// `products_native.py` calls it.

#include <memory>

#include "convolution.h"
#include "product.h"
#include "threads.h"

namespace twinspike {
namespace {

namespace ffi = xla::ffi;
using Argument = ffi::AnyBuffer;
using Result = ffi::Result<ffi::AnyBuffer>;

constexpr int64_t kWorthAThread = 1 << 22;  // products

template <class T>
T* data(const Argument& a) {
  return static_cast<T*>(a.untyped_data());
}

template <class Use>
ffi::Error by_format(const Argument& a, const Use& use) {
  switch (a.element_type()) {
    case ffi::F32: use(float{}); break;
    case ffi::F64: use(double{}); break;
    default: return ffi::Error::InvalidArgument("expected float32 or float64");
  }
  return ffi::Error::Success();
}

// Run the blocks of several tasks of one size; each thread has memory of its own, on a boundary of vectors.
template <class P, class Task>
void run(ffi::ThreadPool& pool, const Task& task, int64_t count, int64_t products) {
  const auto work = std::make_shared<Work>();
  const int64_t blocks = task(0).blocks();
  work->count = count * blocks;
  work->bytes = task(0).bytes() + kBytes;
  work->run = [&](int64_t number, void* memory) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory);
    task(number / blocks).run(number % blocks, reinterpret_cast<P*>((address + kBytes - 1) / kBytes * kBytes));
  };
  share(pool, work, products / kWorthAThread);
}

Sizes sizes(const Argument& large, const Argument& small, const Argument& kernel, int64_t stride, int64_t padding) {
  const auto l = large.dimensions(), s = small.dimensions(), k = kernel.dimensions();
  return {l[0], l[1], l[2], l[3], s[1], s[2], s[3], k[0], k[1], stride, padding};
}

int64_t products(const Sizes& s) {
  return s.batch * s.out_high * s.out_wide * s.out_channels * s.kernel_high * s.kernel_wide * s.channels;
}

ffi::Error forward(ffi::ThreadPool pool, Argument x, Argument kernel, Result y, int64_t stride, int64_t padding) {
  return by_format(x, [&](auto format) {
    using P = decltype(format);
    const Sizes s = sizes(x, *y, kernel, stride, padding);
    const Convolution<P, false> task{data<P>(x), data<P>(kernel), data<P>(*y), s};
    if (y->element_count()) run<P>(pool, [&](int64_t) { return task; }, 1, products(s));
  });
}

ffi::Error towards_map(ffi::ThreadPool pool, Argument g, Argument kernel, Result d_x, int64_t stride, int64_t padding) {
  return by_format(g, [&](auto format) {
    using P = decltype(format);
    const Sizes s = sizes(*d_x, g, kernel, stride, padding);
    const Convolution<P, true> task{data<P>(g), data<P>(kernel), data<P>(*d_x), s};
    if (d_x->element_count()) run<P>(pool, [&](int64_t) { return task; }, 1, products(s));
  });
}

ffi::Error towards_kernel(ffi::ThreadPool pool, Argument x, Argument g, Result d_kernel, int64_t stride, int64_t padding) {
  return by_format(x, [&](auto format) {
    using P = decltype(format);
    const Sizes s = sizes(x, g, *d_kernel, stride, padding);
    const KernelGradient<P> task{data<P>(x), data<P>(g), data<P>(*d_kernel), s};
    if (d_kernel->element_count()) run<P>(pool, [&](int64_t) { return task; }, 1, products(s));
  });
}

// Matrices are (N, rows, columns); weights (N, terms) or (N, columns), or without entries.
ffi::Error product(ffi::ThreadPool pool, Argument a, Argument b, Argument of_terms, Argument of_columns, Result c) {
  return by_format(a, [&](auto format) {
    using P = decltype(format);
    const auto shape = c->dimensions();
    const int64_t count = shape[0], rows = shape[1], columns = shape[2], terms = a.dimensions()[1];
    const P* weights[] = {of_terms.element_count() ? data<P>(of_terms) : nullptr,
                          of_columns.element_count() ? data<P>(of_columns) : nullptr};
    const auto task = [&](int64_t i) {
      return Product<P>{data<P>(a) + i * terms * rows,
                        data<P>(b) + i * columns * terms,
                        weights[0] ? weights[0] + i * terms : nullptr,
                        weights[1] ? weights[1] + i * columns : nullptr,
                        data<P>(*c) + i * rows * columns,
                        rows,
                        columns,
                        terms};
    };
    if (c->element_count()) run<P>(pool, task, count, count * rows * columns * terms);
  });
}

}  // namespace
}  // namespace twinspike

#define TWINSPIKE_CONVOLUTION                         \
  xla::ffi::Ffi::Bind()                               \
      .Ctx<xla::ffi::ThreadPool>()                    \
      .Arg<xla::ffi::AnyBuffer>() /* one operand */   \
      .Arg<xla::ffi::AnyBuffer>() /* and the other */ \
      .Ret<xla::ffi::AnyBuffer>()                     \
      .Attr<int64_t>("stride")                        \
      .Attr<int64_t>("padding")

XLA_FFI_DEFINE_HANDLER_SYMBOL(twinspike_convolution, twinspike::forward, TWINSPIKE_CONVOLUTION);
XLA_FFI_DEFINE_HANDLER_SYMBOL(twinspike_convolution_map, twinspike::towards_map, TWINSPIKE_CONVOLUTION);
XLA_FFI_DEFINE_HANDLER_SYMBOL(twinspike_convolution_kernel, twinspike::towards_kernel, TWINSPIKE_CONVOLUTION);
XLA_FFI_DEFINE_HANDLER_SYMBOL(twinspike_product, twinspike::product,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()  // a
                                  .Arg<xla::ffi::AnyBuffer>()  // b
                                  .Arg<xla::ffi::AnyBuffer>()  // weights of terms
                                  .Arg<xla::ffi::AnyBuffer>()  // weights of columns
                                  .Ret<xla::ffi::AnyBuffer>());
