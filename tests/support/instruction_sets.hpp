// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The instruction sets that a test runs on. All that this program's flags allow: the lesser ones are judged beside this
/// machine's. Compile time is the price, so of several formats with one decoder class the first is judged on all, the
/// others on the best alone (`best_arch`), until TESSERA_TEST_EVERY_ARCH (`tests/run.sh --all`). With
/// TESSERA_TEST_BEST_ARCH, which programs compiled for one set or for a sanitizer have, everything is on the best alone; with
/// TESSERA_TEST_ONE_WIDTH (`tests/run.sh --ci`) SSE2 and AVX2 are left to the programs compiled for them.

#include <tessera/core/arch.hpp>

#include <type_traits>

namespace tessera_test {

#if defined(TESSERA_TEST_BEST_ARCH)
inline constexpr bool judges_lesser_archs = false;
#else
inline constexpr bool judges_lesser_archs = true;
#endif
#if defined(TESSERA_TEST_EVERY_ARCH)
inline constexpr bool judges_every_format_on_all = true;
#else
inline constexpr bool judges_every_format_on_all = false;
#endif
#if defined(TESSERA_TEST_ONE_WIDTH)
inline constexpr bool judges_lesser_widths = false;
#else
inline constexpr bool judges_lesser_widths = true;
#endif

/// f(arch) where the test is to run on Arch besides the best one.
template <class Arch, class F>
void visit_lesser(F const& f) {
    using native = tessera::native_arch;
    constexpr bool judged = judges_lesser_archs && (judges_lesser_widths || std::is_base_of_v<tessera::avx512, Arch>);
    if constexpr (judged && std::is_base_of_v<Arch, native> && !std::is_same_v<Arch, native>) f(Arch{});
}

/// Of each width, and of each way to multiply bytes.
struct all_archs {
    template <class F>
    static void visit(F const& f) {
        f(tessera::native_arch{});
        visit_lesser<tessera::avx512_vnni>(f);
        visit_lesser<tessera::avx2>(f);
        visit_lesser<tessera::sse2>(f);
        visit_lesser<tessera::neon64>(f);
    }
};

/// Of each width: for what multiplies no bytes.
struct archs_by_width {
    template <class F>
    static void visit(F const& f) {
        f(tessera::native_arch{});
        visit_lesser<tessera::avx2>(f);
        visit_lesser<tessera::sse2>(f);
    }
};

struct best_arch {
    template <class F>
    static void visit(F const& f) {
        if constexpr (judges_every_format_on_all)
            all_archs::visit(f);
        else
            f(tessera::native_arch{});
    }
};

} // namespace tessera_test
