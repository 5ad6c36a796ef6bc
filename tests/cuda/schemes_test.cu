// SPDX-License-Identifier: MIT
/// @file
/// Products with formats that the other files leave out on a device, and their transposes: the cases of tests/unit/operators.

#include "cases/ternary_operands.hpp"
#include "cuda_support.hpp"

#include <tessera/numerics/bipolar.hpp>
#include <tessera/numerics/fixed_point.hpp>
#include <tessera/numerics/fp8.hpp>
#include <tessera/numerics/power_exponent.hpp>
#include <tessera/numerics/ternary.hpp>
#include <tessera/storage/bit_planes.hpp>

namespace {

using namespace tessera_test;

template <int Bits>
struct plane_storage {
    static constexpr index_t group = 0;
    static constexpr index_t column_unit = 1;
    ts::bit_plane_tensor<Bits> owner;
    plane_storage(index_t n, index_t k) : owner{n, k, ts::plane_offsets::rows} {
        ts::philox const random{5};
        for (index_t i = 0; i < n; ++i) {
            for (index_t j = 0; j < k; ++j) owner.set(i, j, random.bits(static_cast<std::uint64_t>(i * k + j)) & ((1u << Bits) - 1u));
            owner.scales()[i] = 0.25f * static_cast<float>(i % 5 + 1);
            owner.offsets()[i] = 0.5f - static_cast<float>(i % 3);
        }
    }
    auto view() const { return owner.view(); }
};

TEST_CASE("ternary, bipolar, bit planes") {
    report_device_law<scheme_storage<ts::scheme<ts::ternary, ts::per_tensor>>>("ternary");
    report_device_law<base3_storage<ts::scheme<ts::ternary, ts::per_tensor>>>("ternary, five to a byte");
    report_device_law<scheme_storage<ts::scheme<ts::bipolar<3>, ts::group<40>, ts::bf16>>>("bipolar<3>");
    report_device_law<plane_storage<3>>("3 bit planes with offsets");
}
TEST_CASE("integers of odd widths, scales of two levels, blocks") {
    report_device_law<scheme_storage<ts::scheme<ts::uint5, ts::group<96>, ts::fp16, ts::affine>>>("uint5 affine group 96");
    report_device_law<scheme_storage<ts::scheme<ts::int3, ts::group<24>, ts::bf16>>>("int3 group 24");
    report_device_law<scheme_storage<ts::scheme<ts::uint4, ts::group<24>, ts::two_level<ts::uint8, ts::per_channel, ts::fp16>, ts::affine>>>(
        "uint4 affine group 24, two levels");
    report_device_law<scheme_storage<ts::scheme<ts::e4m3fn, ts::block<2, 40>>>>("e4m3fn blocks of 2 x 40");
}
TEST_CASE("other codes that are looked up") {
    report_device_law<scheme_storage<ts::scheme<ts::minifloat<3, 0, ts::specials::finite>, ts::group<64>, ts::fp16>>>("e3m0");
    report_device_law<scheme_storage<ts::scheme<ts::k_hot_point<8, 6, 2>, ts::group<32>, ts::fp16>>>("k_hot_point<8, 6, 2>");
    report_device_law<scheme_storage<ts::scheme<ts::power_exponent<4, 1, 2>, ts::group<32>, ts::fp16>>>("power_exponent<4, 1, 2>");
}

} // namespace
