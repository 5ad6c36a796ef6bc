// SPDX-License-Identifier: MIT
// Laws of attention: parts merge to the whole, bits do not depend on threads, rows that see nothing are zero, bad calls
// are refused before anything is written.

#include "attention_support.hpp"
#include "support/message_of.hpp"

#include <tessera/attention/attention_mass.hpp>
#include <tessera/attention/mask.hpp>
#include <tessera/attention/merge.hpp>
#include <tessera/core/thread_pool.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace {

using namespace attention_tests;

using tessera_test::message_of;

bool contains(std::string const& text, char const* part) { return text.find(part) != std::string::npos; }

} // namespace

TEST_CASE("attention_state: merging is associative and has a neutral element") {
    // Scores 1, 3, 2 with values 1, 0, 4: output 1.068944, log-sum-exp 3.407606, whatever the grouping.
    float const scores[] = {1, 3, 2};
    float const values[] = {1, 0, 4};
    float storage[4];
    auto const state = [&](int i) {
        storage[i] = values[i];
        return ts::attention_state{&storage[i], 1, scores[i], 1};
    };
    auto const check = [](ts::attention_state const& s) {
        CHECK(s.output[0] / s.sum == doctest::Approx(1.068944).epsilon(1e-6));
        CHECK(s.maximum + std::log(s.sum) == doctest::Approx(3.407606).epsilon(1e-6));
    };
    storage[3] = 0;
    ts::attention_state left{&storage[3], 1};
    for (int const i : {0, 1, 2}) ts::merge(left, state(i));
    check(left);
    auto right = state(1);
    ts::merge(right, state(2));
    auto whole = state(0);
    ts::merge(whole, right);
    check(whole);
    float nothing = 0;
    ts::merge(whole, ts::attention_state{&nothing, 1});
    check(whole);
    storage[3] = 0;
    ts::attention_state empty{&storage[3], 1};
    ts::merge(empty, ts::attention_state{&nothing, 1});
    CHECK(empty.sum == 0.0f);
    CHECK(empty.maximum == ts::minus_infinity);
}

TEST_CASE("attention over parts of the keys, merged, is attention over all of them") {
    index_t const keys = 300;
    auto const q = random_tensor(20, 4, 32, 1);
    auto const k = random_tensor(keys, 2, 32, 2);
    auto const v = random_tensor(keys, 2, 24, 3);
    for_each_arch([&](auto const& exec) {
        ts::tensor<float, 3> whole(20, 4, 24);
        ts::matrix<float> whole_lse(4, 20);
        ts::attention(exec, q, k, v, whole, ts::full, whole_lse);
        ts::tensor<float, 3> merged(20, 4, 24);
        std::vector<ts::attention_state> states;
        for (index_t i = 0; i < 20 * 4; ++i) states.push_back({merged.data() + i * 24, 24});
        auto const index = [](index_t i, index_t h, index_t d) { return static_cast<std::size_t>((i * 4 + h) * 24 + d); };
        // Parts p with shares e^(lse_p - lse) of the whole: the error of out_p counts by its share, that of lse_p by its share
        // and the distance of out_p from the whole; 3 merges, of a product, a sum and an exponential (2 u) each.
        constexpr double u = ts::unit_roundoff<float>;
        constexpr double merges = ts::gamma(12, u);
        std::vector<double> merged_bound(20 * 4 * 24);
        for (index_t first = 0; first < keys; first += 110) {
            index_t const last = ts::minimum(first + 110, keys);
            ts::tensor<float, 3> part(20, 4, 24);
            ts::matrix<float> lse(4, 20);
            ts::attention(exec, q, ts::slice(k.view(), ts::range{first, last}, ts::all, ts::all),
                          ts::slice(v.view(), ts::range{first, last}, ts::all, ts::all), part, ts::full, lse);
            ts::kv_view const some{ts::slice(k.view(), ts::range{first, last}, ts::all, ts::all),
                                   ts::slice(v.view(), ts::range{first, last}, ts::all, ts::all)};
            for (index_t i = 0; i < 20; ++i)
                for (index_t h = 0; h < 4; ++h) {
                    ts::merge(states[static_cast<std::size_t>(i * 4 + h)],
                              ts::attention_state{&part(i, h, 0), 24, lse(h, i), 1.0f});
                    bound const b = bound_of(q.view(), some, i, h, ts::full);
                    double const distance = std::fabs(double{lse(h, i)} - double{whole_lse(h, i)});
                    double const share = std::exp(double{lse(h, i)} - double{whole_lse(h, i)});
                    double const weight = std::expm1(b.log_sum_exp + u * (std::fabs(lse(h, i)) + distance) + merges);
                    for (index_t d = 0; d < 24; ++d) {
                        double const o = part(i, h, d);
                        double const all = whole(i, h, d);
                        merged_bound[index(i, h, d)] +=
                            share * (b.out[static_cast<std::size_t>(d)] + weight * std::fabs(o - all) +
                                     merges * (std::fabs(o) + std::fabs(all)));
                    }
                }
        }
        for (index_t i = 0; i < 20; ++i)
            for (index_t h = 0; h < 4; ++h) {
                bound const b = bound_of(q.view(), ts::kv_view{k.view(), v.view()}, i, h, ts::full);
                auto const& state = states[static_cast<std::size_t>(i * 4 + h)];
                for (index_t d = 0; d < 24; ++d) {
                    double const error = std::fabs(double{merged(i, h, d)} / double{state.sum} - double{whole(i, h, d)});
                    double const own = b.out[static_cast<std::size_t>(d)];
                    CHECK(error <= own + merged_bound[index(i, h, d)]);
                }
            }
    });
}

