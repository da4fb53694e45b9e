// The hook: adds operators and captures to the graph that llama.cpp is building, and fills their
// inputs when it runs.
#include <algorithm>
#include <cfloat>
#include <utility>

#include "cogit_adapter.h"
#include "llama-adapter.h"
#include "llama-context.h"
#include "llama-graph.h"
#include "llama-model.h"

namespace {

using cogit::CaptureSite;
using cogit::Op;

// Which tokens a block still carries. Most architectures drop all but the output rows before the
// feed-forward of their last block.
enum class Rows { kTokens, kOutputs };

// One per graph. Holds the inputs lazily, because a graph without the last block needs no output
// rows, and an input that no node uses is never allocated.
class GraphInput final : public llm_graph_input_i {
 public:
  GraphInput(std::shared_ptr<cogit_adapter> adapter, int64_t n_tokens, int64_t n_outputs)
      : adapter_(std::move(adapter)),
        generation_(adapter_->generation),
        n_tokens_(n_tokens),
        n_outputs_(n_outputs) {}

  void set_input(const llama_ubatch* ubatch) override {
    adapter_->stats.n_ubatches++;
    const std::vector<int64_t> outputs = output_tokens(*ubatch);
    set_strengths(*ubatch, outputs);
    set_rows(*ubatch, outputs);
  }

  bool can_reuse(const llm_graph_params& params) override {
    return generation_ == adapter_->generation && n_tokens_ == params.ubatch.n_tokens &&
           n_outputs_ == params.n_outputs;
  }

  bool belongs_to(const cogit_adapter* adapter) const { return adapter_.get() == adapter; }

  ggml_tensor* strengths(ggml_context* ctx, Rows rows) {
    ggml_tensor*& tensor = rows == Rows::kTokens ? token_strengths_ : output_strengths_;
    if (tensor == nullptr) {
      tensor = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 1, count(rows));
      ggml_set_input(tensor);
      ggml_set_name(tensor, rows == Rows::kTokens ? "cogit_s_tokens" : "cogit_s_outputs");
    }
    return tensor;
  }

  ggml_tensor* capture_rows(ggml_context* ctx, Rows rows, int32_t layer) {
    (rows == Rows::kTokens ? token_layers_ : output_layers_).push_back(layer);
    ggml_tensor*& tensor = rows == Rows::kTokens ? token_rows_ : output_rows_;
    if (tensor == nullptr) {
      tensor = ggml_new_tensor_1d(ctx, GGML_TYPE_I64, count(rows));
      ggml_set_input(tensor);
      ggml_set_name(tensor, rows == Rows::kTokens ? "cogit_r_tokens" : "cogit_r_outputs");
    }
    return tensor;
  }

 private:
  int64_t count(Rows rows) const { return rows == Rows::kTokens ? n_tokens_ : n_outputs_; }

  // Indices of the output tokens, in the order in which llama.cpp gathers their rows.
  std::vector<int64_t> output_tokens(const llama_ubatch& ubatch) const {
    std::vector<int64_t> outputs;
    outputs.reserve(static_cast<size_t>(n_outputs_));
    for (int64_t i = 0; i < n_tokens_; ++i) {
      if (n_outputs_ == n_tokens_ || ubatch.output[i] != 0) {
        outputs.push_back(i);
      }
    }
    GGML_ASSERT(static_cast<int64_t>(outputs.size()) == n_outputs_);
    return outputs;
  }

  float strength_of_token(const llama_ubatch& ubatch, int64_t i) const {
    const llama_pos position = ubatch.pos[i];
    const float first = adapter_->strength_of(ubatch.seq_id[i][0]).at(position);
    for (int32_t k = 1; k < ubatch.n_seq_id[i]; ++k) {
      if (adapter_->strength_of(ubatch.seq_id[i][k]).at(position) != first) {
        adapter_->stats.n_conflicts++;
        break;
      }
    }
    return first;
  }

  void set_strengths(const llama_ubatch& ubatch, const std::vector<int64_t>& outputs) {
    if (token_strengths_ == nullptr && output_strengths_ == nullptr) {
      return;
    }
    std::vector<float> strengths(static_cast<size_t>(n_tokens_));
    for (int64_t i = 0; i < n_tokens_; ++i) {
      strengths[static_cast<size_t>(i)] = strength_of_token(ubatch, i);
    }
    upload(token_strengths_, strengths);
    upload(output_strengths_, gather(strengths, outputs));
  }

