// SPDX-License-Identifier: MIT
// y may not share memory with anything that a product reads: x, a bias, a shifted residual, any array of any stored matrix.
// A residual that is y itself is the one exception. Where memory is shared, nothing is written.

#include "cases/guarded.hpp"

#include <doctest/doctest.h>

#include <tessera/operators/place.hpp>
#include <tessera/operators/apply.hpp>
#include <tessera/storage/blocked.hpp>
#include <tessera/storage/quantized.hpp>

#include <cstring>
#include <string>
#include <vector>

using namespace tessera_test;

namespace {

ts::cpu<ts::native_arch, ts::serial> const exec;

ts::matrix<float> ones(index_t m, index_t n) {
    ts::matrix<float> result(m, n);
    for (index_t i = 0; i < result.size(); ++i) result.data()[i] = 1.0f;
    return result;
}

/// y = finish(x Wᵀ) is refused with the sentence, and none of `bytes` from `memory` changes.
template <class Policy, class Op, class Y, class Epilogue = ts::no_epilogue>
void check_refused(Policy const& policy, Op const& w, ts::matrix_view<float const> x, Y const& y, void const* memory,
                   index_t bytes, std::string const& sentence, Epilogue const& finish = {}) {
    std::vector<char> before(static_cast<std::size_t>(bytes));
    std::memcpy(before.data(), memory, before.size());
    CHECK_THROWS_WITH_AS(ts::apply(policy, w, x, y, finish), sentence.c_str(), ts::shape_error);
    CHECK(std::memcmp(before.data(), memory, before.size()) == 0);
}

template <class Policy>
void check_epilogues(Policy const& policy) {
    auto const w = ones(7, 8);
    auto const x = ones(3, 8);
    auto memory = ones(5, 7);
    ts::matrix_view<float> const y{memory.data(), 3, 7};
    auto const refused = [&](auto const& finish, char const* sentence) {
        check_refused(policy, ts::linear{w}, x, y, memory.data(), memory.size() * 4, sentence, finish);
    };
    ts::vector_view<float const> const inside{memory.data() + 14, 7};
    ts::vector_view<float const> const behind{memory.data() + 21, 7};
    refused(ts::bias{inside}, "tessera: apply: the bias (28 bytes) overlaps y (84 bytes)");
    refused(ts::relu{} | ts::bias{behind} | ts::bias{inside}, "tessera: apply: the bias (28 bytes) overlaps y (84 bytes)");
    char const* const residual = "tessera: apply: the residual (84 bytes) overlaps y (84 bytes)";
    refused(ts::residual{ts::matrix_view<float>{memory.data() + 7, 3, 7}}, residual);
    refused(ts::residual{ts::matrix_view<float>{memory.data() + 1, 3, 7}} | ts::relu{}, residual);
    index_t const packed[] = {3, 1};
    using mapping = ts::matrix_view<float>::mapping_type;
    refused(ts::bias{behind} | ts::residual{ts::matrix_view<float>{memory.data(), mapping{ts::dynamic_extents<2>{3, 7}, packed}}},
            "tessera: apply: the residual (52 bytes) overlaps y (84 bytes)");
    // The same place, but not the same type.
    ts::matrix_view<ts::fp16> const narrow{reinterpret_cast<ts::fp16*>(memory.data()), 3, 7};
    check_refused(policy, ts::linear{w}, x, narrow, memory.data(), memory.size() * 4,
                  "tessera: apply: the residual (84 bytes) overlaps y (42 bytes)", ts::residual{y});
    // In place, and beside each other, is as it was: 8 + 1 + 1.
    ts::apply(policy, ts::linear{w}, x.view(), y, ts::bias{behind} | ts::residual{y});
    for (index_t i = 0; i < 21; ++i) CHECK(memory.data()[i] == 10.0f);
    for (index_t i = 21; i < 35; ++i) CHECK(memory.data()[i] == 1.0f);
}

template <class Policy>
void check_columns_of_one_matrix(Policy const& policy) {
    auto whole = ones(7, 8 + 8 + 7 + 7);
    ts::matrix_view<float> const all = whole.view();
    auto const x = ts::rows(ts::columns(all, 0, 8), 0, 3);
    auto const w = ts::columns(all, 8, 16);
    auto const r = ts::rows(ts::columns(all, 16, 23), 0, 3);
    auto const y = ts::rows(ts::columns(all, 23, 30), 0, 3);
    ts::apply(policy, ts::linear{w}, x, y, ts::residual{r});
    for (index_t i = 0; i < 7; ++i)
        for (index_t k = 0; k < 30; ++k) CHECK(all(i, k) == (i < 3 && k >= 23 ? 9.0f : 1.0f));
    auto const shifted = ts::rows(ts::columns(all, 22, 29), 0, 3);
    check_refused(policy, ts::linear{w}, x, shifted, whole.data(), whole.size() * 4,
                  "tessera: apply: the residual (268 bytes) overlaps y (268 bytes)", ts::residual{r});
    check_refused(policy, ts::linear{w}, x, ts::rows(ts::columns(all, 7, 14), 3, 6), whole.data(), whole.size() * 4,
                  "tessera: apply: the operator (752 bytes) overlaps y (268 bytes)");
}

/// y over every array of the operator; `arrays` are (pointer, bytes of the array) of 28 bytes at least.
template <class Op>
void check_arrays(Op const& w, std::vector<std::pair<void const*, index_t>> const& arrays) {
    auto const x = ones(1, w.cols());
    for (auto const& [data, bytes] : arrays) {
        ts::matrix_view<float> const y{const_cast<float*>(static_cast<float const*>(data)), 1, w.rows()};
        std::string const sentence = "tessera: apply: the operator (" + std::to_string(bytes) + " bytes) overlaps y (" +
                                     std::to_string(4 * w.rows()) + " bytes)";
        check_refused(exec, w, x, y, data, bytes, sentence);
        check_refused(ts::reference{}, w, x, y, data, bytes, sentence);
        ts::workspace_scope scope{exec.scratch()};
        auto const prepared = ts::prepare(exec, scope, x.view(), w);
        CHECK_THROWS_WITH_AS(ts::apply(exec, w, prepared, y), sentence.c_str(), ts::shape_error);
    }
}

} // namespace

