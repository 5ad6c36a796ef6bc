// SPDX-License-Identifier: MIT
#include "scheme_list.hpp"

void compress::add_small_floats(std::vector<scheme>& out) { small_floats::add_to(out); }
