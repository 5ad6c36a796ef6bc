// SPDX-License-Identifier: MIT
#include "scheme_list.hpp"

void compress::add_gguf_blocks(std::vector<scheme>& out) { gguf_blocks::add_to(out); }
