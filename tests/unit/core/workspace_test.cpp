// SPDX-License-Identifier: MIT
// Every allocation of this program is counted, so that "no allocation after reserve" is what the tests say.
#include <doctest/doctest.h>

#include <tessera/core/workspace.hpp>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

namespace {

long allocations = 0;

} // namespace

// Not inlined: g++ would see free() on what operator new gave, and warn.
#if defined(__GNUC__)
[[gnu::noinline]]
#endif
void* operator new(std::size_t bytes, std::align_val_t alignment) {
    ++allocations;
    auto const a = static_cast<std::size_t>(alignment);
    if (void* const p = std::aligned_alloc(a, (bytes + a - 1) / a * a)) return p;
    throw std::bad_alloc{};
}
#if defined(__GNUC__)
[[gnu::noinline]]
#endif
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
#if defined(__GNUC__)
[[gnu::noinline]]
#endif
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace ts = tessera;
using ts::index_t;

namespace {

bool is_aligned(void const* p) { return reinterpret_cast<std::uintptr_t>(p) % ts::config::cache_line == 0; }

/// What an operation would do: some arrays, one of them in an inner scope.
template <class Arena>
void carve_some(Arena& arena) {
    arena.template carve<float>(100);
    arena.template carve<std::int8_t>(1);
    arena.template carve<double>(0);
    arena.template carve<std::int32_t>(33);
}

} // namespace

TEST_CASE("the sizer counts what the scope carves: after reserve there is no allocation") {
    ts::workspace_sizer sizer;
    carve_some(sizer);
    CHECK(sizer.bytes() == 448 + 64 + 0 + 192);
    ts::workspace w;
    CHECK(w.capacity() == 0);
    w.reserve(sizer.bytes());
    CHECK(w.capacity() == sizer.bytes());
    long const before = allocations;
    for (int call = 0; call < 10; ++call) {
        ts::workspace_scope scope{w};
        carve_some(scope);
    }
    CHECK(allocations == before);
    CHECK(w.capacity() == sizer.bytes());
}

TEST_CASE("carved arrays are aligned, apart, and writable to the last byte") {
    ts::workspace w;
    ts::workspace_scope scope{w};
    std::vector<std::pair<unsigned char*, index_t>> parts;
    for (index_t n = 0; n < 300; n += 7) {
        auto* const p = scope.carve<unsigned char>(n);
        CHECK(is_aligned(p));
        std::memset(p, static_cast<int>(n % 251), static_cast<std::size_t>(n));
        parts.emplace_back(p, n);
    }
    auto* const big = scope.carve<double>(50000); // larger than a first block
    CHECK(is_aligned(big));
    big[49999] = 1;
    for (auto const& [p, n] : parts)
        for (index_t i = 0; i < n; ++i) CHECK(p[i] == n % 251);
}

TEST_CASE("a scope gives back what was carved in it, at any depth") {
    ts::workspace w{4096};
    ts::workspace_scope outer{w};
    auto* const a = outer.carve<float>(16);
    float* inner_first = nullptr;
    {
        ts::workspace_scope inner{w};
        inner_first = inner.carve<float>(16);
        CHECK(inner_first == a + 16);
        {
            ts::workspace_scope innermost{w};
            CHECK(innermost.carve<float>(16) == inner_first + 16);
        }
        CHECK(inner.carve<float>(16) == inner_first + 16);
    }
    CHECK(outer.carve<float>(16) == inner_first);
}

TEST_CASE("growth keeps earlier arrays where they are, and merges into one block when unused") {
    ts::workspace w;
    {
        ts::workspace_scope scope{w};
        auto* const a = scope.carve<int>(10);
        a[9] = 42;
        for (int i = 0; i < 6; ++i) scope.carve<char>(100000 << i);
        CHECK(a[9] == 42);
    }
    {
        ts::workspace_scope scope{w};
        scope.carve<char>(1); // the chain becomes one block of its size
    }
    long const before = allocations;
    for (int call = 0; call < 5; ++call) {
        ts::workspace_scope scope{w};
        scope.carve<int>(10);
        for (int i = 0; i < 6; ++i) scope.carve<char>(100000 << i);
    }
    CHECK(allocations == before);
}

