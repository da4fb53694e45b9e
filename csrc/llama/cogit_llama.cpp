// The C interface: operators, strengths, statistics. See cogit_llama.h.
#include "cogit_llama.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "cogit_adapter.h"
#include "llama-adapter.h"
#include "llama-context.h"
#include "llama-model.h"

// The CPU sgemm wants a multiple of 16 columns, and some CUDA kernels an even number.
static constexpr int64_t kWidthMultiple = 16;

namespace cogit {

TensorStore::TensorStore(size_t n_tensors) {
  const ggml_init_params params = {n_tensors * ggml_tensor_overhead(), nullptr, true};
  context_.reset(ggml_init(params));
  if (context_ == nullptr) {
    throw std::bad_alloc();
  }
}

bool TensorStore::allocate(ggml_backend_buffer_type_t type, ggml_backend_buffer_usage usage) {
  buffer_.reset(ggml_backend_alloc_ctx_tensors_from_buft(context_.get(), type));
  if (buffer_ == nullptr) {
    return false;
  }
  ggml_backend_buffer_set_usage(buffer_.get(), usage);
  return true;
}

cogit_adapter& adapter_of(llama_context* ctx) {
  std::shared_ptr<cogit_adapter>& slot = ctx->get_cvec().cogit;
  if (slot == nullptr) {
    slot = std::make_shared<cogit_adapter>();
  }
  return *slot;
}

cogit_adapter* find_adapter(llama_context* ctx) { return ctx->get_cvec().cogit.get(); }

void shape_changed(llama_context* ctx, cogit_adapter& adapter) {
  adapter.generation++;
  adapter.forget_graph();  // what was placed before says nothing about the next graph
  ctx->request_reserve();
}

ggml_backend_buffer_type_t buffer_type(llama_context* ctx, int32_t layer) {
  return ctx->get_model().select_buft(layer);
}

int32_t n_layers(const llama_context* ctx) {
  return static_cast<int32_t>(ctx->get_model().hparams.n_layer());
}

int32_t n_embd(const llama_context* ctx) {
  return static_cast<int32_t>(ctx->get_model().hparams.n_embd);
}

void synchronize(llama_context* ctx) { ctx->synchronize(); }

namespace {

bool all_finite(const float* values, int64_t n) {
  return values == nullptr ||
         std::all_of(values, values + n, [](float value) { return std::isfinite(value); });
}

// What makes a call of cogit_set_op unusable; empty if nothing does.
std::string why_unusable(llama_context* ctx, int32_t layer, int32_t width, int32_t rank,
                         const float* a, const float* a0, const float* b, const float* c,
                         uint32_t flags) {
  const int64_t n = n_embd(ctx);
  if (layer < 0 || layer >= n_layers(ctx)) {
    return "expected a layer in 0.." + std::to_string(n_layers(ctx) - 1) + ", got " +
           std::to_string(layer);
  }
  if (width != n) {
    return "expected vectors of the model's width " + std::to_string(n) + ", got " +
           std::to_string(width);
  }
  if (rank < 0 || rank > n) {
    return "expected a rank in 0.." + std::to_string(n) + ", got " + std::to_string(rank);
  }
  if (rank > 0 && (a == nullptr || b == nullptr)) {
    return "expected A and B for rank " + std::to_string(rank) + ", got NULL";
  }
  if ((flags & ~static_cast<uint32_t>(COGIT_OP_RESTORE)) != 0) {
    return "unknown flags " + std::to_string(flags);
  }
  if (!all_finite(a, rank * n) || !all_finite(a0, rank) || !all_finite(b, rank * n) ||
      !all_finite(c, n)) {
    return "expected finite numbers in A, a0, B and c, got NaN or infinity";
  }
  return "";
}

Op new_op(llama_context* ctx, int32_t layer, int32_t rank, uint32_t flags) {
  Op op;
  op.rank = rank;
  op.flags = flags;
  op.width = rank == 0 ? 1 : GGML_PAD(static_cast<int64_t>(rank) + 1, kWidthMultiple);
  op.store = std::make_unique<TensorStore>(3);
  ggml_context* tensors = op.store->context();
  const int64_t n = n_embd(ctx);
  if (rank > 0) {
    op.a = ggml_new_tensor_2d(tensors, GGML_TYPE_F32, n, op.width);
    op.bias = ggml_new_tensor_1d(tensors, GGML_TYPE_F32, op.width);
  }
  op.b = ggml_new_tensor_2d(tensors, GGML_TYPE_F32, op.width, n);
  if (!op.store->allocate(buffer_type(ctx, layer), GGML_BACKEND_BUFFER_USAGE_WEIGHTS)) {
    throw std::bad_alloc();
  }
  return op;
}

void upload(ggml_tensor* tensor, const std::vector<float>& values) {
  ggml_backend_tensor_set(tensor, values.data(), 0, values.size() * sizeof(float));
}

void fill_op(const Op& op, int64_t n, const float* a, const float* a0, const float* b,
             const float* c) {
  const auto at = [](int64_t i) { return static_cast<size_t>(i); };
  std::vector<float> b_rows(at(n * op.width), 0.0F);  // transposed: [n_embd][width]
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = 0; i < op.rank; ++i) {
      b_rows[at(j * op.width + i)] = b[i * n + j];
    }
    b_rows[at(j * op.width + op.rank)] = c != nullptr ? c[j] : 0.0F;
  }
  upload(op.b, b_rows);
  if (op.rank == 0) {
    return;
  }
  std::vector<float> a_rows(at(op.width * n), 0.0F);
  std::copy_n(a, op.rank * n, a_rows.begin());
  upload(op.a, a_rows);
  std::vector<float> bias(at(op.width), 0.0F);
  if (a0 != nullptr) {
    std::copy_n(a0, op.rank, bias.begin());
  }
  bias[at(op.rank)] = 1.0F;
  upload(op.bias, bias);
}

}  // namespace
}  // namespace cogit

