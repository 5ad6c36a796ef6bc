// SPDX-License-Identifier: MIT
// The law of stored matrices for ternary weights, as 2-bit codes and five to a byte.

#include "operator_laws.hpp"

#include <tessera/storage/ternary.hpp>

using namespace tessera_test;

namespace {

template <class Scheme>
struct base3_storage {
    static constexpr index_t group = Scheme::granularity_type::columns;
    static constexpr index_t column_unit = 1;
    ts::base3_tensor<Scheme> owner;
    base3_storage(index_t n, index_t k) : owner{n, k} {
        ts::philox const random{9};
        for (index_t i = 0; i < n * ts::base3<Scheme>::row_bytes(k); ++i)
            owner.codes()[i] = static_cast<std::uint8_t>(random.bits(static_cast<std::uint64_t>(i)) % 243);
        for (index_t i = 0; i < ts::base3<Scheme>::scales_of(n, k); ++i)
            owner.scales()[i] = static_cast<typename ts::base3<Scheme>::scale_type>(0.1f * static_cast<float>(i % 7 + 1));
    }
    auto view() const { return owner.view(); }
};

} // namespace

TEST_CASE("ternary weights, one scale") {
    using scheme = ts::scheme<ts::ternary, ts::per_tensor>;
    report_law<scheme_storage<scheme>, ts::int8_per_token, best_arch>("2 bits");
    report_law<base3_storage<scheme>, ts::int8_per_token, best_arch>("five to a byte");
}
