// SPDX-License-Identifier: MIT
// The law of stored matrices for the block formats with scales of two levels: groups of 32 and of 16, with and without
// minima; in as_bf16 too.

#include "operator_laws.hpp"

using namespace tessera_test;

namespace {

/// Eighths of a byte times 1000 that a placed weight takes.
template <class Format>
constexpr ts::index_t placed_millibits = ts::prepacked<ts::panel<16, 4>, ts::blocked<Format>>{nullptr, 16, 512}.bytes() * 8000 / 8192;
static_assert(placed_millibits<ts::q4_k> == 4625 && placed_millibits<ts::q5_k> == 5625 && placed_millibits<ts::q6_k> == 6562);
static_assert(placed_millibits<ts::q2_k> == 2625 && placed_millibits<ts::q3_k> == 3562 && placed_millibits<ts::q8_k> == 8125);

} // namespace

TEST_CASE("q2_k") { report_law<blocked_storage<ts::q2_k>, ts::int8_per_group<32>, best_arch>("int8_per_group<32>"); }

// Many rows may have the scales of groups in their codes: over chunks of columns, the same bits as one row alone.
TEST_CASE("q2_k, many rows and columns") {
    auto const judge = []<class Preparation>(Preparation preparation) {
        blocked_storage<ts::q2_k> const owner{70, 5 * 256};
        ts::linear const w{owner.view(), preparation};
        guarded<float> x{49, 5 * 256}, y{49, 70};
        x.fill(17);
        ts::cpu<ts::native_arch, ts::serial> const exec;
        auto const placed = ts::place(exec, w);
        ts::apply(exec, placed.view(), x.view(), y.view());
        check_batch_invariant<ts::native_arch>(w, x, y);
    };
    judge(ts::int8_per_token{});
    judge(ts::int8_per_group<32>{});
}

TEST_CASE("q3_k") { report_law<blocked_storage<ts::q3_k>, ts::int8_per_token, best_arch>("int8_per_token"); }

TEST_CASE("q4_k") {
    report_law<blocked_storage<ts::q4_k>, ts::as_is, best_arch>("as_is");
    report_law<blocked_storage<ts::q4_k>, ts::int8_per_token, best_arch>("int8_per_token");
    report_law<blocked_storage<ts::q4_k>, ts::int8_per_group<32>>("int8_per_group<32>");
}

TEST_CASE("q5_k") { report_law<blocked_storage<ts::q5_k>, ts::int8_per_group<32>, best_arch>("int8_per_group<32>"); }

TEST_CASE("q6_k") {
    report_law<blocked_storage<ts::q6_k>, ts::as_is, best_arch>("as_is");
    report_law<blocked_storage<ts::q6_k>, ts::int8_per_group<32>>("int8_per_group<32>");
    report_law<blocked_storage<ts::q6_k>, ts::as_bf16, best_arch>("as_bf16");
}

TEST_CASE("q8_k") { report_law<blocked_storage<ts::q8_k>, ts::int8_per_group<32>, best_arch>("int8_per_group<32>"); }
