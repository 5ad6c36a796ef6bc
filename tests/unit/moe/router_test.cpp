// SPDX-License-Identifier: MIT
// Gates: the choice against a sort, weights within their bound, ties, groups, values that are not finite; plans against a
// stable sort.

#include "moe_support.hpp"
#include "support/counted_backend.hpp"

#include <numeric>

using namespace moe_test;

namespace {

/// Experts by choice, best first; ties by index; only those of the kept groups.
std::vector<index_t> sorted_choice(std::vector<float> const& choice, index_t groups, index_t kept) {
    auto const experts = static_cast<index_t>(choice.size());
    index_t const size = experts / groups;
    auto const order_of = [](std::vector<float> const& values) {
        std::vector<index_t> order(values.size());
        std::iota(order.begin(), order.end(), index_t{0});
        std::sort(order.begin(), order.end(), [&](index_t a, index_t b) {
            float const x = values[static_cast<std::size_t>(a)];
            float const y = values[static_cast<std::size_t>(b)];
            return x > y || (x == y && a < b);
        });
        return order;
    };
    std::vector<float> rank;
    for (index_t g = 0; g < groups; ++g) {
        std::vector<float> part(choice.begin() + g * size, choice.begin() + (g + 1) * size);
        std::sort(part.begin(), part.end(), std::greater<>{});
        rank.push_back(part.size() > 1 ? part[0] + part[1] : part[0]);
    }
    auto const best = order_of(rank);
    std::vector<index_t> result;
    for (index_t const e : order_of(choice))
        if (std::find(best.begin(), best.begin() + kept, e / size) != best.begin() + kept) result.push_back(e);
    return result;
}

template <class Exec, class Gate>
void check_gate_on(Exec const& exec, Gate const& gate, ts::matrix<float> const& logits, index_t k, double scale_of_bound) {
    index_t const tokens = logits.extent(0);
    ts::matrix<std::int32_t> index(tokens, k);
    guarded<float> weight{tokens, k, 2};
    ts::choose_experts(exec, gate, logits.view(), index.view(), weight.view());
    CHECK(weight.is_intact());
    for (index_t t = 0; t < tokens; ++t) {
        row_of_doubles const l = row_of<float>(logits.view(), t);
        std::vector<float> choice;
        index_t groups = 1;
        index_t kept = 1;
        double total = 0;
        row_of_doubles score;
        double const top = *std::max_element(l.begin(), l.end());
        if constexpr (std::is_base_of_v<ts::sigmoid_gate, Gate>) {
            groups = gate.groups;
            kept = gate.kept_groups;
            total = 1;
            for (std::size_t e = 0; e < l.size(); ++e) {
                score.push_back(1 / (1 + std::exp(-l[e])));
                choice.push_back(static_cast<float>(score[e]) +
                                 (gate.bias.extent(0) != 0 ? gate.bias[static_cast<index_t>(e)] : 0.0f));
            }
        } else {
            for (double const v : l) {
                score.push_back(std::exp(v - top));
                choice.push_back(static_cast<float>(v));
                total += score.back();
            }
        }
        auto const expected = sorted_choice(choice, groups, kept);
        double chosen = 0;
        for (index_t j = 0; j < k; ++j) {
            CHECK(index(t, j) == expected[static_cast<std::size_t>(j)]);
            chosen += score[static_cast<std::size_t>(expected[static_cast<std::size_t>(j)])];
        }
        if (ts::detail::is_renormalized<Gate> || std::is_base_of_v<ts::top_k_softmax_gate, Gate>) total = chosen;
        double const relative = scale_of_bound * weight_error(l, 0.0, k) + 2 * u;
        for (index_t j = 0; j < k; ++j) {
            double const w = double{gate.scale} * score[static_cast<std::size_t>(index(t, j))] / total;
            CHECK(std::abs(double{weight.view()(t, j)} - w) <= relative * w + 0x1p-149);
        }
    }
}

template <class Gate>
void check_gate(Gate const& gate, ts::matrix<float> const& logits, index_t k) {
    check_gate_on(ts::reference{}, gate, logits, k, 0.0);
    for_each_cpu([&](auto const& exec) { check_gate_on(exec, gate, logits, k, 1.0); });
}

ts::matrix<float> random_logits(index_t tokens, index_t experts, float scale = 2.0f) {
    ts::matrix<float> l(tokens, experts);
    ts::philox const random{9};
    for (index_t i = 0; i < l.size(); ++i) l.data()[i] = scale * random.normal(static_cast<std::uint64_t>(i));
    return l;
}

/// The plan on one policy against a stable sort of pairs.
template <class Exec>
void check_plan(Exec const& exec, ts::matrix<std::int32_t> const& index, index_t experts) {
    ts::workspace memory;
    ts::workspace_scope scope{memory};
    auto const plan = ts::plan_experts(exec, scope, index.view(), experts);
    index_t const k = index.extent(1);
    std::vector<index_t> pair(static_cast<std::size_t>(index.size()));
    std::iota(pair.begin(), pair.end(), index_t{0});
    std::sort(pair.begin(), pair.end(), [&](index_t a, index_t b) {
        return index.data()[a] < index.data()[b] || (index.data()[a] == index.data()[b] && a < b);
    });
    bool same = plan.slots() == index.size() && plan.offsets()[0] == 0 && plan.offsets()[experts] == index.size();
    for (index_t s = 0; s < plan.slots(); ++s) {
        index_t const p = pair[static_cast<std::size_t>(s)];
        index_t const e = index.data()[p];
        same = same && plan.token(s) == p / k && plan.slot(p / k, p % k) == s && plan.offsets()[e] <= s && s < plan.offsets()[e + 1];
    }
    CHECK(same);
}

} // namespace

