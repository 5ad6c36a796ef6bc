// SPDX-License-Identifier: MIT
// Mixtures against transformers' blocks: tests/data/moe/make.py wrote the vectors.

#include "moe_support.hpp"
#include "support/vectors.hpp"

#include <map>

using namespace moe_test;
using tessera_test::array;

namespace {

std::map<std::string, array> const& arrays() {
    static std::map<std::string, array> const all = tessera_test::read_arrays("moe/moe");
    return all;
}

array const& get(std::string const& block, char const* name) { return arrays().at(block + "." + name); }

dense linear(array const& a) { return dense{a.matrix()}; }

/// Experts that transformers stores as gate over up in one matrix.
std::vector<dense_unit> experts_of(std::string const& block) {
    array const& first = get(block, "experts.gate_up_proj");
    array const& down = get(block, "experts.down_proj");
    index_t const f = down.shape[2];
    std::vector<dense_unit> units;
    for (index_t e = 0; e < first.shape[0]; ++e)
        units.emplace_back(dense{first.rows_of(e, 0, f)}, dense{first.rows_of(e, f, 2 * f)}, dense{down.rows_of(e, 0, down.shape[1])});
    return units;
}

dense_unit unit_of(std::string const& block, std::string const& name) {
    return {linear(get(block, (name + ".gate_proj.weight").c_str())), linear(get(block, (name + ".up_proj.weight").c_str())),
            linear(get(block, (name + ".down_proj.weight").c_str()))};
}

/// Experts as sets with their weights, and outputs, of the reference and of every policy.
template <class Moe>
void check_block(std::string const& block, Moe const& m) {
    CAPTURE(block);
    auto const x = get(block, "x").matrix();
    auto const y = get(block, "y").matrix();
    auto const w = get(block, "weight").matrix();
    index_t const tokens = x.extent(0);
    index_t const k = m.router().k();
    REQUIRE(w.extent(1) == k);
    auto const check = [&](auto const& exec) {
        ts::matrix<std::int32_t> index(tokens, k);
        ts::matrix<float> weight(tokens, k), out(tokens, m.rows());
        ts::route(exec, m.router(), x, index.view(), weight.view());
        ts::apply(exec, m, x, out.view());
        for (index_t t = 0; t < tokens; ++t) {
            row_of_doubles const logits = exact_row(m.router().weights(), row_of(x, t));
            bounded_row const bound = product_row(m.router().weights(), {row_of(x, t), row_of_doubles(static_cast<std::size_t>(x.extent(1)), 0.0)});
            // Twice: transformers takes exponentials and sums in float32 too, of logits in float32.
            double const relative = 2 * weight_error(logits, *std::max_element(bound.error.begin(), bound.error.end()), k);
            for (index_t j = 0; j < k; ++j) { // stored in ascending order of the experts
                std::int32_t const e = get(block, "index").integer(t * k + j);
                auto const* const at = std::find(&index(t, 0), &index(t, 0) + k, e);
                REQUIRE(at != &index(t, 0) + k);
                double const expected = double{w(t, j)};
                CHECK(std::abs(double{weight(t, at - &index(t, 0))} - expected) <= relative * expected);
            }
            row_of_doubles const error = mixture_error(m, row_of(x, t), index.view(), weight.view(), t);
            for (index_t n = 0; n < m.rows(); ++n)
                CHECK(std::abs(double{out(t, n)} - double{y(t, n)}) <= 2 * error[static_cast<std::size_t>(n)] + u * std::abs(double{y(t, n)}));
        }
    };
    check(ts::reference{});
    for_each_cpu(check);
}

} // namespace

TEST_CASE("Mixtral's block: softmax over all, top 2 renormalised") {
    auto const units = experts_of("mixtral");
    check_block("mixtral", ts::moe{ts::top_k_router{linear(get("mixtral", "gate.weight")), 2, ts::renormalized{ts::softmax_gate{}}}, units});
    check_block("mixtral", ts::moe{ts::top_k_router{linear(get("mixtral", "gate.weight")), 2, ts::top_k_softmax_gate{}}, units});
}

TEST_CASE("Qwen's blocks: not renormalised, with a weighted shared expert; renormalised") {
    auto const units = experts_of("qwen2_moe");
    check_block("qwen2_moe",
                ts::moe{ts::top_k_router{linear(get("qwen2_moe", "gate.weight")), 3, ts::softmax_gate{}}, units,
                        ts::gated_shared_expert{unit_of("qwen2_moe", "shared_expert"), linear(get("qwen2_moe", "shared_expert_gate.weight"))}});
    auto const third = experts_of("qwen3_moe");
    check_block("qwen3_moe", ts::moe{ts::top_k_router{linear(get("qwen3_moe", "gate.weight")), 6, ts::renormalized{ts::softmax_gate{}}}, third});
}

TEST_CASE("DeepSeek-V3's block: sigmoid with a bias, groups, a factor, a shared expert; renormalised or not") {
    auto const check = [](std::string const& block, auto const& make) {
        auto const units = experts_of(block);
        auto const& bias = get(block, "gate.e_score_correction_bias");
        ts::sigmoid_gate const gate{ts::vector_view<float const>{bias.data.data(), 12}, 4, 2, 2.5f};
        check_block(block, ts::moe{ts::top_k_router{linear(get(block, "gate.weight")), 4, make(gate)}, units,
                                   ts::shared_expert{unit_of(block, "shared_experts")}});
    };
    check("deepseek_v3", [](auto const& gate) { return ts::renormalized{gate}; });
    check("deepseek_v3_as_is", [](auto const& gate) { return gate; });
}
