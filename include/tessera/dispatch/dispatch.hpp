// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The best of several instruction sets for which functions were compiled, chosen when the program runs. With CMake's
/// `tessera_add_dispatch(app UNIT kernels.cpp ARCHS sse2 avx2 avx512_vnni)` (tests/consumers/dispatch is all of it):
/// @verbatim
///     // kernels.hpp, for everyone
///     struct kernels { float (*dot)(ts::vector_view<float const>, ts::vector_view<float const>); };
///     template <class Arch> kernels make_kernels();
///
///     // kernels.cpp, compiled once for each instruction set; ts::native_arch, and so ts::cpu<>, is that set's
///     template <> kernels make_kernels<ts::native_arch>() { return {&dot}; }
///
///     // main.cpp, compiled for any processor
///     #include <tessera_dispatch/kernels.hpp>
///     auto const best = ts::dispatch(tessera_dispatch::kernels{}, []<class Arch>(Arch) { return make_kernels<Arch>(); });
///     best->dot(x, y);                                                   // best.arch() is "avx512_vnni"
/// @endverbatim
/// The environment variable TESSERA_ARCH, read once, and the argument `limit` lower the choice: with "avx2" nothing better
/// is taken. They never raise it.

#include "../core/error.hpp"
#include "cpu_probe.hpp"

#include <cstdlib>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// A tag as values. A higher rank is better; ranks follow `known_archs`.
struct arch_entry {
    std::string_view name;
    index_t rank;
    bool runs;
};

template <class... Arch>
constexpr index_t rank_of(arch_list<Arch...>, std::string_view name) noexcept {
    index_t rank = -1;
    index_t i = 0;
    ((rank = name == Arch::name ? i : rank, ++i), ...);
    return rank;
}
constexpr index_t rank_of(std::string_view name) noexcept { return rank_of(known_archs{}, name); }

template <class... Arch>
bool runs_named(arch_list<Arch...>, std::string_view name) noexcept {
    return ((name == Arch::name && supports<Arch>()) || ...);
}

/// The rank that `limit` allows, which `source` gave; an empty one allows all.
inline index_t limit_rank(std::string_view limit, char const* source) {
    if (limit.empty()) return known_archs::size;
    index_t const rank = rank_of(limit);
    if (rank < 0)
        raise<unsupported_error>("tessera: dispatch: " + std::string{source} + " is '" + std::string{limit} +
                                 "', expected one of " + names(known_archs{}));
    if (!runs_named(known_archs{}, limit))
        raise<unsupported_error>("tessera: dispatch: " + std::string{source} + " is '" + std::string{limit} +
                                 "', but this processor runs " + describe_processor());
    return rank;
}

/// TESSERA_ARCH, or nothing.
inline std::string const& environment_limit() {
    static std::string const value = [] {
        char const* const text = std::getenv("TESSERA_ARCH");
        return std::string{text != nullptr ? text : ""};
    }();
    return value;
}

/// The best entry within both limits.
inline arch_entry best_entry(std::initializer_list<arch_entry> compiled, std::string_view limit, std::string_view environment) {
    index_t const argument_rank = limit_rank(limit, "the limit");
    index_t const environment_rank = limit_rank(environment, "TESSERA_ARCH");
    arch_entry const* best = nullptr;
    std::string known;
    for (arch_entry const& e : compiled) {
        known += (known.empty() ? "" : ", ") + std::string{e.name};
        if (e.runs && e.rank <= argument_rank && e.rank <= environment_rank && (best == nullptr || e.rank > best->rank)) best = &e;
    }
    if (best == nullptr)
        raise<unsupported_error>("tessera: dispatch: compiled for " + known + ", but this processor runs " + describe_processor() +
                                 (limit.empty() ? "" : ", limited to " + std::string{limit}) +
                                 (environment.empty() ? "" : ", TESSERA_ARCH is " + std::string{environment}));
    return *best;
}

} // namespace detail

/// What was made for the chosen instruction set: a table of functions, or whatever the maker returned.
template <class T>
class chosen {
public:
    chosen(T value, std::string_view arch, std::string from) : value_{std::move(value)}, arch_{arch}, from_{std::move(from)} {}
    T const& operator*() const noexcept { return value_; }
    T const* operator->() const noexcept { return &value_; }
    /// The name of its tag.
    std::string_view arch() const noexcept { return arch_; }
    /// The names of what there was to choose from, "sse2, avx2".
    std::string const& from() const noexcept { return from_; }

private:
    T value_;
    std::string_view arch_;
    std::string from_;
};

/// "avx2, of sse2, avx2, avx512": for people.
template <class T>
std::string describe(chosen<T> const& c) {
    return std::string{c.arch()} + ", of " + c.from();
}

/// The name of the best tag of a list on this machine, within `limit` and TESSERA_ARCH.
/// @throws unsupported_error where there is none, or a limit is no tag or none that this machine runs: says what is
template <class... Arch>
std::string_view best_arch(arch_list<Arch...>, std::string_view limit = {}) {
    static_assert(sizeof...(Arch) > 0, "tessera: dispatch: a list of instruction sets has at least one");
    return detail::best_entry({{Arch::name, detail::rank_of(Arch::name), supports<Arch>()}...}, limit,
                              detail::environment_limit())
        .name;
}

/// make(Arch{}) for the best tag of the list; make must return the same type for each. See the file comment.
/// @throws unsupported_error as `best_arch`, and what `make` throws
template <class... Arch, class Make>
auto dispatch(arch_list<Arch...> archs, Make const& make, std::string_view limit = {}) {
    using first = std::common_type_t<decltype(make(Arch{}))...>;
    static_assert((std::is_same_v<first, decltype(make(Arch{}))> && ...),
                  "tessera: dispatch: the maker returns one type for every instruction set");
    std::string_view const best = best_arch(archs, limit);
    using maker = first (*)(Make const&);
    maker found = nullptr;
    ((best == Arch::name ? static_cast<void>(found = [](Make const& m) { return m(Arch{}); }) : void()), ...);
    return chosen<first>{found(make), best, names(archs)};
}

} // namespace tessera::inline TESSERA_ABI