namespace {

/// Parts [0, 60), [60, 120) and [120, 130) of a sequence whose last queries ask: each on its own, then merged, is the whole.
template <class Exec, class Score>
void check_parts(Exec const& exec, char const* name, Score const& score) {
    CAPTURE(name);
    index_t const queries = 3, keys = 130;
    auto const q = random_tensor(queries, 4, 16, 1);
    auto const k = random_tensor(keys, 2, 16, 2);
    auto const v = random_tensor(keys, 2, 16, 3);
    ts::tensor<float, 3> whole(queries, 4, 16), merged(queries, 4, 16), part(queries, 4, 16);
    ts::matrix<float> whole_lse(4, queries), merged_lse(4, queries), lse(4, queries), mass(2, keys), part_mass(2, keys);
    ts::attention(ts::reference{}, q, k, v, whole, score, whole_lse);
    std::fill_n(merged_lse.data(), merged_lse.size(), ts::minus_infinity); // nothing yet
    std::fill_n(mass.data(), mass.size(), 0.0f);
    std::fill_n(part_mass.data(), part_mass.size(), 0.0f);
    ts::attention_mass(ts::reference{}, q, ts::kv_view{k.view(), v.view()}, whole_lse, score, mass);
    for (index_t const first : {index_t{0}, index_t{60}, index_t{120}}) {
        index_t const last = ts::minimum(first + 60, keys);
        ts::kv_view some{ts::slice(k.view(), ts::range{first, last}, ts::all, ts::all),
                         ts::slice(v.view(), ts::range{first, last}, ts::all, ts::all)};
        some.first_position = first;
        some.tokens_after = keys - last;
        ts::attention(exec, q, some, part, score, lse);
        ts::merge_attention(exec, {part.view(), lse.view()}, {merged.view(), merged_lse.view()}, merged.view(), merged_lse.view());
        ts::attention_mass(exec, q, some, whole_lse, score, ts::slice(part_mass.view(), ts::all, ts::range{first, last}));
    }
    // Scores of 16 products below 8 in magnitude, exponentials and sums of 130 of them, in float: a relative error of
    // less than (16 * 8 + 130 + 32) u of every weight; the values are below 6.
    double const bound = (16 * 8 + 130 + 32) * ts::unit_roundoff<float> * 6;
    for (index_t i = 0; i < whole.size(); ++i) CHECK(std::fabs(double{merged.data()[i]} - double{whole.data()[i]}) <= bound);
    for (index_t i = 0; i < mass.size(); ++i) CHECK(std::fabs(double{part_mass.data()[i]} - double{mass.data()[i]}) <= bound);
}

} // namespace

