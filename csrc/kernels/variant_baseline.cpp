// What every CPU of the architecture can run; on x86-64 this is SSE2.
#define COGIT_VECTOR_BYTES 16
#define COGIT_VECTOR_REGISTERS 16

#include "kernels/affine_impl.inl"
#include "kernels/dense_impl.inl"
#include "kernels/finish_impl.inl"
#include "kernels/probe_impl.inl"

namespace cogit {

const Variant kBaseline = {"baseline",  &affine_call,       &finish_call,
                           &dense_rows, &dense_unpack_rows, &dense_finish_states,
                           &scale_row,  &read_sum,          &multiply_add};

}  // namespace cogit
