# ccache as the compiler launcher when it is installed and the caller named no other.
# The base directory makes paths inside the build tree relative, so that the throw-away directories
# of `pip install` hit the same cache entries.
include_guard()

find_program(COGIT_CCACHE ccache)
if(COGIT_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(launcher "${CMAKE_COMMAND}" -E env "CCACHE_BASEDIR=${CMAKE_BINARY_DIR}" CCACHE_NOHASHDIR=1
               "${COGIT_CCACHE}")
  set(CMAKE_C_COMPILER_LAUNCHER "${launcher}")
  set(CMAKE_CXX_COMPILER_LAUNCHER "${launcher}")
endif()
