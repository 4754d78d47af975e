// Blocks of work among the threads of XLA's pool.

#pragma once

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

namespace twinspike {

struct Work {
  std::function<void(int64_t, void*)> run;  // number of a block, and the memory of the thread that runs it
  int64_t count, bytes;
  std::fenv_t environment;  // of the caller: whether subnormal numbers are flushed must not depend on the thread
  std::atomic<int64_t> next{0}, done{0};
  std::mutex mutex;
  std::condition_variable finished;

  // Take blocks until none is left.
  void help() {
    int64_t number = next++;
    if (number >= count) return;
    std::fenv_t own;
    std::fegetenv(&own);
    std::fesetenv(&environment);
    const std::unique_ptr<char[]> memory(new char[bytes]);
    int64_t mine = 0;
    for (; number < count; number = next++, ++mine) run(number, memory.get());
    std::fesetenv(&own);
    if ((done += mine) == count) {
      const std::lock_guard<std::mutex> lock(mutex);
      finished.notify_all();
    }
  }
};

// Run all blocks, on no more than `helpers` other threads. The caller works too, and waits for blocks that others have
// begun alone: a full pool can't stop it.
inline void share(xla::ffi::ThreadPool& pool, std::shared_ptr<Work> work, int64_t helpers) {
  std::fegetenv(&work->environment);
  helpers = std::min({helpers, pool.num_threads() - 1, work->count - 1});
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule([work] { work->help(); });
  work->help();
  std::unique_lock<std::mutex> lock(work->mutex);
  work->finished.wait(lock, [&] { return work->done == work->count; });
}

}  // namespace twinspike
