#include "kernels/scratch.h"

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace cogit {

float* scratch(int64_t count) {
  struct Free {
    void operator()(float* memory) const { std::free(memory); }
  };
  constexpr std::size_t kLine = 64;
  thread_local std::unique_ptr<float, Free> memory;
  thread_local int64_t capacity = 0;
  if (capacity < count) {
    const std::size_t bytes =
        (static_cast<std::size_t>(count) * sizeof(float) + kLine - 1) / kLine * kLine;
    capacity = 0;
    memory.reset(static_cast<float*>(std::aligned_alloc(kLine, bytes)));
    if (memory == nullptr) throw std::bad_alloc();
    capacity = count;
  }
  return memory.get();
}

}  // namespace cogit