void cogit_adapter::forget_graph() {
  stats.n_sites = stats.n_capture_sites = stats.n_skipped = stats.n_nodes = 0;
  op_sites.clear();
  capture_sites.clear();
  skipped_sites.clear();
  skip_reason.clear();
}

int32_t cogit_set_op(llama_context* ctx, int32_t layer, int32_t n_embd, int32_t rank,
                     const float* A, const float* a0, const float* B, const float* c,
                     uint32_t flags) {
  return cogit::guarded("cogit_set_op", [&] {
    const std::string reason = cogit::why_unusable(ctx, layer, n_embd, rank, A, a0, B, c, flags);
    if (!reason.empty()) {
      return cogit::fail(COGIT_ERROR_ARGUMENT, "[cogit_set_op] " + reason);
    }
    cogit::synchronize(ctx);
    cogit_adapter& adapter = cogit::adapter_of(ctx);
    const auto found = adapter.ops.find(layer);
    const bool same_shape =
        found != adapter.ops.end() && found->second.rank == rank && found->second.flags == flags;
    if (same_shape) {
      cogit::fill_op(found->second, n_embd, A, a0, B, c);
      return 0;
    }
    cogit::Op op = cogit::new_op(ctx, layer, rank, flags);
    cogit::fill_op(op, n_embd, A, a0, B, c);
    adapter.ops[layer] = std::move(op);
    cogit::shape_changed(ctx, adapter);
    return 0;
  });
}

int32_t cogit_clear_op(llama_context* ctx, int32_t layer) {
  return cogit::guarded("cogit_clear_op", [&] {
    if (layer >= cogit::n_layers(ctx)) {
      return cogit::fail(COGIT_ERROR_ARGUMENT, "[cogit_clear_op] expected a layer below " +
                                                   std::to_string(cogit::n_layers(ctx)) + ", got " +
                                                   std::to_string(layer));
    }
    cogit_adapter* adapter = cogit::find_adapter(ctx);
    if (adapter == nullptr) {
      return 0;
    }
    cogit::synchronize(ctx);
    const size_t before = adapter->ops.size();
    if (layer < 0) {
      adapter->ops.clear();
    } else {
      adapter->ops.erase(layer);
    }
    if (adapter->ops.size() != before) {
      cogit::shape_changed(ctx, *adapter);
    }
    return 0;
  });
}

