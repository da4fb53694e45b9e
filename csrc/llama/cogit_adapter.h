// What cogit keeps per llama_context. Internal to the adapter.
#pragma once

#include <climits>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cogit_llama.h"
#include "ggml-cpp.h"

namespace cogit {

// Tensors that outlive a graph, in one buffer on the device of their block.
class TensorStore {
 public:
  explicit TensorStore(size_t n_tensors);
  ggml_context* context() const { return context_.get(); }
  bool allocate(ggml_backend_buffer_type_t type, ggml_backend_buffer_usage usage);

 private:
  ggml_context_ptr context_;
  ggml_backend_buffer_ptr buffer_;
};

// One operator in the form the graph wants. The rank is padded to `width` columns; one of the spare
// columns carries c (its row of A is 0, its bias 1), so a single product adds everything.
struct Op {
  int32_t rank = 0;
  int64_t width = 0;
  uint32_t flags = 0;
  std::unique_ptr<TensorStore> store;
  ggml_tensor* a = nullptr;     // [n_embd, width]; null for rank 0
  ggml_tensor* bias = nullptr;  // [width]; null for rank 0
  ggml_tensor* b = nullptr;     // [width, n_embd]
};

struct Strength {
  float value = 0.0F;
  llama_pos begin = 0;
  llama_pos end = INT_MAX;

  float at(llama_pos position) const { return position >= begin && position < end ? value : 0.0F; }
};

struct CaptureSite {
  std::unique_ptr<TensorStore> store;
  ggml_tensor* before = nullptr;  // [n_embd, max_rows + 1]; the last row takes what overflows
  ggml_tensor* after = nullptr;
  std::vector<bool> computed;  // per row: did a graph compute it at this block?
};

struct Capture {
  std::map<int32_t, CaptureSite> sites;
  int64_t max_rows = 0;
  int64_t n_rows = 0;  // rows seen, which may exceed max_rows
  std::vector<llama_seq_id> sequences;
  std::vector<llama_pos> positions;
};

}  // namespace cogit

// In the global namespace because the patched llama.cpp header names it.
struct cogit_adapter {
  std::map<int32_t, cogit::Op> ops;
  cogit::Strength default_strength;
  std::map<llama_seq_id, cogit::Strength> strengths;
  cogit::Capture capture;

  // The graph built last.
  cogit_stats stats = {};
  std::set<int32_t> op_sites;
  std::set<int32_t> capture_sites;
  std::set<int32_t> skipped_sites;
  std::string skip_reason;
  // Counts changes of shape. A graph built under another number must not be reused.
  uint64_t generation = 0;

  const cogit::Strength& strength_of(llama_seq_id sequence) const {
    const auto found = strengths.find(sequence);
    return found == strengths.end() ? default_strength : found->second;
  }
  void forget_graph();
};

namespace cogit {

// Creates the adapter on first use.
cogit_adapter& adapter_of(llama_context* ctx);
// The adapter if there is one.
cogit_adapter* find_adapter(llama_context* ctx);
// Every graph of this context must be built anew.
void shape_changed(llama_context* ctx, cogit_adapter& adapter);
ggml_backend_buffer_type_t buffer_type(llama_context* ctx, int32_t layer);
int32_t n_layers(const llama_context* ctx);
int32_t n_embd(const llama_context* ctx);
void synchronize(llama_context* ctx);

// Stores the message of cogit_last_error and returns the code.
int32_t fail(int32_t code, const std::string& message);

// Runs a body of the C interface; no exception may cross it.
template <typename Body>
int32_t guarded(const char* where, Body body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return fail(COGIT_ERROR_MEMORY, std::string("[") + where + "] out of memory");
  } catch (const std::exception& error) {
    return fail(COGIT_ERROR_STATE, std::string("[") + where + "] " + error.what());
  }
}

}  // namespace cogit
