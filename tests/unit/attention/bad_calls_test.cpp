// SPDX-License-Identifier: MIT
// Bad calls of what surrounds `attention` (whose own are in laws_test.cpp): a sentence with both numbers, and nothing written.

#include "attention_support.hpp"
#include "support/message_of.hpp"

#include <tessera/attention/attention_gradient.hpp>
#include <tessera/attention/batch.hpp>
#include <tessera/attention/eviction.hpp>
#include <tessera/attention/merge.hpp>
#include <tessera/attention/normaliser.hpp>
#include <tessera/attention/rerotate.hpp>

#include <doctest/doctest.h>

#include <array>
#include <limits>

namespace {

using namespace attention_tests;
using tessera_test::message_of;

ts::reference const exec; // checks are at the door of every policy

template <class X>
void fill(X& x) {
    std::fill(x.data(), x.data() + x.size(), 7.0f);
}
template <class X>
bool is_untouched(X const& x) {
    return std::all_of(x.data(), x.data() + x.size(), [](float y) { return y == 7.0f; });
}
std::string sentence(char const* operation, char const* rest) { return "tessera: " + std::string{operation} + ": " + rest; }

} // namespace

TEST_CASE("bad calls: where the keys are, and what masks and sinks count") {
    auto const k = random_tensor(5, 2, 8, 1), q = random_tensor(3, 4, 8, 2);
    ts::tensor<float, 3> out(3, 4, 8);
    auto const said = [&](auto const& change, auto const& score) {
        ts::kv_view kv{k.view(), k.view()};
        change(kv);
        fill(out);
        auto const text = message_of([&] { ts::attention(exec, q, kv, out, score); });
        CHECK(is_untouched(out));
        return text;
    };
    auto const nothing = [](auto&) {};
    CHECK(said([](auto& kv) { kv.first_position = -4; }, ts::causal) ==
          sentence("attention", "first position of the keys is -4, expected 0 to 1152921504606846976"));
    CHECK(said([](auto& kv) { kv.tokens_after = -1; }, ts::causal) ==
          sentence("attention", "tokens after the keys is -1, expected 0 to 1152921504606846976"));
    CHECK(said(nothing, ts::keys_before{std::numeric_limits<index_t>::min()}) ==
          sentence("attention", "count of keys_before is -9223372036854775808, expected at least 0"));
    float numbers[4] = {};
    index_t const none[] = {0};
    ts::vector_view<float> const one_for_all{numbers, ts::vector_view<float>::mapping_type{ts::dynamic_extents<1>{4}, none}};
    CHECK(said(nothing, ts::sinks{ts::vector_view<float const>{numbers, 4}, one_for_all}) ==
          sentence("attention", "stride of the gradients of sinks is 0, expected at least 1"));
}

