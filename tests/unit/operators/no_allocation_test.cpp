// SPDX-License-Identifier: MIT
// What runs for every token allocates nothing once it has run: with the thread's default workspace the first call of a shape
// grows it, the second may merge its blocks into one, and from then on the count of the whole program stands still; OpenMP's
// threads included.

#include "support/allocation_count.hpp"
#include "operator_laws.hpp"

#include <tessera/attention/append.hpp>
#include <tessera/attention/attention.hpp>
#include <tessera/nn/activation.hpp>
#include <tessera/nn/embedding.hpp>
#include <tessera/nn/norm.hpp>
#include <tessera/nn/rope.hpp>
#include <tessera/nn/softmax.hpp>
#include <tessera/operators/backward.hpp>
#include <tessera/sampling/sampler.hpp>

using namespace tessera_test;

namespace {

ts::cpu<> const exec;

template <class Call>
void check_steady(char const* name, Call const& call) {
    call();
    call();
    long const before = allocation_count();
    call();
    long const after = allocation_count();
    CAPTURE(std::string{name});
    CHECK(after - before == 0);
}

/// Canonical and placed, for one row and for many, also from a prepared x.
template <class Op>
void check_product(char const* name, Op const& w) {
    auto const placed = ts::place(exec, w);
    for (index_t const m : {1, 40}) {
        guarded<float> x{m, w.cols()};
        guarded<float> y{m, w.rows()};
        x.fill(1);
        check_steady(name, [&] { ts::apply(exec, w, x.view(), y.view()); });
        check_steady(name, [&] { ts::apply(exec, placed, x.view(), y.view(), ts::relu{}); });
        check_steady(name, [&] {
            ts::workspace_scope scope{exec.scratch()};
            auto const shared = ts::prepare(exec, scope, x.view(), placed.view());
            ts::apply(exec, placed.view(), shared, y.view());
            ts::apply(exec, placed.view(), shared, y.view());
        });
    }
}

template <class Format, class Layout>
void check_attention(char const* name) {
    index_t const dim = 64;
    ts::kv_cache<ts::key<Format>, ts::value<Format>, Layout> kv{700, 3, dim};
    guarded<float> q{600, 9 * dim};
    guarded<float> out{600, 9 * dim};
    q.fill(1);
    auto const rows = [&](guarded<float>& g, index_t tokens, index_t heads) {
        return ts::tensor_view<float, 3>{g.view().data_handle(), tokens, heads, dim};
    };
    // A prompt, and then token after token.
    check_steady(name, [&] {
        kv.clear();
        ts::append(exec, kv, rows(q, 600, 3), rows(q, 600, 3));
        ts::attention(exec, rows(q, 600, 9), kv, rows(out, 600, 9), ts::causal);
    });
    check_steady(name, [&] {
        ts::append(exec, kv, rows(q, 1, 3), rows(q, 1, 3));
        ts::attention(exec, rows(q, 1, 9), kv, rows(out, 1, 9), ts::causal);
    });
}

} // namespace

TEST_CASE("the counter counts") {
    long const before = allocation_count();
    delete new int; // may be left out
    void* volatile const p = ::operator new(1);
    ::operator delete(p);
    CHECK(allocation_count() > before);
}

TEST_CASE("products") {
    auto const q = random_quantized<ts::int4_g32>(201, 130);
    blocked_storage<ts::q4_1> const blocks{64, 96};
    dense_storage_of<ts::bf16> const dense{70, 65};
    guarded<float> b{201, 6};
    guarded<float> a{6, 130};
    b.fill(1);
    a.fill(2);
    check_product("int4, as is", ts::linear{q});
    check_product("int4, int8 per token", ts::linear{q, ts::int8_per_token{}});
    check_product("int4, int8 per group, low rank", ts::linear{q, ts::int8_per_group<32>{}} + ts::low_rank{b.view(), a.view(), 0.5f});
    check_product("q4_1", ts::linear{blocks.view(), ts::int8_per_group<32>{}});
    check_product("bf16", ts::linear{dense.view()});
    check_product("transposed", ts::transposed(ts::linear{q}));
    check_product("slices", ts::rows(ts::columns(ts::linear{q}, 3, 120), 1, 90));
}

TEST_CASE("gradients") {
    guarded<float> x{40, 30}, dy{40, 20}, b{20, 4}, a{4, 30}, dw{20, 30}, da{4, 30}, db{20, 4};
    x.fill(1);
    dy.fill(2);
    b.fill(3);
    a.fill(4);
    check_steady("weight", [&] { ts::weight_backward(exec, x.view(), dy.view(), dw.view()); });
    check_steady("low rank", [&] {
        ts::low_rank_backward(exec, ts::low_rank{b.view(), a.view()}, x.view(), dy.view(), da.view(), db.view());
    });
}

TEST_CASE("append and attention") {
    check_attention<float, ts::contiguous>("float");
    check_attention<ts::fp16, ts::contiguous>("fp16");
    check_attention<ts::int8_per_token, ts::contiguous>("int8");
    check_attention<ts::int8_per_token, ts::ring>("int8 in a ring");
}

TEST_CASE("operations on rows, and the sampler") {
    for (index_t const m : {1, 60}) {
        index_t const n = 576;
        guarded<float> x{m, n}, other{m, n}, y{m, n}, weights{1, n};
        x.fill(1);
        other.fill(2);
        weights.fill(3);
        auto const weight = ts::slice(std::as_const(weights).view(), 0, ts::all);
        auto const heads = [&](guarded<float>& g) { return ts::tensor_view<float, 3>{g.view().data_handle(), m, 9, 64}; };
        ts::vector<float> dweight(n);
        ts::rope_table const table{64, 64};
        check_steady("rms_norm", [&] { ts::rms_norm(exec, x.view(), weight, 1e-5f, y.view()); });
        check_steady("layer_norm", [&] { ts::layer_norm(exec, x.view(), weight, weight, 1e-5f, y.view()); });
        check_steady("rms_norm_backward",
                     [&] { ts::rms_norm_backward(exec, x.view(), weight, 1e-5f, other.view(), y.view(), dweight); });
        check_steady("softmax", [&] { ts::softmax(exec, x.view(), y.view()); });
        check_steady("swiglu", [&] { ts::swiglu(exec, x.view(), other.view(), y.view()); });
        check_steady("add", [&] { ts::add(exec, x.view(), other.view(), y.view()); });
        check_steady("rope", [&] { ts::rope(exec, ts::rope_halves{}, heads(x), table, 0, heads(y)); });
        auto const q = random_quantized<ts::int4_g32>(50, n);
        auto const placed = ts::place(exec, ts::linear{q});
        std::vector<std::int32_t> const ids(static_cast<std::size_t>(m), 7);
        check_steady("embedding", [&] {
            ts::embedding(exec, placed.view(), ts::vector_view<std::int32_t const>{ids.data(), m}, y.view());
        });
        ts::sampling_options options;
        options.temperature = 0.8f;
        options.top_p = 0.9f;
        ts::sampler const sample{options};
        ts::vector_view<float const> const logits{&x.view()(0, 0), n};
        check_steady("sampler", [&] { static_cast<void>(sample(exec, logits, 3)); });
    }
}
