// The C interface of captures: rows of the residual stream, written inside the graph to tensors
// that live on the device of their block. See cogit_llama.h.
#include <algorithm>
#include <cstring>
#include <utility>

#include "cogit_adapter.h"
#include "cogit_llama.h"

namespace {

using cogit::Capture;
using cogit::CaptureSite;

int32_t fail_argument(const char* where, const std::string& what) {
  return cogit::fail(COGIT_ERROR_ARGUMENT, std::string("[") + where + "] " + what);
}

int32_t fail_closed(const char* where) {
  return cogit::fail(COGIT_ERROR_STATE,
                     std::string("[") + where + "] no capture is open; call cogit_capture_begin");
}

// The open capture of a context, or null.
Capture* open_capture(llama_context* ctx) {
  cogit_adapter* adapter = cogit::find_adapter(ctx);
  return adapter != nullptr && !adapter->capture.sites.empty() ? &adapter->capture : nullptr;
}

CaptureSite new_site(llama_context* ctx, int32_t layer, int64_t max_rows, uint32_t flags) {
  const ggml_type type = (flags & COGIT_CAPTURE_HALF) != 0 ? GGML_TYPE_F16 : GGML_TYPE_F32;
  CaptureSite site;
  site.store = std::make_unique<cogit::TensorStore>(2);
  const auto tensor = [&] {
    return ggml_new_tensor_2d(site.store->context(), type, cogit::n_embd(ctx), max_rows + 1);
  };
  if ((flags & COGIT_CAPTURE_BEFORE) != 0) {
    site.before = tensor();
  }
  if ((flags & COGIT_CAPTURE_AFTER) != 0) {
    site.after = tensor();
  }
  // Not a weight: the scheduler must not move the write to wherever weights are read.
  if (!site.store->allocate(cogit::buffer_type(ctx, layer), GGML_BACKEND_BUFFER_USAGE_ANY)) {
    throw std::bad_alloc();
  }
  site.computed.assign(static_cast<size_t>(max_rows) + 1, false);
  return site;
}

void read_rows(const ggml_tensor* tensor, int64_t first, int64_t n, float* out) {
  const size_t n_values = static_cast<size_t>(n * tensor->ne[0]);
  const size_t offset = static_cast<size_t>(first) * tensor->nb[1];
  if (tensor->type == GGML_TYPE_F32) {
    ggml_backend_tensor_get(tensor, out, offset, n_values * sizeof(float));
    return;
  }
  std::vector<ggml_fp16_t> half(n_values);
  ggml_backend_tensor_get(tensor, half.data(), offset, n_values * sizeof(ggml_fp16_t));
  ggml_fp16_to_fp32_row(half.data(), out, static_cast<int64_t>(n_values));
}

}  // namespace

int32_t cogit_capture_begin(llama_context* ctx, const int32_t* layers, int32_t n_layers,
                            int32_t max_rows, uint32_t flags) {
  static constexpr const char* kWhere = "cogit_capture_begin";
  return cogit::guarded(kWhere, [&] {
    constexpr uint32_t kSides = COGIT_CAPTURE_BEFORE | COGIT_CAPTURE_AFTER;
    if ((flags & kSides) == 0 || (flags & ~(kSides | COGIT_CAPTURE_HALF)) != 0) {
      return fail_argument(kWhere,
                           "expected before, after or both, got flags " + std::to_string(flags));
    }
    if (layers == nullptr || n_layers < 1 || max_rows < 1) {
      return fail_argument(kWhere, "expected at least one layer and one row, got " +
                                       std::to_string(n_layers) + " layers and " +
                                       std::to_string(max_rows) + " rows");
    }
    Capture capture;
    capture.max_rows = max_rows;
    for (int32_t i = 0; i < n_layers; ++i) {
      if (layers[i] < 0 || layers[i] >= cogit::n_layers(ctx)) {
        return fail_argument(kWhere, "expected layers in 0.." +
                                         std::to_string(cogit::n_layers(ctx) - 1) + ", got " +
                                         std::to_string(layers[i]));
      }
      if (capture.sites.count(layers[i]) == 0) {
        capture.sites[layers[i]] = new_site(ctx, layers[i], max_rows, flags);
      }
    }
    // Here and not while a graph runs, where a failure could not be reported.
    capture.sequences.reserve(static_cast<size_t>(max_rows));
    capture.positions.reserve(static_cast<size_t>(max_rows));
    cogit::synchronize(ctx);
    cogit_adapter& adapter = cogit::adapter_of(ctx);
    adapter.capture = std::move(capture);
    cogit::shape_changed(ctx, adapter);
    return 0;
  });
}

