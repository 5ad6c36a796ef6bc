// SPDX-License-Identifier: MIT
// Attention against vectors made by torch in float64 (tests/data/attention/README.md): the reference first, then every
// instruction set. The files are (batch, head, token, dim), so q, k, v and out are strided views.

#include "attention_support.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace attention_tests;

struct oracle {
    std::int32_t size[8]; // B, H, Hk, Sq, Sk, D, Dv, extra words
    std::vector<float> data;
    index_t batches() const { return size[0]; }
    index_t heads() const { return size[1]; }
    index_t kv_heads() const { return size[2]; }
    index_t queries() const { return size[3]; }
    index_t keys() const { return size[4]; }
    index_t dim() const { return size[5]; }
    index_t value_dim() const { return size[6]; }

    explicit oracle(std::string const& name) {
        std::ifstream file(std::string(TESSERA_TEST_DATA) + "/attention/" + name + ".bin", std::ios::binary);
        std::vector<char> const bytes{std::istreambuf_iterator<char>(file), {}};
        REQUIRE(bytes.size() > sizeof size);
        std::memcpy(size, bytes.data(), sizeof size);
        data.resize((bytes.size() - sizeof size) / sizeof(float));
        std::memcpy(data.data(), bytes.data() + sizeof size, data.size() * sizeof(float));
        REQUIRE(static_cast<index_t>(data.size()) == offset(5) + size[7]);
    }
    /// Of q, k, v, o, lse and what follows.
    index_t offset(int part) const {
        index_t const sizes[] = {heads() * queries() * dim(), kv_heads() * keys() * dim(), kv_heads() * keys() * value_dim(),
                                 heads() * queries() * value_dim(), heads() * queries()};
        index_t sum = 0;
        for (int p = 0; p < part; ++p) sum += batches() * sizes[p];
        return sum;
    }
    /// (tokens, heads, dim) of one batch row; `used` of the `tokens` stored.
    ts::tensor_view<float const, 3> view(int part, index_t b, index_t tokens, index_t used, index_t h, index_t d) const {
        using result = ts::tensor_view<float const, 3>;
        index_t const strides[] = {d, tokens * d, 1};
        return {data.data() + offset(part) + b * h * tokens * d,
                result::mapping_type{ts::dynamic_extents<3>{used, h, d}, strides}};
    }
    ts::matrix_view<float const> log_sum_exp(index_t b) const {
        return ts::matrix_view<float const>{data.data() + offset(4) + b * heads() * queries(), heads(), queries()};
    }
    std::int32_t extra_int(index_t i) const {
        std::int32_t value;
        std::memcpy(&value, data.data() + offset(5) + i, sizeof value);
        return value;
    }
};

template <class Exec, class Score>
void check_case(Exec const& exec, oracle const& c, Score const& score, bool ragged, index_t functor_roundings, tally& ratios) {
    for (index_t b = 0; b < c.batches(); ++b) {
        index_t const used = ragged ? c.extra_int(b) : c.keys();
        auto const q = c.view(0, b, c.queries(), c.queries(), c.heads(), c.dim());
        auto const k = c.view(1, b, c.keys(), used, c.kv_heads(), c.dim());
        auto const v = c.view(2, b, c.keys(), used, c.kv_heads(), c.value_dim());
        auto const expected = c.view(3, b, c.queries(), c.queries(), c.heads(), c.value_dim());
        ts::tensor<float, 3> out(c.queries(), c.heads(), c.value_dim());
        ts::matrix<float> lse(c.heads(), c.queries());
        ts::attention(exec, q, k, v, out, score, lse);
        // One more: torch's scale is a double.
        CHECK(ratios(worst_ratio<float>(q, ts::kv_view{k, v}, std::as_const(out).view(), expected,
                                        std::as_const(lse).view(), c.log_sum_exp(b), score, functor_roundings + 1)));
    }
}

template <class Archs = tessera_test::archs_by_width, class Score>
void check_all(tally& ratios, oracle const& c, Score const& score, bool ragged = false, index_t functor_roundings = 0) {
    check_case(ts::reference{}, c, score, ragged, functor_roundings, ratios);
    for_each_arch<Archs>([&](auto const& exec) { check_case(exec, c, score, ragged, functor_roundings, ratios); });
}

/// NATTEN's rule in one dimension as a user's functor: a window around the query, shifted at the borders.
struct neighbourhood {
    float size;
    float length;
    template <class V>
    V operator()(V s, ts::coord<V> at) const noexcept {
        using std::max;
        using std::min;
        using ts::select;
        V const half((size - 1.0f) / 2.0f);
        V const first = min(max(at.query() - half, V(0.0f)), V(length - size));
        V const d = at.key() - first;
        return select(d < V(0.0f), V(ts::minus_infinity), select(d < V(size), s, V(ts::minus_infinity)));
    }
};

} // namespace

TEST_CASE("attention equals torch: full, causal, grouped queries") {
    tally ratios;
    check_all(ratios, oracle{"mha_full_d64"}, ts::full);
    check_all(ratios, oracle{"mha_causal_d64"}, ts::causal);
    check_all(ratios, oracle{"gqa_causal_d40"}, ts::causal);
    check_all(ratios, oracle{"causal_sq_lt_sk"}, ts::causal);
    check_all<tessera_test::best_arch>(ratios, oracle{"mha_causal_d64"}, ts::scaled{0.125f} | ts::causal);
    CHECK(ratios.is_tight());
}

TEST_CASE("attention equals torch: window, ALiBi, soft cap, a user's mask") {
    tally ratios;
    check_all(ratios, oracle{"window_causal"}, ts::window{16});
    oracle const biased{"alibi_causal_h8"};
    ts::vector_view<float const> const slopes{biased.data.data() + biased.offset(5), biased.heads()};
    check_all<tessera_test::best_arch>(ratios, biased, ts::alibi{slopes} | ts::causal, false, 2);
    check_all(ratios, oracle{"softcap_causal"}, ts::soft_cap{20.0f} | ts::causal, false, 5);
    check_all<tessera_test::best_arch>(ratios, oracle{"na1d_w7"}, neighbourhood{7.0f, 40.0f});
    CHECK(ratios.is_tight());
}

TEST_CASE("attention equals torch: logits of thousands, ragged caches") {
    tally ratios;
    check_all(ratios, oracle{"huge_logits"}, ts::causal);
    check_all(ratios, oracle{"decode_ragged_kv"}, ts::full, true);
}
