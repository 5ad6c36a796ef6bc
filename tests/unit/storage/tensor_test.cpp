// SPDX-License-Identifier: MIT
// Owners of memory: alignment, moves, zeros, element order, sizes that do not exist.

#include <doctest/doctest.h>

#include <tessera/storage/tensor.hpp>

#include <cstdint>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

namespace ts = tessera;
using ts::index_t;

static_assert(!std::is_copy_constructible_v<ts::buffer<float>> && !std::is_copy_assignable_v<ts::buffer<float>>);
static_assert(std::is_nothrow_move_constructible_v<ts::matrix<float>> && std::is_nothrow_move_assignable_v<ts::matrix<float>>);
static_assert(!std::is_copy_constructible_v<ts::matrix<float>>);
// A view of a temporary does not compile.
static_assert(!std::is_convertible_v<ts::matrix<float>, ts::matrix_view<float const>>);
static_assert(!std::is_convertible_v<ts::matrix<float>, ts::matrix_view<float>>);
static_assert(std::is_convertible_v<ts::matrix<float>&, ts::matrix_view<float>>);
static_assert(std::is_convertible_v<ts::matrix<float> const&, ts::matrix_view<float const>>);
static_assert(!std::is_convertible_v<ts::matrix<float> const&, ts::matrix_view<float>>);

TEST_CASE("buffers are aligned to cache lines, large ones to huge pages") {
    for (index_t const n : {1, 63, 64, 65, 1000}) {
        ts::buffer<char> const b{n};
        CHECK(reinterpret_cast<std::uintptr_t>(b.data()) % 64 == 0);
        CHECK(b.bytes() == n);
    }
    ts::buffer<float> const large{ts::memory::huge_page / 2};
    CHECK(reinterpret_cast<std::uintptr_t>(large.data()) % static_cast<std::uintptr_t>(ts::memory::huge_page) == 0);
    CHECK(ts::buffer<float>{0}.data() == nullptr);
    CHECK(ts::buffer<float>{-3}.size() == 0);
    CHECK(ts::memory::allocate(0) == nullptr);
    ts::memory::release(nullptr, 0);
}

TEST_CASE("a buffer whose bytes overflow is bad_alloc") {
    CHECK_THROWS_AS(ts::buffer<double>{std::numeric_limits<index_t>::max()}, std::bad_alloc);
    CHECK_THROWS_AS(ts::buffer<double>{std::numeric_limits<index_t>::max() / 8}, std::bad_alloc);
}

TEST_CASE("buffers move") {
    ts::buffer<int> a{5};
    for (int& v : a) v = 7;
    int const* const p = a.data();
    ts::buffer<int> b{std::move(a)};
    CHECK(b.data() == p);
    CHECK(b.size() == 5);
    CHECK(a.data() == nullptr);
    CHECK(a.size() == 0);
    ts::buffer<int> c{3};
    c = std::move(b);
    CHECK(c.data() == p);
    CHECK(c[4] == 7);
    CHECK(b.data() == nullptr);
    CHECK(b.bytes() == 0);
    auto& self = c;
    c = std::move(self);
    CHECK(c.data() == p);
    CHECK(c.size() == 5);
}

TEST_CASE("tensors are row-major, zero at first, and convert to views of themselves") {
    ts::tensor<float, 3> t(2, 3, 4);
    CHECK(t.size() == 24);
    for (index_t i = 0; i < 24; ++i) CHECK(t.data()[i] == 0.0f);
    t(1, 2, 3) = 5.0f;
    CHECK(t.data()[23] == 5.0f);
    CHECK(std::as_const(t)(1, 2, 3) == 5.0f);
    auto const v = t.view();
    CHECK(v.stride(0) == 12);
    CHECK(v.stride(1) == 4);
    CHECK(v.stride(2) == 1);
    CHECK(&v(1, 0, 2) == t.data() + 14);
    ts::tensor<float, 3> const moved{std::move(t)};
    CHECK(moved(1, 2, 3) == 5.0f);
    CHECK(t.size() == 0);
    CHECK(t.data() == nullptr);
}

TEST_CASE("a moved tensor leaves an empty one") {
    ts::matrix<float> a(2, 3);
    a(1, 2) = 5.0f;
    ts::matrix<float> b{std::move(a)};
    CHECK(a.extent(0) == 0);
    CHECK(a.extent(1) == 0);
    CHECK(a.view().empty());
    ts::matrix<float> c(7, 7);
    c = std::move(b);
    CHECK(b.view().empty());
    CHECK(b.extent(1) == 0);
    auto& self = c;
    c = std::move(self);
    CHECK(c.extent(0) == 2);
    CHECK(c.extent(1) == 3);
    CHECK(c(1, 2) == 5.0f);
    a = ts::matrix<float>(1, 4); // and may be used again
    CHECK(a.view().extent(1) == 4);
    ts::vector<float> v(3);
    ts::vector<float> const w{std::move(v)};
    CHECK(v.extent(0) == 0);
    CHECK(w.extent(0) == 3);
}

TEST_CASE("tensors of every shape") {
    CHECK(ts::matrix<float>(0, 5).size() == 0);
    CHECK(ts::matrix<float>(5, 0).data() == nullptr);
    CHECK(ts::vector<float>(1).extent(0) == 1);
    CHECK(ts::matrix<float>{}.extent(1) == 0);
    // An empty tensor may have any other extents, also where their product is no index.
    constexpr index_t huge = std::numeric_limits<index_t>::max();
    ts::matrix<double> const wide(0, huge);
    CHECK(wide.size() == 0);
    CHECK(wide.extent(1) == huge);
    CHECK(wide.view().empty());
    CHECK(ts::matrix<double>(huge, 0).size() == 0);
    ts::tensor<float, 3> const many(huge, huge, 0);
    CHECK(many.size() == 0);
    CHECK(many.view().size() == 0);
    ts::tensor<float, 3> const none(0, huge, huge);
    CHECK(none.view().empty());
    CHECK_THROWS_AS(ts::matrix<float>(0, -1), ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::vector<float>(-1), "tessera: tensor: extent is -1, expected 0 to 9223372036854775807",
                         ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::matrix<float>(index_t{1} << 40, index_t{1} << 40),
                         "tessera: tensor: extent is 1099511627776, expected 0 to 2097151", ts::shape_error);
}
