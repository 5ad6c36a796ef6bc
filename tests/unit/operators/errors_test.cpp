// SPDX-License-Identifier: MIT
// The door: every check of apply, prepare and the algebra throws its sentence, and y keeps every bit.

#include <doctest/doctest.h>

#include "cases/guarded.hpp"

#include <tessera/operators/place.hpp>
#include <tessera/operators/apply.hpp>
#include <tessera/storage/quantized.hpp>

#include <cstdint>
#include <new>
#include <string>

using namespace tessera_test;

namespace {

ts::cpu<ts::native_arch, ts::serial> const exec;

/// x (3, 8), W (7, 8), y (3, 7).
struct operands {
    ts::matrix<float> w{7, 8};
    guarded<float> x{3, 8};
    guarded<float> y{3, 7, 1, 2};
    operands() { x.fill(1); }
};

ts::matrix_view<float> null_matrix(index_t m, index_t n) { return ts::matrix_view<float>{nullptr, m, n}; }

template <class Policy>
void check_apply(Policy const& policy) {
    operands o;
    ts::linear const w{o.w};
    auto const wrong = [&](auto const& x, auto const& y, char const* sentence) {
        CHECK_THROWS_WITH_AS(ts::apply(policy, w, x, y), sentence, ts::shape_error);
        CHECK(o.y.is_untouched());
    };
    guarded<float> narrow{3, 5};
    guarded<float> low{2, 7};
    guarded<float> short_rows{3, 6};
    wrong(narrow.view(), o.y.view(), "tessera: apply: columns of x is 5, expected 8 (columns of the operator)");
    wrong(o.x.view(), low.view(), "tessera: apply: rows of y is 2, expected 3 (rows of x)");
    wrong(o.x.view(), short_rows.view(), "tessera: apply: columns of y is 6, expected 7 (rows of the operator)");
    wrong(null_matrix(3, 8), o.y.view(), "tessera: apply: x is null but has 24 elements, expected 0 or a pointer");
    wrong(o.x.view(), null_matrix(3, 7), "tessera: apply: y is null but has 21 elements, expected 0 or a pointer");
    CHECK(low.is_untouched());
    CHECK(short_rows.is_untouched());
    CHECK_NOTHROW(ts::apply(policy, w, null_matrix(0, 8), null_matrix(0, 7)));

    ts::matrix<float> shared(4, 8);
    for (index_t i = 0; i < shared.size(); ++i) shared.data()[i] = 1.0f;
    ts::matrix_view<float> const x{shared.data(), 3, 8};
    ts::matrix_view<float> const y{shared.data() + 8, 3, 7};
    CHECK_THROWS_WITH_AS(ts::apply(policy, w, x, y), "tessera: apply: x (96 bytes) overlaps y (84 bytes)", ts::shape_error);
    CHECK(shared.data()[9] == 1.0f);

    ts::vector<float> six(6);
    guarded<float> other{3, 6};
    auto const wrong_end = [&](auto const& finish, char const* sentence) {
        CHECK_THROWS_WITH_AS(ts::apply(policy, w, o.x.view(), o.y.view(), finish), sentence, ts::shape_error);
        CHECK(o.y.is_untouched());
    };
    wrong_end(ts::bias{six}, "tessera: apply: size of the bias is 6, expected 7 (rows of the operator)");
    wrong_end(ts::bias{ts::vector_view<float const>{nullptr, 7}},
              "tessera: apply: the bias is null but has 7 elements, expected 0 or a pointer");
    wrong_end(ts::relu{} | ts::residual{low.view()}, "tessera: apply: rows of the residual is 2, expected 3 (rows of y)");
    wrong_end(ts::residual{other.view()} | ts::relu{},
              "tessera: apply: columns of the residual is 6, expected 7 (columns of y)");
    wrong_end(ts::residual{null_matrix(3, 7)},
              "tessera: apply: the residual is null but has 21 elements, expected 0 or a pointer");
    CHECK_THROWS_WITH_AS(static_cast<void>(ts::workspace_bytes(policy, w, narrow.view())),
                         "tessera: workspace_bytes: columns of x is 5, expected 8 (columns of the operator)", ts::shape_error);
}

} // namespace

TEST_CASE("apply on the CPU") { check_apply(exec); }
TEST_CASE("apply by the reference") { check_apply(ts::reference{}); }