  void set_rows(const llama_ubatch& ubatch, const std::vector<int64_t>& outputs) {
    if (token_rows_ == nullptr && output_rows_ == nullptr) {
      return;
    }
    cogit::Capture& capture = adapter_->capture;
    std::vector<int64_t> rows(static_cast<size_t>(n_tokens_));
    for (int64_t i = 0; i < n_tokens_; ++i) {
      const int64_t row = capture.n_rows++;
      rows[static_cast<size_t>(i)] = std::min(row, capture.max_rows);
      if (row < capture.max_rows) {
        capture.sequences.push_back(ubatch.seq_id[i][0]);
        capture.positions.push_back(ubatch.pos[i]);
      }
    }
    const std::vector<int64_t> gathered = gather(rows, outputs);
    upload(token_rows_, rows);
    upload(output_rows_, gathered);
    mark_computed(token_layers_, rows);
    mark_computed(output_layers_, gathered);
  }

  void mark_computed(const std::vector<int32_t>& layers, const std::vector<int64_t>& rows) {
    for (const int32_t layer : layers) {
      std::vector<bool>& computed = adapter_->capture.sites.at(layer).computed;
      for (const int64_t row : rows) {
        computed[static_cast<size_t>(row)] = true;
      }
    }
  }

  template <typename T>
  static std::vector<T> gather(const std::vector<T>& values, const std::vector<int64_t>& indices) {
    std::vector<T> gathered;
    gathered.reserve(indices.size());
    for (const int64_t i : indices) {
      gathered.push_back(values[static_cast<size_t>(i)]);
    }
    return gathered;
  }

  // The scheduler allocates no buffer for an input that ended up without a consumer.
  template <typename T>
  static void upload(ggml_tensor* tensor, const std::vector<T>& values) {
    if (tensor != nullptr && tensor->buffer != nullptr && !values.empty()) {
      ggml_backend_tensor_set(tensor, values.data(), 0, values.size() * sizeof(T));
    }
  }

  std::shared_ptr<cogit_adapter> adapter_;  // a graph may outlive cogit_detach by one reserve
  uint64_t generation_;
  int64_t n_tokens_;
  int64_t n_outputs_;
  ggml_tensor* token_strengths_ = nullptr;   // F32 [1, n_tokens]
  ggml_tensor* output_strengths_ = nullptr;  // F32 [1, n_outputs]
  ggml_tensor* token_rows_ = nullptr;        // I64 [n_tokens]
  ggml_tensor* output_rows_ = nullptr;       // I64 [n_outputs]
  std::vector<int32_t> token_layers_;        // captured with token rows
  std::vector<int32_t> output_layers_;       // captured with output rows
};

GraphInput& input_of(const llm_graph_context& graph,
                     const std::shared_ptr<cogit_adapter>& adapter) {
  auto& inputs = graph.res->inputs;
  for (auto it = inputs.rbegin(); it != inputs.rend(); ++it) {
    auto* input = dynamic_cast<GraphInput*>(it->get());
    if (input != nullptr && input->belongs_to(adapter.get())) {
      return *input;
    }
  }
  adapter->forget_graph();  // the first of our blocks in a new graph
  adapter->stats.n_builds++;
  auto input = std::make_unique<GraphInput>(adapter, graph.n_tokens, graph.n_outputs);
  return *static_cast<GraphInput*>(graph.res->add_input(std::move(input)));
}

// Builds the nodes of one block.
class BlockBuilder {
 public:
  BlockBuilder(const llm_graph_context& graph, cogit_adapter& adapter, int32_t layer)
      : graph_(graph), ctx_(graph.ctx0), adapter_(adapter), layer_(layer) {}

  // h + S * ((h A^T + a0) B + c), then the optional restore.
  ggml_tensor* apply(const Op& op, ggml_tensor* h, ggml_tensor* strengths) {
    ggml_tensor* z = strengths;  // rank 0: the only column is c
    if (op.rank > 0) {
      z = node(ggml_mul_mat(ctx_, op.a, h), "z");
      z = node(ggml_add(ctx_, z, op.bias), "z_bias");
      z = node(ggml_mul(ctx_, z, strengths), "z_scaled");
    }
    ggml_tensor* change = node(ggml_mul_mat(ctx_, op.b, z), "change");
    ggml_tensor* moved = node(ggml_add(ctx_, h, change), "moved");
    return (op.flags & COGIT_OP_RESTORE) != 0 ? restore(h, moved) : moved;
  }

