// SPDX-License-Identifier: MIT
// Footprints against a count of the bytes: exact for rows of equal steps, never "apart" where a byte is shared.
#include <doctest/doctest.h>

#include <tessera/core/overlap.hpp>
#include <tessera/core/philox.hpp>
#include <tessera/core/slice.hpp>

#include <string>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

constexpr index_t size = 160;
float memory[size];

/// rows of `width` elements, `step` apart, from element `first` on.
struct block {
    index_t first, rows, width, step;

    bool fits() const { return rows == 0 || (first + step * (rows - 1) >= 0 && first + step * (rows - 1) + width <= size); }
    ts::matrix_view<float> view() const {
        index_t const strides[] = {step, 1};
        return {memory + first, ts::matrix_view<float>::mapping_type{ts::dynamic_extents<2>{rows, width}, strides}};
    }
    void mark(std::vector<int>& hits) const {
        for (index_t i = 0; i < rows; ++i)
            for (index_t k = 0; k < width; ++k) ++hits[static_cast<std::size_t>(first + i * step + k)];
    }
};

bool share(block const& a, block const& b) {
    std::vector<int> of_a(size), of_b(size);
    a.mark(of_a);
    b.mark(of_b);
    for (std::size_t i = 0; i < of_a.size(); ++i)
        if (of_a[i] != 0 && of_b[i] != 0) return true;
    return false;
}

} // namespace

TEST_CASE("blocks of rows of equal steps are judged exactly, others never found apart where they meet") {
    ts::philox const random{5};
    index_t together = 0;
    index_t interleaved = 0;
    for (std::uint64_t i = 0; i < 60000; ++i) {
        auto const pick = [&](std::uint64_t what, index_t n) { return static_cast<index_t>(random.bits(8 * i + what)) % n; };
        index_t const step = pick(0, 14) - 2;
        index_t const other_step = pick(1, 4) == 0 ? pick(2, 14) : pick(1, 4) == 1 ? -step : step;
        block const a{pick(3, 80), pick(4, 8), pick(5, 9), step};
        block const b{pick(6, 80), pick(7, 8), pick(5, 9) / 2 + pick(2, 5), other_step};
        if (!a.fits() || !b.fits()) continue;
        auto const first = ts::footprint_of(a.view());
        auto const second = ts::footprint_of(b.view());
        bool const said = ts::overlap(first, second);
        bool const shared = share(a, b);
        REQUIRE(said == ts::overlap(second, first));
        // Steps of 0 leave the rows on top of each other: one interval.
        bool const is_exact = step == other_step || step == -other_step || a.rows <= 1 || b.rows <= 1;
        if (is_exact ? said != shared : shared && !said) {
            for (block const& c : {a, b}) MESSAGE(c.rows << " rows of " << c.width << " from " << c.first << ", step " << c.step);
            REQUIRE(said == shared);
        }
        together += shared;
        auto const spans_meet = ts::overlap(ts::footprint_of(reinterpret_cast<void const*>(first.first), first.bytes()),
                                            ts::footprint_of(reinterpret_cast<void const*>(second.first), second.bytes()));
        interleaved += spans_meet && !said;
    }
    CHECK(together > 1000);
    CHECK(interleaved > 500);
}