TEST_CASE("bad calls: attention_batch") {
    std::array<ts::kv_view<float, float>, 2> caches;
    auto const k = random_tensor(5, 2, 8, 1), v = random_tensor(5, 2, 6, 2), odd = random_tensor(5, 1, 8, 1), odd_v = random_tensor(5, 1, 6, 1);
    caches = {ts::kv_view{k.view(), v.view()}, ts::kv_view{k.view(), v.view()}};
    auto q = random_tensor(4, 4, 8, 3);
    ts::tensor<float, 3> out(4, 4, 6), short_out(3, 4, 6), wide(4, 4, 8);
    ts::matrix<float> lse(4, 4), short_lse(3, 4);
    auto const message = [&](std::vector<std::int32_t> const& offsets, auto const& query, auto const& kv, auto& to, auto& l) {
        fill(to);
        fill(l);
        ts::vector_view<std::int32_t const> const begins{offsets.data(), static_cast<index_t>(offsets.size())};
        auto const said = message_of([&] { ts::attention_batch(exec, query, begins, kv, to, ts::causal, l); });
        CHECK((is_untouched(to) && is_untouched(l)));
        return said;
    };
    char const* const name = "attention_batch";
    CHECK(message({0, 4}, q, caches, out, lse) == sentence(name, "number of offsets is 2, expected 3 (number of requests plus one)"));
    CHECK(message({1, 2, 4}, q, caches, out, lse) == sentence(name, "first offset is 1, expected 0 (where the first request begins)"));
    CHECK(message({0, 2, 3}, q, caches, out, lse) == sentence(name, "last offset is 3, expected 4 (tokens of q)"));
    CHECK(message({0, 5, 4}, q, caches, out, lse) == sentence(name, "an offset is 5, expected 0 to 4"));
    CHECK(message({0, 2, 4}, q, caches, short_out, lse) == sentence(name, "tokens of out is 3, expected 4 (tokens of q)"));
    CHECK(message({0, 2, 4}, q, caches, out, short_lse) == sentence(name, "rows of log_sum_exp is 3, expected 4 (heads of q)"));
    CHECK(message({0, 2, 4}, q, caches, wide, lse) == sentence(name, "head_dim of out is 8, expected 6 (head_dim of the values)"));
    auto const other = std::array{caches[0], ts::kv_view{odd.view(), odd_v.view()}};
    CHECK(message({0, 2, 4}, q, other, out, lse) == sentence(name, "KV heads of a request is 1, expected 2 (KV heads of the first)"));
    auto const narrow = random_tensor(4, 4, 7, 3), three = random_tensor(4, 3, 8, 3);
    CHECK(message({0, 2, 4}, narrow, caches, out, lse) == sentence(name, "head_dim of q is 7, expected 8 (head_dim of the keys)"));
    ts::tensor<float, 3> three_out(4, 3, 6);
    CHECK(message({0, 2, 4}, three, caches, three_out, short_lse) == sentence(name, "heads of q is 3, expected a multiple of 2"));
    std::int32_t const good[] = {0, 2, 4};
    CHECK(message_of([&] {
              ts::attention_batch(exec, q, ts::vector_view<std::int32_t const>{good, 3}, caches, ts::slice(q.view(), ts::all, ts::all, ts::range{0, 6}));
          }).find("overlaps out") != std::string::npos);
}

TEST_CASE("bad calls: merge_attention") {
    ts::tensor<float, 3> const a(3, 2, 4), b(3, 2, 5), c(2, 2, 4);
    ts::matrix<float> const l(2, 3), m(3, 3);
    ts::tensor<float, 3> out(3, 2, 4);
    ts::matrix<float> lse(2, 3), wrong(2, 2);
    auto const message = [&](auto const& x, auto const& x_lse, auto& to_lse) {
        fill(out);
        fill(to_lse);
        auto const said = message_of([&] {
            ts::merge_attention(exec, {a.view(), l.view()}, {x.view(), x_lse.view()}, out.view(), to_lse.view());
        });
        CHECK((is_untouched(out) && is_untouched(to_lse)));
        return said;
    };
    char const* const name = "merge_attention";
    CHECK(message(b, l, lse) == sentence(name, "head_dim of a part is 5, expected 4 (those of out)"));
    CHECK(message(c, l, lse) == sentence(name, "tokens of a part is 2, expected 3 (those of out)"));
    CHECK(message(a, m, lse) == sentence(name, "rows of a log_sum_exp is 3, expected 2 (heads of out)"));
    CHECK(message(a, l, wrong) == sentence(name, "columns of log_sum_exp is 2, expected 3 (tokens of out)"));
}

