# llama.cpp with cogit's adapter as ONE shared library, cogit/_llama/libllama.so.
#
# One file: ggml is linked in statically and hidden, only LLAMA_API symbols are exported and bound
# to the library itself (-Bsymbolic). Its file name is what the loader of llama-cpp-python opens
# under LLAMA_CPP_LIB_PATH; its SONAME is our own. So it lives beside a stock libllama or libggml in
# one process without either seeing the other. (llama-cpp-python calls no ggml_* function.)
#
# CPU: one file can carry one instruction set only; GGML_CPU_ALL_VARIANTS needs a module per variant
# beside a shared libggml-base, and thirteen compilations of the CPU backend. The default is
# therefore x86-64-v3 (AVX2, FMA, F16C, BMI2: every x86 server and desktop since 2013-2017), and
# COGIT_NATIVE=ON compiles for the machine at hand. What was chosen is written to build.json, and
# the Python loader refuses in one line on a CPU that lacks it, before the library is opened.
#
# OpenMP: off. ggml's own threads make the file self-contained (no libgomp.so.1 on the target) and
# keep a second OpenMP runtime out of a process in which torch has brought one; two runtimes mean
# two pools spinning for the same cores. The engine attaches a persistent pool where it uses more
# than one thread.
include_guard()

set(COGIT_LLAMA_CPU_FLAGS "")
if(COGIT_NATIVE)
  # Ask the compiler what "native" means here; the loader compares with /proc/cpuinfo.
  execute_process(COMMAND "${CMAKE_CXX_COMPILER}" -march=native -dM -E -x c++ /dev/null
                  OUTPUT_VARIABLE macros ERROR_QUIET)
  foreach(flag avx avx2 fma f16c bmi2 avx512f avx512bw avx512cd avx512dq avx512vl avx512vbmi
               avx512vnni avx512bf16 avxvnni)
    string(TOUPPER "${flag}" macro)
    if(macros MATCHES "#define __${macro}__ ")
      list(APPEND COGIT_LLAMA_CPU_FLAGS ${flag})
    endif()
  endforeach()
  # The kernel spells these two with an underscore.
  list(TRANSFORM COGIT_LLAMA_CPU_FLAGS REPLACE "^avx512(vbmi|vnni|bf16)$" "avx512_\\1")
  list(TRANSFORM COGIT_LLAMA_CPU_FLAGS REPLACE "^avxvnni$" "avx_vnni")
  list(TRANSFORM COGIT_LLAMA_CPU_FLAGS REPLACE "^avx512_vbmi$" "avx512vbmi")
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(COGIT_LLAMA_CPU_FLAGS avx avx2 fma f16c bmi2)
endif()

# Copies the tree once and edits the copy; the source itself is never touched.
function(cogit_copy_llama source copy)
  set(stamp "${copy}/cogit-copy")
  set(identity "${source} stock=${COGIT_LLAMA_STOCK}")
  set(present "")
  if(EXISTS "${stamp}")
    file(READ "${stamp}" present)
  endif()
  if(NOT present STREQUAL identity)
    file(REMOVE_RECURSE "${copy}")
    file(MAKE_DIRECTORY "${copy}")
    foreach(part ${COGIT_LLAMA_PARTS})
      file(COPY "${source}/${part}" DESTINATION "${copy}")
    endforeach()
    file(WRITE "${stamp}" "${identity}")
  endif()
  if(NOT COGIT_LLAMA_STOCK)
    execute_process(
      COMMAND "${CMAKE_COMMAND}" "-DSRC=${copy}" -P "${PROJECT_SOURCE_DIR}/cmake/PatchLlama.cmake"
      RESULT_VARIABLE failed)
    if(failed)
      message(FATAL_ERROR "[llama.cpp] the hook could not be added to ${source}")
    endif()
  endif()
endfunction()

# The adapter's own objects, so that our warnings apply to our files and not to upstream's headers.
function(cogit_add_llama_adapter tree)
  set(directory "${PROJECT_SOURCE_DIR}/csrc/llama")
  add_library(cogit_llama_adapter OBJECT
    "${directory}/cogit_llama.cpp" "${directory}/cogit_capture.cpp" "${directory}/cogit_graph.cpp"
    "${directory}/cogit_runtime.cpp")
  target_include_directories(cogit_llama_adapter PRIVATE "${directory}")
  target_include_directories(cogit_llama_adapter SYSTEM PRIVATE
    "${tree}/src" "${tree}/include" "${tree}/ggml/include")
  target_compile_definitions(cogit_llama_adapter PRIVATE LLAMA_SHARED LLAMA_BUILD)
  target_compile_options(cogit_llama_adapter PRIVATE -Wall -Wextra -Wconversion
                         "-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=")
  target_sources(llama PRIVATE $<TARGET_OBJECTS:cogit_llama_adapter>)
endfunction()