TEST_CASE("bias and residual") {
    check_epilogues(exec);
    check_epilogues(ts::reference{});
}

TEST_CASE("columns of one matrix do not overlap") {
    check_columns_of_one_matrix(exec);
    check_columns_of_one_matrix(ts::reference{});
}

TEST_CASE("every array of a stored matrix") {
    ts::quantized_tensor<ts::uint4_g32> q{7, 128};
    ts::linear const w{q, ts::int8_per_group<32>{}};
    std::vector<std::pair<void const*, index_t>> const arrays = {{q.codes(), 448}, {q.scales(), 56}, {q.zero_points(), 28}};
    check_arrays(w, arrays);
    check_arrays(ts::linear{q}, arrays);
    auto const dense = ones(7, 128);
    auto const b = ones(7, 2);
    auto const a = ones(2, 128);
    check_arrays(ts::linear{dense}, {{dense.data(), 3584}});
    check_arrays(ts::linear{dense} + w, {{dense.data(), 3584}, {q.scales(), 56}});
    check_arrays(w + 2.0f * ts::low_rank{b, a}, {{b.data(), 56}, {a.data(), 1024}, {q.codes(), 448}});
    check_arrays(ts::columns(ts::rows(w, 0, 7), 0, 128), arrays);
    check_arrays(ts::rows(ts::transposed(ts::linear{q}), 3, 10), arrays);
    std::vector<ts::q4_0::block> blocks(14);
    check_arrays(ts::linear{ts::blocked<ts::q4_0>{blocks.data(), 7, 64}}, {{blocks.data(), 14 * 18}});
    check_arrays(ts::linear{ts::blocked<ts::q4_0>{blocks.data(), 7, 32, 2}}, {{blocks.data(), 13 * 18}});
    auto const placed = ts::place(exec, w);
    check_arrays(placed.view(), {{placed.view().storage().data(), placed.bytes()}});
}
