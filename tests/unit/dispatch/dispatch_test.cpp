// SPDX-License-Identifier: MIT
// What a processor runs is read from its CPUID words; the best of a list is taken, within limits that are checked.

#include <doctest/doctest.h>

#include <tessera/dispatch/dispatch.hpp>

#include <string>

namespace ts = tessera;
using ts::detail::arch_entry;
using ts::detail::best_entry;
using ts::detail::runs;

namespace {

/// Words of a processor with everything, in a system that saves every register.
constexpr ts::x86_features everything{~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~std::uint64_t{0}};

/// `everything` after a change.
template <class F>
constexpr ts::x86_features without(F const& change) {
    ts::x86_features f = everything;
    change(f);
    return f;
}

constexpr ts::x86_features haswell{0x7ffafbff, 0x000027ab, 0, 0, 0, 0x21, 7};

static_assert(runs(ts::sse2{}, {}) && !runs(ts::avx2{}, {}));
static_assert(runs(ts::avx2{}, haswell) && !runs(ts::avx2_vnni{}, haswell) && !runs(ts::avx512{}, haswell));
static_assert(runs(ts::avx2{}, everything) && runs(ts::avx2_vnni{}, everything) && runs(ts::avx512{}, everything) &&
              runs(ts::avx512_vnni{}, everything) && runs(ts::avx512_amx{}, everything));
// The operating system saves no AVX registers, or not those of AVX-512, or no tiles.
static_assert(!runs(ts::avx2{}, without([](auto& f) { f.xcr0 = 3; })));
constexpr auto no_wide = without([](auto& f) { f.xcr0 = 7; });
static_assert(runs(ts::avx2{}, no_wide) && !runs(ts::avx512{}, no_wide) && !runs(ts::avx512_vnni{}, no_wide));
constexpr auto no_tiles = without([](auto& f) { f.xcr0 = 0xe7; });
static_assert(runs(ts::avx512_vnni{}, no_tiles) && !runs(ts::avx512_amx{}, no_tiles));
// One feature that a tag's compiler flags imply is missing: FMA, BMI2, LZCNT, AVX512CD, VNNI, AMX-BF16.
static_assert(!runs(ts::avx2{}, without([](auto& f) { f.leaf_1_ecx &= ~(1u << 12); })));
static_assert(!runs(ts::avx2{}, without([](auto& f) { f.leaf_7_ebx &= ~(1u << 8); })));
static_assert(!runs(ts::avx512{}, without([](auto& f) { f.extended_1_ecx &= ~(1u << 5); })));
static_assert(!runs(ts::avx512{}, without([](auto& f) { f.leaf_7_ebx &= ~(1u << 28); })));
static_assert(!runs(ts::avx512_vnni{}, without([](auto& f) { f.leaf_7_ecx &= ~(1u << 11); })));
static_assert(!runs(ts::avx512_amx{}, without([](auto& f) { f.leaf_7_edx &= ~(1u << 22); })));

using all = ts::known_archs;

} // namespace

TEST_CASE("the tags that this test was compiled for are supported") {
    CHECK(ts::supports<ts::native_arch>());
    CHECK(ts::describe_processor().find(ts::native_arch::name) != std::string::npos);
    CHECK(ts::names(ts::arch_list<ts::sse2, ts::avx2>{}) == "sse2, avx2");
#if defined(__x86_64__)
    CHECK(ts::supports<ts::sse2>());
    CHECK(!ts::supports<ts::neon64>());
    // A tag's base is supported where the tag is.
    CHECK((!ts::supports<ts::avx512>() || ts::supports<ts::avx2>()));
    CHECK((!ts::supports<ts::avx512_amx>() || ts::supports<ts::avx512_vnni>()));
#endif
}

TEST_CASE("the best of a list, whatever its order") {
    using ts::detail::rank_of;
    arch_entry const sse2{"sse2", rank_of("sse2"), true};
    arch_entry const avx2{"avx2", rank_of("avx2"), true};
    arch_entry const wide{"avx512", rank_of("avx512"), false};
    CHECK(rank_of("sse2") < rank_of("avx2"));
    CHECK(rank_of("avx2_vnni") < rank_of("avx512"));
    CHECK(rank_of("avx512_vnni") < rank_of("avx512_amx"));
    CHECK(best_entry({wide, avx2, sse2}, "", "").name == "avx2");
    CHECK(best_entry({sse2, avx2, wide}, "", "").name == "avx2");
#if defined(__x86_64__)
    CHECK(best_entry({sse2, avx2, wide}, "sse2", "").name == "sse2");
    CHECK(best_entry({sse2, avx2, wide}, "", "sse2").name == "sse2");
    if (ts::supports<ts::avx2>()) {
        CHECK(best_entry({sse2, wide}, "avx2", "").name == "sse2"); // nothing was compiled for avx2 itself
        CHECK(best_entry({sse2, avx2}, "avx2", "sse2").name == "sse2");
        CHECK(best_entry({sse2, avx2}, "sse2", "avx2").name == "sse2");
    }
#endif
}

TEST_CASE("limits that cannot be kept are errors that say what there is") {
    arch_entry const avx2{"avx2", ts::detail::rank_of("avx2"), true};
    arch_entry const wide{"avx512", ts::detail::rank_of("avx512"), false};
    CHECK_THROWS_WITH_AS(best_entry({avx2}, "AVX2", ""),
                         ("tessera: dispatch: the limit is 'AVX2', expected one of " + ts::names(all{})).c_str(), ts::unsupported_error);
    CHECK_THROWS_WITH_AS(best_entry({avx2}, "", "avx3"),
                         ("tessera: dispatch: TESSERA_ARCH is 'avx3', expected one of " + ts::names(all{})).c_str(),
                         ts::unsupported_error);
    CHECK_THROWS_WITH_AS(best_entry({wide}, "", ""),
                         ("tessera: dispatch: compiled for avx512, but this processor runs " + ts::describe_processor()).c_str(),
                         ts::unsupported_error);
#if defined(__x86_64__)
    CHECK_THROWS_WITH_AS(best_entry({avx2}, "neon64_i8mm", ""),
                         ("tessera: dispatch: the limit is 'neon64_i8mm', but this processor runs " + ts::describe_processor()).c_str(),
                         ts::unsupported_error);
    CHECK_THROWS_WITH_AS(best_entry({avx2, wide}, "", "sse2"),
                         ("tessera: dispatch: compiled for avx2, avx512, but this processor runs " + ts::describe_processor() +
                          ", TESSERA_ARCH is sse2")
                             .c_str(),
                         ts::unsupported_error);
#endif
}

TEST_CASE("dispatch calls the maker for the best tag, once") {
    int calls = 0;
    auto const best = ts::dispatch(all{}, [&]<class Arch>(Arch) {
        ++calls;
        return std::string{Arch::name};
    });
    CHECK(calls == 1);
    CHECK(*best == best.arch());
    CHECK(best->size() == best.arch().size());
    CHECK(best.from() == ts::names(all{}));
    CHECK(ts::describe(best) == *best + ", of " + ts::names(all{}));
    CHECK(best.arch() == ts::best_arch(all{}));
    // The list of what the processor runs ends with the best.
    std::string const processor = ts::describe_processor();
    if (ts::detail::environment_limit().empty()) CHECK(processor.substr(processor.size() - best->size()) == *best);
    CHECK_THROWS_AS(ts::dispatch(
                        all{}, []<class Arch>(Arch) { return 0; }, "none"),
                    ts::unsupported_error);
}
