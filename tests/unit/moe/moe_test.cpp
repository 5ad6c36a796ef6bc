// SPDX-License-Identifier: MIT
// Mixtures: against the reference over shapes, against the composition of their steps bit for bit, any number of threads, and
// without allocation once the workspace is reserved.

#include "moe_support.hpp"
#include "support/allocation_count.hpp"

using namespace moe_test;

namespace {

using int4 = ts::linear<ts::quantized<ts::int4_g32>, ts::int8_per_group<32>>;
using int4_unit = ts::gated_expert<int4>;

/// Experts of quantised matrices.
struct int4_weights {
    ts::matrix<float> router;
    std::vector<ts::quantized_tensor<ts::int4_g32>> owners;
    std::vector<int4_unit> units;

    int4_weights(index_t experts, index_t h, index_t f, index_t n) : router{random_weights(experts, h, 5)} {
        owners.reserve(static_cast<std::size_t>(3 * experts));
        std::uint64_t seed = 100;
        auto const one = [&](index_t rows, index_t columns) {
            owners.push_back(ts::quantize<ts::int4_g32>(random_weights(rows, columns, ++seed)));
            return int4{owners.back().view()};
        };
        for (index_t e = 0; e < experts; ++e) {
            auto const gate = one(f, h);
            auto const up = one(f, h);
            units.emplace_back(gate, up, one(n, f));
        }
    }
};

template <class Policy, class Block>
void check_without_allocation(Policy const& policy, Block const& block, guarded<float> const& x, guarded<float>& y) {
    policy.reserve(ts::workspace_bytes(policy, block, x.view()));
    long const before = tessera_test::allocation_count();
    ts::apply(policy, block, x.view(), y.view());
    CHECK(tessera_test::allocation_count() == before);
}

/// The same bits by one and more threads of both backends, nothing allocated.
template <class Block>
void check_threads(Block const& block, index_t width, index_t n, std::initializer_list<index_t> token_counts) {
    for (index_t const tokens : token_counts) {
        CAPTURE(tokens);
        guarded<float> x{tokens, width};
        x.fill(3);
        guarded<float> expected{tokens, n};
        guarded<float> y{tokens, n};
        ts::workspace scratch;
        check_without_allocation(ts::cpu<ts::native_arch, ts::serial>{scratch}, block, x, expected);
        for (int const count : {1, 2, 3}) {
            CAPTURE(count);
            ts::thread_pool pool{count};
            ts::workspace pool_scratch;
            y.clear();
            check_without_allocation(ts::cpu<ts::native_arch, ts::threads>{ts::threads{pool}, pool_scratch}, block, x, y);
            CHECK(same_bits(expected, y));
        }
        ts::workspace other;
        y.clear();
        check_without_allocation(ts::cpu<>{other}, block, x, y);
        CHECK(same_bits(expected, y));
    }
}

} // namespace

TEST_CASE("mixtures of gated units are the reference's, over shapes") {
    double worst = 0;
    for (auto const& [experts, k] : std::vector<std::pair<index_t, index_t>>{{1, 1}, {3, 1}, {3, 2}, {3, 3}, {7, 5}, {8, 2}}) {
        dense_weights const w{experts, 37, 23, 29};
        auto const units = w.units();
        for (index_t const tokens : {0, 1, 2, 17}) {
            CAPTURE(experts);
            CAPTURE(k);
            CAPTURE(tokens);
            guarded<float> x{tokens, 37, tokens % 3, 1 + tokens % 2};
            x.fill(7);
            ts::moe const plain{ts::top_k_router{w.router, k, ts::softmax_gate{}}, units};
            worst = std::fmax(worst, check_mixture(plain, x.view()));
            ts::moe const shared{ts::top_k_router{w.router, k, ts::renormalized{ts::sigmoid_gate{2.5f}}}, units,
                                 ts::gated_shared_expert{w.unit(experts), dense{w.shared_weight.view()}}};
            worst = std::fmax(worst, check_mixture<tessera_test::archs_by_width>(shared, x.view()));
        }
    }
    MESSAGE("worst error / tolerance " << worst);
}

