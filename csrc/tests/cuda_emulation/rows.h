// Rows of any element type, in memory that notices what reaches past them.
#pragma once

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "kernels/affine.h"
#include "kernels/cuda/device.cuh"

namespace cogit::test {

inline int64_t size_of(Float type) { return type == Float::kF32 ? 4 : 2; }

inline float read(Float type, const char* at) {
  if (type == Float::kF32) {
    float value;
    std::memcpy(&value, at, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, at, 2);
  return type == Float::kBF16 ? cuda::BF16::widen(bits) : cuda::F16::widen(bits);
}

inline void write(Float type, char* at, float value) {
  const uint16_t bits = type == Float::kBF16 ? cuda::BF16::round(value) : cuda::F16::round(value);
  if (type == Float::kF32) {
    std::memcpy(at, &value, 4);
  } else {
    std::memcpy(at, &bits, 2);
  }
}

// Memory between two pages that must not be touched: what lies past the rows crashes the test.
class Guarded {
 public:
  // at_end: the last byte, rounded up to 16, is next to the page behind, else the first to the one
  // before.
  Guarded(int64_t bytes, bool at_end) : size_((static_cast<size_t>(bytes) + 15) / 16 * 16) {
    const size_t inner = (size_ + kPage - 1) / kPage * kPage;
    mapped_ = inner + 2 * kPage;
    map_ = static_cast<char*>(
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (map_ == MAP_FAILED) emulation::fail("no memory");
    mprotect(map_, kPage, PROT_NONE);
    mprotect(map_ + kPage + inner, kPage, PROT_NONE);
    data_ = map_ + kPage + (at_end ? inner - size_ : 0);
    std::memset(data_, kGap, size_);
  }
  ~Guarded() { munmap(map_, mapped_); }
  Guarded(const Guarded&) = delete;

  char* data() { return data_; }
  size_t size() const { return size_; }

  static constexpr unsigned char kGap = 0xa5;

 private:
  static constexpr size_t kPage = 64 * 1024;
  size_t size_, mapped_;
  char *map_, *data_;
};

// Rows with the gaps that the stride leaves. shift: elements off 16-byte alignment.
struct Rows {
  Float type;
  int64_t count, d, stride, shift;
  Guarded memory;

  Rows(Float type_, int64_t count_, int64_t d_, int64_t stride_, int64_t shift_)
      : type(type_),
        count(count_),
        d(d_),
        stride(stride_),
        shift(shift_),
        memory(((count_ - 1) * std::abs(stride_) + d_ + shift_) * size_of(type_), stride_ > 0) {}
  int64_t bytes() const { return d * size_of(type); }
  char* base() {
    const int64_t start = shift + (stride < 0 ? (count - 1) * -stride : 0);
    return memory.data() + start * size_of(type);
  }
  char* row(int64_t n) { return base() + n * stride * size_of(type); }
  float get(int64_t n, int64_t j) { return read(type, row(n) + j * size_of(type)); }
  void set(int64_t n, int64_t j, float value) { write(type, row(n) + j * size_of(type), value); }
};

}  // namespace cogit::test
