// Threads for the kernels: work is handed out in chunks, so that a slow core takes fewer of them.
#pragma once

#include <stdint.h>

#include <functional>

namespace cogit {

// Calls body(begin, end) until the chunks of `chunk` items cover [0, count) once, on up to
// `threads` threads, counting the calling one. Which thread runs which chunk is left open, so body
// must give the same result whichever does. Where another thread is inside parallel_for already,
// the caller works alone rather than wait.
//
// The workers start with the first call that needs them, sleep in between and never end. A child
// after fork() has none and starts its own. An exception from body reaches the caller once all
// threads are done; the chunks not begun by then are dropped.
void parallel_for(int64_t count, int64_t chunk, int threads,
                  const std::function<void(int64_t begin, int64_t end)>& body);

// How many threads a call may use where its caller leaves it open: COGIT_NUM_THREADS if that is
// set, else the cores this process may run on; set_thread_count overrides both. Throws
// std::invalid_argument for a COGIT_NUM_THREADS that is not a number from 1 to 1024.
int thread_count();
void set_thread_count(int threads);

// Below this much work a second thread costs more than it saves: waking one takes tens of
// microseconds. Counted in multiply-adds of float32, about 200 us on one core.
constexpr int64_t kAlone = int64_t{4} << 20;

}  // namespace cogit
