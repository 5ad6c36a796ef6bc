// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Which architecture tags this processor and its operating system run.
///
///     bool const is_fast = ts::supports<ts::avx512_vnni>();
///     std::string const all = ts::describe_processor();                  // "sse2, avx2, avx512"
///
/// A tag stands for all that `tessera_add_dispatch` lets a compiler use for it: avx2 is the level x86-64-v3, avx512 x86-64-v4.
/// Registers count only where the operating system saves them (XCR0). Linux hands out matrix tiles to a process that asks:
/// the first question about avx512_amx asks for them. No flag is needed to compile this.

#include "../core/arch.hpp"
#include "../core/types.hpp"

#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(_M_X64)
#include <intrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace tessera::inline TESSERA_ABI {

/// Architecture tags, as a type.
template <class... Arch>
struct arch_list {
    static constexpr index_t size = sizeof...(Arch);
};

/// Every tag that has kernels, a better one after those that it replaces.
using known_archs =
    arch_list<neon64, neon64_dotprod, neon64_i8mm, sse2, avx2, avx2_vnni, avx512, avx512_vnni, avx512_amx>;

/// What an x86-64 processor says of itself (the instruction CPUID) and of its operating system (the register XCR0).
struct x86_features {
    std::uint32_t leaf_1_ecx = 0;
    std::uint32_t leaf_7_ebx = 0;
    std::uint32_t leaf_7_ecx = 0;
    std::uint32_t leaf_7_edx = 0;
    std::uint32_t leaf_7_1_eax = 0;
    std::uint32_t extended_1_ecx = 0;
    std::uint64_t xcr0 = 0;
};

