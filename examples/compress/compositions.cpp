// SPDX-License-Identifier: MIT
#include "scheme_list.hpp"

void compress::add_compositions(std::vector<scheme>& out) { compositions::add_to(out); }
