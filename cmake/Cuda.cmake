# Decides once whether cogit's own CUDA kernels are built, and says why not.
# Result: COGIT_CUDA_ENABLED (bool), COGIT_CUDA_REASON (one line, shown by `_core.info()`).
# llama.cpp has its own switch, GGML_CUDA, which nothing here ever turns on.
include_guard()

set(COGIT_CUDA_ENABLED OFF)
set(COGIT_CUDA_REASON "")
set(cuda_log "")

# Compiles and links one kernel, in a project of its own: with AUTO, a toolkit that is there but
# broken, or too old, or unknown to this C++ compiler, must not break the build.
function(cogit_try_cuda reason log)
  set(${reason} "" PARENT_SCOPE)
  set(probe "${CMAKE_BINARY_DIR}/cuda_probe")
  file(REMOVE_RECURSE "${probe}/build")
  file(WRITE "${probe}/probe.cu"
       "#include <cuda_bf16.h>\n"
       "__global__ void kernel(float* x) { *x = __bfloat162float(__float2bfloat16_rn(*x)); }\n"
       "int main() {\n"
       "  cudaLaunchConfig_t config{};\n"
       "  return cudaLaunchKernelEx(&config, kernel, static_cast<float*>(nullptr)) == cudaSuccess;\n"
       "}\n")
  file(WRITE "${probe}/CMakeLists.txt"
       "cmake_minimum_required(VERSION 3.21)\n"
       "set(CMAKE_CUDA_ARCHITECTURES ${CMAKE_CUDA_ARCHITECTURES})\n"
       "project(probe LANGUAGES CXX CUDA)\n"
       "find_package(CUDAToolkit REQUIRED)\n"
       "add_executable(probe probe.cu)\n"
       "set_target_properties(probe PROPERTIES CUDA_STANDARD 17 CUDA_RUNTIME_LIBRARY Static)\n"
       "target_link_libraries(probe PRIVATE CUDA::cudart_static)\n")
  set(configure -S "${probe}" -B "${probe}/build" -G "${CMAKE_GENERATOR}")
  foreach(name CMAKE_CXX_COMPILER CMAKE_CUDA_COMPILER CMAKE_CUDA_HOST_COMPILER CMAKE_MAKE_PROGRAM
               CUDAToolkit_ROOT)
    if(${name})
      list(APPEND configure "-D${name}=${${name}}")
    endif()
  endforeach()
  execute_process(COMMAND "${CMAKE_COMMAND}" ${configure} RESULT_VARIABLE failed
                  OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT failed)
    execute_process(COMMAND "${CMAKE_COMMAND}" --build "${probe}/build" RESULT_VARIABLE failed
                    OUTPUT_VARIABLE output ERROR_VARIABLE output)
  endif()
  if(failed)
    set(${reason} "nvcc does not compile and link a small program here" PARENT_SCOPE)
    set(${log} "${output}" PARENT_SCOPE)
  endif()
endfunction()

string(TOUPPER "${COGIT_CUDA}" cuda_mode)
if(cuda_mode STREQUAL "OFF")
  set(COGIT_CUDA_REASON "switched off by COGIT_CUDA=OFF")
elseif(NOT cuda_mode MATCHES "^(AUTO|ON)$")
  message(FATAL_ERROR "[COGIT_CUDA] expected AUTO, ON or OFF, got ${COGIT_CUDA}")
else()
  # Machine code for both, and PTX of the newer for devices that come later.
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    cogit_try_cuda(COGIT_CUDA_REASON cuda_log)
  else()
    set(COGIT_CUDA_REASON "no working nvcc was found when cogit was built")
  endif()
  if(NOT COGIT_CUDA_REASON)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    set(COGIT_CUDA_ENABLED ON)
    set(COGIT_CUDA_REASON "built with CUDA ${CUDAToolkit_VERSION}")
  endif()
endif()

if(cuda_mode STREQUAL "ON" AND NOT COGIT_CUDA_ENABLED)
  message(FATAL_ERROR
          "[COGIT_CUDA=ON] cannot build CUDA kernels: ${COGIT_CUDA_REASON}\n${cuda_log}")
endif()
if(cuda_log)
  file(WRITE "${CMAKE_BINARY_DIR}/cuda_probe/output.txt" "${cuda_log}")
  message(STATUS "cogit CUDA kernels: what nvcc said is in "
                 "${CMAKE_BINARY_DIR}/cuda_probe/output.txt")
endif()
message(STATUS "cogit CUDA kernels: ${COGIT_CUDA_ENABLED} (${COGIT_CUDA_REASON})")
