// SPDX-License-Identifier: MIT
// What is kept and where it is; every bad argument has its sentence; owners, views and descriptions.

#include "sparse_support.hpp"
#include "support/counted_backend.hpp"

#include <tessera/core/thread_pool.hpp>
#include <tessera/operators/describe.hpp>
#include <tessera/quant/quantize.hpp>

#include <limits>
#include <type_traits>
#include <utility>

using namespace tessera_test;

namespace {

ts::cpu<ts::native_arch, ts::serial> const exec;

template <class T>
ts::matrix<float> matrix_of(index_t n, index_t k, std::initializer_list<T> values) {
    ts::matrix<float> w{n, k};
    std::copy(values.begin(), values.end(), w.data());
    return w;
}

/// 2 by 4 with columns {1, 3} and {0}.
struct arrays {
    index_t offsets[3] = {0, 2, 3};
    std::int32_t columns[3] = {1, 3, 0};
    float values[3] = {1, 2, 3};
    ts::csr<float> view(index_t nonzeros = 3, index_t k = 4) const { return {offsets, columns, values, nullptr, nonzeros, 2, k}; }
    void refuses(char const* sentence) const {
        CHECK_THROWS_WITH_AS(static_cast<void>(view()), sentence, ts::shape_error);
        CHECK_THROWS_WITH_AS((ts::csr_tensor<float>{offsets, columns, values, nullptr, 3, 2, 4}), sentence, ts::shape_error);
    }
};

} // namespace

TEST_CASE("csr: elements, owner, bytes") {
    arrays const a;
    auto const v = a.view();
    CHECK(v(0, 1) == 1.0f);
    CHECK(v(0, 2) == 0.0f);
    CHECK(v(0, 3) == 2.0f);
    CHECK(v(1, 0) == 3.0f);
    CHECK(v.nonzeros() == 3);
    CHECK(v.bytes() == 3 * 8 + 3 * 8);
    std::int64_t const wide[3] = {1, 3, 0};
    std::int32_t const narrow[3] = {0, 2, 3};
    ts::csr_tensor<float> const owner{narrow, wide, a.values, nullptr, 3, 2, 4};
    CHECK(owner.view()(0, 3) == 2.0f);
    CHECK(owner.nonzeros() == 3);
    CHECK(ts::csr_tensor<ts::int8>{}.nonzeros() == 0);
    CHECK(ts::csr<float>{}.nonzeros() == 0);
    ts::matrix<float> const dense = ts::densify(owner);
    CHECK(dense(1, 0) == 3.0f);
    CHECK(dense(1, 1) == 0.0f);
}

TEST_CASE("csr: arrays that break the rules") {
    arrays a;
    a.offsets[0] = 1;
    a.refuses("tessera: csr: row offset 0 is 1, expected 0");
    a = {};
    a.offsets[1] = 4;
    a.refuses("tessera: csr: row offset 1 is 4, expected at most 3 (nonzeros)");
    a = {};
    a.offsets[2] = 1;
    a.refuses("tessera: csr: row offset 2 is 1, expected at least 2 (the one before)");
    a = {};
    a.offsets[2] = 2;
    a.refuses("tessera: csr: row offset 2 is 2, expected 3 (nonzeros)");
    a = {};
    a.columns[1] = 4;
    a.refuses("tessera: csr: column of nonzero 1 is 4, expected 0 to 3 (row 0)");
    a.columns[1] = -1;
    a.refuses("tessera: csr: column of nonzero 1 is -1, expected 0 to 3 (row 0)");
    a.columns[1] = 1;
    a.refuses("tessera: csr: column of nonzero 1 is 1, expected above 1 (the one before in row 0)");
    a = {};
    CHECK_THROWS_WITH_AS((ts::csr<float>{nullptr, a.columns, a.values, nullptr, 3, 2, 4}),
                         "tessera: csr: the array of row offsets is null but has 3 elements, expected 0 or a pointer", ts::shape_error);
    CHECK_THROWS_WITH_AS((ts::csr<float>{a.offsets, nullptr, a.values, nullptr, 3, 2, 4}),
                         "tessera: csr: the array of columns is null but has 3 elements, expected 0 or a pointer", ts::shape_error);
    CHECK_THROWS_WITH_AS((ts::csr<float>{a.offsets, a.columns, nullptr, nullptr, 3, 2, 4}),
                         "tessera: csr: the array of values is null but has 3 elements, expected 0 or a pointer", ts::shape_error);
    std::int8_t const codes[3] = {1, 2, 3};
    CHECK_THROWS_WITH_AS((ts::csr<ts::int8>{a.offsets, a.columns, codes, nullptr, 3, 2, 4}),
                         "tessera: csr: the array of scales is null but has 2 elements, expected 0 or a pointer", ts::shape_error);
    CHECK_THROWS_WITH_AS((ts::csr<float>{a.offsets, a.columns, a.values, nullptr, 3, -1, 4}),
                         "tessera: csr: rows is -1, expected 0 to 281474976710656", ts::shape_error);
    CHECK_THROWS_WITH_AS((ts::csr<float>{a.offsets, a.columns, a.values, nullptr, 3, 2, index_t{1} << 31}),
                         "tessera: csr: columns is 2147483648, expected 0 to 2147483647", ts::shape_error);
}

