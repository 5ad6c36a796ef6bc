// SPDX-License-Identifier: MIT
// Quantised matrices: which scale and zero point belong to an element, for every granularity; placed forms hold the same
// numbers; sizes, moves and checks.

#include "../operators/operator_laws.hpp"

#include <tessera/kernels/cpu/pack.hpp>
#include <tessera/kernels/ref/apply.hpp>
#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/numerics/fp8.hpp>

#include <cstdint>
#include <type_traits>
#include <utility>

using namespace tessera_test;

static_assert(std::is_trivially_copyable_v<ts::quantized<ts::int4_g32>>);
static_assert(!std::is_convertible_v<ts::quantized_tensor<ts::int4_g32>, ts::quantized<ts::int4_g32>>);
static_assert(std::is_convertible_v<ts::quantized_tensor<ts::int4_g32> const&, ts::quantized<ts::int4_g32>>);

namespace {

template <class Granularity>
using affine_of = ts::scheme<ts::uint4, Granularity, ts::fp32, ts::affine>;

/// Scales and zero points are their own index, so an element tells which one it found.
template <class Granularity>
void check_granularity(index_t rows_each, index_t columns_each) {
    for (auto const& [n, k] : {std::pair{1, 1}, {5, 7}, {6, 12}, {4, 13}}) {
        CAPTURE(n);
        CAPTURE(k);
        ts::quantized_tensor<affine_of<Granularity>> q{n, k};
        auto const w = q.view();
        index_t const across = columns_each == 0 ? 1 : ts::ceil_div(k, columns_each);
        index_t const down = rows_each == 0 ? 1 : ts::ceil_div(n, rows_each);
        CHECK(w.scale_rows() == down);
        CHECK(w.scale_columns() == across);
        CHECK(w.bytes() == n * ts::ceil_div(k, 2) + down * across * 5);
        for (index_t i = 0; i < down * across; ++i) {
            q.scales()[i] = static_cast<float>(i + 1);
            q.zero_points()[i] = static_cast<std::uint8_t>(i % 16);
        }
        for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j < k; ++j)
                ts::bitpack::set<4>(q.codes() + i * w.row_bytes(), j, static_cast<std::uint32_t>((3 * i + j) % 16));
        for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j < k; ++j) {
                index_t const at =
                    (rows_each == 0 ? 0 : i / rows_each) * across + (columns_each == 0 ? 0 : j / columns_each);
                CHECK(w.scale_index(i, j) == at);
                CHECK(w(i, j) == static_cast<float>((at + 1) * ((3 * i + j) % 16 - at % 16)));
            }
    }
}

/// Every element of a placed matrix is the canonical one, and rows that do not exist are zeros.
template <index_t R, class Storage>
void check_placed(Storage const& w) {
    using layout = ts::panel<R, (ts::dense_storage<Storage> ? 1 : 4)>;
    index_t const n = ts::detail::storage_rows(w);
    index_t const k = ts::detail::storage_columns(w);
    CAPTURE(R);
    CAPTURE(n);
    CAPTURE(k);
    ts::prepacked_tensor<layout, Storage> owner{n, k};
    auto const packed = owner.view();
    for (index_t p = 0; p < packed.panels(); ++p) ts::pack_panel(w, packed, p, owner.data() + p * packed.panel_bytes());
    bool same = true;
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < k; ++j)
            same = same && ts::detail::reference_element(packed, i, j) == static_cast<float>(w(i, j));
    for (index_t i = n; i < packed.panels() * R; ++i)
        for (index_t j = 0; j < k; ++j) same = same && ts::detail::reference_element(packed, i, j) == 0.0f;
    CHECK(same);
}

template <class Storage>
void check_placed() {
    for (auto const& [n, k] : {std::pair{0, 5}, {5, 0}, {1, 1}, {3, 7}, {16, 32}, {17, 33}, {37, 131}}) {
        Storage const owner{n, ts::round_up(k, Storage::column_unit)};
        check_placed<4>(owner.view());
        check_placed<8>(owner.view());
        check_placed<16>(owner.view());
    }
}

} // namespace

TEST_CASE("which scale belongs to an element") {
    check_granularity<ts::per_tensor>(0, 0);
    check_granularity<ts::per_channel>(1, 0);
    check_granularity<ts::group<1>>(1, 1);
    check_granularity<ts::group<3>>(1, 3);
    check_granularity<ts::group<32>>(1, 32);
    check_granularity<ts::block<2, 5>>(2, 5);
    check_granularity<ts::block<4, 1>>(4, 1);
}

TEST_CASE_TEMPLATE("placed codes are the canonical ones", S, ts::int4_g32, ts::uint4_g128, ts::int8_per_channel, ts::nf4_g64,
                   ts::scheme<ts::int3, ts::group<24>, ts::bf16>, ts::scheme<ts::e4m3fn, ts::block<2, 40>>,
                   ts::scheme<ts::int5, ts::per_tensor>, ts::scheme<ts::e2m1, ts::group<16>, ts::e4m3fn>,
                   ts::scheme<ts::uint1, ts::group<5>, ts::fp16, ts::affine>, ts::scheme<ts::uint4, ts::block<16, 8>, ts::fp32, ts::affine>,
                   ts::scheme<ts::uint4, ts::block<8, 32>, ts::fp16, ts::affine>,
                   ts::scheme<ts::int3, ts::group<2>, ts::two_level<ts::int6, ts::group<34>, ts::fp16>>,
                   ts::scheme<ts::int8, ts::group<8>, ts::two_level<ts::uint8, ts::block<16, 16>, ts::bf16>>,
                   ts::scheme<ts::uint2, ts::block<16, 4>, ts::two_level<ts::uint5, ts::block<16, 8>, ts::fp32>, ts::affine>,
                   ts::scheme<ts::int8, ts::group<7>, ts::uint8>, ts::scheme<ts::int8, ts::group<7>, ts::e5m2>) {
    check_placed<scheme_storage<S>>();
}
TEST_CASE_TEMPLATE("placed blocks are the canonical ones", F, ts::q4_0, ts::q4_1, ts::q8_0) {
    check_placed<blocked_storage<F>>();
}
TEST_CASE_TEMPLATE("placed dense elements are the canonical ones", T, float, ts::fp16, ts::bf16) {
    check_placed<dense_storage_of<T>>();
}

