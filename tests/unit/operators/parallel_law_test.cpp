// SPDX-License-Identifier: MIT
// The law of parallel loops: with chunks dealt to three std::threads that all run at once, every operation gives the bits that
// it gives in one thread. What the thread sanitizer watches: neighbouring chunks never run in one thread, and nothing but the
// operation's own synchronisation orders them.

#include "operator_laws.hpp"

#include <tessera/attention/append.hpp>
#include <tessera/attention/attention.hpp>
#include <tessera/core/thread_pool.hpp>
#include <tessera/nn/activation.hpp>
#include <tessera/nn/embedding.hpp>
#include <tessera/nn/norm.hpp>
#include <tessera/nn/rope.hpp>
#include <tessera/nn/softmax.hpp>
#include <tessera/operators/backward.hpp>

#include <barrier>

using namespace tessera_test;

namespace {

/// A parallel backend: chunk c runs in thread c modulo their number, and no thread starts before all are there.
class dealt {
public:
    dealt(ts::thread_pool& pool, index_t& most_chunks) noexcept : pool_{&pool}, most_chunks_{&most_chunks} {}
    index_t concurrency() const noexcept { return pool_->concurrency(); }
    template <class F>
    void run(index_t chunks, F const& f) const noexcept {
        *most_chunks_ = ts::maximum(*most_chunks_, chunks);
        index_t const threads = concurrency();
        std::barrier<> all_there{threads};
        pool_->run(threads, [&](index_t part, index_t) noexcept {
            all_there.arrive_and_wait();
            for (index_t c = part; c < chunks; c += threads) f(c, part);
        });
    }

private:
    ts::thread_pool* pool_;
    index_t* most_chunks_;
};
static_assert(ts::parallel_backend<dealt>);

/// call(policy, y) writes y (m, n).
template <class Call>
void check_dealt(char const* name, index_t m, index_t n, Call const& call) {
    static ts::thread_pool pool{3};
    CAPTURE(std::string{name});
    guarded<float> expected{m, n};
    guarded<float> y{m, n};
    index_t chunks = 0;
    call(ts::cpu<ts::native_arch, ts::serial>{}, expected.view());
    call(ts::cpu<ts::native_arch, dealt>{dealt{pool, chunks}}, y.view());
    CHECK(chunks >= 3); // the loop was split
    CHECK(same_bits(expected, y));
}

template <class Op>
void check_product(char const* name, Op const& w) {
    for (index_t const m : {1, 5, 150}) {
        CAPTURE(m);
        guarded<float> x{m, w.cols()};
        x.fill(3);
        check_dealt(name, m, w.rows(), [&](auto const& exec, auto const& y) { ts::apply(exec, w, x.view(), y); });
        check_dealt(name, m, w.rows(), [&](auto const& exec, auto const& y) {
            auto const placed = ts::place(exec, w);
            ts::apply(exec, placed, x.view(), y);
        });
    }
}

/// A contiguous matrix as (tokens, heads, dim).
template <class T>
ts::tensor_view<T, 3> heads_of(ts::matrix_view<T> const& y, index_t heads) {
    return ts::tensor_view<T, 3>{y.data_handle(), y.extent(0), heads, y.extent(1) / heads};
}

} // namespace

TEST_CASE("products") {
    auto const q = random_quantized<ts::int4_g32>(201, 330);
    guarded<float> b{201, 70};
    guarded<float> a{70, 330};
    b.fill(1);
    a.fill(2);
    check_product("int8", ts::linear{q, ts::int8_per_group<32>{}});
    check_product("as is, with low rank", ts::linear{q} + ts::low_rank{b.view(), a.view(), 0.5f});
    check_product("transposed", ts::transposed(ts::linear{q}));
    check_product("slices", ts::rows(ts::columns(ts::linear{q}, 3, 320), 1, 200));
}

TEST_CASE("gradients") {
    guarded<float> x{150, 130};
    guarded<float> dy{150, 140};
    guarded<float> b{140, 70};
    guarded<float> a{70, 130};
    x.fill(1);
    dy.fill(2);
    b.fill(3);
    a.fill(4);
    check_dealt("weight", 140, 130, [&](auto const& exec, auto const& dw) { ts::weight_backward(exec, x.view(), dy.view(), dw); });
    guarded<float> other_a{70, 130};
    guarded<float> other_b{140, 70};
    ts::low_rank const w{b.view(), a.view(), 0.5f};
    check_dealt("b", 140, 70, [&](auto const& exec, auto const& db) {
        ts::low_rank_backward(exec, w, x.view(), dy.view(), other_a.view(), db);
    });
    check_dealt("a", 70, 130, [&](auto const& exec, auto const& da) {
        ts::low_rank_backward(exec, w, x.view(), dy.view(), da, other_b.view());
    });
}