TEST_CASE("n_of_m: arrays that break the rules") {
    float const values[4] = {1, 2, 3, 4};
    std::uint8_t positions[1] = {0b11'01'10'00}; // 0 2 | 1 3
    using pruned = ts::n_of_m<2, 4, float>;
    pruned const v{values, positions, nullptr, 1, 7};
    CHECK(v(0, 0) == 1.0f);
    CHECK(v(0, 1) == 0.0f);
    CHECK(v(0, 2) == 2.0f);
    CHECK(v(0, 5) == 3.0f);
    CHECK(v.nonzeros() == 4); // as many as fit a last group of three
    CHECK(v.bytes() == 17);
    positions[0] = 0b11'01'10'10;
    CHECK_THROWS_WITH_AS((pruned{values, positions, nullptr, 1, 7}),
                         "tessera: n_of_m: position 1 of row 0 is 2, expected 3 to 3", ts::shape_error);
    CHECK_THROWS_WITH_AS((pruned{nullptr, positions, nullptr, 1, 7}),
                         "tessera: n_of_m: the array of values is null but has 4 elements, expected 0 or a pointer", ts::shape_error);
    CHECK_THROWS_WITH_AS((pruned{values, nullptr, nullptr, 1, 7}),
                         "tessera: n_of_m: the array of positions is null but has 4 elements, expected 0 or a pointer", ts::shape_error);
    CHECK_THROWS_WITH_AS((pruned{values, positions, nullptr, 1, -7}),
                         "tessera: n_of_m: columns is -7, expected 0 to 281474976710656", ts::shape_error);
    std::int8_t const codes[4] = {1, 2, 3, 4};
    CHECK_THROWS_WITH_AS((ts::n_of_m<2, 4, ts::int8>{codes, positions, nullptr, 1, 7}),
                         "tessera: n_of_m: the array of scales is null but has 1 elements, expected 0 or a pointer", ts::shape_error);
    ts::n_of_m_tensor<2, 4, float> owner{2, 8};
    owner.keep(1, 1, {1, 3});
    CHECK(owner.view().column(1, 3) == 7);
    CHECK_THROWS_WITH_AS(owner.keep(2, 0, {0, 1}), "tessera: n_of_m: row is 2, expected 0 to 1", ts::shape_error);
    CHECK_THROWS_WITH_AS(owner.keep(0, 2, {0, 1}), "tessera: n_of_m: group is 2, expected 0 to 1", ts::shape_error);
    CHECK_THROWS_WITH_AS(owner.keep(0, 0, {1, 1}), "tessera: n_of_m: a position is 1, expected 2 to 3", ts::shape_error);
}

TEST_CASE("moved owners leave empty ones, which are refused where a matrix is wanted") {
    ts::matrix<float> const x(2, 8);
    ts::matrix<float> y(2, 4);
    ts::matrix<float> const none_x(2, 0);
    ts::matrix<float> none_y(2, 0);
    auto const is_empty = [&](auto const& op) {
        CHECK(op.rows() == 0);
        CHECK(op.cols() == 0);
        CHECK_THROWS_AS(ts::apply(exec, op, x, y), ts::shape_error);
        CHECK_THROWS_AS(ts::apply(ts::reference{}, op, x, y), ts::shape_error);
        CHECK_NOTHROW(ts::apply(exec, op, none_x, none_y));
    };
    auto const check = [&]<class Owner>(Owner a) {
        static_assert(std::is_nothrow_move_constructible_v<Owner> && std::is_nothrow_move_assignable_v<Owner>);
        index_t const nonzeros = a.nonzeros();
        CHECK(nonzeros > 0);
        auto placed = ts::place(exec, ts::linear{a});
        Owner b{std::move(a)};
        CHECK(a.nonzeros() == 0);
        is_empty(ts::linear{a});
        auto const placed_empty = ts::place(exec, ts::linear{a});
        is_empty(placed_empty.view());
        is_empty(ts::transposed(ts::linear{a}));
        a = std::move(b);
        CHECK(a.nonzeros() == nonzeros);
        is_empty(ts::linear{b});
        auto& self = a;
        a = std::move(self);
        CHECK(a.rows() == 4);
        CHECK(a.nonzeros() == nonzeros);

        auto const moved = std::move(placed);
        is_empty(placed.view());
        CHECK_NOTHROW(ts::apply(exec, moved, x, y));
    };
    auto const w = random_sparse(4, 8, 0.7);
    check(ts::sparsify<ts::csr<float>>(w, ts::magnitude_threshold{0}));
    check(ts::sparsify<ts::csr<ts::int8>>(w, ts::magnitude_threshold{0}));
    check(ts::sparsify<ts::n_of_m<2, 4, float>>(w));
    check(ts::sparsify<ts::n_of_m<1, 4, ts::int8>>(w));
}

TEST_CASE("sparsify: rules and their errors") {
    auto const w = matrix_of(2, 4, {3.f, -1.f, 2.f, 2.f, 1.f, 1.f, 1.f, 1.f});
    auto const pruned = ts::densify(ts::sparsify<ts::n_of_m<2, 4, float>>(w));
    auto const expected = matrix_of(2, 4, {3.f, 0.f, 0.f, 2.f, 0.f, 0.f, 1.f, 1.f});
    CHECK(std::equal(pruned.data(), pruned.data() + 8, expected.data()));
    CHECK(ts::sparsify<ts::csr<float>>(w, ts::magnitude_threshold{2}).nonzeros() == 3);
    CHECK(ts::sparsify<ts::csr<float>>(w, ts::top_per_row{9}).nonzeros() == 8);
    auto const half = ts::densify(ts::sparsify<ts::csr<float>>(w, ts::keep_fraction{0.5}));
    auto const first = matrix_of(2, 4, {3.f, -1.f, 2.f, 2.f, 0.f, 0.f, 0.f, 0.f});
    CHECK(std::equal(half.data(), half.data() + 8, first.data()));
    CHECK_THROWS_WITH_AS(ts::sparsify<ts::csr<float>>(w, ts::magnitude_threshold{-1}),
                         "tessera: sparsify: the threshold is -1.000000, expected at least 0", ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::sparsify<ts::csr<float>>(w, ts::keep_fraction{1.5}),
                         "tessera: sparsify: the fraction is 1.500000, expected 0 to 1", ts::shape_error);
    CHECK_THROWS_AS(ts::sparsify<ts::csr<float>>(w, ts::top_per_row{-1}), ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::sparsify<ts::csr<float>>(ts::matrix_view<float const>{nullptr, 2, 3}, ts::top_per_row{1}),
                         "tessera: sparsify: w is null but has 6 elements, expected 0 or a pointer", ts::shape_error);
    // A NaN is larger than anything, and an int8 row with one is NaN.
    float const nan = std::numeric_limits<float>::quiet_NaN();
    auto const bad = matrix_of(2, 3, {1.f, nan, 9.f, 1.f, 2.f, 0.f});
    auto const one = ts::sparsify<ts::csr<ts::int8>>(bad, ts::top_per_row{1});
    CHECK(std::isnan(one.view()(0, 1)));
    CHECK(one.view()(1, 1) == 2.0f);
    CHECK(one.view()(0, 2) == 0.0f);
}

TEST_CASE("int8 weights are within half a step") {
    auto const w = random_sparse(20, 50, 0.4);
    auto const rows = ts::sparsify<ts::csr<ts::int8>>(w, ts::magnitude_threshold{0});
    auto const one = ts::sparsify<ts::n_of_m<3, 5, ts::int8, ts::per_tensor>>(w);
    for (index_t n = 0; n < 20; ++n) {
        rows.view().for_each_entry(n, [&](index_t k, float v) {
            CHECK(std::abs(double{v} - double{w(n, k)}) <= 0.5 * double{rows.view().scale(n)} * (1 + 0x1p-20));
        });
        one.view().for_each_entry(n, [&](index_t k, float v) {
            CHECK(std::abs(double{v} - double{w(n, k)}) <= 0.5 * double{one.view().scale(n)} * (1 + 0x1p-20));
        });
    }
}

TEST_CASE("base and outliers in one pass") {
    index_t const n = 70, k = 96;
    auto const w = random_sparse(n, k, 1.0);
    auto const outliers = ts::sparsify<ts::csr<ts::fp16>>(w, ts::keep_fraction{0.02});
    ts::matrix<float> rest = ts::densify(outliers);
    for (index_t i = 0; i < rest.size(); ++i) rest.data()[i] = w.data()[i] - rest.data()[i];
    auto const base = ts::quantize<ts::int4_g32>(rest);
    auto const pruned = ts::sparsify<ts::n_of_m<1, 4, ts::bf16>>(w);
    auto const op = ts::linear{base, ts::int8_per_group<32>{}} + ts::linear{outliers} + 0.5f * ts::linear{pruned};
    for (index_t const m : {1, 6, 40}) {
        guarded<float> x{m, k};
        guarded<float> y{m, n};
        x.fill(3);
        apply_case<std::remove_const_t<decltype(op)>> const expected{op, x.view()};
        archs_by_width::visit([&]<class Arch>(Arch) { check_on<Arch>(op, x, expected, {m, n, k}, y); });
        auto const cut = ts::columns(ts::rows(ts::linear{outliers} + ts::linear{pruned}, 3, 61), 5, 90);
        guarded<float> x2{m, 85};
        guarded<float> y2{m, 58};
        x2.fill(4);
        apply_case<std::remove_const_t<decltype(cut)>> const part{cut, x2.view()};
        archs_by_width::visit([&]<class Arch>(Arch) { check_on<Arch>(cut, x2, part, {m, 58, 85}, y2); });
    }
}

TEST_CASE("one pass: a sum takes one loop over y, and stores it once") {
    index_t const n = 1500, k = 96;
    auto const w = random_sparse(n, k, 1.0);
    auto const base = ts::quantize<ts::int4_g32>(w);
    auto const outliers = ts::sparsify<ts::csr<ts::fp16>>(w, ts::keep_fraction{0.02});
    auto const pruned = ts::sparsify<ts::n_of_m<2, 4, ts::int8>>(w);
    counted_backend::totals seen;
    ts::cpu<ts::native_arch, counted_backend> const counted{counted_backend{&seen}};
    auto const loops = [&](auto const& op, index_t m) {
        auto const placed = ts::place(exec, op);
        auto const counted_place = ts::place(counted, op);
        guarded<float> x{m, op.cols()}, expected{m, op.rows()}, y{m, op.rows()};
        guarded<ts::bf16> half{m, op.rows()};
        x.fill(3);
        ts::apply(exec, placed.view(), x.view(), expected.view());
        seen = {};
        ts::apply(counted, counted_place.view(), x.view(), y.view());
        index_t const count = seen.loops;
        CHECK(same_bits(expected, y));
        // Rounded once, from the sum of all terms.
        ts::apply(exec, placed.view(), x.view(), half.view());
        bool same = true;
        for (index_t i = 0; i < m; ++i)
            for (index_t j = 0; j < op.rows(); ++j) same = same && half.view()(i, j) == static_cast<ts::bf16>(y.view()(i, j));
        CHECK(same);
        return count;
    };
    auto const a = ts::linear{base, ts::int8_per_group<32>{}};
    auto const b = ts::linear{outliers};
    CHECK(loops(a, 1) == 1);
    CHECK(loops(a + b, 1) == 1);
    CHECK(loops(a + b + 0.5f * ts::linear{pruned}, 1) == 1);
    // With more rows x is prepared in loops of its own, once for each form that a term wants; y still takes one.
    for (index_t const m : {5, 40}) CHECK(loops(a + b, m) == loops(a, m) + loops(b, m) - 1);
}

TEST_CASE("what one row of x reads of placed weights is what is kept") {
    auto const w = random_sparse(1024, 512, 1.0);
    auto const placed_bytes = [](auto const& storage) { return ts::place(exec, ts::linear{storage}).bytes(); };
    auto const rows = w.extent(0);
    // A value and 16 bits of column each; of a row its length, its place and 8 / R bytes; of 16 rows and more a table's entry.
    auto const compressed = ts::sparsify<ts::csr<ts::fp16>>(w, ts::keep_fraction{0.05});
    CHECK(placed_bytes(compressed) <= 4 * compressed.nonzeros() + rows * (4 + 1 + 8 + 1) + 512);
    CHECK(placed_bytes(compressed) < compressed.bytes());
    // Positions and values as they are stored; rows come in panels.
    auto const half = ts::sparsify<ts::n_of_m<2, 4, ts::fp16>>(w);
    CHECK(placed_bytes(half) == half.bytes());
    auto const bytes = ts::sparsify<ts::n_of_m<2, 4, ts::int8>>(w);
    CHECK(placed_bytes(bytes) == bytes.bytes());
}

TEST_CASE("any number of threads") {
    auto const w = ts::sparsify<ts::csr<float>>(random_sparse(1500, 50, 0.2), ts::magnitude_threshold{0});
    auto const v = ts::sparsify<ts::n_of_m<2, 4, ts::int8>>(random_sparse(1500, 50, 0.9));
    auto const check = [&](auto const& op, index_t m) {
        guarded<float> x{m, op.cols()};
        guarded<float> expected{m, op.rows()};
        guarded<float> y{m, op.rows()};
        x.fill(3);
        ts::apply(exec, op, x.view(), expected.view());
        ts::thread_pool pool{3};
        ts::cpu<ts::native_arch, ts::threads> const three{ts::threads{pool}};
        ts::apply(three, op, x.view(), y.view());
        CHECK(same_bits(expected, y));
        auto const placed = ts::place(three, op);
        y.clear();
        ts::apply(three, placed.view(), x.view(), y.view());
        CHECK(same_bits(expected, y));
    };
    for (index_t const m : {1, 5, 70}) {
        check(ts::linear{w}, m);
        check(ts::transposed(ts::linear{w}), m);
        check(ts::linear{v} + ts::linear{w}, m);
        check(ts::transposed(ts::linear{v}), m);
    }
}

TEST_CASE("reserved scratch is enough; tiles decode to the elements") {
    auto const w = ts::sparsify<ts::csr<ts::bf16>>(random_sparse(600, 50, 0.2), ts::magnitude_threshold{0});
    auto const v = ts::sparsify<ts::n_of_m<2, 4, float>>(random_sparse(600, 50, 0.9));
    auto const check = [](auto const& op) {
        for (index_t const m : {1, 3, 20}) {
            ts::workspace scratch;
            ts::cpu<ts::native_arch, ts::serial> const one{scratch};
            guarded<float> x{m, op.cols()};
            guarded<float> y{m, op.rows()};
            x.fill(3);
            one.reserve(ts::workspace_bytes(one, op, x.view()));
            index_t const capacity = scratch.capacity();
            ts::apply(one, op, x.view(), y.view());
            CHECK(scratch.capacity() == capacity);
        }
    };
    check(ts::linear{w});
    check(ts::transposed(ts::linear{w}));
    check(ts::linear{v} + ts::linear{w});
    check(ts::transposed(ts::linear{v}));

    auto const placed = ts::place(exec, ts::linear{w});
    using policy = std::remove_const_t<decltype(exec)>;
    float tile[7 * 20];
    ts::kernel<ts::op::decode, policy, std::remove_cvref_t<decltype(placed.view().storage())>>::tile(
        placed.view().storage(), 30, 37, 5, 25, tile, 20, nullptr);
    for (index_t n = 0; n < 7; ++n)
        for (index_t k = 0; k < 20; ++k) CHECK(tile[n * 20 + k] == w.view()(30 + n, 5 + k));
}

TEST_CASE("y must not overlap the operator; descriptions; the reference of placed operands") {
    ts::matrix<float> memory{1, 64};
    index_t const offsets[2] = {0, 1};
    std::int32_t const columns[1] = {0};
    ts::csr<float> const inside{offsets, columns, memory.data(), nullptr, 1, 1, 4};
    guarded<float> x{1, 4};
    x.fill(1);
    CHECK_THROWS_AS(ts::apply(exec, ts::linear{inside}, x.view(), ts::matrix_view<float>{memory.data(), 1, 1}), ts::shape_error);

    auto const w = ts::sparsify<ts::csr<ts::fp16>>(random_sparse(40, 50, 0.2), ts::magnitude_threshold{0});
    auto const v = ts::sparsify<ts::n_of_m<2, 4, ts::int8>>(random_sparse(40, 50, 0.9));
#if defined(__SSE2__)
    ts::cpu<ts::sse2, ts::serial> const small;
    CHECK(ts::describe(small, ts::linear{w}, 1) == "sse2: csr fp16, jagged<4> packed on the fly, float multiply-add on gathered x");
    auto const placed = ts::place(small, ts::linear{w} + ts::linear{v});
    CHECK(ts::describe(small, placed.view(), 4) == "sse2: (csr fp16, jagged<4>, float multiply-add on columns of x) + "
                                                   "(2 of 4 int8, kept<4>, float multiply-add on permuted x)");
    guarded<float> z{3, 50};
    guarded<float> expected{3, 40};
    guarded<float> y{3, 40};
    z.fill(2);
    ts::apply(ts::reference{}, ts::linear{w} + ts::linear{v}, z.view(), expected.view());
    ts::apply(ts::reference{}, placed.view(), z.view(), y.view());
    CHECK(same_bits(expected, y));
    auto const again = ts::place(small, placed.view());
    ts::apply(ts::reference{}, again.view(), z.view(), y.view());
    CHECK(same_bits(expected, y));
#endif
}
