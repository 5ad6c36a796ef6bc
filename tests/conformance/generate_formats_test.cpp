// SPDX-License-Identifier: MIT
// The language-model example on files of every block format, most of which have no kernels of their own in it: the logits of plain
// loops in double over the decoded weights, and with int8 x those of the definition, for a whole prompt and token by token.

#include <doctest/doctest.h>

#include "../../examples/generate/llama.hpp"
#include "../../examples/generate/synthetic.hpp"
#include "greedy_judge.hpp"
#include "naive_llama.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace {

namespace ts = tessera;
using namespace generate;

/// Encoders that search take long: a prime number of blocks, again and again.
template <class Format>
void encode(std::vector<float> const& w, std::vector<std::byte>& bytes) {
    std::vector<typename Format::block> blocks(w.size() / Format::block_size);
    std::size_t const encoded = std::min<std::size_t>(blocks.size(), 97);
    ts::encode_row<Format>(w.data(), static_cast<ts::index_t>(encoded) * Format::block_size, blocks.data());
    for (std::size_t i = encoded; i < blocks.size(); ++i) blocks[i] = blocks[i - encoded];
    bytes.resize(blocks.size() * sizeof(blocks[0]));
    std::memcpy(bytes.data(), blocks.data(), bytes.size());
}

/// Bound of KL for the same computation in float32 and in double, as in generate_test.cpp: logits of order 1 that differ by less than
/// d = 1e-4, and KL <= d^2 to second order.
constexpr double rounding_divergence = 1e-8;

using rows = std::vector<std::vector<float>>;

double largest_divergence(rows const& p, rows const& q) {
    REQUIRE(p.size() == q.size());
    double most = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
        REQUIRE(std::all_of(q[i].begin(), q[i].end(), [](float v) { return std::isfinite(v); }));
        most = std::max(most, std::fabs(conformance::divergence(p[i], q[i])));
    }
    return most;
}

/// Logits of all tokens, `chunk` at a time.
template <class Exec>
rows run(Exec const& exec, ts::gguf::file const& file, activations products, std::vector<token_id> const& tokens, std::size_t chunk) {
    llama_options o;
    o.products = products;
    o.kv.formats = "fp32";
    o.context = 32;
    llama model{exec, file, o};
    rows out;
    for (std::size_t i = 0; i < tokens.size(); i += chunk) {
        auto const logits = model.forward(std::span{tokens}.subspan(i, chunk), static_cast<index_t>(chunk));
        for (index_t r = 0; r < logits.extent(0); ++r) out.emplace_back(&logits(r, 0), &logits(r, 0) + logits.extent(1));
    }
    return out;
}

/// The runs with int8 x, of three, that agree as sums do.
template <class Format>
int check_format() {
    CAPTURE(std::string{Format::name});
    synthetic_model m;
    m.layers = 1;
    m.width = 256;
    m.feed_forward = 512;
    m.table = m.attention = m.value = m.feed = ts::gguf::detail::type_for<Format>;
    m.encode = &encode<Format>;
    std::vector<std::byte> const bytes = write_synthetic(m);
    ts::buffer<std::byte> aligned{static_cast<index_t>(bytes.size())};
    std::memcpy(aligned.data(), bytes.data(), bytes.size());
    ts::gguf::file const file = ts::gguf::parse({aligned.data(), bytes.size()}, "synthetic");
    std::vector<token_id> const tokens{7, 200, 31, 31, 4, 250, 99, 12, 180, 5};
    rows expected;
    for (auto const& r : conformance::naive_llama{file}(tokens)) expected.emplace_back(r.begin(), r.end());
    rows const exact = run(ts::cpu<>{}, file, activations::exact, tokens, tokens.size());
    CHECK(largest_divergence(expected, exact) <= rounding_divergence);
    CHECK(largest_divergence(expected, run(ts::cpu<>{}, file, activations::exact, tokens, 1)) <= rounding_divergence);
    // int8 x against the definition, as in generate_test.cpp: a value between two codes may fall on either side.
    int agree = 0;
    for (auto const& [products, chunk] : {std::pair{activations::int8_per_group, tokens.size()}, std::pair{activations::int8_per_group, std::size_t{1}},
                                         std::pair{activations::int8_per_token, tokens.size()}}) {
        rows const slow = run(ts::reference{}, file, products, tokens, tokens.size());
        rows const fast = run(ts::cpu<>{}, file, products, tokens, chunk);
        double const kl = largest_divergence(slow, fast);
        CHECK(kl <= std::max(rounding_divergence, 2 * (largest_divergence(exact, slow) + largest_divergence(exact, fast))));
        agree += kl <= rounding_divergence ? 1 : 0;
        CHECK(fast != exact);
    }
    return agree;
}

} // namespace

TEST_CASE("synthetic models of every block format that GGUF files have") {
    []<class... Format>(ts::format_list<Format...>) {
        int const agree = (check_format<Format>() + ...);
        MESSAGE("int8 x: ", agree, " of ", 3 * sizeof...(Format), " runs without a tie");
        CHECK(2 * agree > 3 * static_cast<int>(sizeof...(Format)));
    }(ts::gguf::block_formats{});
}