  void capture(ggml_tensor* target, ggml_tensor* h, ggml_tensor* rows) {
    ggml_build_forward_expand(graph_.gf, node(ggml_set_rows(ctx_, target, h, rows), "capture"));
  }

 private:
  // moved * sqrt(|h|^2 / |moved|^2). Both squares come from the same kernels, so an unchanged row
  // gets exactly 1. FLT_MIN is lost in any normal sum and makes 0/0 one; the clamp keeps x/0
  // finite, so that a row moved to 0 stays 0.
  ggml_tensor* restore(ggml_tensor* h, ggml_tensor* moved) {
    ggml_tensor* ratio = node(ggml_div(ctx_, square_norm(h), square_norm(moved)), "ratio");
    ratio = node(ggml_clamp(ctx_, ratio, 0.0F, FLT_MAX), "ratio_finite");
    return node(ggml_mul(ctx_, moved, node(ggml_sqrt(ctx_, ratio), "scale")), "restored");
  }

  ggml_tensor* square_norm(ggml_tensor* x) {
    ggml_tensor* sum = node(ggml_sum_rows(ctx_, node(ggml_sqr(ctx_, x), "square")), "norm2");
    return node(ggml_scale_bias(ctx_, sum, 1.0F, FLT_MIN), "norm2_positive");
  }

  ggml_tensor* node(ggml_tensor* tensor, const char* name) {
    ggml_format_name(tensor, "cogit_%s-%d", name, layer_);
    adapter_.stats.n_nodes++;
    return tensor;
  }

  const llm_graph_context& graph_;
  ggml_context* ctx_;
  cogit_adapter& adapter_;
  int32_t layer_;
};

// True if `cur` is one float32 row of n_embd per token or per output. Blocks that carry several
// parallel streams (AltUp, hyper-connections) have no single residual stream to act on.
bool find_rows(const llm_graph_context& graph, const ggml_tensor* cur, Rows& rows) {
  const bool streams = graph.hparams.dsv4_hc_mult > 1 || cur->ne[2] != 1 || cur->ne[3] != 1;
  if (streams || cur->type != GGML_TYPE_F32 || cur->ne[0] != graph.n_embd) {
    return false;
  }
  rows = cur->ne[1] == graph.n_tokens ? Rows::kTokens : Rows::kOutputs;
  return cur->ne[1] == graph.n_tokens || cur->ne[1] == graph.n_outputs;
}

void skip(const llm_graph_context& graph, cogit_adapter& adapter, int32_t layer,
          const ggml_tensor* cur) {
  adapter.stats.n_skipped++;
  adapter.skipped_sites.insert(layer);
  if (adapter.skip_reason.empty()) {
    adapter.skip_reason = "block " + std::to_string(layer) + ": expected one f32 row of " +
                          std::to_string(graph.n_embd) + " per token, got " +
                          ggml_type_name(cur->type) + " [" + std::to_string(cur->ne[0]) + ", " +
                          std::to_string(cur->ne[1]) + ", " + std::to_string(cur->ne[2]) + "]";
  }
}

}  // namespace

ggml_tensor* cogit_apply(const llm_graph_context& graph, ggml_tensor* cur, int il);

// Called by llm_graph_context::build_cvec at the end of every block.
ggml_tensor* cogit_apply(const llm_graph_context& graph, ggml_tensor* cur, int il) {
  const std::shared_ptr<cogit_adapter>& adapter = graph.cvec->cogit;
  if (adapter == nullptr) {
    return cur;
  }
  const auto op = adapter->ops.find(il);
  const auto site = adapter->capture.sites.find(il);
  const bool has_op = op != adapter->ops.end();
  const bool has_capture = site != adapter->capture.sites.end();
  if (!has_op && !has_capture) {
    return cur;
  }

  GraphInput& input = input_of(graph, adapter);
  Rows rows = Rows::kTokens;
  if (!find_rows(graph, cur, rows)) {
    skip(graph, *adapter, il, cur);
    return cur;
  }
  BlockBuilder build(graph, *adapter, il);
  ggml_tensor* row_index = has_capture ? input.capture_rows(graph.ctx0, rows, il) : nullptr;
  if (has_capture) {
    adapter->capture_sites.insert(il);
    if (site->second.before != nullptr) {
      build.capture(site->second.before, cur, row_index);
    }
  }
  if (has_op) {
    adapter->op_sites.insert(il);
    cur = build.apply(op->second, cur, input.strengths(graph.ctx0, rows));
  }
  if (has_capture && site->second.after != nullptr) {
    build.capture(site->second.after, cur, row_index);
  }
  return cur;
}
