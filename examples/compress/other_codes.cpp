// SPDX-License-Identifier: MIT
#include "scheme_list.hpp"

void compress::add_other_codes(std::vector<scheme>& out) {
    other_integers::add_to(out);
    other_blocks::add_to(out);
}
