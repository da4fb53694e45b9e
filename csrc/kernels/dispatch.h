// Which of the compiled variants runs: the widest that this CPU has, unless told otherwise.
#pragma once

#include <string>
#include <vector>

#include "kernels/variant.h"

namespace cogit {

// Names of the variants that this build has and this CPU can run, slowest first.
std::vector<std::string> supported_variants();

// The variant in use. The first call chooses it: the one named by the environment variable
// COGIT_CPU_VARIANT, else the last of supported_variants(). Throws std::invalid_argument for a name
// that is unknown or cannot run here.
const Variant& active_variant();

// Chooses by name from now on, for all threads; same errors.
void set_variant(const std::string& name);

}  // namespace cogit