int32_t cogit_capture_rewind(llama_context* ctx) {
  return cogit::guarded("cogit_capture_rewind", [&] {
    Capture* capture = open_capture(ctx);
    if (capture == nullptr) {
      return fail_closed("cogit_capture_rewind");
    }
    cogit::synchronize(ctx);
    capture->n_rows = 0;
    capture->sequences.clear();
    capture->positions.clear();
    for (auto& [layer, site] : capture->sites) {
      std::fill(site.computed.begin(), site.computed.end(), false);
    }
    return 0;
  });
}

int32_t cogit_capture_end(llama_context* ctx) {
  return cogit::guarded("cogit_capture_end", [&] {
    if (open_capture(ctx) != nullptr) {
      cogit::synchronize(ctx);
      cogit_adapter& adapter = cogit::adapter_of(ctx);
      adapter.capture = Capture();
      cogit::shape_changed(ctx, adapter);
    }
    return 0;
  });
}

int32_t cogit_capture_rows(llama_context* ctx) {
  return cogit::guarded("cogit_capture_rows", [&] {
    const Capture* capture = open_capture(ctx);
    if (capture == nullptr) {
      return fail_closed("cogit_capture_rows");
    }
    return static_cast<int32_t>(std::min<int64_t>(capture->n_rows, INT_MAX));
  });
}

int32_t cogit_capture_index(llama_context* ctx, llama_seq_id* sequences, llama_pos* positions,
                            int32_t n) {
  static constexpr const char* kWhere = "cogit_capture_index";
  return cogit::guarded(kWhere, [&] {
    const Capture* capture = open_capture(ctx);
    if (capture == nullptr) {
      return fail_closed(kWhere);
    }
    if (n < 0 || static_cast<size_t>(n) > capture->sequences.size()) {
      return fail_argument(kWhere, "expected at most " + std::to_string(capture->sequences.size()) +
                                       " rows, got " + std::to_string(n));
    }
    std::copy_n(capture->sequences.begin(), n, sequences);
    std::copy_n(capture->positions.begin(), n, positions);
    return 0;
  });
}

int32_t cogit_capture_read(llama_context* ctx, int32_t layer, uint32_t side, int32_t first,
                           int32_t n, float* out) {
  static constexpr const char* kWhere = "cogit_capture_read";
  return cogit::guarded(kWhere, [&] {
    const Capture* capture = open_capture(ctx);
    if (capture == nullptr) {
      return fail_closed(kWhere);
    }
    const auto found = capture->sites.find(layer);
    if (found == capture->sites.end()) {
      return fail_argument(kWhere, "layer " + std::to_string(layer) + " is not captured");
    }
    const CaptureSite& site = found->second;
    const ggml_tensor* tensor = side == COGIT_CAPTURE_BEFORE  ? site.before
                                : side == COGIT_CAPTURE_AFTER ? site.after
                                                              : nullptr;
    if (tensor == nullptr) {
      return fail_argument(kWhere, "this side of the operator is not captured");
    }
    const int64_t stored = std::min(capture->n_rows, capture->max_rows);
    if (first < 0 || n < 0 || static_cast<int64_t>(first) + n > stored) {
      return fail_argument(kWhere, "expected rows within 0.." + std::to_string(stored) + ", got " +
                                       std::to_string(first) + ".." + std::to_string(first + n));
    }
    for (int64_t row = first; row < first + n; ++row) {
      if (!site.computed[static_cast<size_t>(row)]) {
        return cogit::fail(COGIT_ERROR_UNAVAILABLE,
                           "[cogit_capture_read] layer " + std::to_string(layer) +
                               " never computed row " + std::to_string(row) +
                               "; the last block only sees tokens whose logits are asked for");
      }
    }
    cogit::synchronize(ctx);
    read_rows(tensor, first, n, out);
    return 0;
  });
}
