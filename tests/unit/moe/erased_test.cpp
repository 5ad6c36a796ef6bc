// SPDX-License-Identifier: MIT
// Experts whose formats are known at run time, each its own: the bits of the typed operators; what a mixture says that it runs.

#include "moe_support.hpp"

#include <tessera/dispatch/any_operator.hpp>
#include <tessera/moe/describe.hpp>

using namespace moe_test;

namespace {

using policy = ts::cpu<ts::native_arch, ts::serial>;
using erased = ts::any_view<policy>;

/// Experts of three formats, erased; the weights of each.
struct mixed_experts {
    static constexpr index_t count = 4;
    static constexpr index_t h = 64;
    static constexpr index_t f = 96;
    policy exec;
    std::vector<ts::any_operator<policy>> owners;
    std::vector<ts::gated_expert<erased>> units;

    template <class Scheme, class Preparation>
    void add_quantized(index_t n, index_t k, std::uint64_t seed, Preparation preparation) {
        auto const q = ts::quantize<Scheme>(random_weights(n, k, seed));
        owners.push_back(ts::erase(exec, ts::place(exec, ts::linear{q, preparation})));
    }
    mixed_experts() {
        owners.reserve(3 * count);
        for (index_t e = 0; e < count; ++e) {
            auto const seed = static_cast<std::uint64_t>(100 + 3 * e);
            for (int part = 0; part < 3; ++part) {
                index_t const n = part == 2 ? h : f;
                index_t const k = part == 2 ? f : h;
                if (e % 3 == 0) add_quantized<ts::int4_g32>(n, k, seed + static_cast<std::uint64_t>(part), ts::int8_per_group<32>{});
                if (e % 3 == 1) add_quantized<ts::int8_per_channel>(n, k, seed + static_cast<std::uint64_t>(part), ts::int8_per_token{});
                if (e % 3 == 2) {
                    auto const w = random_weights(n, k, seed + static_cast<std::uint64_t>(part));
                    owners.push_back(ts::erase(exec, ts::place(exec, ts::linear{w})));
                }
            }
            auto const* const last = owners.data() + owners.size() - 3;
            units.push_back({last[0].view(), last[1].view(), last[2].view()});
        }
    }
};

} // namespace

TEST_CASE("grouped products of erased operators: each its own format") {
    mixed_experts const m;
    std::vector<erased> family;
    for (index_t e = 0; e < mixed_experts::count; ++e) family.push_back(m.owners[static_cast<std::size_t>(3 * e)].view());
    for (std::vector<index_t> const& offsets : {std::vector<index_t>{0, 1, 1, 2, 3}, {0, 5, 9, 9, 40}, {0, 0, 0, 0, 0}}) {
        index_t const rows = offsets.back();
        guarded<float> x{rows, mixed_experts::h, 2};
        x.fill(3);
        guarded<float> y{rows, mixed_experts::f, 1}, expected{rows, mixed_experts::f};
        ts::apply_grouped(m.exec, std::span<erased const>{family}, ts::vector_view<index_t const>{offsets.data(), 5}, x.view(), y.view());
        for (std::size_t g = 0; g < 4; ++g)
            ts::apply(m.exec, family[g], ts::rows(x.view(), offsets[g], offsets[g + 1]), ts::rows(expected.view(), offsets[g], offsets[g + 1]));
        CHECK(y.is_intact());
        CHECK(same_bits(y, expected));
    }
    CHECK(ts::describe_grouped(m.exec, std::span<erased const>{family}, 1).find("2 x int4 codes") != std::string::npos);
}

TEST_CASE("more rows than a tile of most kernels: an erased operator has the tiles of what it is") {
    policy const exec;
    auto const q = ts::quantize<ts::int4_g32>(random_weights(40, 64, 1));
    ts::linear const w{q.view()}; // x in float32: the last rows' bits depend on the tile
    auto const any = ts::erase(exec, w);
    guarded<float> x{130, 64};
    x.fill(4);
    guarded<float> y{130, 40}, expected{130, 40};
    ts::apply(exec, w, x.view(), expected.view());
    std::vector<erased> const family{any.view()};
    std::vector<index_t> const offsets{0, 130};
    ts::apply_grouped(exec, std::span<erased const>{family}, ts::vector_view<index_t const>{offsets.data(), 2}, x.view(), y.view());
    CHECK(same_bits(y, expected));
    ts::apply(exec, 1.0f * any.view(), x.view(), y.view());
    CHECK(same_bits(y, expected));
}

TEST_CASE("a mixture of erased experts is its steps") {
    mixed_experts const m;
    auto const router = random_weights(mixed_experts::count, mixed_experts::h, 7);
    ts::moe const block{ts::top_k_router{router, 2, ts::softmax_gate{}}, m.units};
    for (index_t const tokens : {1, 2, 33}) {
        guarded<float> x{tokens, mixed_experts::h};
        x.fill(8);
        guarded<float> y{tokens, mixed_experts::h};
        CHECK(ts::workspace_bytes(m.exec, block, x.view()) > 0);
        ts::apply(m.exec, block, x.view(), y.view());
        guarded<float> expected{tokens, mixed_experts::h};
        compose(m.exec, block.router(), m.units, x.view(), expected.view());
        CHECK(same_bits(y, expected));
    }
    std::string const text = ts::describe(m.exec, block, 1);
    CAPTURE(text);
    CHECK(text.starts_with(std::string{ts::native_arch::name} + ": router (fp32, panel<"));
    CHECK(text.find("; 2 of 4 experts a token: 2 x gate (int4 codes") != std::string::npos);
    CHECK(text.find("; 1 x gate (int8 codes") != std::string::npos);
    CHECK(text.find("; 1 x gate (fp32") != std::string::npos);
    CHECK(ts::describe(ts::reference{}, block, 1) == "reference");
    auto const shared = ts::moe{block.router(), m.units, ts::shared_expert{m.units[0]}};
    CHECK(ts::describe(m.exec, shared, 1).find("; shared expert: gate (int4 codes") != std::string::npos);
}

TEST_CASE("grouped: elements of y twice") {
    auto const w = random_weights(8, 4, 1);
    std::vector<dense> const family{dense{w.view()}};
    index_t const offsets[] = {0, 3};
    std::vector<float> memory(64);
    index_t const strides[] = {4, 1};
    ts::matrix_view<float> const y{memory.data(), {ts::dynamic_extents<2>{3, 8}, strides}};
    auto const x = random_weights(3, 4, 2);
    CHECK_THROWS_WITH_AS(ts::apply_grouped(policy{}, std::span<dense const>{family}, ts::vector_view<index_t const>{offsets, 2}, x.view(), y),
                         "tessera: apply_grouped: rows of y are 4 elements apart and its columns 1, expected no element twice in 3 x 8",
                         ts::shape_error);
}
