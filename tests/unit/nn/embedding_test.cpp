// SPDX-License-Identifier: MIT
#include "nn_support.hpp"

#include <tessera/nn/embedding.hpp>
#include <tessera/operators/place.hpp>
#include <tessera/quant/quantize.hpp>
#include <tessera/storage/tensor.hpp>

using namespace nn_test;

namespace {

constexpr index_t vocabulary = 23;

/// Row t of y is row ids[t], as `value(id, k)` says; also through a leaf of the algebra.
template <class Archs = tessera_test::archs_by_width, class Table, class Value>
void check_table(Table const& table, index_t n, Value const& value) {
    std::int32_t const ids[] = {22, 0, 7, 7, 13};
    ts::vector_view<std::int32_t const> const which{ids, 5};
    auto const all = [&](auto const& exec) {
        guarded<float> y(5, n, 2);
        auto const right = [&](index_t t, index_t k) { return value(index_t{ids[t]}, k); };
        ts::embedding(exec, table, which, y.view());
        check_close(y.view(), right, [](index_t, index_t) { return 0.0; });
        CHECK(y.is_intact());
        guarded<ts::bf16> narrow(5, n, 1);
        ts::embedding(exec, ts::linear{table}, which, narrow.view());
        check_close(narrow.view(), [&](index_t t, index_t k) { return static_cast<float>(ts::bf16{right(t, k)}); },
                    [](index_t, index_t) { return 0.0; });
        CHECK(narrow.is_intact());
    };
    all(ts::reference{});
    for_each_cpu<Archs>(all);
}

/// One format of a kind is judged on all instruction sets.
template <class Format, class Archs = tessera_test::best_arch>
void check_blocks(index_t n) {
    CAPTURE(Format::name);
    guarded<float> w(vocabulary, n, 0);
    w.fill(3);
    std::vector<typename Format::block> blocks(static_cast<std::size_t>(vocabulary * n / Format::block_size));
    for (index_t i = 0; i < vocabulary; ++i)
        ts::encode_row<Format>(&w.view()(i, 0), n, blocks.data() + i * n / Format::block_size);
    ts::blocked<Format> const table{blocks.data(), vocabulary, n};
    auto const value = [&](index_t i, index_t k) { return table(i, k); };
    check_table<Archs>(table, n, value);
    // A placed table, as the output head of a model with tied embeddings has it.
    std::int32_t const ids[] = {22, 0, 7, 16, 15};
    for_each_cpu<Archs>([&](auto const& exec) {
        CAPTURE(name_of(exec));
        auto const placed = ts::place(exec, ts::linear{table});
        guarded<float> y(5, n, 2);
        ts::embedding(exec, placed.view(), ts::vector_view<std::int32_t const>{ids, 5}, y.view());
        check_close(y.view(), [&](index_t t, index_t k) { return value(index_t{ids[t]}, k); },
                    [](index_t, index_t) { return 0.0; });
        CHECK(y.is_intact());
    });
}

/// Quantised tables of n columns, as owner and as view, and placed; values from the arrays by definition.
template <class Scheme, class Archs = tessera_test::best_arch>
void check_quantized(index_t n) {
    using format = typename Scheme::format;
    CAPTURE(format::name);
    CAPTURE(n);
    guarded<float> w(vocabulary, n, 1);
    w.fill(5);
    auto q = ts::quantize<Scheme>(w.view());
    index_t const group = Scheme::granularity_type::columns == 0 ? n : Scheme::granularity_type::columns;
    index_t const groups = (n + group - 1) / group;
    index_t const row_bytes = (n * format::bits + 7) / 8;
    auto const value = [&](index_t i, index_t k) {
        std::uint8_t const byte = q.codes()[i * row_bytes + k * format::bits / 8];
        std::uint32_t const code = format::bits == 8 ? byte : k % 2 == 0 ? byte & 15u : byte >> 4;
        index_t const at = i * groups + k / group;
        float const zero = Scheme::is_affine ? static_cast<float>(q.zero_points()[at]) : 0.0f;
        return static_cast<float>(q.scales()[at]) * (format::decode(code) - zero);
    };
    check_table<tessera_test::best_arch>(q, n, value);
    check_table<Archs>(q.view(), n, value);
    std::int32_t const ids[] = {22, 0, 7, 16, 15};
    for_each_cpu<Archs>([&](auto const& exec) {
        CAPTURE(name_of(exec));
        auto const placed = ts::place(exec, ts::linear{q});
        guarded<float> y(5, n, 2);
        ts::embedding(exec, placed.view(), ts::vector_view<std::int32_t const>{ids, 5}, y.view());
        check_close(y.view(), [&](index_t t, index_t k) { return value(index_t{ids[t]}, k); },
                    [](index_t, index_t) { return 0.0; });
        CHECK(y.is_intact());
    });
}

} // namespace

TEST_CASE("rows of quantised tables") {
    for (index_t const n : {1, 37, 64, 130}) {
        check_quantized<ts::int4_g32, tessera_test::archs_by_width>(n);
        check_quantized<ts::uint4_g32>(n);
        check_quantized<ts::int8_per_channel>(n);
        check_quantized<ts::scheme<ts::int8, ts::group<32>, ts::fp16>>(n);
        check_quantized<ts::nf4_g64, tessera_test::archs_by_width>(n);
    }
}

