// AVX2 with fused multiply-add: most x86-64 CPUs since 2013.
#define COGIT_VECTOR_BYTES 32
#define COGIT_VECTOR_REGISTERS 16

#include "kernels/affine_impl.inl"
#include "kernels/dense_impl.inl"
#include "kernels/finish_impl.inl"
#include "kernels/probe_impl.inl"

namespace cogit {

const Variant kX86_64_v3 = {"x86-64-v3", &affine_call,       &finish_call,
                            &dense_rows, &dense_unpack_rows, &dense_finish_states,
                            &scale_row,  &read_sum,          &multiply_add};

}  // namespace cogit
