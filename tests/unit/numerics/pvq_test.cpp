// SPDX-License-Identifier: MIT
// Pyramid enumeration: sizes by recurrence and closed form against exact published and computed values, indices and vectors
// exhaustively where there are few and by round trips where there are many, numbers wider than a word.

#include <tessera/core/philox.hpp>
#include <tessera/numerics/pvq.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

template <int Words>
ts::wide_uint<Words> decimal(char const* digits) {
    ts::wide_uint<Words> value;
    for (; *digits != 0; ++digits) {
        value *= 10u;
        value += static_cast<std::uint64_t>(*digits - '0');
    }
    return value;
}

template <int Words>
double log2_of(ts::wide_uint<Words> const& v) {
    double value = 0;
    int exponent = 0; // of what was taken out of value, which may be beyond a double
    for (int i = Words; i-- > 0;) {
        int taken = 0;
        value = std::frexp(value, &taken);
        exponent += taken;
        exponent += 64;
        value += std::ldexp(static_cast<double>(v.word(i)), -exponent);
        if (value == 0) exponent = 0;
    }
    return std::log2(value) + exponent;
}

/// Every index has its own vector of K pulses, and the vector that index.
template <class Format>
void check_all_indices() {
    CAPTURE(std::string{Format::name});
    std::int8_t p[Format::group];
    for (std::uint64_t i = 0; i < Format::count.word(0); ++i) {
        Format::vector(i, p);
        index_t pulses = 0;
        for (int const v : p) pulses += std::abs(v);
        REQUIRE(pulses == Format::pulses);
        REQUIRE(Format::index(p) == typename Format::index_type{i});
    }
    Format::vector(Format::count, p);
    CHECK(std::all_of(p, p + Format::group, [](int v) { return v == 0; }));
}

/// Random vectors of K pulses, the first and the last index.
template <class Format>
void check_round_trips() {
    CAPTURE(std::string{Format::name});
    ts::philox const random{21};
    std::int8_t p[Format::group], q[Format::group];
    for (std::uint64_t turn = 0; turn < 50; ++turn) {
        std::fill(p, p + Format::group, std::int8_t{0});
        for (index_t k = 0; k < Format::pulses;) {
            auto const bits = random.bits(turn * 10000 + static_cast<std::uint64_t>(k) * 7 + 5 * turn);
            // Few coordinates in some turns, so that they are large.
            std::int8_t& at = p[bits % static_cast<unsigned>(turn % 3 == 0 && 8 * 127 > Format::pulses ? std::min<index_t>(8, Format::group)
                                                                                                      : Format::group)];
            index_t const most = std::min(Format::pulses - k, Format::largest - std::abs(at));
            if (most == 0) { // full: the next that is not
                for (std::int8_t& other : p)
                    if (std::abs(other) < Format::largest) {
                        other = static_cast<std::int8_t>(other < 0 ? other - 1 : other + 1);
                        break;
                    }
            } else {
                at = static_cast<std::int8_t>(at < 0 || (at == 0 && bits >> 31 != 0) ? at - 1 : at + 1);
            }
            ++k;
        }
        auto const index = Format::index(p);
        REQUIRE(index < Format::count);
        Format::vector(index, q);
        REQUIRE(std::equal(p, p + Format::group, q));
    }
    Format::vector(0, p);
    CHECK(Format::index(p) == typename Format::index_type{});
    CHECK(Format::index_bits == (Format::count - typename Format::index_type{1}).bit_width());
}

} // namespace

TEST_CASE("wide integers") {
    ts::wide_uint<3> a = ~std::uint64_t{0};
    a += 1;
    CHECK(a.word(0) == 0);
    CHECK(a.word(1) == 1);
    CHECK(a.bit_width() == 65);
    a -= 1;
    CHECK(a == ts::wide_uint<3>{~std::uint64_t{0}});
    CHECK(ts::wide_uint<3>{} - ts::wide_uint<3>{1} > a);
    auto b = decimal<3>("224945689727159819140526925384299092943484855");
    CHECK(b.divide(1000000007u) == 817989843u);
    b *= 1000000007u;
    b += 817989843u;
    CHECK(b == decimal<3>("224945689727159819140526925384299092943484855"));
}