TEST_CASE("parts of a sequence under masks that count positions") {
    float const slopes[] = {0.5f, 0.25f, 0.125f, 0.0625f};
    auto const check = [&](auto const& exec) {
        check_parts(exec, "full", ts::full);
        check_parts(exec, "causal", ts::causal);
        check_parts(exec, "window", ts::window{20});
        check_parts(exec, "alibi", ts::alibi{ts::vector_view<float const>{slopes, 4}} | ts::causal);
        check_parts(exec, "chunked", ts::causal | ts::chunked{40});
        check_parts(exec, "soft cap behind a mask", ts::causal | ts::soft_cap{5.0f});
        check_parts(exec, "prefix or a chunk", ts::either(ts::causal | ts::chunked{40}, ts::keys_before{10}));
    };
    check(ts::reference{});
    for_each_arch(check);
}

TEST_CASE("attention gives the same bits on any number of threads") {
    auto const check = [](index_t queries, index_t keys) {
        auto const q = random_tensor(queries, 6, 40, 1);
        auto const k = random_tensor(keys, 2, 40, 2);
        ts::tensor<float, 3> expected(queries, 6, 40);
        ts::attention(ts::cpu{ts::serial{}}, q, k, k, expected, ts::causal);
        for (int const count : {1, 2, 3}) {
            ts::thread_pool pool{count};
            ts::tensor<float, 3> out(queries, 6, 40);
            ts::attention(ts::cpu{ts::threads{pool}}, q, k, k, out, ts::causal);
            CHECK(equal_bits(out, expected));
#if defined(_OPENMP)
            ts::tensor<float, 3> other(queries, 6, 40);
            ts::attention(ts::cpu{ts::openmp{count}}, q, k, k, other, ts::causal);
            CHECK(equal_bits(other, expected));
#endif
        }
    };
    check(1, 3000);
    check(300, 500);
}

TEST_CASE("attention: queries that see nothing are zero, with a log-sum-exp of minus infinity") {
    auto const check = [](auto const& exec) {
        for (index_t const queries : {3, 40})
            for (index_t const keys : {0, 2}) {
                auto const q = random_tensor(queries, 2, 16, 1);
                auto const k = random_tensor(keys, 1, 16, 2);
                ts::tensor<float, 3> out(queries, 2, 16);
                ts::matrix<float> lse(2, queries);
                for (index_t i = 0; i < out.size(); ++i) out.data()[i] = 7.0f;
                ts::attention(exec, q, k, k, out, ts::causal, lse);
                bool correct = true;
                for (index_t i = 0; i < queries - keys; ++i)
                    for (index_t h = 0; h < 2; ++h) {
                        correct = correct && lse(h, i) == ts::minus_infinity;
                        for (index_t d = 0; d < 16; ++d) correct = correct && out(i, h, d) == 0.0f;
                    }
                for (index_t i = queries - keys; i < queries; ++i) correct = correct && std::isfinite(lse(1, i));
                CHECK(correct);
            }
    };
    check(ts::reference{});
    for_each_arch(check);
}

TEST_CASE("attention: one-hot and equal rows, large logits, NaN where it belongs") {
    auto const check = [](auto const& exec) {
        for (index_t const queries : {1, 20}) {
            index_t const keys = 50;
            ts::tensor<float, 3> q(queries, 1, 8), k(keys, 1, 8), out(queries, 1, 8);
            auto const v = random_tensor(keys, 1, 8, 3);
            ts::attention(exec, q, k, v, out, ts::full); // all scores 0: the mean
            double mean = 0;
            for (index_t t = 0; t < keys; ++t) mean += double{v(t, 0, 5)} / keys;
            CHECK(std::fabs(double{out(0, 0, 5)} - mean) <= ts::gamma(keys + 30, 0x1p-24) * 4.0);
            for (index_t i = 0; i < queries; ++i) q(i, 0, 0) = 1e4f;
            k(17, 0, 0) = 1e4f;
            k(18, 0, 0) = -1e4f;
            ts::attention(exec, q, k, v, out, ts::full);
            CHECK(std::fabs(out(0, 0, 5) - v(17, 0, 5)) <= 0x1p-22f * std::fabs(v(17, 0, 5)));
            q(queries - 1, 0, 3) = std::numeric_limits<float>::quiet_NaN();
            ts::attention(exec, q, k, v, out, ts::full);
            CHECK(std::isnan(out(queries - 1, 0, 5)));
            if (queries > 1) CHECK(out(0, 0, 5) == out(1, 0, 5));
        }
    };
    check(ts::reference{});
    for_each_arch(check);
}

