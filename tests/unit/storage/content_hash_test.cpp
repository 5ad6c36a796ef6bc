// SPDX-License-Identifier: MIT
// The hash by its definition: the numbers come from one written in Python after the header's comment.
#include <doctest/doctest.h>

#include <tessera/storage/content_hash.hpp>

#include <bit>
#include <set>
#include <vector>

namespace {

namespace ts = tessera;
using ts::index_t;

std::vector<std::byte> sequence(std::size_t n) {
    std::vector<std::byte> out(n);
    for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<std::byte>(7 * i + 3);
    return out;
}

TEST_CASE("the definition") {
    if constexpr (std::endian::native != std::endian::little) return;
    struct {
        std::size_t size;
        char const* text;
    } const known[] = {{0, "d160ed6144ae7925ebb443bd1c443e15"},    {1, "198779df4f15a35ab1598199b61b30b3"},
                       {63, "d39a5cd574bde3b96d58a5137df3d16e"},   {64, "2f13834a51bcc50a0d6a7c120bdabd07"},
                       {65, "c7b59b38ed1538373bda559d61526411"},   {1000, "0bb2770ce4fd60e774a71aa6a65fa0f1"}};
    for (auto const& k : known) CHECK(ts::content_of(sequence(k.size)).text() == k.text);
}

TEST_CASE("pieces make no difference") {
    auto const bytes = sequence(300);
    auto const whole = ts::content_of(bytes);
    for (index_t first = 0; first <= 300; ++first)
        for (index_t const second : {index_t{0}, index_t{1}, index_t{63}, index_t{64}, index_t{65}, 300 - first}) {
            if (first + second > 300) continue;
            ts::content_hash h;
            h.add(bytes.data(), first).add(bytes.data() + first, second).add(bytes.data() + first + second, 300 - first - second);
            REQUIRE(h.finish() == whole);
        }
}

TEST_CASE("every bit and every length make a difference") {
    auto bytes = sequence(130);
    std::set<std::string> seen;
    for (std::size_t n = 0; n <= bytes.size(); ++n) CHECK(seen.insert(ts::content_of(std::vector<std::byte>(n)).text()).second);
    CHECK(seen.insert(ts::content_of(bytes).text()).second);
    for (std::byte& b : bytes)
        for (int bit = 0; bit < 8; ++bit) {
            b ^= static_cast<std::byte>(1 << bit);
            CHECK(seen.insert(ts::content_of(bytes).text()).second);
            b ^= static_cast<std::byte>(1 << bit);
        }
}

TEST_CASE("sampled") {
    auto small = sequence(64 * 1024);
    CHECK(ts::content_of(small, ts::content_check::sampled) == ts::content_of(small));
    auto large = sequence(1 << 20);
    auto const before = ts::content_of(large, ts::content_check::sampled);
    CHECK(before != ts::content_of(large));
    std::size_t const step = ((1 << 20) - 1024) / 15;
    large[step + 1024] ^= std::byte{1}; // behind the second piece
    CHECK(ts::content_of(large, ts::content_check::sampled) == before);
    large[step + 1023] ^= std::byte{1};
    CHECK(ts::content_of(large, ts::content_check::sampled) != before);
    large[step + 1023] ^= std::byte{1};
    large.back() ^= std::byte{1};
    CHECK(ts::content_of(large, ts::content_check::sampled) != before);
    large.back() ^= std::byte{1};
    large.push_back(std::byte{});
    CHECK(ts::content_of(large, ts::content_check::sampled) != before);
}

} // namespace