TEST_CASE("sizes of pyramids") {
    std::uint64_t const rows[][9] = {{1, 6, 18, 38, 66, 102, 146, 198, 258},
                                     {1, 8, 32, 88, 192, 360, 608, 952, 1408},
                                     {1, 10, 50, 170, 450, 1002, 1970, 3530, 5890},
                                     {1, 16, 128, 688, 2816, 9424, 27008, 68464, 157184},
                                     {1, 20, 200, 1340, 6800, 28004, 97880, 299660, 822560}}; // opus celt/cwrs.c has these
    index_t const n[] = {3, 4, 5, 8, 10};
    for (std::size_t r = 0; r < 5; ++r)
        for (index_t k = 0; k <= 8; ++k) CHECK(ts::pvq_count<1>(n[r], k).word(0) == rows[r][k]);
    CHECK(ts::pvq_count<1>(0, 3).word(0) == 0);
    CHECK(ts::pvq_count<1>(8, 10).word(0) == 658048);
    CHECK(ts::pvq_count<1>(16, 8).word(0) == 30316544);
    CHECK(ts::pvq_count<2>(16, 16).word(0) == 148348809216);
    CHECK(ts::pvq_count<2>(16, 24).word(0) == 39773478832128);
    CHECK(ts::pvq_count<2>(16, 32).word(0) == 2460955893981184);
    CHECK(ts::pvq_count<2>(32, 16).word(0) == 4921911787962368);
    CHECK(ts::pvq_count<3>(32, 32) == decimal<3>("186268135991213676920832"));
    CHECK(ts::pvq_count<3>(32, 64) == decimal<3>("91273694997024582651000334254080"));
    CHECK(ts::pvq_count<3>(64, 32) == decimal<3>("182547389994049165302000668508160"));
    CHECK(ts::pvq_count<4>(64, 64) == decimal<4>("414528689561606102726156492277096085127940538368"));
    CHECK(ts::pvq_count<5>(64, 128) == decimal<5>("177104332897295667248873665751367570771191139683264928782101250048"));
    CHECK(ts::pvq_count<6>(128, 128) == decimal<6>("290050836232762937749653753005349208654681736118860611654319502769"
                                                   "0898138974722714311230073339904"));
    CHECK(ts::pvq_count<8>(128, 256) == decimal<8>("941776691542663539333945753017938350720657245448294086759461311862"
                                                   "470269894334787104214788514819950947542887089240032470353303306240"));
    CHECK(ts::pvq_count<12>(256, 256).word(0) == 0xdbcf027d73000000u);
    CHECK(ts::pvq_count<58>(1024, 2048).word(0) == 0xbb89beb980000000u);
    CHECK((ts::pvq_count<58>(1024, 2048) - 1).bit_width() == 3548);

    for (index_t k = 1; k < 300; ++k) {
        CHECK(ts::pvq_count<1>(2, k).word(0) == static_cast<std::uint64_t>(4 * k));
        CHECK(ts::pvq_count<1>(3, k).word(0) == static_cast<std::uint64_t>(4 * k * k + 2));
    }
    CHECK(std::fabs(log2_of(ts::pvq_count<58>(1024, 2048)) - 3547.112289) < 1e-6);
    // V(N, K) K = V(K, N) N, and the recurrence, by the tables of formats.
    for (index_t i = 1; i < 40; i += 3)
        for (index_t k = 1; k < 70; k += 4) {
            auto left = ts::pvq_count<5>(i, k);
            auto right = ts::pvq_count<5>(k, i);
            left *= static_cast<std::uint32_t>(k);
            right *= static_cast<std::uint32_t>(i);
            CHECK(left == right);
        }
    auto const& table = ts::detail::pvq_table<65, 128, 4>::instance();
    for (index_t i = 0; i < 65; i += 8)
        for (index_t k = 0; k <= 128; k += 16) CHECK(table.row(i)[k] == ts::pvq_count<4>(i, k));
}

TEST_CASE("pulses of a rate") {
    static_assert(ts::pvq_pulses(8, 16) == 6);
    struct {
        index_t n;
        double bits;
        index_t k;
    } const rates[] = {{8, 1.5, 4},  {8, 2, 6},    {8, 2.25, 8},  {8, 2.5, 10},  {8, 3, 16},    {8, 3.25, 19},   {8, 3.5, 24},  {8, 4, 36},
                       {16, 1.5, 7}, {16, 2, 12},  {16, 2.25, 15}, {16, 2.5, 18}, {16, 3, 27},   {16, 3.25, 33},  {16, 3.5, 40}, {16, 4, 58},
                       {32, 2, 22},  {32, 2.5, 34}, {32, 3, 50},   {32, 3.25, 60}, {32, 3.5, 73}, {32, 4, 105},    {64, 2, 43},   {64, 3, 96},
                       {64, 3.25, 115}, {64, 4, 199}, {128, 2, 84}, {128, 3, 187},  {128, 3.25, 225}, {128, 4, 386}};
    for (auto const& r : rates) {
        int const fit = static_cast<int>(r.bits * static_cast<double>(r.n));
        CHECK(ts::pvq_pulses(r.n, fit) == r.k);
        int const less = (r.n == 8 && r.k == 6) || (r.n == 16 && r.k == 7) ? 1 : 0; // of 16 bits 15, of 24 bits 23: all others fill theirs
        CHECK((ts::pvq_count<9>(r.n, r.k) - 1).bit_width() == fit - less);
    }
    // The first K beyond 64 bits: one more than fits.
    CHECK(ts::pvq_pulses(8, 64) == 865);
    CHECK(ts::pvq_pulses(16, 64) == 58);
    CHECK(ts::pvq_pulses(24, 64) == 30);
    CHECK(ts::pvq_pulses(32, 64) == 22);
    CHECK(ts::pvq_pulses(64, 64) == 14);
    CHECK(ts::pvq_pulses(128, 64) == 11);
    CHECK(ts::pvq_pulses(5, 0) == 0);
    CHECK(ts::pvq_pulses(2, 16) == 4096); // of the 16384 that fit
    static_assert(ts::pvq<32, 22>::index_bits == 64 && ts::pvq<32, 34>::index_bits == 80 && ts::pvq<128, 386>::index_bits == 512);
    static_assert(ts::pvq<8, 8>::index_bits == 18 && ts::pvq<8, 8, 8, 4>::word_bits == 70);
    CHECK(std::ceil(4 * log2_of(ts::pvq_count<2>(8, 8))) == 70);
}

