// NEON, which every 64-bit Arm CPU has.
#define COGIT_VECTOR_BYTES 16
#define COGIT_VECTOR_REGISTERS 32

#include "kernels/affine_impl.inl"
#include "kernels/dense_impl.inl"
#include "kernels/finish_impl.inl"
#include "kernels/probe_impl.inl"

namespace cogit {

const Variant kNeon = {"neon",      &affine_call,       &finish_call,
                       &dense_rows, &dense_unpack_rows, &dense_finish_states,
                       &scale_row,  &read_sum,          &multiply_add};

}  // namespace cogit
