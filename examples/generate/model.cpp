// SPDX-License-Identifier: MIT
// The model on this machine's processor: the longest to compile, once for the program and for its tests.

#include "llama.hpp"

namespace generate {

template class llama<backend>;

} // namespace generate
