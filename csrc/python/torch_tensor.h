// What tensor.h needs to know of torch, which is found at run time: the build needs no torch.
//
// is_torch() is true only after the first torch_grad_enabled() that finds torch imported.
#pragma once

#include "python/tensor.h"

namespace cogit::python {

constexpr int kMostDimensions = 8;

// An argument before it is known to be usable.
struct Raw {
  void* data;
  DType dtype;
  Device device;
  int ndim;
  int64_t shape[kMostDimensions];
  int64_t strides[kMostDimensions];  // bytes
  bool writable;
};

// True with torch imported and gradients being recorded.
bool torch_grad_enabled();

// True for torch.Tensor and torch.nn.Parameter themselves. What follows is for these only.
bool is_torch(pybind11::handle argument);
bool is_torch_subclass(pybind11::handle argument);

bool torch_requires_grad(pybind11::handle argument);
Raw view_torch(const char* where, const char* name, pybind11::handle argument);

// Refuses what the memory of a tensor alone does not tell: a gradient that would be lost, a lazy
// conjugation or negation.
void check_torch(const char* where, const char* name, pybind11::handle argument, DType dtype,
                 bool grad_enabled);

// Like torch.empty_like.
pybind11::object torch_empty_like(pybind11::handle argument);

}  // namespace cogit::python