TEST_CASE("mixtures with many rows, of linear operators, and of widths 0 and 1") {
    dense_weights const w{3, 40, 50, 33};
    auto const units = w.units();
    guarded<float> x{150, 40};
    x.fill(11);
    double worst = check_mixture(ts::moe{ts::top_k_router{w.router, 2, ts::top_k_softmax_gate{}}, units,
                                         ts::shared_expert{w.unit(3)}},
                                 x.view());
    std::vector<dense> const operators{dense{w.gate[0].view()}, dense{w.gate[1].view()}, dense{w.gate[2].view()}};
    worst = std::fmax(worst, check_mixture(ts::moe{ts::top_k_router{w.router, 2, ts::softmax_gate{0.5f}}, operators}, x.view()));
    for (auto const& [h, f, n] : std::vector<std::tuple<index_t, index_t, index_t>>{{1, 1, 1}, {5, 0, 3}, {0, 4, 2}, {3, 2, 0}}) {
        dense_weights const small{3, h, f, n};
        auto const few = small.units();
        guarded<float> narrow{4, h};
        narrow.fill(2);
        worst = std::fmax(worst, check_mixture(ts::moe{ts::top_k_router{small.router, 2, ts::softmax_gate{}}, few}, narrow.view()));
    }
    MESSAGE("worst error / tolerance " << worst);
}

TEST_CASE("all tokens to one expert; empty experts cost nothing and change nothing") {
    dense_weights const w{5, 16, 12, 16};
    auto const units = w.units();
    ts::vector<float> bias(5);
    bias(3) = 10.0f;
    ts::moe const one{ts::top_k_router{w.router, 1, ts::renormalized{ts::sigmoid_gate{bias}}}, units};
    for (index_t const tokens : {1, 40}) {
        guarded<float> x{tokens, 16};
        x.fill(1);
        ts::vector<index_t> counts(5);
        guarded<float> y{tokens, 16};
        auto const report = ts::apply(ts::cpu<>{}, one, x.view(), y.view(), counts.view());
        CHECK(counts(3) == tokens);
        CHECK(report.used == 1);
        CHECK(report.largest == tokens);
        CHECK(report.entropy == 0.0);
        CHECK(report.imbalance() == 5.0);
        CHECK(ts::apply(ts::cpu<>{}, one, x.view(), y.view(), {}).largest == tokens); // no details
        CHECK(ts::apply(ts::cpu<>{}, one, x.view(), y.view(), counts).largest == tokens); // the owner of the counts
        CHECK(ts::apply(ts::reference{}, one, x.view(), y.view(), {counts.view(), {}, {}}).largest == tokens);
        check_mixture(one, x.view());
    }
}

TEST_CASE("with k = E and equal gates the mixture is the mean of its experts") {
    dense_weights w{4, 16, 12, 9};
    for (index_t i = 0; i < w.router.size(); ++i) w.router.data()[i] = 0.0f;
    auto const units = w.units();
    guarded<float> x{6, 16};
    x.fill(4);
    ts::moe const all{ts::top_k_router{w.router, 4, ts::softmax_gate{}}, units};
    for_each_cpu<tessera_test::best_arch>([&](auto const& exec) {
        ts::matrix<float> y(6, 9);
        auto const report = ts::apply(exec, all, x.view(), y.view());
        CHECK(report.entropy == doctest::Approx(2.0));
        CHECK(report.imbalance() == 1.0);
        for (index_t t = 0; t < 6; ++t) {
            bounded_row const input{row_of<float>(x.view(), t), row_of_doubles(16, 0.0)};
            row_of_doubles mean(9, 0.0), error(9, 0.0);
            for (auto const& unit : units) {
                bounded_row const d = expert_row(unit, input);
                for (std::size_t n = 0; n < 9; ++n) {
                    mean[n] += d.value[n] / 4;
                    error[n] += d.error[n] / 4 + gamma_of(12) * std::abs(d.value[n]) / 4;
                }
            }
            for (index_t n = 0; n < 9; ++n)
                CHECK(std::abs(double{y(t, n)} - mean[static_cast<std::size_t>(n)]) <= error[static_cast<std::size_t>(n)]);
        }
    });
    // Ties go to the smaller index.
    ts::matrix<std::int32_t> index(6, 2);
    ts::matrix<float> weight(6, 2);
    ts::route(ts::cpu<>{}, ts::top_k_router{w.router, 2, ts::softmax_gate{}}, x.view(), index, weight);
    for (index_t t = 0; t < 6; ++t) {
        CHECK(index(t, 0) == 0);
        CHECK(index(t, 1) == 1);
    }
}

