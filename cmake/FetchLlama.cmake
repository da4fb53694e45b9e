# Finds the llama.cpp source tree: the one place that knows where it may come from.
#   1. a checkout placed in vendor/llama.cpp
#   2. the directory named by COGIT_LLAMA_SOURCE (CMake cache, else environment)
#   3. the tree inside the llama-cpp-python sdist, downloaded by pip with its hash required
# The pin (release and hash) is vendor/llama.cpp/PIN. There is no fourth way and no fallback.
include_guard()

set(COGIT_LLAMA_PIN_FILE "${CMAKE_CURRENT_LIST_DIR}/../vendor/llama.cpp/PIN")
file(STRINGS "${COGIT_LLAMA_PIN_FILE}" pin_release REGEX "^release ")
file(STRINGS "${COGIT_LLAMA_PIN_FILE}" pin_sha256 REGEX "^sha256 ")
string(REPLACE "release " "" COGIT_LLAMA_RELEASE "${pin_release}")
string(REPLACE "sha256 " "" COGIT_LLAMA_SHA256 "${pin_sha256}")

set(COGIT_LLAMA_SOURCE "" CACHE PATH "A llama.cpp source tree to build from")

# What the build and the converter need of the tree; the rest of the archive (75 MB of vocabulary
# files, documentation, the server) is not even unpacked.
set(COGIT_LLAMA_PARTS CMakeLists.txt LICENSE cmake include src ggml vendor
                      conversion convert_hf_to_gguf.py gguf-py)

function(cogit_fetch_llama out)
  set(vendored "${CMAKE_CURRENT_SOURCE_DIR}/vendor/llama.cpp")
  set(named "${COGIT_LLAMA_SOURCE}")
  if(NOT named)
    set(named "$ENV{COGIT_LLAMA_SOURCE}")
  endif()
  if(EXISTS "${vendored}/CMakeLists.txt")
    set(found "${vendored}")
  elseif(named)
    if(NOT EXISTS "${named}/src/llama-graph.cpp")
      message(FATAL_ERROR
        "[llama.cpp] COGIT_LLAMA_SOURCE names ${named}, which is no llama.cpp source tree")
    endif()
    set(found "${named}")
  else()
    cogit_download_llama(found)
  endif()
  message(STATUS "llama.cpp source: ${found}")
  set(${out} "${found}" PARENT_SCOPE)
endfunction()

function(cogit_download_llama out)
  set(stem "llama_cpp_python-${COGIT_LLAMA_RELEASE}")
  set(work "${CMAKE_BINARY_DIR}/llama-download")
  set(tree "${work}/${stem}/vendor/llama.cpp")
  set(${out} "${tree}" PARENT_SCOPE)
  if(EXISTS "${tree}/complete")
    return()
  endif()

  set(archive "${work}/${stem}.tar.gz")
  if(NOT EXISTS "${archive}")
    cogit_pip_download("${work}")
  endif()
  file(SHA256 "${archive}" got)
  if(NOT got STREQUAL COGIT_LLAMA_SHA256)
    message(FATAL_ERROR "[llama.cpp] expected sha256 ${COGIT_LLAMA_SHA256}, got ${got} "
                        "for ${archive}; delete it and configure again")
  endif()

  set(members ${COGIT_LLAMA_PARTS})
  list(TRANSFORM members PREPEND "${stem}/vendor/llama.cpp/")
  execute_process(COMMAND "${CMAKE_COMMAND}" -E tar xzf "${archive}" -- ${members}
                  WORKING_DIRECTORY "${work}" RESULT_VARIABLE failed)
  if(failed OR NOT EXISTS "${tree}/src/llama-graph.cpp")
    message(FATAL_ERROR "[llama.cpp] could not unpack ${archive}")
  endif()
  file(TOUCH "${tree}/complete")
endfunction()

function(cogit_pip_download directory)
  set(requirements "${directory}/requirements.txt")
  file(WRITE "${requirements}"
       "llama-cpp-python==${COGIT_LLAMA_RELEASE} --hash=sha256:${COGIT_LLAMA_SHA256}\n")
  message(STATUS "llama.cpp source: downloading the llama-cpp-python ${COGIT_LLAMA_RELEASE} sdist")
  # pip reads the sdist's metadata through scikit-build-core. A build run by pip has it already; in
  # any other, pip gets its own copy. The unset variables belong to a pip that may run around us.
  set(isolation "")
  if(SKBUILD)
    set(isolation --no-build-isolation)
  endif()
  execute_process(
    COMMAND "${CMAKE_COMMAND}" -E env --unset=PIP_BUILD_TRACKER --unset=PIP_CONSTRAINT
            --unset=PIP_BUILD_CONSTRAINT
            "${Python_EXECUTABLE}" -m pip download --quiet --no-deps ${isolation}
            --no-binary llama-cpp-python --require-hashes -r "${requirements}" -d "${directory}"
    RESULT_VARIABLE failed OUTPUT_VARIABLE log ERROR_VARIABLE log)
  if(failed)
    message(FATAL_ERROR
      "[llama.cpp] no source tree: pip could not download llama-cpp-python "
      "${COGIT_LLAMA_RELEASE} (exit ${failed}).\n${log}\n"
      "There are three ways to provide it: (1) copy a llama.cpp checkout into vendor/llama.cpp; "
      "(2) set COGIT_LLAMA_SOURCE to a source tree; (3) give pip access to a package index and "
      "have pip and scikit-build-core in this Python environment.")
  endif()
endfunction()