TEST_CASE("order of vectors") {
    std::int8_t const order[18][3] = {{0, 0, 2}, {0, 0, -2}, {0, 1, 1},  {0, 1, -1}, {0, -1, 1}, {0, -1, -1}, {0, 2, 0}, {0, -2, 0}, {1, 0, 1},
                                      {1, 0, -1}, {1, 1, 0}, {1, -1, 0}, {-1, 0, 1}, {-1, 0, -1}, {-1, 1, 0}, {-1, -1, 0}, {2, 0, 0}, {-2, 0, 0}};
    for (std::uint64_t i = 0; i < 18; ++i) {
        std::int8_t p[3];
        ts::pvq<3, 2>::vector(i, p);
        CHECK(std::equal(p, p + 3, order[i]));
    }
    using twelve = ts::pvq<8, 12>;
    CHECK(twelve::count.word(0) == 2187520);
    std::int8_t const a[8] = {4, -3, 2, -1, 1, 0, 0, 1}, last[8] = {-12}, first[8] = {0, 0, 0, 0, 0, 0, 0, 12};
    CHECK(twelve::index(a).word(0) == 2027434);
    CHECK(twelve::index(last).word(0) == 2187519);
    CHECK(twelve::index(first).word(0) == 0);
    std::int8_t const signs[8] = {1, 1, 1, 1, -1, -1, -1, -1};
    CHECK(ts::pvq<8, 8>::index(signs).word(0) == 73201);
    std::int8_t const b[16] = {3, -2, 1, 0, 0, -1, 4, 0, 2, -3, 1, 1, -1, 0, 5, -8};
    CHECK(ts::pvq<16, 32>::index(b).word(0) == 1815269985375865);
}

TEST_CASE("every index of small pyramids") {
    check_all_indices<ts::pvq<1, 1>>();
    check_all_indices<ts::pvq<1, 5>>();
    check_all_indices<ts::pvq<2, 9>>();
    check_all_indices<ts::pvq<3, 7>>();
    check_all_indices<ts::pvq<4, 10>>();
    check_all_indices<ts::pvq<5, 6>>();
    check_all_indices<ts::pvq<7, 4>>();
    check_all_indices<ts::pvq<8, 8>>();
    check_all_indices<ts::pvq<16, 3>>();
    check_all_indices<ts::pvq<100, 2>>();
}

TEST_CASE("round trips of large pyramids") {
    check_round_trips<ts::pvq<16, 58>>();
    check_round_trips<ts::pvq<32, 22>>();
    check_round_trips<ts::pvq<32, 22, 3>>();
    check_round_trips<ts::pvq<32, 50>>();
    check_round_trips<ts::pvq<64, 96, 7>>();
    check_round_trips<ts::pvq<128, 256>>();
    check_round_trips<ts::pvq<128, 386, 127>>();
    check_round_trips<ts::pvq<256, 100>>();
}

TEST_CASE("indices beyond `Largest` are zeros") {
    using format = ts::pvq<4, 6, 3>;
    std::int8_t p[4];
    int zeros = 0, within = 0;
    for (std::uint64_t i = 0; i < format::count.word(0); ++i) {
        std::int8_t q[4];
        ts::pvq<4, 6>::vector(i, q);
        format::vector(i, p);
        bool const fits = std::all_of(q, q + 4, [](int v) { return std::abs(v) <= 3; });
        (fits ? within : zeros) += 1;
        if (fits) {
            CHECK(std::equal(p, p + 4, q));
        } else {
            CHECK(std::all_of(p, p + 4, [](int v) { return v == 0; }));
        }
    }
    CHECK(zeros > 0);
    CHECK(within > zeros);
    CHECK(std::string{ts::pvq<32, 22, 3>::name} == "pvq<32, 22, 3, 1>");
    CHECK(std::string{ts::pvq<128, 256>::name} == "pvq<128, 256, 127, 1>");
}
