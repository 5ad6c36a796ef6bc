// SPDX-License-Identifier: MIT
// Extents, layouts, views and slices against index arithmetic done by hand.
#include <doctest/doctest.h>

#include <tessera/core/slice.hpp>
#include <tessera/core/view.hpp>

#include <array>
#include <numeric>
#include <type_traits>
#include <vector>

namespace ts = tessera;
using ts::index_t;

static_assert(std::is_trivially_copyable_v<ts::matrix_view<float>>);
static_assert(std::is_trivially_copyable_v<ts::view<float, ts::extents<2, 3>>>);
static_assert(std::is_convertible_v<ts::matrix_view<float>, ts::matrix_view<float const>>);
static_assert(!std::is_convertible_v<ts::matrix_view<float const>, ts::matrix_view<float>>);
static_assert(std::is_convertible_v<ts::view<float, ts::dynamic_extents<2>, ts::layout_left>, ts::matrix_view<float>>);
static_assert(std::is_convertible_v<ts::view<float, ts::extents<2, 3>>, ts::matrix_view<float const>>);
static_assert(!std::is_convertible_v<ts::vector_view<float>, ts::matrix_view<float>>);
static_assert(ts::extents<2, ts::dynamic_extent>::rank() == 2 && ts::extents<2, ts::dynamic_extent>::rank_dynamic() == 1);
static_assert(ts::extents<4, 5>{}.size() == 20 && ts::extents<>{}.size() == 1);
static_assert(ts::dynamic_extents<3>{2, 0, 4}.size() == 0);
static_assert(ts::extents<2, 3>{} == ts::dynamic_extents<2>{2, 3});
static_assert(!(ts::extents<2, 3>{} == ts::dynamic_extents<2>{3, 2}));
static_assert(!(ts::extents<2, 3>{} == ts::dynamic_extents<3>{2, 3, 1}));
static_assert(ts::ceil_div(0, 4) == 0 && ts::ceil_div(1, 4) == 1 && ts::ceil_div(8, 4) == 2 && ts::round_up(9, 4) == 12);

namespace {

std::vector<int> counted(index_t n) {
    std::vector<int> v(static_cast<std::size_t>(n));
    std::iota(v.begin(), v.end(), 0);
    return v;
}

} // namespace

TEST_CASE("a static extent keeps its value, a dynamic one takes the argument") {
    ts::extents<2, ts::dynamic_extent, 4> const e{7, 3, 9};
    CHECK(e.extent(0) == 2);
    CHECK(e.extent(1) == 3);
    CHECK(e.extent(2) == 4);
    CHECK(e.size() == 24);
    CHECK(ts::extents<2, ts::dynamic_extent>{}.extent(1) == 0);
}

TEST_CASE("layouts: offset is the sum of index times stride, and covers the span once") {
    auto const law = [](auto const& mapping) {
        std::vector<int> hits(static_cast<std::size_t>(mapping.required_span_size()));
        auto const& e = mapping.extents();
        for (index_t i = 0; i < e.extent(0); ++i)
            for (index_t j = 0; j < e.extent(1); ++j)
                for (index_t k = 0; k < e.extent(2); ++k) {
                    index_t const at = mapping(i, j, k);
                    CHECK(at == i * mapping.stride(0) + j * mapping.stride(1) + k * mapping.stride(2));
                    ++hits[static_cast<std::size_t>(at)];
                }
        for (int const h : hits) CHECK(h <= 1);
        return std::accumulate(hits.begin(), hits.end(), index_t{0}) == e.size();
    };
    using extents = ts::dynamic_extents<3>;
    for (extents const e : {extents{2, 3, 4}, extents{1, 1, 1}, extents{5, 1, 2}, extents{0, 3, 4}, extents{3, 4, 0}}) {
        CHECK(law(ts::layout_right::mapping<extents>{e}));
        CHECK(law(ts::layout_left::mapping<extents>{e}));
        CHECK(ts::layout_right::mapping<extents>{e}.required_span_size() == e.size());
        CHECK(ts::layout_left::mapping<extents>{e}.required_span_size() == e.size());
        index_t const strides[] = {1, 7, 40};
        CHECK(law(ts::layout_stride::mapping<extents>{e, strides}));
        CHECK(law(ts::layout_stride::mapping<extents>{ts::layout_left::mapping<extents>{e}}));
    }
    CHECK(ts::layout_right::mapping<extents>{extents{2, 3, 4}}.stride(0) == 12);
    CHECK(ts::layout_left::mapping<extents>{extents{2, 3, 4}}.stride(2) == 6);
    index_t const strides[] = {100, 10, 1};
    CHECK(ts::layout_stride::mapping<extents>{extents{2, 3, 4}, strides}.required_span_size() == 124);
    CHECK(ts::layout_stride::mapping<extents>{extents{2, 0, 4}, strides}.required_span_size() == 0);
}

TEST_CASE("views of every layout address the same elements") {
    auto v = counted(24);
    ts::tensor_view<int, 3> const a{v.data(), 2, 3, 4};
    ts::view<int, ts::extents<2, 3, 4>> const b{v.data(), 2, 3, 4};
    ts::view<int, ts::dynamic_extents<3>, ts::layout_left> const left{v.data(), 4, 3, 2};
    for (index_t i = 0; i < 2; ++i)
        for (index_t j = 0; j < 3; ++j)
            for (index_t k = 0; k < 4; ++k) {
                int const expected = static_cast<int>(i * 12 + j * 4 + k);
                CHECK(a(i, j, k) == expected);
                CHECK(b(i, j, k) == expected);
                CHECK(left(k, j, i) == expected);
                CHECK(ts::tensor_view<int const, 3>{b}(i, j, k) == expected);
            }
    a(1, 2, 3) = -1;
    CHECK(v[23] == -1);
    CHECK(a.size() == 24);
    CHECK_FALSE(a.empty());
    CHECK(ts::matrix_view<int>{v.data(), 0, 4}.empty());
    CHECK(ts::matrix_view<int>{}.empty());
    CHECK(ts::matrix_view<int>{}.data_handle() == nullptr);
}

