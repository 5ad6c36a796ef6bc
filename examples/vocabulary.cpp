// SPDX-License-Identifier: MIT
//
// The whole vocabulary in one page: the five families of the library, and the one line that chooses the machine. What is
// built runs; what is planned (include/tessera/planned.hpp) is named, so that the words fit together from the start.
//
// Output:
//     quantised base + adapter: 16 outputs, all finite
//     the same as any_operator: 16 outputs, all finite
//     2 of 4 + outliers: 41 outliers, 16 outputs, all finite
//     attention over an int8 cache: 8 tokens in the cache, all finite
//     mixture of 4 experts: 2 tokens to 2 experts each, all finite

#include <tessera/dispatch/any_operator.hpp>
#include <tessera/tessera.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

namespace ts = tessera;
using backend = ts::cpu<>; // the only line that changes: ts::reference, later ts::cuda<90>

namespace {

template <class T>
char const* verdict(T const& x) {
    for (ts::index_t i = 0; i < x.size(); ++i)
        if (!std::isfinite(x.data()[i])) return "some not finite";
    return "all finite";
}

// What is built, and what is only named (include/tessera/planned.hpp), is a constant of the program.
using adapted = ts::dora<ts::linear<ts::quantized<ts::nf4_g64>>, ts::low_rank<ts::linear<ts::matrix_view<float const>>, ts::linear<ts::matrix_view<float const>>>>;
static_assert(ts::is_built<adapted>);
static_assert(!ts::is_built<ts::paged<16>>);
static_assert(ts::is_built<ts::low_rank<ts::linear<ts::matrix_view<float const>>, ts::linear<ts::matrix_view<float const>>>>);

} // namespace

int main() {
    backend const exec;
    ts::philox const random{1};
    auto const fill = [&](auto& t) {
        for (ts::index_t i = 0; i < t.size(); ++i) t.data()[i] = random.normal(static_cast<std::uint64_t>(i));
    };

    // Quantizers and low-rank adapters: W = quantised + low rank, multiplied in one pass.
    ts::matrix<float> w{16, 128}, b{16, 4}, a{4, 128}, x{2, 128}, y{2, 16};
    fill(w), fill(b), fill(a), fill(x);
    auto const q = ts::quantize<ts::int4_g128>(w);                                  // w (n, k)
    auto const adapter = ts::low_rank{b, a, /*scale=*/16.f / 4};                    // b (n, r), a (r, k)
    auto const layer = ts::place(exec, ts::linear{q, ts::int8_per_token{}} + adapter);
    ts::apply(exec, layer, x, y);                                                   // y (m, n) = x (m, k) layerᵀ
    std::printf("quantised base + adapter: %d outputs, %s\n", static_cast<int>(y.extent(1)), verdict(y));

    // Without its type: what programs hold whose formats are known at run time.
    auto const any = ts::erase(exec, ts::place(exec, layer.view()));                // owns
    ts::apply(exec, any, x, y);
    std::printf("the same as any_operator: %d outputs, %s\n", static_cast<int>(y.extent(1)), verdict(y));

    // Sparse weights: two of every four in int8, and the largest 2% apart, in the same pass.
    auto const pruned = ts::sparsify<ts::n_of_m<2, 4, ts::int8>>(w);
    auto const outliers = ts::sparsify<ts::csr<ts::fp16>>(w, ts::keep_fraction{0.02});
    auto const sparse = ts::place(exec, ts::linear{pruned} + ts::linear{outliers});
    ts::apply(exec, sparse, x, y);
    std::printf("2 of 4 + outliers: %d outliers, %d outputs, %s\n", static_cast<int>(outliers.nonzeros()),
                static_cast<int>(y.extent(1)), verdict(y));

    // Tiled attention over a quantised cache, with a score of functors.
    ts::tensor<float, 3> query{8, 4, 32}, k{8, 2, 32}, v{8, 2, 32}, out{8, 4, 32};  // (tokens, heads, head_dim)
    fill(query), fill(k), fill(v);
    ts::kv_cache<ts::key<ts::int8_per_token>, ts::value<ts::fp16>, ts::contiguous> kv{64, 2, 32};
    ts::append(exec, kv, k.view(), v.view());                                       // quantises on write
    auto const score = ts::scaled{1.f / std::sqrt(32.f)} | ts::soft_cap{30.f} | ts::causal | ts::window{1024};
    ts::attention(exec, query.view(), kv.view(), out.view(), score);
    std::printf("attention over an int8 cache: %d tokens in the cache, %s\n", static_cast<int>(kv.tokens()), verdict(out));

    // A mixture of experts: a router, any operators of one shape, and what went where.
    ts::matrix<float> w_router{4, 128};                                             // (experts, k)
    fill(w_router);
    std::vector const experts(4, ts::linear{q, ts::int8_per_token{}});
    auto const router = ts::top_k_router{w_router, /*k=*/2, ts::softmax_gate{}};
    auto const report = ts::apply(exec, ts::place(exec, ts::moe{router, experts}), x, y);
    std::printf("mixture of %d experts: %d tokens to %d experts each, %s\n", static_cast<int>(report.experts),
                static_cast<int>(report.tokens), static_cast<int>(report.choices), verdict(y));
}
