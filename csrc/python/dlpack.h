// The part of the DLPack C exchange interface (version 1.3) that is used here: how a framework
// hands out a view of a tensor without creating a Python object. Declared from the specification,
// so that the build needs no torch.
#pragma once

#include <stdint.h>

namespace cogit::python::dlpack {

constexpr uint32_t kMajorVersion = 1;
constexpr const char* kAttribute = "__dlpack_c_exchange_api__";
constexpr const char* kCapsule = "dlpack_exchange_api";

enum DeviceType : int32_t { kCPU = 1, kCUDA = 2 };
enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBFloat = 4, kComplex = 5 };

struct Device {
  DeviceType type;
  int32_t index;
};

struct DataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements
  uint64_t byte_offset;
};

struct ExchangeHeader {
  uint32_t major;
  uint32_t minor;
  ExchangeHeader* older;
};

struct ExchangeAPI {
  ExchangeHeader header;
  void* allocate;
  void* managed_from_object;
  void* managed_to_object;
  // A view that lives as long as the object does; may be null. Non-zero with a Python error set.
  int (*view_of_object)(void* object, Tensor* out);
  int (*current_stream)(DeviceType type, int32_t index, void** stream);
};

}  // namespace cogit::python::dlpack