TEST_CASE("an owner is zero until written, and moves") {
    ts::quantized_tensor<ts::int4_g32> q{3, 40};
    auto const w = q.view();
    for (index_t i = 0; i < 3; ++i)
        for (index_t j = 0; j < 40; ++j) CHECK(w(i, j) == 0.0f);
    CHECK(q.bytes() == 3 * 20 + 3 * 2 * 2);
    std::uint8_t const* const p = q.codes();
    ts::quantized_tensor<ts::int4_g32> const moved{std::move(q)};
    CHECK(moved.view().codes() == p);
    CHECK(moved.rows() == 3);
}

TEST_CASE("moved owners leave empty ones, which are refused where a matrix is wanted") {
    using owner = ts::quantized_tensor<ts::int4_g32>;
    static_assert(std::is_nothrow_move_constructible_v<owner> && std::is_nothrow_move_assignable_v<owner>);
    ts::cpu<ts::native_arch, ts::serial> const exec;
    ts::matrix<float> const x(1, 40);
    ts::matrix<float> y(1, 3);
    auto const refuses = [&](auto const& op) {
        CHECK(op.rows() == 0);
        CHECK(op.cols() == 0);
        CHECK_THROWS_AS(ts::apply(exec, op, x, y), ts::shape_error);
    };
    owner q{3, 40};
    owner moved{std::move(q)};
    CHECK(q.rows() == 0);
    CHECK(q.bytes() == 0);
    refuses(ts::linear{q});
    auto& self = moved;
    moved = std::move(self);
    CHECK(moved.cols() == 40);

    ts::prepacked_tensor<ts::panel<8, 1>, ts::matrix_view<float const>> panels{3, 40};
    auto const* const data = panels.data();
    auto const other = std::move(panels);
    CHECK(other.view().data() == data);
    CHECK(panels.data() == nullptr);
    CHECK(panels.bytes() == 0);

    auto const check = [&](auto const& op) {
        auto placed = ts::place(exec, op);
        static_assert(std::is_nothrow_move_constructible_v<decltype(placed)> && std::is_nothrow_move_assignable_v<decltype(placed)>);
        index_t const bytes = placed.bytes();
        auto target = std::move(placed);
        CHECK(placed.bytes() == 0);
        refuses(placed.view());
        auto& same = target;
        target = std::move(same);
        CHECK(target.bytes() == bytes);
        CHECK_NOTHROW(ts::apply(exec, target, x, y));
        placed = std::move(target);
        CHECK(placed.bytes() == bytes);
        refuses(target.view());
    };
    ts::matrix<float> const dense(3, 40);
    ts::matrix<float> const tall(9, 40);
    check(ts::linear{dense});
    check(ts::linear{moved, ts::int8_per_group<32>{}} + 2.0f * ts::linear{dense});
    check(ts::rows(ts::linear{tall}, 2, 5));
    // In an arena: nothing is owned, and the one left behind does not refer to it.
    ts::memory_arena arena{4096};
    auto placed = ts::place(exec, ts::linear{dense}, arena);
    auto const target = std::move(placed);
    refuses(placed.view());
    CHECK_NOTHROW(ts::apply(exec, target, x, y));
}

TEST_CASE("checks") {
    using view = ts::quantized<ts::uint4_g32>;
    std::uint8_t const codes[64] = {};
    ts::fp16 const scales[4] = {};
    std::uint8_t const zeros[4] = {};
    CHECK_NOTHROW(view{codes, scales, zeros, 2, 64});
    CHECK_NOTHROW(view{nullptr, nullptr, nullptr, 0, 64});
    CHECK_NOTHROW(view{nullptr, nullptr, nullptr, 2, 0});
    CHECK_THROWS_WITH_AS((view{codes, scales, zeros, -1, 64}),
                         "tessera: quantized: rows is -1, expected 0 to 281474976710656", ts::shape_error);
    CHECK_THROWS_WITH_AS((view{codes, scales, zeros, 2, -64}),
                         "tessera: quantized: columns is -64, expected 0 to 281474976710656", ts::shape_error);
    CHECK_THROWS_WITH_AS((view{nullptr, scales, zeros, 2, 64}),
                         "tessera: quantized: codes is null but has 128 elements, expected 0 or a pointer", ts::shape_error);
    CHECK_THROWS_WITH_AS((view{codes, nullptr, zeros, 2, 64}),
                         "tessera: quantized: scales is null but has 4 elements, expected 0 or a pointer", ts::shape_error);
    CHECK_THROWS_WITH_AS((view{codes, scales, nullptr, 2, 64}),
                         "tessera: quantized: zero points is null but has 4 elements, expected 0 or a pointer",
                         ts::shape_error);
    using owner = ts::quantized_tensor<ts::int4_g32>;
    CHECK_THROWS_WITH_AS((owner{-1, 64}), "tessera: quantized_tensor: rows is -1, expected 0 to 281474976710656",
                         ts::shape_error);
    CHECK_THROWS_WITH_AS((owner{index_t{1} << 40, index_t{1} << 40}),
                         "tessera: quantized_tensor: columns is 1099511627776, expected 0 to 65536", ts::shape_error);
}
