// SPDX-License-Identifier: MIT
// Caches whose formats are chosen at run time: names, and the bits of the typed cache.

#include "attention_support.hpp"

#include <tessera/attention/rerotate.hpp>
#include <tessera/storage/any_kv_cache.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace {

using namespace attention_tests;

using native = ts::cpu<ts::native_arch, ts::serial>;
using few = ts::kv_formats<float, ts::fp16, ts::int8_per_token, ts::int4_g32, ts::nf4_g64, ts::kv_pvq<ts::pvq<32, 22, 3>>>;
using pvq = ts::kv_pvq<ts::pvq<32, 22, 3>>;

/// The cache of `few` does what the typed one does, appended and attended to.
template <class K, class V>
void check_pair(std::string const& names, ts::kv_layout layout, auto typed_layout) {
    index_t const kv_heads = 2, heads = 6, dim = 72, value_dim = 40, capacity = 150;
    ts::kv_cache<ts::key<K>, ts::value<V>, decltype(typed_layout)> typed{capacity, kv_heads, dim, value_dim};
    ts::basic_any_kv_cache<few> any{few::parse(names), capacity, kv_heads, dim, value_dim, layout};
    CHECK(any.bytes() == typed.bytes());
    CHECK(few::name(any.formats()) == names);
    index_t const lengths[] = {100, 1, 40, 9};
    for (std::size_t i = 0; i < 4; ++i) {
        auto const k = random_tensor(lengths[i], kv_heads, dim, 2 * i + 1);
        auto const v = random_tensor<ts::fp16>(lengths[i], kv_heads, value_dim, 2 * i);
        ts::append(native{}, typed, k, v);
        ts::append(native{}, any, k, v);
    }
    for (index_t const queries : {1, 3, 40}) {
        auto const q = random_tensor(queries, heads, dim, 99);
        ts::tensor<float, 3> a(queries, heads, value_dim), b(queries, heads, value_dim);
        ts::attention(native{}, q, typed, a, ts::scaled{0.3f} | ts::causal);
        ts::attention(native{}, q, any, b, ts::scaled{0.3f} | ts::causal);
        CHECK(equal_bits(a, b));
        ts::attention(ts::reference{}, q, typed, a, ts::window{20});
        ts::attention(ts::reference{}, q, any, b, ts::window{20});
        CHECK(equal_bits(a, b));
    }
    if (layout == ts::kv_layout::ring) return;
    // In pages, one of them written after a fork.
    ts::basic_any_kv_page_pool<few> pool{few::parse(names), 20, 16, kv_heads, dim, value_dim};
    ts::paged_sequence pages{pool};
    typed.clear();
    auto const k = random_tensor(70, kv_heads, dim, 5), v = random_tensor(70, kv_heads, value_dim, 6);
    ts::append(native{}, typed, k, v);
    ts::append(native{}, pages, k, v);
    auto const other = pages.fork();
    ts::append(native{}, typed, k, v);
    ts::append(native{}, pages, k, v);
    for (index_t const queries : {1, 40}) {
        auto const q = random_tensor(queries, heads, dim, 99);
        ts::tensor<float, 3> a(queries, heads, value_dim), b(queries, heads, value_dim);
        ts::attention(native{}, q, typed, a, ts::scaled{0.3f} | ts::causal);
        ts::attention(native{}, q, pages, b, ts::scaled{0.3f} | ts::causal);
        CHECK(equal_bits(a, b));
    }
    ts::rope_table const table{200, dim};
    ts::rerotate(native{}, ts::rope_halves{}, table, -7, typed, 20, 60);
    ts::rerotate(native{}, ts::rope_halves{}, table, -7, pages, 20, 60);
    for (index_t t = 0; t < 100; ++t) CHECK(typed.view().keys(1, t, 5) == pages.view().keys(1, pages.slot(t), 5));
}

} // namespace

TEST_CASE("kv_formats: names are listed, read, and refused where there is none") {
    CHECK(few::names() == "fp32, fp16, int8, int4_g32, nf4_g64, pvq32k22");
    CHECK(few::parse("int8,nf4_g64") == ts::kv_choice{2, 4});
    CHECK(few::parse("fp16") == ts::kv_choice{1, 1});
    CHECK_THROWS_WITH_AS(few::parse("int8,int5"),
                         "tessera: kv_formats: no format is called 'int5', there are fp32, fp16, int8, int4_g32, nf4_g64, pvq32k22",
                         ts::unsupported_error);
    CHECK_THROWS_AS(few::parse(""), ts::unsupported_error);
    CHECK_THROWS_AS(few::parse("fp16,"), ts::unsupported_error);
    CHECK(ts::standard_kv_formats::names() == "fp32, fp16, bf16, int8, int8_g32, e4m3, e5m2, int4, int4_g32, int4_g64, uint4_g32, "
                                              "nf4_g64, e2m1_g32, uint3_g32, uint2_g32, pvq32k22");
    for (int i = 0; i < ts::standard_kv_formats::size; ++i)
        CHECK(ts::standard_kv_formats::find(ts::standard_kv_formats::name(i)) == i);
    CHECK_THROWS_WITH_AS((ts::basic_any_kv_cache<few>{{0, 6}, 4, 1, 8}),
                         "tessera: any_kv_cache: format of the values is 6, expected 0 to 5", ts::shape_error);
}

TEST_CASE("any_kv_cache: the bits of the typed cache") {
    check_pair<ts::fp16, ts::int4_g32>("fp16,int4_g32", ts::kv_layout::contiguous, ts::contiguous{});
    check_pair<ts::int8_per_token, float>("int8,fp32", ts::kv_layout::ring, ts::ring{});
    check_pair<pvq, pvq>("pvq32k22,pvq32k22", ts::kv_layout::contiguous, ts::contiguous{});
    check_pair<ts::nf4_g64, ts::int8_per_token>("nf4_g64,int8", ts::kv_layout::contiguous, ts::contiguous{});
}

TEST_CASE("kv_pvq: the vectors and scales of the definition, in the rows' own place") {
    // 2.5 bits a number; the last group has 8 numbers of its own.
    using row = ts::kv_row<pvq>;
    CHECK(row::bytes(64) == 20);
    auto x = random_tensor(1, 1, 72, 3);
    x(0, 0, 40) = 1e9f; // beyond fp16
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(row::bytes(72)));
    row::encode(x.data(), 1, 72, bytes.data());
    for (index_t g = 0; g < 3; ++g) {
        std::int8_t p[32];
        index_t const n = g == 2 ? 8 : 32;
        double const gain = ts::pvq_encode<pvq::pvq_format>(x.data() + 32 * g, n, p);
        double squares = 0;
        for (int const v : p) squares += v * v;
        auto const scale = static_cast<float>(ts::fp16{static_cast<float>(std::min(gain / std::sqrt(squares), 65504.0))});
        for (index_t i = 0; i < n; ++i) CHECK(row::value(bytes.data(), 72, 32 * g + i) == scale * static_cast<float>(p[i]));
    }
    x(0, 0, 3) = std::numeric_limits<float>::infinity();
    row::encode(x.data(), 1, 72, bytes.data());
    CHECK(std::isnan(row::value(bytes.data(), 72, 0)));
    CHECK(std::isfinite(row::value(bytes.data(), 72, 32)));
}
