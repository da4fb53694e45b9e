// AVX-512: x86-64 servers since 2017, Zen 4 and later.
#define COGIT_VECTOR_BYTES 64
#define COGIT_VECTOR_REGISTERS 32

#include "kernels/affine_impl.inl"
#include "kernels/dense_impl.inl"
#include "kernels/finish_impl.inl"
#include "kernels/probe_impl.inl"

namespace cogit {

const Variant kX86_64_v4 = {"x86-64-v4", &affine_call,       &finish_call,
                            &dense_rows, &dense_unpack_rows, &dense_finish_states,
                            &scale_row,  &read_sum,          &multiply_add};

}  // namespace cogit