TEST_CASE("an output inside the table, or over the ids, is refused, and nothing is written") {
    ts::cpu<> const exec;
    ts::quantized_tensor<ts::uint4_g32> q{8, 32};
    std::int32_t ids[] = {1, 2, 3, 4};
    auto const message = [&](void const* place, index_t columns, auto const& table) {
        ts::matrix_view<float> const y{const_cast<float*>(static_cast<float const*>(place)), 1, columns};
        return message_of([&] { ts::embedding(exec, table, ts::vector_view<std::int32_t const>{ids, 1}, y); });
    };
    CHECK(message(q.codes(), 32, q) == "tessera: embedding: table (128 bytes) overlaps y (128 bytes)");
    CHECK(message(q.scales(), 32, q) == "tessera: embedding: table (16 bytes) overlaps y (128 bytes)");
    CHECK(message(q.zero_points(), 32, q) == "tessera: embedding: table (8 bytes) overlaps y (128 bytes)");
    for (index_t i = 0; i < 128; ++i) CHECK(q.codes()[i] == 0);
    ts::matrix<float> const dense(8, 1);
    CHECK(message(dense.data() + 5, 1, dense) == "tessera: embedding: table (32 bytes) overlaps y (4 bytes)");
    CHECK(message(ids, 1, dense) == "tessera: embedding: ids (4 bytes) overlaps y (4 bytes)");
    CHECK(ids[0] == 1);
    // The rows of a table whose memory holds y beside them are apart.
    ts::matrix<float> wide(8, 6);
    wide(3, 1) = 7;
    std::int32_t const which[] = {3};
    ts::embedding(exec, ts::columns(wide.view(), 0, 3), ts::vector_view<std::int32_t const>{which, 1},
                  ts::rows(ts::columns(wide.view(), 3, 6), 0, 1));
    CHECK(wide(0, 4) == 7);
}

TEST_CASE("rows of dense tables of every element type") {
    for (index_t const n : {1, 5, 16, 37, 64}) {
        auto const dense = [&](auto zero) {
            using T = decltype(zero);
            guarded<T> w(vocabulary, n, 3);
            w.fill(1);
            check_table(std::as_const(w).view(), n,
                        [&](index_t i, index_t k) { return static_cast<float>(w.view()(i, k)); });
        };
        dense(float{});
        dense(ts::fp16{0.0f});
        dense(ts::bf16{0.0f});
    }
    ts::matrix<float> owner(vocabulary, 6);
    owner(7, 2) = 3;
    check_table<tessera_test::best_arch>(owner, 6, [&](index_t i, index_t k) { return owner(i, k); });
}

TEST_CASE("rows of block formats") {
    check_blocks<ts::q4_0, tessera_test::archs_by_width>(64);
    check_blocks<ts::q4_1>(96);
    check_blocks<ts::q8_0>(32);
}

TEST_CASE("no tokens, strided ids, unsigned ids") {
    ts::cpu<> const exec;
    ts::matrix<float> table(4, 3);
    for (index_t i = 0; i < 12; ++i) table.data()[i] = static_cast<float>(i);
    ts::matrix<float> none(0, 3);
    ts::embedding(exec, table, ts::vector_view<int const>(nullptr, 0), none);
    ts::matrix<float> y(2, 3);
    std::uint64_t const pairs[] = {1, 99, 3, 99};
    ts::embedding(exec, table, ts::slice(ts::matrix_view<std::uint64_t const>(pairs, 2, 2), ts::all, 0), y);
    CHECK(y(0, 0) == 3);
    CHECK(y(1, 2) == 11);
}

TEST_CASE("an id outside the vocabulary is refused by name, and nothing is written") {
    ts::cpu<> const exec;
    ts::matrix<float> table(4, 3);
    ts::matrix<float> y(3, 3);
    for (index_t i = 0; i < 9; ++i) y.data()[i] = 5;
    auto const message = [&](auto third) {
        decltype(third) const ids[] = {1, 2, third};
        return message_of([&] { ts::embedding(exec, table, ts::vector_view<decltype(third) const>(ids, 3), y); });
    };
    CHECK(message(4) == "tessera: embedding: ids[2] is 4, expected 0 to 3 (the table has 4 rows)");
    CHECK(message(-1) == "tessera: embedding: ids[2] is -1, expected 0 to 3 (the table has 4 rows)");
    CHECK(message(~std::uint64_t{0}) != "nothing was thrown");
    CHECK(message_of([&] { ts::embedding(exec, table, ts::vector_view<int const>(nullptr, 3), y); }) ==
          "tessera: embedding: ids is null but has 3 elements, expected 0 or a pointer");
    ts::matrix<float> narrow(3, 2);
    int const ids[] = {0, 0, 0};
    CHECK(message_of([&] { ts::embedding(exec, table, ts::vector_view<int const>(ids, 3), narrow); }) ==
          "tessera: embedding: columns of y is 2, expected 3 (columns of the table)");
    for (index_t i = 0; i < 9; ++i) CHECK(y.data()[i] == 5);
}