namespace detail {

template <class Word>
constexpr bool has_bits(Word word, std::initializer_list<int> bits) noexcept {
    for (int const bit : bits)
        if ((word >> bit & 1) == 0) return false;
    return true;
}

// Intel's manual, volume 2, CPUID; the levels are those of the x86-64 psABI.
constexpr bool runs(sse2, x86_features const&) noexcept { return true; }
constexpr bool runs(avx2, x86_features const& f) noexcept {
    return has_bits(f.leaf_1_ecx, {0, 9, 12, 13, 19, 20, 22, 23}) && // SSE3 SSSE3 FMA CX16 SSE4.1 SSE4.2 MOVBE POPCNT
           has_bits(f.leaf_1_ecx, {27, 28, 29}) &&                   // OSXSAVE AVX F16C
           has_bits(f.leaf_7_ebx, {3, 5, 8}) &&                      // BMI1 AVX2 BMI2
           has_bits(f.extended_1_ecx, {0, 5}) &&                     // LAHF LZCNT
           has_bits(f.xcr0, {1, 2});                                 // SSE and AVX registers
}
constexpr bool runs(avx2_vnni, x86_features const& f) noexcept {
    return runs(avx2{}, f) && has_bits(f.leaf_7_1_eax, {4}); // AVX-VNNI
}
constexpr bool runs(avx512, x86_features const& f) noexcept {
    return runs(avx2{}, f) && has_bits(f.leaf_7_ebx, {16, 17, 28, 30, 31}) && // F DQ CD BW VL
           has_bits(f.xcr0, {5, 6, 7});                                       // masks and the rest of the registers
}
constexpr bool runs(avx512_vnni, x86_features const& f) noexcept {
    return runs(avx512{}, f) && has_bits(f.leaf_7_ecx, {11}); // VNNI
}
constexpr bool runs(avx512_amx, x86_features const& f) noexcept {
    return runs(avx512_vnni{}, f) && has_bits(f.leaf_7_1_eax, {5}) && // AVX512_BF16
           has_bits(f.leaf_7_edx, {22, 24, 25}) &&                    // AMX BF16 TILE INT8
           has_bits(f.xcr0, {17, 18});                                // tiles
}

#if (defined(__x86_64__) && defined(__GNUC__)) || defined(_M_X64)

struct cpuid_result {
    std::uint32_t eax = 0;
    std::uint32_t ebx = 0;
    std::uint32_t ecx = 0;
    std::uint32_t edx = 0;
};
/// Zeros where the processor has no such leaf.
inline cpuid_result cpuid(std::uint32_t leaf, std::uint32_t part) noexcept {
    cpuid_result r;
#if defined(__GNUC__)
    static_cast<void>(__get_cpuid_count(leaf, part, &r.eax, &r.ebx, &r.ecx, &r.edx));
#else
    int words[4];
    __cpuid(words, static_cast<int>(leaf & 0x80000000u));
    if (static_cast<std::uint32_t>(words[0]) < leaf) return r;
    __cpuidex(words, static_cast<int>(leaf), static_cast<int>(part));
    r = {static_cast<std::uint32_t>(words[0]), static_cast<std::uint32_t>(words[1]), static_cast<std::uint32_t>(words[2]),
         static_cast<std::uint32_t>(words[3])};
#endif
    return r;
}
/// XCR0, which may be read where OSXSAVE is set. Written as an instruction, because the intrinsic wants a flag.
inline std::uint64_t read_xcr0() noexcept {
#if defined(__GNUC__)
    std::uint32_t low = 0;
    std::uint32_t high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return static_cast<std::uint64_t>(high) << 32 | low;
#else
    return _xgetbv(0);
#endif
}
inline x86_features probe_processor() noexcept {
    x86_features f;
    cpuid_result const leaf_7 = cpuid(7, 0);
    f.leaf_1_ecx = cpuid(1, 0).ecx;
    f.leaf_7_ebx = leaf_7.ebx;
    f.leaf_7_ecx = leaf_7.ecx;
    f.leaf_7_edx = leaf_7.edx;
    if (leaf_7.eax >= 1) f.leaf_7_1_eax = cpuid(7, 1).eax;
    f.extended_1_ecx = cpuid(0x80000001u, 0).ecx;
    if (has_bits(f.leaf_1_ecx, {27})) f.xcr0 = read_xcr0();
    return f;
}

/// True when this process may use tile registers; asks for them once.
inline bool tiles_are_granted() noexcept {
#if defined(__linux__)
    static bool const granted = [] {
        constexpr long request_permission = 0x1023; // ARCH_REQ_XCOMP_PERM
        constexpr long tile_data = 18;              // XFEATURE_XTILEDATA
        return ::syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
    }();
    return granted;
#else
    return false;
#endif
}

template <class Arch>
bool is_supported() noexcept {
    static x86_features const here = probe_processor();
    if constexpr (std::is_base_of_v<sse2, Arch>)
        return runs(Arch{}, here) && (!std::is_same_v<Arch, avx512_amx> || tiles_are_granted());
    else
        return false;
}

#elif defined(__aarch64__) || defined(_M_ARM64)

/// Linux says it in the auxiliary vector (HWCAP, HWCAP2); elsewhere the baseline is all that is known.
template <class Arch>
bool is_supported() noexcept {
    if constexpr (std::is_same_v<Arch, neon64>) return true;
#if defined(__linux__)
    bool const dotprod = has_bits(::getauxval(AT_HWCAP), {7, 8, 12, 20}); // CRC32 ATOMICS ASIMDRDM ASIMDDP
    if constexpr (std::is_same_v<Arch, neon64_dotprod>) return dotprod;
    if constexpr (std::is_same_v<Arch, neon64_i8mm>) return dotprod && has_bits(::getauxval(AT_HWCAP2), {13}); // I8MM
#endif
    return false;
}

#else

template <class Arch>
bool is_supported() noexcept {
    return false;
}

#endif

template <class... Arch>
constexpr bool is_known(arch_list<Arch...>, auto tag) noexcept {
    return (std::is_same_v<Arch, decltype(tag)> || ...);
}

} // namespace detail

/// Whether this machine runs the instructions of a tag.
template <class Arch>
bool supports() noexcept {
    static_assert(detail::is_known(known_archs{}, Arch{}), "tessera: supports: this is no architecture tag that has kernels");
    return detail::is_supported<Arch>();
}

/// The names of a list, "sse2, avx2".
template <class... Arch>
std::string names(arch_list<Arch...>) {
    std::string text;
    ((text += (text.empty() ? "" : ", ") + std::string{Arch::name}), ...);
    return text;
}

namespace detail {

template <class... Arch>
std::string supported_names(arch_list<Arch...>) {
    std::string text;
    ((text += supports<Arch>() ? (text.empty() ? "" : ", ") + std::string{Arch::name} : ""), ...);
    return text;
}

} // namespace detail

/// The tags that this machine runs, "sse2, avx2".
inline std::string describe_processor() { return detail::supported_names(known_archs{}); }

} // namespace tessera::inline TESSERA_ABI