int32_t cogit_set_strength(llama_context* ctx, llama_seq_id seq_id, float strength, llama_pos begin,
                           llama_pos end) {
  return cogit::guarded("cogit_set_strength", [&] {
    if (!std::isfinite(strength)) {
      return cogit::fail(COGIT_ERROR_ARGUMENT,
                         "[cogit_set_strength] expected a finite strength, got NaN or infinity");
    }
    if (begin < 0 || (end >= 0 && end < begin)) {
      return cogit::fail(COGIT_ERROR_ARGUMENT,
                         "[cogit_set_strength] expected a window 0 <= begin <= end, got " +
                             std::to_string(begin) + ".." + std::to_string(end));
    }
    if (seq_id >= static_cast<llama_seq_id>(llama_n_seq_max(ctx))) {
      return cogit::fail(COGIT_ERROR_ARGUMENT, "[cogit_set_strength] expected a sequence below " +
                                                   std::to_string(llama_n_seq_max(ctx)) + ", got " +
                                                   std::to_string(seq_id));
    }
    cogit_adapter& adapter = cogit::adapter_of(ctx);
    cogit::Strength& slot = seq_id < 0 ? adapter.default_strength : adapter.strengths[seq_id];
    slot.value = strength;
    slot.begin = begin;
    slot.end = end < 0 ? INT_MAX : end;
    return 0;
  });
}

int32_t cogit_reset_strengths(llama_context* ctx) {
  return cogit::guarded("cogit_reset_strengths", [&] {
    if (cogit_adapter* adapter = cogit::find_adapter(ctx)) {
      adapter->default_strength = cogit::Strength();
      adapter->strengths.clear();
    }
    return 0;
  });
}

int32_t cogit_prepare(llama_context* ctx) {
  return cogit::guarded("cogit_prepare", [&] {
    try {
      ctx->sched_reserve();
    } catch (const std::exception& error) {
      ctx->request_reserve();  // the half-built schedule must not be used
      return cogit::fail(COGIT_ERROR_MEMORY, std::string("[cogit_prepare] ") + error.what());
    }
    return 0;
  });
}

int32_t cogit_get_stats(llama_context* ctx, cogit_stats* out, size_t size) {
  return cogit::guarded("cogit_get_stats", [&] {
    if (out == nullptr || size != sizeof(cogit_stats)) {
      return cogit::fail(COGIT_ERROR_ARGUMENT, "[cogit_get_stats] expected a struct of " +
                                                   std::to_string(sizeof(cogit_stats)) +
                                                   " bytes, got " + std::to_string(size));
    }
    cogit_adapter* adapter = cogit::find_adapter(ctx);
    *out = adapter != nullptr ? adapter->stats : cogit_stats{};
    if (adapter != nullptr) {
      out->n_sites = static_cast<int32_t>(adapter->op_sites.size());
      out->n_capture_sites = static_cast<int32_t>(adapter->capture_sites.size());
    }
    return 0;
  });
}

int32_t cogit_sites(llama_context* ctx, int32_t kind, int32_t* layers, int32_t capacity) {
  return cogit::guarded("cogit_sites", [&] {
    cogit_adapter* adapter = cogit::find_adapter(ctx);
    if (adapter == nullptr) {
      return 0;
    }
    const std::set<int32_t>* sites = nullptr;
    switch (kind) {
      case COGIT_SITE_OP:
        sites = &adapter->op_sites;
        break;
      case COGIT_SITE_CAPTURE:
        sites = &adapter->capture_sites;
        break;
      case COGIT_SITE_SKIPPED:
        sites = &adapter->skipped_sites;
        break;
      default:
        return cogit::fail(COGIT_ERROR_ARGUMENT,
                           "[cogit_sites] unknown kind " + std::to_string(kind));
    }
    int32_t written = 0;
    for (const int32_t layer : *sites) {
      if (written < capacity) {
        layers[written++] = layer;
      }
    }
    return static_cast<int32_t>(sites->size());
  });
}

const char* cogit_skip_reason(llama_context* ctx) {
  const cogit_adapter* adapter = cogit::find_adapter(ctx);
  return adapter != nullptr ? adapter->skip_reason.c_str() : "";
}

int32_t cogit_detach(llama_context* ctx) {
  return cogit::guarded("cogit_detach", [&] {
    if (cogit_adapter* adapter = cogit::find_adapter(ctx)) {
      cogit::synchronize(ctx);
      cogit::shape_changed(ctx, *adapter);
      ctx->get_cvec().cogit.reset();
    }
    return 0;
  });
}
