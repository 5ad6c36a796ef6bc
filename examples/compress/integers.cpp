// SPDX-License-Identifier: MIT
#include "scheme_list.hpp"

void compress::add_integers(std::vector<scheme>& out) { integers::add_to(out); }
