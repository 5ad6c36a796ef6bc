// SPDX-License-Identifier: MIT
/// @file
/// Products of tables that are data, nested codes and pyramids on a device: the operands of tests/unit/vector, forward and transposed.

#include "vector_support.hpp"

#include <limits>

namespace {

using namespace tessera_test;

TEST_CASE("vectors: tables that are data") {
    check_vectors<random_tables<4, ts::per_tensor, ts::fp16, ts::scaled_by<ts::fp16, ts::group<32>>>>("4 bits, one table, scales of groups");
    check_vectors<random_tables<2, ts::per_tensor, float, ts::scaled_by<float, ts::per_channel>>>("2 bits, one table, scales of rows");
    check_vectors<random_tables<8, ts::per_tensor>>("8 bits, one table");
    check_vectors<random_tables<3, ts::per_channel>>("3 bits, a table a row");
    check_vectors<random_tables<1, ts::per_channel, float, ts::scaled_by<ts::fp16, ts::group<24>>>>("1 bit, a table a row, scales of groups");
    check_vectors<random_tables<7, ts::group<11>, float>>("7 bits, a table for 11 columns");
    check_vectors<random_tables<4, ts::group<128>>>("4 bits, a table for 128 columns");
}
TEST_CASE("vectors: nested codes") {
    check_vectors<random_nested<3>>("3 of 8 planes");
    check_vectors<random_nested<8>>("8 of 8 planes");
}
TEST_CASE("vectors: numbers of tables that are not finite stay in their rows") {
    ts::table_quantized_tensor<4, ts::per_channel, float> owner{40, 70};
    for (index_t n = 0; n < 40; ++n) {
        for (index_t c = 0; c < 16; ++c) owner.values()[16 * n + c] = static_cast<float>(c);
        owner.values()[16 * n] = std::numeric_limits<float>::infinity(); // the code that padding would have
        for (index_t k = 0; k < 70; ++k) ts::bitpack::set<4>(owner.codes() + n * ts::bitpack::bytes(70, 4), k, 1u + static_cast<std::uint32_t>(k % 15));
    }
    ts::bitpack::set<4>(owner.codes() + 17 * ts::bitpack::bytes(70, 4), 3, 0);
    guarded<float> x{2, 70};
    guarded<float> y{2, 40};
    for (index_t m = 0; m < 2; ++m)
        for (index_t k = 0; k < 70; ++k) x.view()(m, k) = 1.0f;
    apply_there(ts::place(device{}, ts::linear{owner.view()}), x, y);
    for (index_t n = 0; n < 40; ++n) CHECK(std::isfinite(y.view()(1, n)) == (n != 17));
}
TEST_CASE("vectors: pyramids") {
    report_device_law<random_pyramids<ts::pvq<32, 22, 3>>>("pvq<32, 22, 3>");
    report_device_law<random_pyramids<ts::pvq<16, 24>>>("pvq<16, 24>");
    report_device_law<random_pyramids<ts::pvq<32, 22, 3>>, ts::int8_per_token>("pvq<32, 22, 3>, int8_per_token");
    random_pyramids<ts::pvq<16, 24>> const owner{70, 200};
    check_operator(ts::transposed(ts::linear{owner.view()}), 9);
}

} // namespace
