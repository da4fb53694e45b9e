#include "kernels/dispatch.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace cogit {
namespace {

std::vector<const Variant*> supported() {
#if defined(COGIT_AARCH64)
  return {&kNeon};
#else
  std::vector<const Variant*> variants = {&kBaseline};
#if defined(COGIT_X86_64)
  __builtin_cpu_init();
  // Every CPU with AVX2, FMA and BMI2 has the rest of its level too (F16C, LZCNT, MOVBE), which
  // older compilers cannot ask for.
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  if (v3) variants.push_back(&kX86_64_v3);
  if (v4) variants.push_back(&kX86_64_v4);
#endif
  return variants;
#endif
}

const Variant& find(const std::string& where, const std::string& name) {
  std::string names;
  for (const Variant* variant : supported()) {
    if (name == variant->name) return *variant;
    names += (names.empty() ? "" : ", ") + std::string(variant->name);
  }
  throw std::invalid_argument("[" + where + "] expected a CPU variant this machine can run (" +
                              names + "), got '" + name +
                              "'; choose one of them or leave it unset");
}

const Variant& choose() {
  const char* name = std::getenv("COGIT_CPU_VARIANT");
  if (name == nullptr || *name == '\0') return *supported().back();
  return find("COGIT_CPU_VARIANT", name);
}

std::atomic<const Variant*> active{nullptr};

}  // namespace

std::vector<std::string> supported_variants() {
  std::vector<std::string> names;
  for (const Variant* variant : supported()) names.emplace_back(variant->name);
  return names;
}

const Variant& active_variant() {
  const Variant* variant = active.load(std::memory_order_acquire);
  if (variant == nullptr) {
    // Two threads may both get here; they choose the same.
    variant = &choose();
    active.store(variant, std::memory_order_release);
  }
  return *variant;
}

void set_variant(const std::string& name) {
  active.store(&find("set_cpu_variant", name), std::memory_order_release);
}

}  // namespace cogit
