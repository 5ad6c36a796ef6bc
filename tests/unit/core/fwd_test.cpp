// SPDX-License-Identifier: MIT
// fwd.hpp declares the types that the library defines: what was declared with it alone links and runs.
#include "fwd_declared.hpp"

#include <doctest/doctest.h>

#include <tessera/storage/mapped_file.hpp>
#include <tessera/tessera.hpp>

#include <type_traits>

namespace ts = tessera;
using ts::index_t;

void fwd_declared::product(ts::cpu<> const& exec, leaf const& w, ts::matrix<float> const& x, ts::matrix<float>& y) {
    ts::apply(exec, w, x, y);
}
index_t fwd_declared::tokens(cache const& kv, ts::kv_view<std::int8_t, ts::fp16> const& view) {
    return kv.tokens() + view.tokens;
}

// The declared names are the defined types; a declaration of another kind or with other parameters does not compile.
static_assert(std::is_same_v<ts::kv_cache<ts::key<float>, ts::value<float>>,
                             ts::kv_cache<ts::key<float>, ts::value<float>, ts::contiguous>>);
static_assert(std::is_same_v<decltype(ts::linear{std::declval<ts::quantized_tensor<ts::int4_g32>&>()}),
                             ts::linear<ts::quantized<ts::int4_g32>>>);
static_assert(std::is_same_v<decltype(ts::place(ts::cpu<>{}, std::declval<fwd_declared::leaf const&>())),
                             decltype(fwd_declared::place(ts::cpu<>{}, std::declval<fwd_declared::weights const&>()))>);

TEST_CASE("functions over declared types link and run") {
    ts::quantized_tensor<ts::int4_g32> q{1, 32};
    q.codes()[0] = 0x03;
    q.scales()[0] = ts::fp16{0.5f};
    ts::matrix<float> x(1, 32);
    ts::matrix<float> y(1, 1);
    x(0, 0) = 127.0f;
    fwd_declared::product_by_declaration(ts::cpu<>{}, ts::linear{q, ts::int8_per_group<32>{}}, x, y);
    CHECK(y(0, 0) == 190.5f);
    fwd_declared::cache kv{4, 1, 8};
    kv.advance(3);
    CHECK(fwd_declared::tokens_by_declaration(kv, kv.view()) == 6);
}
