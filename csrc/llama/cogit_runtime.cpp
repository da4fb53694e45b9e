// What is not tied to operators: versions, error and log messages, threads. See cogit_llama.h.
#include <cstdio>
#include <cstring>
#include <mutex>

#include "cogit_adapter.h"
#include "cogit_llama.h"
#include "ggml-cpu.h"

namespace {

thread_local std::string last_error;

struct Log {
  std::mutex mutex;
  bool quiet = false;
  std::string error;  // first error line not yet taken: later ones only say that it happened
};

Log& process_log() {
  static Log log;
  return log;
}

void on_log(ggml_log_level level, const char* text, void* /*user_data*/) {
  Log& log = process_log();
  const std::lock_guard<std::mutex> lock(log.mutex);
  if (level == GGML_LOG_LEVEL_ERROR && log.error.empty()) {
    log.error = text;
    while (!log.error.empty() && log.error.back() == '\n') {
      log.error.pop_back();
    }
  }
  if (!log.quiet) {
    std::fputs(text, stderr);
  }
}

}  // namespace

int32_t cogit::fail(int32_t code, const std::string& message) {
  last_error = message;
  return code;
}

int32_t cogit_abi_version(void) { return COGIT_ABI_VERSION; }

size_t cogit_struct_size(const char* name) {
  const struct {
    const char* name;
    size_t size;
  } structs[] = {
      {"model_params", sizeof(llama_model_params)},
      {"context_params", sizeof(llama_context_params)},
      {"batch", sizeof(llama_batch)},
      {"quantize_params", sizeof(llama_model_quantize_params)},
      {"stats", sizeof(cogit_stats)},
  };
  for (const auto& entry : structs) {
    if (std::strcmp(entry.name, name) == 0) {
      return entry.size;
    }
  }
  return 0;
}

const char* cogit_last_error(void) { return last_error.c_str(); }

void cogit_log_quiet(int32_t quiet) {
  {
    Log& log = process_log();
    const std::lock_guard<std::mutex> lock(log.mutex);
    log.quiet = quiet != 0;
  }
  llama_log_set(on_log, nullptr);
}

const char* cogit_log_take_error(void) {
  thread_local std::string taken;
  Log& log = process_log();
  const std::lock_guard<std::mutex> lock(log.mutex);
  taken.clear();
  taken.swap(log.error);
  return taken.c_str();
}

ggml_threadpool* cogit_threads_attach(llama_context* ctx, int32_t n_threads) {
  ggml_threadpool_params params;
  ggml_threadpool_params_init(&params, n_threads);
  ggml_threadpool* pool = ggml_threadpool_new(&params);
  if (pool == nullptr) {
    cogit::fail(COGIT_ERROR_MEMORY,
                "[cogit_threads_attach] could not start " + std::to_string(n_threads) + " threads");
    return nullptr;
  }
  llama_attach_threadpool(ctx, pool, pool);
  return pool;
}

void cogit_threads_free(ggml_threadpool* pool) { ggml_threadpool_free(pool); }