function(cogit_add_llama source)
  set(tree "${CMAKE_BINARY_DIR}/llama.cpp")
  cogit_copy_llama("${source}" "${tree}")

  set(CMAKE_POSITION_INDEPENDENT_CODE ON)
  set(CMAKE_C_VISIBILITY_PRESET hidden)
  set(CMAKE_CXX_VISIBILITY_PRESET hidden)
  # Assertions quote their file: without the map, the build directory would be in the library, and
  # ccache would miss in every new one.
  string(APPEND CMAKE_C_FLAGS " -ffile-prefix-map=${CMAKE_BINARY_DIR}/=")
  string(APPEND CMAKE_CXX_FLAGS " -ffile-prefix-map=${CMAKE_BINARY_DIR}/=")
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Unique symbols are merged over all libraries of a process, hidden or not.
    string(APPEND CMAKE_CXX_FLAGS " -fno-gnu-unique")
  endif()
  # Upstream asks git for its revision; in a copy that would be the revision of somebody else.
  set(GIT_EXE OFF CACHE INTERNAL "")
  set(LLAMA_BUILD_NUMBER 0)
  set(LLAMA_BUILD_COMMIT "llama-cpp-python-${COGIT_LLAMA_RELEASE}")
  set(GGML_BUILD_NUMBER 0)
  set(GGML_BUILD_COMMIT "${LLAMA_BUILD_COMMIT}")
  set(LLAMA_ALL_WARNINGS OFF)
  set(GGML_ALL_WARNINGS OFF)
  set(GGML_CCACHE OFF)
  set(GGML_OPENMP OFF)
  set(GGML_LLAMAFILE ON)
  set(GGML_NATIVE ${COGIT_NATIVE})
  if(NOT COGIT_NATIVE AND COGIT_LLAMA_CPU_FLAGS)
    # Named one by one: upstream's defaults turn them all off when SOURCE_DATE_EPOCH is set.
    foreach(feature SSE42 AVX AVX2 BMI2 FMA F16C)
      set(GGML_${feature} ON)
    endforeach()
  endif()

  set(BUILD_SHARED_LIBS OFF)
  add_subdirectory("${tree}/ggml" "${CMAKE_BINARY_DIR}/llama-build/ggml" EXCLUDE_FROM_ALL)
  set(BUILD_SHARED_LIBS ON)
  add_subdirectory("${tree}" "${CMAKE_BINARY_DIR}/llama-build/llama" EXCLUDE_FROM_ALL)

  if(NOT COGIT_LLAMA_STOCK)
    cogit_add_llama_adapter("${tree}")
  endif()
  foreach(property VERSION SOVERSION PUBLIC_HEADER)
    set_property(TARGET llama PROPERTY ${property})
  endforeach()
  set_target_properties(llama PROPERTIES
    EXCLUDE_FROM_ALL OFF NO_SONAME ON LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/_llama")
  if(NOT APPLE)
    target_link_options(llama PRIVATE -Wl,-soname,libcogit_llama.so.${COGIT_LLAMA_RELEASE}
                        -Wl,-Bsymbolic -Wl,--exclude-libs,ALL -Wl,--no-undefined)
  endif()
  cogit_install_llama("${tree}")
endfunction()

function(cogit_install_llama tree)
  list(JOIN COGIT_LLAMA_CPU_FLAGS "\", \"" flags)
  if(flags)
    set(flags "\"${flags}\"")
  endif()
  string(TOLOWER "${COGIT_NATIVE}" native)
  if(native MATCHES "^(on|true|1|yes)$")
    set(native true)
  else()
    set(native false)
  endif()
  file(WRITE "${CMAKE_BINARY_DIR}/_llama/build.json"
"{
  \"llama_cpp_python\": \"${COGIT_LLAMA_RELEASE}\",
  \"sha256\": \"${COGIT_LLAMA_SHA256}\",
  \"cpu_flags\": [${flags}],
  \"native\": ${native},
  \"openmp\": false
}
")
  set(destination cogit/_llama)
  install(TARGETS llama LIBRARY DESTINATION ${destination} COMPONENT python)
  install(FILES "${CMAKE_BINARY_DIR}/_llama/build.json" DESTINATION ${destination} COMPONENT python)
  install(FILES "${tree}/LICENSE" DESTINATION ${destination} COMPONENT python)
  # The converter belongs to the same commit as the library: a newer one from elsewhere writes files
  # that this library may not read.
  install(FILES "${tree}/convert_hf_to_gguf.py" "${tree}/LICENSE"
          DESTINATION ${destination}/converter COMPONENT python)
  install(DIRECTORY "${tree}/conversion" DESTINATION ${destination}/converter COMPONENT python
          FILES_MATCHING PATTERN "*.py" PATTERN "__pycache__" EXCLUDE)
  install(DIRECTORY "${tree}/gguf-py/gguf" DESTINATION ${destination}/converter/gguf-py
          COMPONENT python FILES_MATCHING PATTERN "*.py" PATTERN "py.typed"
          PATTERN "__pycache__" EXCLUDE)
  install(FILES "${tree}/gguf-py/LICENSE" DESTINATION ${destination}/converter/gguf-py
          COMPONENT python)
endfunction()