TEST_CASE("sizes whose bytes are no number") {
    constexpr index_t huge = index_t{1} << 60;
    ts::matrix<float> const w(7, 8);
    ts::linear const fast{w};
    float values[8] = {};
    auto const repeated = [&](index_t rows, index_t columns) { // one row, over and over
        index_t const strides[] = {0, 1};
        return ts::matrix_view<float>{values, ts::matrix_view<float>::mapping_type{ts::dynamic_extents<2>{rows, columns}, strides}};
    };
    CHECK_THROWS_WITH_AS(ts::apply(exec, fast, repeated(huge, 8), null_matrix(huge, 7)),
                         "tessera: apply: x has 1152921504606846976 x 8 elements of 4 bytes, expected at most "
                         "2305843009213693952 bytes",
                         ts::shape_error);
    CHECK_THROWS_AS(ts::apply(exec, fast, null_matrix(huge, 8), null_matrix(huge, 7)), ts::shape_error); // 2^63 bytes
    CHECK_THROWS_AS(ts::apply(ts::reference{}, fast, null_matrix(huge, 8), null_matrix(huge, 7)), ts::shape_error);
    CHECK_THROWS_AS(static_cast<void>(ts::workspace_bytes(exec, fast, repeated(huge, 8))), ts::shape_error);
    CHECK_THROWS_AS(ts::linear{null_matrix(huge, 16)}, ts::shape_error); // 2^66 bytes: 0 in 64 bits
    // x is a number of bytes, what becomes of it is none.
    index_t const rows = index_t{1} << 56;
    ts::quantized_tensor<ts::int4_g32> const codes{7, 8};
    ts::linear const quantised{codes, ts::int8_per_token{}};
    CHECK_THROWS_AS(static_cast<void>(ts::workspace_bytes(exec, quantised, repeated(rows, 8))), std::bad_array_new_length);
    ts::workspace_scope scope{exec.scratch()};
    CHECK_THROWS_AS(ts::prepare(exec, scope, repeated(rows, 8), ts::int8_per_token{}), std::bad_array_new_length);
    // Nothing times nothing, however often.
    ts::matrix<float> const none(0, 0);
    CHECK_NOTHROW(ts::apply(exec, ts::linear{none}, null_matrix(huge, 0), null_matrix(huge, 0)));
    CHECK_NOTHROW(ts::apply(ts::reference{}, ts::linear{none}, null_matrix(huge, 0), null_matrix(huge, 0)));
}

TEST_CASE("prepare, and apply of what it made") {
    operands o;
    ts::linear const w{o.w};
    ts::workspace_scope scope{exec.scratch()};
    guarded<float> narrow{3, 5};
    narrow.fill(1);
    CHECK_THROWS_WITH_AS(ts::prepare(exec, scope, narrow.view(), w),
                         "tessera: prepare: columns of x is 5, expected 8 (columns of the operator)", ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::prepare(exec, scope, null_matrix(3, 8), ts::int8_per_token{}),
                         "tessera: prepare: x is null but has 24 elements, expected 0 or a pointer", ts::shape_error);
    auto const five = ts::prepare(exec, scope, narrow.view(), ts::as_is{});
    CHECK_THROWS_WITH_AS(ts::apply(exec, w, five, o.y.view()),
                         "tessera: apply: columns of x is 5, expected 8 (columns of the operator)", ts::shape_error);
    auto const shared = ts::prepare(exec, scope, o.x.view(), w);
    guarded<float> low{2, 7};
    CHECK_THROWS_WITH_AS(ts::apply(exec, w, shared, low.view()), "tessera: apply: rows of y is 2, expected 3 (rows of x)",
                         ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::apply(exec, w, shared, null_matrix(3, 7)),
                         "tessera: apply: y is null but has 21 elements, expected 0 or a pointer", ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::apply(exec, w, shared, ts::matrix_view<float>{&o.x.view()(0, 1), 3, 7}),
                         "tessera: apply: x (96 bytes) overlaps y (84 bytes)", ts::shape_error);
    CHECK(low.is_untouched());
    CHECK(o.y.is_untouched());
}

TEST_CASE("operators check their shapes where they are built") {
    ts::matrix<float> const a(7, 8);
    ts::matrix<float> const b(6, 8);
    ts::matrix<float> const c(7, 5);
    ts::linear const la{a};
    ts::linear const lb{b};
    ts::linear const lc{c};
    CHECK_THROWS_WITH_AS(static_cast<void>(la + lb),
                         "tessera: sum: rows of the second term is 6, expected 7 (rows of the first)", ts::shape_error);
    CHECK_THROWS_WITH_AS(static_cast<void>(la + lc),
                         "tessera: sum: columns of the second term is 5, expected 8 (columns of the first)", ts::shape_error);
    CHECK_THROWS_WITH_AS(static_cast<void>(la * lb),
                         "tessera: product: rows of the second factor is 6, expected 8 (columns of the first)", ts::shape_error);
    CHECK_THROWS_WITH_AS((ts::low_rank{c, b}),
                         "tessera: product: rows of the second factor is 6, expected 5 (columns of the first)", ts::shape_error);
    CHECK_THROWS_WITH_AS(static_cast<void>(ts::rows(la, 0, 8)), "tessera: rows: last is 8, expected 0 to 7", ts::shape_error);
    CHECK_THROWS_WITH_AS(static_cast<void>(ts::rows(la, 4, 3)), "tessera: rows: first is 4, expected 0 to 3", ts::shape_error);
    CHECK_THROWS_WITH_AS(static_cast<void>(ts::columns(la, -1, 3)), "tessera: columns: first is -1, expected 0 to 3",
                         ts::shape_error);
    CHECK_THROWS_WITH_AS(static_cast<void>(ts::columns(la, 0, 9)), "tessera: columns: last is 9, expected 0 to 8",
                         ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::linear{null_matrix(2, 3)},
                         "tessera: linear: the matrix is null but has 6 elements, expected 0 or a pointer", ts::shape_error);
}
