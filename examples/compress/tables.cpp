// SPDX-License-Identifier: MIT
#include "scheme_list.hpp"

void compress::add_tables(std::vector<scheme>& out) { tables::add_to(out); }
