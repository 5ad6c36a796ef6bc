// SPDX-License-Identifier: MIT
#include "nn_support.hpp"

#include <tessera/nn/embedding.hpp>
#include <tessera/operators/place.hpp>
#include <tessera/storage/tensor.hpp>

using namespace nn_test;

namespace {

constexpr index_t vocabulary = 23;

/// Row t of y is row ids[t], as `value(id, k)` says; also through a leaf of the algebra.
template <class Table, class Value>
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
    for_each_cpu(all);
}

template <class Format>
void check_blocks(index_t n) {
    CAPTURE(Format::name);
    guarded<float> w(vocabulary, n, 0);
    w.fill(3);
    std::vector<typename Format::block> blocks(static_cast<std::size_t>(vocabulary * n / Format::block_size));
    for (index_t i = 0; i < vocabulary; ++i)
        ts::encode_row<Format>(&w.view()(i, 0), n, blocks.data() + i * n / Format::block_size);
    ts::blocked<Format> const table{blocks.data(), vocabulary, n};
    auto const value = [&](index_t i, index_t k) { return table(i, k); };
    check_table(table, n, value);
    // A placed table, as the output head of a model with tied embeddings has it.
    std::int32_t const ids[] = {22, 0, 7, 16, 15};
    for_each_cpu([&](auto const& exec) {
        CAPTURE(name_of(exec));
        auto const placed = ts::place(exec, ts::linear{table});
        guarded<float> y(5, n, 2);
        ts::embedding(exec, placed.view(), ts::vector_view<std::int32_t const>{ids, 5}, y.view());
        check_close(y.view(), [&](index_t t, index_t k) { return value(index_t{ids[t]}, k); },
                    [](index_t, index_t) { return 0.0; });
        CHECK(y.is_intact());
    });
}

} // namespace

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
    check_table(owner, 6, [&](index_t i, index_t k) { return owner(i, k); });
}

TEST_CASE("rows of block formats") {
    check_blocks<ts::q4_0>(64);
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