TEST_CASE("span_bytes and has_unit_stride") {
    auto v = counted(40);
    ts::matrix_view<int> const m{v.data(), 5, 8};
    CHECK(ts::span_bytes(m) == 160);
    CHECK(ts::span_bytes(ts::columns(m, 2, 5)) == (4 * 8 + 3) * 4);
    CHECK(ts::span_bytes(ts::rows(m, 2, 2)) == 0);
    CHECK(ts::has_unit_stride(m));
    CHECK_FALSE(ts::has_unit_stride(ts::transposed(m)));
    CHECK(ts::has_unit_stride(ts::transposed(ts::rows(m, 0, 1)))); // one column
}

TEST_CASE("slices select what index arithmetic says, for every combination of kinds") {
    auto v = counted(3 * 4 * 5);
    ts::tensor_view<int, 3> const t{v.data(), 3, 4, 5};
    auto const at = [](index_t i, index_t j, index_t k) { return static_cast<int>(i * 20 + j * 5 + k); };
    for (index_t i = 0; i < 3; ++i) {
        auto const m = ts::slice(t, i, ts::all, ts::all);
        static_assert(decltype(m)::rank() == 2);
        REQUIRE(m.extent(0) == 4);
        REQUIRE(m.extent(1) == 5);
        for (index_t j = 0; j < 4; ++j)
            for (index_t k = 0; k < 5; ++k) CHECK(m(j, k) == at(i, j, k));
        auto const column = ts::slice(t, i, ts::range{1, 3}, 2);
        static_assert(decltype(column)::rank() == 1);
        CHECK(column.extent(0) == 2);
        CHECK(column[0] == at(i, 1, 2));
        CHECK(column(1) == at(i, 2, 2));
    }
    for (index_t first = 0; first <= 5; ++first)
        for (index_t last = first; last <= 5; ++last) {
            auto const s = ts::slice(t, ts::range{1, 3}, 3, ts::range{first, last});
            CHECK(s.extent(0) == 2);
            CHECK(s.extent(1) == last - first);
            for (index_t k = first; k < last; ++k) CHECK(s(1, k - first) == at(2, 3, k));
        }
    auto const point = ts::slice(t, 2, 3, 4);
    static_assert(decltype(point)::rank() == 0);
    CHECK(point() == at(2, 3, 4));
}

TEST_CASE("slices of slices are slices, and transposing commutes with slicing") {
    auto v = counted(7 * 9);
    ts::matrix_view<int const> const m{v.data(), 7, 9};
    auto const once = ts::slice(m, ts::range{2, 6}, ts::range{3, 8});
    auto const twice = ts::columns(ts::rows(ts::rows(m, 1, 7), 1, 5), 3, 8);
    auto const turned = ts::transposed(ts::slice(ts::transposed(m), ts::range{3, 8}, ts::range{2, 6}));
    for (index_t i = 0; i < 4; ++i)
        for (index_t k = 0; k < 5; ++k) {
            CHECK(once(i, k) == m(i + 2, k + 3));
            CHECK(twice(i, k) == once(i, k));
            CHECK(turned(i, k) == once(i, k));
            CHECK(ts::transposed(once)(k, i) == once(i, k));
        }
    auto const row = ts::slice(m, 4, ts::all);
    CHECK(row.data_handle() == v.data() + 36);
    CHECK(ts::rows(m, 7, 7).empty());
}

TEST_CASE("a scaled view reads factor times element, also through a slice") {
    float const x[] = {1, 2, 3, 4, 5, 6};
    ts::matrix_view<float const> const m{x, 2, 3};
    auto const doubled = ts::scaled_view(2.0f, m);
    CHECK(doubled(1, 2) == 12);
    CHECK(ts::slice(doubled, 1, ts::all)[0] == 8);
    CHECK(ts::transposed(doubled)(2, 1) == 12);
}

TEST_CASE("empty arrays may have any other extents") {
    constexpr index_t huge = index_t{1} << 62;
    constexpr ts::dynamic_extents<3> first{0, huge, huge};
    constexpr ts::dynamic_extents<3> last{huge, huge, 0};
    // Constant expressions: an overflow would not compile.
    static_assert(first.size() == 0 && last.size() == 0);
    static_assert(ts::layout_right::mapping<ts::dynamic_extents<3>>{first}.required_span_size() == 0);
    static_assert(ts::layout_left::mapping<ts::dynamic_extents<3>>{last}.required_span_size() == 0);
    constexpr ts::tensor_view<int, 3> v{nullptr, 0, huge, huge};
    static_assert(v.empty() && v.mapping().required_span_size() == 0);
    constexpr ts::tensor_view<int, 3> w{nullptr, huge, huge, 0};
    static_assert(w.empty() && w.mapping().required_span_size() == 0);
}

TEST_CASE("views work in constant expressions") {
    constexpr auto sum = [] {
        std::array<int, 6> const data{1, 2, 3, 4, 5, 6};
        ts::matrix_view<int const> const m{data.data(), 2, 3};
        auto const column = ts::slice(m, ts::all, 1);
        return column[0] + column[1];
    }();
    static_assert(sum == 7);
}
