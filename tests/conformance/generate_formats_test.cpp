// SPDX-License-Identifier: MIT
// The language-model example on files of every block format, most of which have no kernels of their own in it: the logits of plain
// loops in double over the decoded weights, for a whole prompt and token by token.

#include <doctest/doctest.h>

#include "../../examples/generate/llama.hpp"
#include "../../examples/generate/synthetic.hpp"
#include "greedy_judge.hpp"
#include "naive_llama.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
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

template <class Format>
void check_format() {
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
    auto const expected = conformance::naive_llama{file}(tokens);

    llama_options o;
    o.products = activations::exact;
    o.kv.formats = "fp32";
    o.context = 32;
    llama model{ts::cpu<>{}, file, o};
    for (std::size_t const chunk : {tokens.size(), std::size_t{1}}) {
        model.clear();
        double most = 0;
        for (std::size_t i = 0; i < tokens.size(); i += chunk) {
            auto const logits = model.forward(std::span{tokens}.subspan(i, chunk), static_cast<index_t>(chunk));
            for (std::size_t r = 0; r < chunk; ++r) {
                float const* const row = &logits(static_cast<index_t>(r), 0);
                std::vector<float> const p{expected[i + r].begin(), expected[i + r].end()};
                std::vector<float> const q{row, row + logits.extent(1)};
                REQUIRE(std::all_of(q.begin(), q.end(), [](float v) { return std::isfinite(v); }));
                most = std::max(most, std::fabs(conformance::divergence(p, q)));
            }
        }
        CHECK(most <= rounding_divergence);
    }
}

} // namespace

TEST_CASE("synthetic models of every block format that GGUF files have") {
    []<class... Format>(ts::format_list<Format...>) { (check_format<Format>(), ...); }(ts::gguf::block_formats{});
}