TEST_CASE("gates choose as a sort does, and weigh as their formulas say") {
    for (index_t const experts : {1, 2, 3, 7, 16, 17, 64}) {
        CAPTURE(experts);
        auto const logits = random_logits(5, experts);
        for (index_t k = 1; k <= experts; k += k < 4 ? 1 : 13) {
            CAPTURE(k);
            check_gate(ts::softmax_gate{}, logits, k);
            check_gate(ts::top_k_softmax_gate{3.0f}, logits, k);
            check_gate(ts::renormalized{ts::softmax_gate{}}, logits, k);
            check_gate(ts::sigmoid_gate{1.5f}, logits, k);
            check_gate(ts::renormalized{ts::sigmoid_gate{2.5f}}, logits, k);
        }
    }
    check_gate(ts::softmax_gate{}, random_logits(0, 5), 2);
    check_gate(ts::renormalized{ts::softmax_gate{}}, random_logits(3, 9, 30.0f), 4);
}

TEST_CASE("groups and the bias take part in the choice alone") {
    auto const logits = random_logits(11, 12);
    ts::vector<float> bias(12);
    for (index_t e = 0; e < 12; ++e) bias(e) = 0.05f * static_cast<float>(e % 5) - 0.1f;
    for (auto const& [groups, kept, k] : std::vector<std::tuple<index_t, index_t, index_t>>{
             {1, 1, 4}, {4, 2, 4}, {4, 2, 6}, {12, 5, 5}, {3, 3, 12}, {6, 1, 2}, {2, 1, 1}}) {
        CAPTURE(groups);
        CAPTURE(kept);
        check_gate(ts::sigmoid_gate{bias, groups, kept}, logits, k);
        check_gate(ts::renormalized{ts::sigmoid_gate{bias, groups, kept, 2.5f}}, logits, k);
    }
}

