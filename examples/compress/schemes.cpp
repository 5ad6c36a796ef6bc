// SPDX-License-Identifier: MIT
#include "scheme_list.hpp"

std::vector<compress::scheme> compress::all_schemes() {
    std::vector<scheme> out;
    add_small_floats(out);
    add_vector_codes(out);
    add_tables(out);
    add_other_codes(out);
    add_integers(out);
    add_gguf_blocks(out);
    add_compositions(out);
    return out;
}
