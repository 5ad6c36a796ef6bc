// SPDX-License-Identifier: MIT
#include "fwd_declared.hpp"

void fwd_declared::product_by_declaration(ts::cpu<> const& exec, leaf const& w, ts::matrix<float> const& x,
                                          ts::matrix<float>& y) {
    product(exec, w, x, y);
}

tessera::index_t fwd_declared::tokens_by_declaration(cache const& kv, ts::kv_view<std::int8_t, ts::fp16> const& view) {
    return tokens(kv, view);
}