TEST_CASE("ties go to the smaller index; NaN ranks last; a row of minus infinities has no weights") {
    constexpr float inf = std::numeric_limits<float>::infinity();
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    ts::matrix<float> logits(4, 5);
    float const rows[4][5] = {{1, 3, 3, 1, 3}, {nan, 1, nan, 2, -inf}, {-inf, -inf, -inf, -inf, -inf}, {nan, nan, nan, nan, nan}};
    for (index_t t = 0; t < 4; ++t)
        for (index_t e = 0; e < 5; ++e) logits(t, e) = rows[t][e];
    std::int32_t const expected[4][3] = {{1, 2, 4}, {3, 1, 0}, {0, 1, 2}, {0, 1, 2}};
    auto const check = [&](auto const& exec) {
        ts::matrix<std::int32_t> index(4, 3);
        ts::matrix<float> weight(4, 3);
        ts::choose_experts(exec, ts::softmax_gate{}, logits.view(), index.view(), weight.view());
        for (index_t t = 0; t < 4; ++t)
            for (index_t j = 0; j < 3; ++j) CHECK(index(t, j) == expected[t][j]);
        CHECK(weight(0, 0) == weight(0, 2));
        CHECK(std::isnan(weight(1, 0)));
        CHECK(weight(2, 1) == 0.0f);
        CHECK(std::isnan(weight(3, 0)));
        ts::choose_experts(exec, ts::sigmoid_gate{}, logits.view(), index.view(), weight.view());
        for (index_t j = 0; j < 3; ++j) {
            CHECK(index(0, j) == expected[0][j]);
            CHECK(index(2, j) == j);
            CHECK(weight(2, j) == 0.0f);
        }
    };
    check(ts::reference{});
    for_each_cpu(check);
}

TEST_CASE("plans are a stable sort, for any number of threads") {
    ts::thread_pool pool{3};
    ts::cpu<ts::native_arch, ts::threads> const three{ts::threads{pool}};
    for (auto const& [tokens, k, experts] : std::vector<std::tuple<index_t, index_t, index_t>>{
             {0, 2, 3}, {1, 1, 1}, {1, 8, 8}, {17, 3, 5}, {9000, 4, 64}, {20000, 2, 3}, {16384, 1, 1}, {20, 2, 20000}}) {
        CAPTURE(tokens);
        ts::matrix<std::int32_t> index(tokens, k);
        ts::philox const random{tokens > 0 ? 4u : 5u};
        for (index_t i = 0; i < index.size(); ++i)
            index.data()[i] = static_cast<std::int32_t>(random.bits(static_cast<std::uint64_t>(i)) % static_cast<std::uint32_t>(experts));
        check_plan(ts::reference{}, index, experts);
        check_plan(ts::cpu<>{}, index, experts);
        check_plan(three, index, experts);
    }
    // MegaBlocks' example.
    ts::matrix<std::int32_t> index(3, 2);
    std::int32_t const ids[] = {2, 0, 1, 2, 2, 0};
    index_t const tokens[] = {0, 2, 1, 0, 1, 2};
    std::copy(ids, ids + 6, index.data());
    ts::workspace memory;
    ts::workspace_scope scope{memory};
    auto const plan = ts::plan_experts(ts::cpu<>{}, scope, index.view(), 3);
    for (index_t s = 0; s < 6; ++s) CHECK(plan.token(s) == tokens[s]);
}

TEST_CASE("a plan takes O(tokens k + experts) memory and time, and does not feel the order of chunks") {
    using policy = ts::cpu<ts::native_arch, tessera_test::counted_backend>;
    auto const bytes = [](index_t tokens, index_t k, index_t experts) {
        ts::workspace_sizer sizer;
        static_cast<void>(ts::expert_plan::carve(ts::cpu<>{}, tokens, k, experts, sizer));
        return sizer.bytes();
    };
    // Every loop of `fill` runs over one of its arrays: offsets, tokens, slots, and histograms of chunks, which together are no
    // larger than the pairs and the experts.
    for (index_t const experts : {0, 1, 8, 256, 16384, 16385, 1000000})
        for (index_t const tokens : {0, 1, 7, 16384, 3000000})
            for (index_t const k : {1, 2, 8}) {
                CAPTURE(experts);
                CAPTURE(tokens);
                index_t const pairs = tokens * k;
                CHECK(bytes(tokens, k, experts) <= (3 * pairs + 2 * experts + 1) * index_t{sizeof(index_t)} + 4 * ts::config::cache_line);
            }
    // Steps in tokens k experts would be 10^11.
    index_t const tokens = 500000, k = 2, experts = 100000;
    ts::matrix<std::int32_t> index(tokens, k);
    for (index_t i = 0; i < index.size(); ++i) index.data()[i] = static_cast<std::int32_t>((i * 7919 + i / 3) % experts);
    tessera_test::counted_backend::totals seen;
    check_plan(policy{tessera_test::counted_backend{&seen}}, index, experts);
    CHECK(seen.loops == 2);
    CHECK(seen.chunks == 2 * ts::ceil_div(tokens * k, experts));
}
