// SPDX-License-Identifier: MIT
// Grouped products have the bits of the operators applied one after another; combine is its formula.

#include "moe_support.hpp"
#include "support/counted_backend.hpp"

using namespace moe_test;

namespace {

/// y by groups and by `apply` on each group's rows, on every policy.
template <class Op>
void check_grouped(std::vector<Op> const& w, std::vector<index_t> const& offsets) {
    std::span<Op const> const family{w};
    index_t const m = offsets.back();
    ts::vector_view<index_t const> const first{offsets.data(), static_cast<index_t>(offsets.size())};
    guarded<float> x{m, w[0].cols(), m % 3, 1 + m % 2};
    x.fill(6);
    auto const check = [&](auto const& exec) {
        guarded<float> y{m, w[0].rows(), 1, 1 + m % 2}, expected{m, w[0].rows()};
        ts::apply_grouped(exec, family, first, x.view(), y.view());
        CHECK(y.is_intact());
        for (std::size_t g = 0; g < w.size(); ++g)
            ts::apply(exec, w[g], ts::rows(x.view(), offsets[g], offsets[g + 1]), ts::rows(expected.view(), offsets[g], offsets[g + 1]));
        CHECK(same_bits(y, expected));
    };
    check(ts::reference{});
    for_each_cpu(check);
    ts::thread_pool pool{3};
    check(ts::cpu<ts::native_arch, ts::threads>{ts::threads{pool}});
    check(ts::cpu<>{});
}

std::vector<std::vector<index_t>> const loads{{0, 0, 0, 0}, {0, 1, 1, 1}, {0, 3, 3, 20}, {0, 0, 0, 150}, {0, 130, 147, 150}, {0, 17, 33, 34}};

} // namespace

TEST_CASE("grouped products: stored matrices of any preparation") {
    std::vector<ts::quantized_tensor<ts::int4_g32>> owners;
    std::vector<ts::matrix<float>> floats;
    for (std::uint64_t g = 0; g < 3; ++g) {
        floats.push_back(random_weights(51, 70, g));
        owners.push_back(ts::quantize<ts::int4_g32>(floats.back()));
    }
    auto const family = [&](auto const& make) {
        using op = std::remove_cvref_t<decltype(make(std::size_t{0}))>;
        return std::vector<op>{make(0), make(1), make(2)};
    };
    for (auto const& offsets : loads) {
        CAPTURE(offsets[3]);
        check_grouped(family([&](std::size_t g) { return dense{floats[g].view()}; }), offsets);
        check_grouped(family([&](std::size_t g) { return ts::linear{owners[g]}; }), offsets);
        check_grouped(family([&](std::size_t g) { return ts::linear{owners[g], ts::int8_per_token{}}; }), offsets);
        check_grouped(family([&](std::size_t g) { return ts::linear{floats[g], ts::as_bf16{}}; }), offsets);
        check_grouped(family([&](std::size_t g) { return ts::transposed(ts::linear{owners[g]}); }), offsets);
    }
}

TEST_CASE("grouped products: sums, products, slices") {
    std::vector<ts::matrix<float>> w, b, a;
    for (std::uint64_t g = 0; g < 3; ++g) {
        w.push_back(random_weights(33, 40, g));
        b.push_back(random_weights(33, 4, 10 + g));
        a.push_back(random_weights(4, 40, 20 + g));
    }
    for (auto const& offsets : loads) {
        auto const family = [&](auto const& make) {
            using op = std::remove_cvref_t<decltype(make(std::size_t{0}))>;
            return std::vector<op>{make(0), make(1), make(2)};
        };
        check_grouped(family([&](std::size_t g) { return dense{w[g].view()} + 2.0f * dense{w[0].view()}; }), offsets);
        check_grouped(family([&](std::size_t g) { return dense{w[g].view()} + ts::low_rank{b[g], a[g], 0.5f}; }), offsets);
        check_grouped(family([&](std::size_t g) { return ts::columns(ts::rows(dense{w[g].view()}, 3, 20), 5, 40); }), offsets);
    }
}

TEST_CASE("combine adds in the order of choices") {
    index_t const tokens = 7, k = 3, experts = 4;
    ts::matrix<std::int32_t> index(tokens, k);
    ts::matrix<float> weight(tokens, k);
    ts::philox const random{3};
    for (index_t i = 0; i < index.size(); ++i) {
        index.data()[i] = static_cast<std::int32_t>(random.bits(static_cast<std::uint64_t>(i)) % 4);
        weight.data()[i] = random.normal(static_cast<std::uint64_t>(100 + i));
    }
    for (index_t const n : {0, 1, 15, 16, 17, 2049}) {
        guarded<float> rows{tokens * k, n, 3};
        rows.fill(2);
        auto const check = [&](auto const& exec) {
            ts::workspace memory;
            ts::workspace_scope scope{memory};
            auto const plan = ts::plan_experts(exec, scope, index.view(), experts);
            guarded<float> y{tokens, n, 1, 1 + n % 2};
            ts::combine(exec, plan, weight.view(), rows.view(), y.view());
            CHECK(y.is_intact());
            for (index_t t = 0; t < tokens; ++t)
                for (index_t c = 0; c < n; ++c) {
                    double sum = 0, size = 0;
                    for (index_t j = 0; j < k; ++j) {
                        double const term = double{weight(t, j)} * double{rows.view()(plan.slot(t, j), c)};
                        sum += term;
                        size += std::abs(term);
                    }
                    if (!(std::abs(double{y.view()(t, c)} - sum) <= gamma_of(k + 1) * size + u * std::abs(sum)))
                        CHECK(double{y.view()(t, c)} == sum);
                }
        };
        check(ts::reference{});
        for_each_cpu(check);
    }
}

TEST_CASE("combine: the order of choices, whatever the plan and the chunks") {
    // Sums whose value is the order: huge - huge + 1 is 1, huge + 1 - huge is 0. Experts are numbered so that the slots of a
    // token's choices ascend for even tokens and descend for odd ones.
    index_t const tokens = 40, k = 3, experts = 6;
    float const huge = 0x1p100f;
    ts::matrix<std::int32_t> index(tokens, k);
    ts::matrix<float> weight(tokens, k);
    for (index_t t = 0; t < tokens; ++t)
        for (index_t j = 0; j < k; ++j) {
            index(t, j) = static_cast<std::int32_t>(t % 2 == 0 ? j : experts - 1 - j);
            weight(t, j) = 1.0f;
        }
    for (index_t const n : {1, 33, 2049}) {
        auto const check = [&](auto const& exec) {
            ts::workspace memory;
            ts::workspace_scope scope{memory};
            auto const plan = ts::plan_experts(exec, scope, index.view(), experts);
            ts::matrix<float> rows(tokens * k, n), y(tokens, n);
            float const terms[2][3] = {{huge, -huge, 1.0f}, {huge, 1.0f, -huge}};
            for (index_t t = 0; t < tokens; ++t)
                for (index_t j = 0; j < k; ++j)
                    for (index_t c = 0; c < n; ++c) rows(plan.slot(t, j), c) = terms[c % 2][j];
            ts::combine(exec, plan, weight, rows, y);
            bool same = true;
            for (index_t t = 0; t < tokens; ++t)
                for (index_t c = 0; c < n; ++c) same = same && y(t, c) == (c % 2 == 0 ? 1.0f : 0.0f);
            CHECK(same);
        };
        check(ts::reference{});
        for_each_cpu(check);
        tessera_test::counted_backend::totals seen;
        check(ts::cpu<ts::native_arch, tessera_test::counted_backend>{tessera_test::counted_backend{&seen}});
    }
}
