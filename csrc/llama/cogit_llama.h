// C interface of cogit's in-graph interventions, compiled into libllama.
//
// One operator per block acts on the residual stream at the end of that block, after llama.cpp's
// own control vector. For each token, with strength S:
//
//     h' = restore( h + S * ( (h A^T + a0) B + c ) )
//
// S is a graph input: the strength of the token's sequence where the token's position lies in the
// window [begin, end), else 0. A token with S = 0 leaves the block bit for bit as it came. Changing
// strengths, windows or the numbers of an operator never rebuilds a graph; adding, removing or
// reshaping an operator or a capture rebuilds it once, at the next cogit_prepare or llama_decode.
//
// Ownership. Everything belongs to the llama_context and is freed by cogit_detach or llama_free.
// Input arrays are copied before a call returns.
// Threads. As for llama_context: one thread at a time per context. Contexts are independent.
// Errors. Functions return 0 or a count on success and one of COGIT_ERROR_* (negative) on failure;
// cogit_last_error() then holds one line about it, per thread, until the next failure.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

#define COGIT_ABI_VERSION 1

enum cogit_error {
  COGIT_ERROR_ARGUMENT = -1,    // a value that makes no sense: layer, rank, pointer, NaN
  COGIT_ERROR_MEMORY = -2,      // a buffer could not be allocated
  COGIT_ERROR_STATE = -3,       // the call does not fit the present state (no capture open, ...)
  COGIT_ERROR_UNAVAILABLE = -4  // rows asked for that no graph ever computed
};

enum cogit_op_flags {
  COGIT_OP_RESTORE = 1 << 0  // multiply by |h| / |h'|; exactly 1 where h' equals h or h' is 0
};

enum cogit_capture_flags {
  COGIT_CAPTURE_BEFORE = 1 << 0,
  COGIT_CAPTURE_AFTER = 1 << 1,
  COGIT_CAPTURE_HALF = 1 << 2  // store float16
};

enum cogit_site_kind { COGIT_SITE_OP = 0, COGIT_SITE_CAPTURE = 1, COGIT_SITE_SKIPPED = 2 };

// All but the two totals describe the graph built last (by cogit_prepare or llama_decode).
struct cogit_stats {
  int32_t n_sites;          // blocks where an operator was placed
  int32_t n_capture_sites;  // blocks where a capture was placed
  int32_t n_skipped;        // blocks reached whose tensor has a shape or type that is not supported
  int32_t n_nodes;          // graph nodes added
  int64_t n_builds;         // total: graphs built with at least one operator or capture
  int64_t n_ubatches;       // total: ubatches computed with such a graph
  int64_t n_conflicts;  // total: tokens shared by sequences of different strength (first one won)
};

LLAMA_API int32_t cogit_abi_version(void);
// sizeof of the structs that a binding mirrors: "model_params", "context_params", "batch",
// "quantize_params", "stats". 0 for an unknown name.
LLAMA_API size_t cogit_struct_size(const char* name);
LLAMA_API const char* cogit_last_error(void);

// A: [rank][n_embd], a0: [rank], B: [rank][n_embd], c: [n_embd]; row-major and finite. a0 and c may
// be NULL (zero), A and B are NULL for rank 0.
LLAMA_API int32_t cogit_set_op(struct llama_context* ctx, int32_t layer, int32_t n_embd,
                               int32_t rank, const float* A, const float* a0, const float* B,
                               const float* c, uint32_t flags);
LLAMA_API int32_t cogit_clear_op(struct llama_context* ctx, int32_t layer);  // < 0: every layer

// seq_id < 0 sets the default of all sequences without a strength of their own. end < 0: no end.
LLAMA_API int32_t cogit_set_strength(struct llama_context* ctx, llama_seq_id seq_id, float strength,
                                     llama_pos begin, llama_pos end);
LLAMA_API int32_t cogit_reset_strengths(struct llama_context* ctx);  // all 0

// Rows accumulate over llama_decode calls, one per token in the order of computation, until rewind.
LLAMA_API int32_t cogit_capture_begin(struct llama_context* ctx, const int32_t* layers,
                                      int32_t n_layers, int32_t max_rows, uint32_t flags);
LLAMA_API int32_t cogit_capture_rewind(struct llama_context* ctx);
LLAMA_API int32_t cogit_capture_end(struct llama_context* ctx);
// Rows seen since the last rewind. More than max_rows means that the rest was dropped.
LLAMA_API int32_t cogit_capture_rows(struct llama_context* ctx);
// Sequence and position of the first n rows.
LLAMA_API int32_t cogit_capture_index(struct llama_context* ctx, llama_seq_id* sequences,
                                      llama_pos* positions, int32_t n);
// Rows [first, first + n) of one layer as float32 [n][n_embd]; `side` is one of
// COGIT_CAPTURE_BEFORE, COGIT_CAPTURE_AFTER. The last block computes only tokens whose output was
// asked for; reading another row of it is COGIT_ERROR_UNAVAILABLE.
LLAMA_API int32_t cogit_capture_read(struct llama_context* ctx, int32_t layer, uint32_t side,
                                     int32_t first, int32_t n, float* out);

// Reserve the graphs now, so that allocation failures become an error here instead of inside
// llama_decode, and so that stats and sites speak of the present set of operators and captures.
LLAMA_API int32_t cogit_prepare(struct llama_context* ctx);
LLAMA_API int32_t cogit_get_stats(struct llama_context* ctx, struct cogit_stats* out, size_t size);
// Layers of the graph built last where something was placed or skipped; returns how many there are,
// writes at most `capacity` of them in ascending order.
LLAMA_API int32_t cogit_sites(struct llama_context* ctx, int32_t kind, int32_t* layers,
                              int32_t capacity);
// Why the sites of kind SKIPPED were skipped: one line, "" when none were.
LLAMA_API const char* cogit_skip_reason(struct llama_context* ctx);
// Frees every operator, capture and strength; the next graph is llama.cpp's own again.
LLAMA_API int32_t cogit_detach(struct llama_context* ctx);

// Process-wide: route llama.cpp's log to stderr (quiet == 0) or drop it. Errors are kept either
// way.
LLAMA_API void cogit_log_quiet(int32_t quiet);
// The first error line that llama.cpp logged since the last call, "" if none. Valid until the next.
LLAMA_API const char* cogit_log_take_error(void);

// A persistent pool of threads for one context; without one, ggml without OpenMP starts threads for
// every graph. Free it after llama_free.
LLAMA_API struct ggml_threadpool* cogit_threads_attach(struct llama_context* ctx,
                                                       int32_t n_threads);
LLAMA_API void cogit_threads_free(struct ggml_threadpool* pool);

#ifdef __cplusplus
}
#endif
