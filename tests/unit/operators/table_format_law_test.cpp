// SPDX-License-Identifier: MIT
// The law of stored matrices for blocks with tables of values (one level of scales, two, of e8m0, of grids) and for ternary ones.

#include "operator_laws.hpp"

#include <tessera/interop/gguf.hpp>

using namespace tessera_test;

namespace {

/// Every block format goes through integer products.
template <class... Format>
constexpr bool are_integers(ts::format_list<Format...>) {
    return ((ts::integer_codes<ts::code_source<ts::blocked<Format>>>::kind != ts::integer_codes_kind::none) && ...);
}
static_assert(are_integers(ts::gguf::block_formats{}));

} // namespace

TEST_CASE("iq4_nl") { report_law<blocked_storage<ts::iq4_nl>, ts::int8_per_group<32>, best_arch>("int8_per_group<32>"); }

TEST_CASE("iq4_xs") { report_law<blocked_storage<ts::iq4_xs>, ts::as_is, best_arch>("as_is"); }

TEST_CASE("iq2_s") { report_law<blocked_storage<ts::iq2_s>, ts::int8_per_group<32>, best_arch>("int8_per_group<32>"); }

TEST_CASE("gguf_mxfp4") { report_law<blocked_storage<ts::gguf_mxfp4>, ts::int8_per_token, best_arch>("int8_per_token"); }

TEST_CASE("q1_0") { report_law<blocked_storage<ts::q1_0>, ts::as_is, best_arch>("as_is"); }