TEST_CASE("columns of one matrix are apart, also transposed, reversed, in three dimensions, and as vectors") {
    ts::matrix_view<float> const whole{memory, 8, 20};
    auto const apart = [](auto const& a, auto const& b) { return !ts::overlap(ts::footprint_of(a), ts::footprint_of(b)); };
    auto const left = ts::columns(whole, 0, 7);
    auto const right = ts::columns(whole, 7, 20);
    CHECK(apart(left, right));
    CHECK(apart(ts::transposed(left), right));
    CHECK_FALSE(apart(ts::columns(whole, 0, 8), right));
    CHECK_FALSE(apart(ts::transposed(ts::columns(whole, 0, 8)), right));
    CHECK(apart(ts::columns(whole, 19, 20), ts::columns(whole, 0, 19)));
    CHECK(apart(ts::slice(whole, ts::all, 3), ts::slice(whole, ts::all, 4)));
    CHECK_FALSE(apart(ts::slice(whole, ts::all, 3), ts::slice(whole, 2, ts::all)));
    CHECK(apart(ts::slice(whole, ts::all, 3), ts::slice(whole, 2, ts::range{4, 20})));
    CHECK(apart(ts::rows(whole, 0, 3), ts::rows(whole, 3, 8)));
    CHECK_FALSE(apart(ts::rows(whole, 0, 4), ts::rows(whole, 3, 8)));
    CHECK(apart(ts::rows(whole, 3, 3), whole));
    // q and k of (tokens, heads of q, k and v, head dimension).
    ts::tensor_view<float, 3> const tokens{memory, 4, 10, 4};
    auto const heads = [&](index_t first, index_t last) { return ts::slice(tokens, ts::all, ts::range{first, last}, ts::all); };
    CHECK(apart(heads(0, 6), heads(6, 8)));
    CHECK_FALSE(apart(heads(0, 7), heads(6, 8)));
    index_t const up[] = {20, 1};
    index_t const down[] = {-20, 1};
    using mapping = ts::matrix_view<float>::mapping_type;
    ts::matrix_view<float> const upward{memory, mapping{ts::dynamic_extents<2>{8, 5}, up}};
    ts::matrix_view<float> const downward{memory + 140 + 5, mapping{ts::dynamic_extents<2>{8, 5}, down}};
    CHECK(apart(upward, downward));
    CHECK_FALSE(apart(ts::columns(whole, 0, 6), downward));
    CHECK(ts::footprint_of(downward).bytes() == (7 * 20 + 5) * 4);
    CHECK(ts::footprint_of(ts::matrix_view<float>{}).empty());
}

TEST_CASE("the same array is the same type, place and strides") {
    ts::matrix_view<float> const whole{memory, 8, 20};
    CHECK(ts::is_same_array(whole, ts::matrix_view<float const>{whole}));
    CHECK(ts::is_same_array(whole, ts::view<float, ts::extents<8, 20>>{memory, 8, 20}));
    CHECK_FALSE(ts::is_same_array(ts::rows(whole, 0, 7), ts::rows(whole, 1, 8)));
    CHECK_FALSE(ts::is_same_array(ts::rows(whole, 0, 7), whole));
    CHECK_FALSE(ts::is_same_array(ts::matrix_view<float>{memory, 4, 20}, ts::matrix_view<float>{memory, 4, 21}));
    CHECK_FALSE(ts::is_same_array(ts::matrix_view<float>{memory, 20, 20}, ts::transposed(ts::matrix_view<float>{memory, 20, 20})));
    // A single row has no distance between rows.
    CHECK(ts::is_same_array(ts::matrix_view<float>{memory, 1, 6}, ts::columns(ts::rows(whole, 0, 1), 0, 6)));
    CHECK_FALSE(ts::is_same_array(ts::vector_view<float>{memory, 4}, ts::vector_view<std::int32_t>{nullptr, 4}));
}

TEST_CASE("the sentence names both") {
    ts::matrix_view<float> const whole{memory, 8, 20};
    CHECK_NOTHROW(ts::check::no_overlap("apply", "x", ts::footprint_of(ts::columns(whole, 0, 7)), "y",
                                        ts::footprint_of(ts::columns(whole, 7, 20))));
    CHECK_THROWS_WITH_AS(ts::check::no_overlap("apply", "x", ts::footprint_of(ts::columns(whole, 0, 8)), "y",
                                               ts::footprint_of(ts::columns(whole, 7, 20))),
                         "tessera: apply: x (592 bytes) overlaps y (612 bytes)", ts::shape_error);
}