TEST_CASE("bad calls: attention_mass and attention_gradient") {
    auto const q = random_tensor(4, 4, 8, 1), k = random_tensor(6, 2, 8, 2), v = random_tensor(6, 2, 5, 3), narrow = random_tensor(4, 4, 7, 1);
    ts::kv_view const kv{k.view(), v.view()};
    ts::matrix<float> const lse(4, 4), wrong(4, 3);
    ts::matrix<float> mass(2, 6), heads(4, 6), tokens(2, 5);
    auto const message = [&](auto const& query, auto const& l, auto& m) {
        fill(m);
        auto const said = message_of([&] { ts::attention_mass(exec, query, kv, l, ts::causal, m); });
        CHECK(is_untouched(m));
        return said;
    };
    char const* name = "attention_mass";
    CHECK(message(narrow, lse, mass) == sentence(name, "head_dim of q is 7, expected 8 (head_dim of the keys)"));
    CHECK(message(q, wrong, mass) == sentence(name, "columns of log_sum_exp is 3, expected 4 (tokens of q)"));
    CHECK(message(q, lse, heads) == sentence(name, "rows of mass is 4, expected 2 (KV heads)"));
    CHECK(message(q, lse, tokens) == sentence(name, "columns of mass is 5, expected 6 (tokens of the cache)"));
    name = "attention_gradient";
    ts::tensor<float, 3> const out(4, 4, 5), g(4, 4, 5), short_g(3, 4, 5);
    ts::tensor<float, 3> d_q(4, 4, 8), d_k(6, 2, 8), d_v(6, 2, 5), less(6, 1, 8);
    auto const gradient = [&](auto const& l, auto const& from, auto& to_q, auto& to_k) {
        for (auto* x : {&to_q, &to_k, &d_v}) fill(*x);
        auto const said = message_of([&] { ts::attention_gradient(exec, q, kv, out, l, from, to_q, to_k, d_v, ts::causal); });
        CHECK((is_untouched(to_q) && is_untouched(to_k) && is_untouched(d_v)));
        return said;
    };
    CHECK(gradient(wrong, g, d_q, d_k) == sentence(name, "columns of log_sum_exp is 3, expected 4 (tokens of q)"));
    CHECK(gradient(lse, short_g, d_q, d_k) == sentence(name, "tokens of d_out is 3, expected 4 (tokens of its input)"));
    CHECK(gradient(lse, g, d_k, d_k) == sentence(name, "tokens of d_q is 6, expected 4 (tokens of its input)"));
    CHECK(gradient(lse, g, d_q, less) == sentence(name, "heads of d_k is 1, expected 2 (heads of its input)"));
    auto far = kv;
    far.first_position = std::numeric_limits<index_t>::max();
    auto const refused = [&](auto const& call) { return message_of(call).find(": first position of the keys is 9223372036854775807, ") != std::string::npos; };
    ts::tensor<float, 3> to(4, 4, 5);
    std::int32_t const offsets[] = {0, 4};
    CHECK(refused([&] { ts::attention(exec, q, far, to, ts::causal); }));
    CHECK(refused([&] { ts::attention_batch(exec, q, ts::vector_view<std::int32_t const>{offsets, 2}, std::array{far}, to, ts::causal); }));
    CHECK(refused([&] { ts::attention_mass(exec, q, far, lse, ts::causal, mass); }));
    CHECK(refused([&] { ts::attention_gradient(exec, q, far, out, lse, g, d_q, d_k, d_v, ts::causal); }));
}