TEST_CASE("operations on rows") {
    index_t const m = 70;
    index_t const n = 1030;
    guarded<float> x{m, n};
    guarded<float> other{m, n};
    guarded<float> weights{2, n};
    x.fill(1);
    other.fill(2);
    weights.fill(3);
    auto const weight = ts::slice(std::as_const(weights).view(), 0, ts::all);
    auto const bias = ts::slice(std::as_const(weights).view(), 1, ts::all);
    ts::vector<float> dweight(n);
    ts::vector<float> dbias(n);
    auto const law = [&](char const* name, auto const& call) { check_dealt(name, m, n, call); };
    law("rms_norm", [&](auto const& exec, auto const& y) { ts::rms_norm(exec, x.view(), weight, 1e-5f, y); });
    law("layer_norm", [&](auto const& exec, auto const& y) { ts::layer_norm(exec, x.view(), weight, bias, 1e-5f, y); });
    law("rms_norm_backward", [&](auto const& exec, auto const& y) {
        ts::rms_norm_backward(exec, x.view(), weight, 1e-5f, other.view(), y, dweight);
        for (index_t k = 0; k < n; ++k) y(0, k) = dweight.data()[k];
    });
    law("layer_norm_backward", [&](auto const& exec, auto const& y) {
        ts::layer_norm_backward(exec, x.view(), weight, 1e-5f, other.view(), y, dweight, dbias);
        for (index_t k = 0; k < n; ++k) {
            y(0, k) = dweight.data()[k];
            y(1, k) = dbias.data()[k];
        }
    });
    law("softmax", [&](auto const& exec, auto const& y) { ts::softmax(exec, x.view(), y); });
    law("silu", [&](auto const& exec, auto const& y) { ts::silu(exec, x.view(), y); });
    law("swiglu", [&](auto const& exec, auto const& y) { ts::swiglu(exec, x.view(), other.view(), y); });
    law("add", [&](auto const& exec, auto const& y) { ts::add(exec, x.view(), other.view(), y); });
    auto const table = random_quantized<ts::int4_g32>(50, n);
    std::vector<std::int32_t> ids(static_cast<std::size_t>(m));
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i * 7 % 50);
    ts::vector_view<std::int32_t const> const which{ids.data(), m};
    law("embedding", [&](auto const& exec, auto const& y) { ts::embedding(exec, table, which, y); });
    law("embedding of placed rows", [&](auto const& exec, auto const& y) {
        auto const placed = ts::place(exec, ts::linear{table});
        ts::embedding(exec, placed.view(), which, y);
    });
}

TEST_CASE("rope, append and attention") {
    index_t const tokens = 300;
    index_t const heads = 6;
    index_t const dim = 40;
    guarded<float> q{tokens, heads * dim};
    guarded<float> k{tokens, 2 * dim};
    q.fill(1);
    k.fill(2);
    auto const queries = heads_of(std::as_const(q).view(), heads);
    auto const keys = heads_of(std::as_const(k).view(), 2);
    ts::rope_table const table{tokens, dim};
    check_dealt("rope", tokens, heads * dim, [&](auto const& exec, auto const& y) {
        ts::rope(exec, ts::rope_halves{}, queries, table, 0, heads_of(y, heads));
    });
    check_dealt("append and prefill", tokens, heads * dim, [&](auto const& exec, auto const& y) {
        ts::kv_cache<ts::key<ts::int8_per_token>, ts::value<ts::fp16>> kv{tokens, 2, dim};
        ts::append(exec, kv, keys, keys);
        ts::attention(exec, queries, kv, heads_of(y, heads), ts::causal);
    });
    guarded<float> many{3000, 2 * dim};
    many.fill(3);
    auto const long_keys = heads_of(std::as_const(many).view(), 2);
    check_dealt("decode", 1, heads * dim, [&](auto const& exec, auto const& y) {
        ts::attention(exec, ts::slice(queries, ts::range{0, 1}, ts::all, ts::all), long_keys, long_keys, heads_of(y, heads), ts::causal);
    });
}
