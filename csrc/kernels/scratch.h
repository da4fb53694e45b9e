// Memory of each thread that is kept between calls: steering a layer must not cost an allocation
// per token.
#pragma once

#include <stdint.h>

namespace cogit {

// At least `count` floats that begin on a cache line; they hold anything. The next call on this
// thread may move or overwrite them.
float* scratch(int64_t count);

}  // namespace cogit