TEST_CASE("bad calls: append, pages, policies, rerotate") {
    ts::kv_page_pool<ts::key<float>, ts::value<float>> pool{3, 4, 2, 8};
    ts::paged_sequence kv{pool};
    auto const k = random_tensor(6, 2, 8, 1);
    ts::append(exec, kv, k, k);
    auto const message = [&](auto const& keys, auto const& values) {
        auto const said = message_of([&] { ts::append(exec, kv, keys, values); });
        CHECK((kv.tokens() == 6 && pool.free_pages() == 1));
        return said;
    };
    CHECK(message(random_tensor(1, 3, 8, 1), k) == sentence("append", "heads of k is 3, expected 2 (heads of the cache)"));
    CHECK(message(random_tensor(1, 2, 7, 1), k) == sentence("append", "head_dim of k is 7, expected 8 (key_dim of the cache)"));
    CHECK(message(random_tensor(1, 2, 8, 1), k) == sentence("append", "tokens of v is 6, expected 1 (tokens of k)"));
    CHECK(message(random_tensor(7, 2, 8, 1), random_tensor(7, 2, 8, 1)) == sentence("append", "pages needed is 2, expected 0 to 1"));
    CHECK(message_of([] { ts::kv_page_pool<ts::key<float>, ts::value<float>>{-1, 4, 2, 8}; }).find("pages is -1") != std::string::npos);
    CHECK(message_of([] { ts::kv_page_pool<ts::key<float>, ts::value<float>>{3, 0, 2, 8}; }).find("page_size is 0") != std::string::npos);
    CHECK(message_of([&] { kv.truncate(7); }) == sentence("truncate", "tokens is 7, expected 0 to 6"));
    constexpr index_t most = std::numeric_limits<index_t>::max();
    CHECK(message_of([&] { kv.keep(0, -most); }).find("keep: window is -") != std::string::npos);
    CHECK(message_of([&] { kv.unshare(0, 7); }) == sentence("unshare", "last token is 7, expected 0 to 6"));
    CHECK(message_of([&] { kv.reserve(most); }).find("append: tokens is ") != std::string::npos);
    CHECK(message_of([] { ts::heavy_hitters{2, -1, 1, 1}; }) == sentence("heavy_hitters", "capacity is -1, expected at least 0"));
    CHECK(message_of([] { ts::heavy_hitters{1, most / 2, 1, 1}; }) == sentence("heavy_hitters", "capacity is 4611686018427387903, expected 0 to 68719476736"));
    CHECK(message_of([] { ts::heavy_hitters{most, 1, 1, 1}; }) == sentence("heavy_hitters", "kv_heads is 9223372036854775807, expected 0 to 1048576"));
    CHECK(message_of([] { ts::page_means{2, 8, most}; }).find("page_means: page is ") != std::string::npos);
    CHECK(message_of([&] { kv.drop(0, 3); }) == sentence("drop", "last token is 3, expected a multiple of 4"));

    ts::rope_table const table{4, 8}, wide{4, 10};
    auto const turn = [&](ts::rope_table const& by, index_t shift, index_t first, index_t last) {
        return message_of([&] { ts::rerotate(exec, ts::rope_halves{}, by, shift, kv, first, last); });
    };
    CHECK(turn(table, 4, 0, 6) == sentence("rerotate", "shift is 4, expected -3 to 3"));
    CHECK(turn(table, 1, 0, 7) == sentence("rerotate", "last token is 7, expected 0 to 6"));
    CHECK(turn(table, 1, 5, 4) == sentence("rerotate", "first token is 5, expected 0 to 4"));
    CHECK(turn(wide, 1, 0, 6) == sentence("rerotate", "dims of the table is 10, expected 0 to 8"));
    for (index_t d = 0; d < 8; ++d) CHECK(kv.view().keys(1, kv.view().slot(5), d) == k(5, 1, d));

    auto const q = random_tensor(1, 4, 8, 2), two = random_tensor(2, 4, 8, 2);
    ts::page_means means{2, 8, 4};
    std::vector<std::uint8_t> bytes(8, 9);
    ts::tensor_view<std::uint8_t, 3> const seen{bytes.data(), 4, 1, 2}, few{bytes.data(), 2, 1, 2};
    auto const select = [&](auto const& query, ts::page_budget const& budget, auto const& to) {
        auto const said = message_of([&] { ts::select_pages(query, kv, means, budget, to); });
        CHECK(std::all_of(bytes.begin(), bytes.end(), [](auto b) { return b == 9; }));
        return said;
    };
    CHECK(select(q, {0, 0, 1}, seen) == sentence("select_pages", "whole pages is 0, expected 1 (those of the cache)"));
    means.update(kv);
    ts::page_means moved{2, 8, 4};
    moved.update(kv);
    auto const taken = std::move(moved);
    CHECK((taken.pages() == 1 && moved.pages() == 0)); // NOLINT: what a move leaves
    CHECK(select(two, {0, 0, 1}, seen) == sentence("select_pages", "tokens of q is 2, expected 1 (one step of decoding)"));
    CHECK(select(q, {0, 0, 1}, few) == sentence("select_pages", "rows of seen is 2, expected 4 (heads of q)"));
    CHECK(select(q, {0, -1, 1}, seen) == sentence("select_pages", "window is -1, expected at least 0"));
    ts::heavy_hitters keeper{3, 10, 1, 1}, small{2, 5, 1, 1};
    ts::tensor<float, 3> out(1, 4, 8);
    CHECK(message_of([&] { keeper.attend(exec, q, kv, out, ts::causal); }) ==
          sentence("heavy_hitters", "KV heads of the cache is 2, expected 3 (those at construction)"));
    CHECK(message_of([&] { small.attend(exec, q, kv, out, ts::causal); }) == sentence("heavy_hitters", "tokens of the cache is 6, expected 0 to 5"));
    CHECK(message_of([&] { ts::heavy_hitters{2, 10, 1, 1}.evict(exec, kv); }) ==
          sentence("heavy_hitters", "tokens of the cache is 6, expected 0 (tokens with a score)"));
    CHECK(kv.tokens() == 6);
}