TEST_CASE("an inner scope that grows the arena leaves the outer one's arrays and pointer right") {
    ts::workspace w{256};
    ts::workspace_scope outer{w};
    auto* const a = outer.carve<float>(16);
    a[0] = 1;
    for (int round = 0; round < 3; ++round) {
        ts::workspace_scope inner{w};
        auto* const big = inner.carve<char>(1 << 20);
        std::memset(big, 1, 1 << 20);
        auto* const more = inner.carve<char>(1 << 21);
        std::memset(more, 2, 1 << 21);
        CHECK(big[(1 << 20) - 1] == 1);
    }
    auto* const b = outer.carve<float>(16);
    b[0] = 2;
    CHECK(a[0] == 1);
    CHECK(b == a + 16); // back in the first block
}

TEST_CASE("a scope opened on an unused arena survives its regrowth") {
    ts::workspace w;
    {
        ts::workspace_scope first{w};
        first.carve<char>(10);
        first.carve<char>(100000); // two blocks
    }
    {
        ts::workspace_scope scope{w};
        auto* const p = scope.carve<char>(300000); // merges under the open scope
        std::memset(p, 0, 300000);
    }
    ts::workspace_scope again{w};
    CHECK(again.carve<char>(10) != nullptr);
}

TEST_CASE("reserve: grows an unused arena, never shrinks it, and does nothing for 0") {
    ts::workspace w;
    w.reserve(0);
    CHECK(w.capacity() == 0);
    w.reserve(100);
    CHECK(w.capacity() == 128);
    w.reserve(10);
    CHECK(w.capacity() == 128);
    w.reserve(1000);
    CHECK(w.capacity() == 1024);
    long const before = allocations;
    w.reserve(1024);
    CHECK(allocations == before);
}

TEST_CASE("arrays whose bytes are no number are refused, by the sizer too") {
    constexpr index_t huge = index_t{1} << 60;
    constexpr index_t most = std::numeric_limits<index_t>::max();
    ts::workspace_sizer sizer;
    CHECK_THROWS_AS(sizer.carve<double>(huge), std::bad_array_new_length);
    CHECK_THROWS_AS(sizer.carve<char>(huge, 16), std::bad_array_new_length); // 2^64
    CHECK_THROWS_AS(sizer.carve<float>(huge, huge, 17), std::bad_array_new_length);
    CHECK_THROWS_AS(sizer.carve<char>(most), std::bad_array_new_length);
    CHECK(sizer.bytes() == 0);
    sizer.carve<char>(huge, huge, 0);
    sizer.carve<char>(0, most);
    CHECK(sizer.bytes() == 0);
    sizer.carve<char>(huge); // a number, and neither are two of them no number
    sizer.carve<char>(2, huge / 2);
    CHECK(sizer.bytes() == 2 * huge);
    CHECK_THROWS_AS(sizer.carve<char>(1), std::bad_array_new_length);
    ts::workspace w{256};
    {
        ts::workspace_scope scope{w};
        auto* const a = scope.carve<float>(2, 8);
        CHECK_THROWS_AS(scope.carve<float>(huge), std::bad_array_new_length);
        CHECK_THROWS_AS(scope.carve<float>(huge, 64, 3), std::bad_array_new_length);
        CHECK(scope.carve<float>(1) == a + 16); // nothing was taken
    }
    CHECK_THROWS_AS(w.reserve(most), std::bad_array_new_length);
    CHECK(w.capacity() == 256);
}

TEST_CASE("products of extents stop at the largest index") {
    constexpr index_t most = std::numeric_limits<index_t>::max();
    static_assert(ts::detail::saturated_product(3, index_t{5}, sizeof(float)) == 60);
    static_assert(ts::detail::saturated_product(index_t{1} << 31, index_t{1} << 31) == index_t{1} << 62);
    static_assert(ts::detail::saturated_product(index_t{1} << 32, index_t{1} << 31) == most);
    static_assert(ts::detail::saturated_product(most, most, most) == most);
    static_assert(ts::detail::saturated_product(most, most, 0) == 0);
    CHECK(ts::detail::saturated_product(index_t{1} << 60, 16) == most);
}