TEST_CASE("attention allocates nothing after reserve(workspace_bytes)") {
    for (index_t const queries : {1, 64}) {
        ts::workspace memory;
        ts::cpu const exec{ts::serial{}, memory};
        auto const q = random_tensor(queries, 4, 33, 1);
        auto const k = random_tensor(200, 2, 33, 2);
        ts::tensor<float, 3> out(queries, 4, 33);
        index_t const bytes = ts::workspace_bytes(exec, ts::attention_shape{queries, 4, 2, 33, 33, 200});
        exec.reserve(bytes);
        index_t const before = memory.capacity();
        ts::attention(exec, q, k, k, out, ts::causal);
        CHECK(bytes > 0);
        CHECK(memory.capacity() == before);
    }
}

TEST_CASE("attention refuses bad calls with a sentence and writes nothing") {
    ts::cpu const exec{ts::serial{}};
    ts::tensor<float, 3> q(3, 4, 8), k(5, 2, 8), v(5, 2, 6), out(3, 4, 6);
    out(0, 0, 0) = 7.0f;
    auto const message = [&](auto const& query, auto const& keys, auto const& values, auto& to) {
        return message_of([&] { ts::attention(exec, query, keys, values, to, ts::causal); });
    };
    ts::tensor<float, 3> const narrow(3, 4, 7), odd(3, 3, 8), few(4, 2, 6);
    ts::tensor<float, 3> wide(3, 4, 8), short_out(2, 4, 6);
    CHECK(message(narrow, k, v, out) == "tessera: attention: head_dim of q is 7, expected 8 (head_dim of the keys)");
    CHECK(message(odd, k, v, out) == "tessera: attention: heads of q is 3, expected a multiple of 2");
    CHECK(contains(message(q, k, few, out), "tokens of v is 4, expected 5"));
    CHECK(contains(message(q, k, v, wide), "head_dim of out is 8, expected 6"));
    CHECK(contains(message(q, k, v, short_out), "tokens of out is 2, expected 3"));
    CHECK(contains(message(q, k, k, q), "overlaps out"));
    // Columns of one matrix beside each other share no element.
    ts::matrix<float> const both(3, 64);
    auto const heads = [&](index_t first, index_t dim) {
        index_t const strides[] = {64, dim, 1};
        return ts::tensor_view<float, 3>{const_cast<float*>(both.data()) + first, {{3, 4, dim}, strides}};
    };
    CHECK(message_of([&] { ts::attention(exec, heads(0, 8), k, v, heads(32, 6), ts::causal); }) == "nothing was thrown");
    CHECK(contains(message_of([&] { ts::attention(exec, heads(0, 8), k, v, heads(31, 6), ts::causal); }), "overlaps out"));
    ts::matrix<float> lse(3, 3);
    CHECK(contains(message_of([&] { ts::attention(exec, q, k, v, out, ts::causal, lse); }),
                   "rows of log_sum_exp is 3, expected 4"));
    ts::tensor_view<float, 3> const null{nullptr, 3, 4, 6};
    CHECK(contains(message_of([&] { ts::attention(exec, q, k, v, null, ts::causal); }), "out is null"));
    ts::kv_view<float, float> nothing;
    nothing.tokens = 5;
    nothing.kv_heads = 2;
    nothing.key_dim = 8;
    nothing.value_dim = 6;
    CHECK(message_of([&] { ts::attention(exec, q, nothing, out); }) ==
          "tessera: attention: keys is null but has 80 elements, expected 0 or a pointer");
    nothing.keys = ts::kv_view{k.view(), v.view()}.keys;
    CHECK(message_of([&] { ts::attention(exec, q, nothing, out); }) ==
          "tessera: attention: values is null but has 60 elements, expected 0 or a pointer");
    CHECK(out(0, 0, 0) == 7.0f);
}
