# Adds cogit's one hook to a copy of llama.cpp:  cmake -DSRC=<copy> -P PatchLlama.cmake
#
# Edits are anchored on upstream text instead of line numbers. An edit that is already there is left
# alone; an anchor that is missing or found twice stops the build, because it means that upstream
# moved and the hook must be looked at again. vendor/llama.cpp/PATCH.md says what each edit is for.
cmake_minimum_required(VERSION 3.21)

if(NOT SRC)
  message(FATAL_ERROR "[PatchLlama] expected -DSRC=<llama.cpp copy>")
endif()

function(cogit_edit file anchor replacement)
  set(path "${SRC}/${file}")
  if(NOT EXISTS "${path}")
    message(FATAL_ERROR "[PatchLlama] ${file}: file not found in ${SRC}")
  endif()
  file(READ "${path}" text)
  string(FIND "${text}" "${replacement}" applied)
  if(NOT applied EQUAL -1)
    return()
  endif()
  string(FIND "${text}" "${anchor}" first)
  string(FIND "${text}" "${anchor}" last REVERSE)
  if(first EQUAL -1)
    message(FATAL_ERROR "[PatchLlama] ${file}: anchor not found: ${anchor}")
  elseif(NOT first EQUAL last)
    message(FATAL_ERROR "[PatchLlama] ${file}: anchor not unique: ${anchor}")
  endif()
  string(REPLACE "${anchor}" "${replacement}" text "${text}")
  file(WRITE "${path}" "${text}")
  message(STATUS "[PatchLlama] edited ${file}")
endfunction()

cogit_edit(src/llama-adapter.h
"struct llama_adapter_cvec {
"
"struct cogit_adapter; // cogit

struct llama_adapter_cvec {
    std::shared_ptr<cogit_adapter> cogit; // cogit: operators and captures of this context

")

cogit_edit(src/llama-context.h
"    ggml_backend_sched_t get_sched() const;
"
"    ggml_backend_sched_t get_sched() const;

    llama_adapter_cvec & get_cvec()        { return *cvec; }              // cogit
    void                 request_reserve() { sched_need_reserve = true; } // cogit
")

cogit_edit(src/llama-graph.cpp
"ggml_tensor * llm_graph_context::build_cvec(
"
"ggml_tensor * cogit_apply(const llm_graph_context & graph, ggml_tensor * cur, int il); // cogit

ggml_tensor * llm_graph_context::build_cvec(
")

cogit_edit(src/llama-graph.cpp
"    return cvec->apply_to(ctx0, cur, il);
"
"    return cogit_apply(*this, cvec->apply_to(ctx0, cur, il), il); // cogit
")
