// SPDX-License-Identifier: MIT
#include "scheme_list.hpp"

void compress::add_vector_codes(std::vector<scheme>& out) { vector_codes::add_to(out); }