TEST_CASE("INT4 experts: bit for bit the composition of the steps") {
    int4_weights const w{6, 130, 67, 70};
    for_each_cpu<tessera_test::all_archs>([&](auto const& exec) {
        CAPTURE(std::string{exec.arch().name});
        for (index_t const tokens : {1, 2, 19, 120}) {
            CAPTURE(tokens);
            ts::top_k_router const router{w.router, 3, ts::renormalized{ts::softmax_gate{}}};
            ts::moe const block{router, w.units};
            guarded<float> x{tokens, 130};
            x.fill(8);
            guarded<float> expected{tokens, 70}, y{tokens, 70}, again{tokens, 70};
            compose(exec, router, w.units, x.view(), expected.view());
            ts::apply(exec, block, x.view(), y.view());
            CHECK(same_bits(expected, y));
            auto const ready = ts::place(exec, block);
            ts::apply(exec, ready, x.view(), again.view());
            CHECK(same_bits(expected, again));
        }
    });
}

TEST_CASE("other experts: a sum with a low-rank term, x and y in half precision") {
    dense_weights const w{4, 24, 20, 18};
    auto const b = random_weights(20, 3, 50);
    auto const a = random_weights(3, 24, 51);
    auto const adapted = [&](auto const& m) { return dense{m.view()} + ts::low_rank{b, a, 0.5f}; };
    using adapted_op = decltype(adapted(w.gate[0]));
    std::vector<ts::gated_expert<adapted_op, dense, dense>> units;
    for (std::size_t e = 0; e < 4; ++e) units.emplace_back(adapted(w.gate[e]), dense{w.up[e].view()}, dense{w.down[e].view()});
    ts::top_k_router const router{w.router, 2, ts::softmax_gate{}};
    ts::moe const block{router, units};
    for (index_t const tokens : {1, 30}) {
        guarded<float> x{tokens, 24};
        x.fill(8);
        CHECK(check_mixture(block, x.view()) <= 1.0);
        ts::cpu<> const exec;
        guarded<float> expected{tokens, 18}, y{tokens, 18};
        compose(exec, router, units, x.view(), expected.view());
        ts::apply(exec, block, x.view(), y.view());
        CHECK(same_bits(expected, y));
        guarded<ts::bf16> half{tokens, 24}, out{tokens, 18};
        half.fill(8);
        guarded<float> same{tokens, 24};
        for (index_t t = 0; t < tokens; ++t)
            for (index_t c = 0; c < 24; ++c) same.view()(t, c) = static_cast<float>(half.view()(t, c));
        ts::apply(exec, block, same.view(), y.view());
        ts::apply(exec, block, half.view(), out.view());
        for (index_t t = 0; t < tokens; ++t)
            for (index_t n = 0; n < 18; ++n) CHECK(out.view()(t, n) == static_cast<ts::bf16>(y.view()(t, n)));
    }
    check_threads(block, 24, 18, {1, 30});
}

TEST_CASE("any number of threads, nothing allocated") {
    int4_weights const w{9, 130, 67, 70};
    ts::moe const block{ts::top_k_router{w.router, 4, ts::renormalized{ts::softmax_gate{}}}, w.units,
                        ts::shared_expert{w.units[0]}};
    check_threads(block, 130, 70, {0, 1, 5, 150});
    check_threads(ts::place(ts::cpu<>{}, block), 130, 70, {1, 150});
    guarded<float> x{3, 130};
    x.fill(1);
    guarded<float> y{3, 70};
    ts::workspace scratch;
    check_without_allocation(ts::reference{scratch}, block, x, y);
}

TEST_CASE("NaN in a token stays in its row") {
    dense_weights const w{4, 16, 12, 9};
    auto const units = w.units();
    ts::moe const block{ts::top_k_router{w.router, 2, ts::softmax_gate{}}, units};
    guarded<float> x{3, 16}, y{3, 9};
    x.fill(4);
    x.view()(1, 5) = std::numeric_limits<float>::quiet_NaN();
    auto const check = [&](auto const& exec) {
        ts::apply(exec, block, x.view(), y.view());
        for (index_t n = 0; n < 9; ++n) {
            CHECK(std::isfinite(y.view()(0, n)));
            CHECK(std::isnan(y.view()(1, n)));
            CHECK(std::isfinite(y.view()(2, n)));
        }
    };
    check(ts::reference{});
    for_each_cpu<tessera_test::best_arch>(check);
}
