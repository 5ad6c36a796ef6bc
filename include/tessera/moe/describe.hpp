// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `describe(exec, block, tokens)`: what a mixture runs for so many tokens: its router's product, then the experts, those that
/// run the same named once with their number, for as many rows as an expert gets when all get equally many.
///
///     avx512_vnni: router (fp32, panel<16, 1>, float multiply-add); 2 of 8 experts a token: 8 x gate (...), up (...), down (...)

#include "../operators/describe.hpp"
#include "moe.hpp"

#include <string>
#include <utility>
#include <vector>

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class Exec, expert Expert>
std::string describe_expert(Exec const& exec, Expert const& e, index_t m) {
    if constexpr (linear_operator<Expert>)
        return describe_term(exec, e, m);
    else
        return "gate (" + describe_term(exec, e.gate(), m) + "), up (" + describe_term(exec, e.up(), m) + "), down (" +
               describe_term(exec, e.down(), m) + ")";
}

/// Each text once, with how many have it, in the order of the first.
template <class Exec, expert Expert>
std::string describe_family(Exec const& exec, std::span<Expert const> family, index_t m) {
    std::vector<std::pair<std::string, index_t>> kinds;
    for (Expert const& e : family) {
        std::string text = describe_expert(exec, e, m);
        auto at = kinds.begin();
        while (at != kinds.end() && at->first != text) ++at;
        if (at == kinds.end())
            kinds.emplace_back(std::move(text), 1);
        else
            ++at->second;
    }
    std::string out;
    for (auto const& [text, count] : kinds) out += (out.empty() ? "" : "; ") + std::to_string(count) + " x " + text;
    return out;
}

} // namespace detail

/// See the file comment.
template <execution_policy Exec, moe_block Block>
std::string describe(Exec const& exec, Block const& block, index_t tokens) {
    if constexpr (std::is_same_v<Exec, reference>) {
        return static_cast<void>(exec), static_cast<void>(block), static_cast<void>(tokens), "reference";
    } else {
        auto const w = detail::moe_view(block);
        auto const& router = w.router();
        index_t const rows = maximum(1, ceil_div(tokens * router.k(), router.experts()));
        std::string out = std::string{Exec::arch_type::name} + ": router (" + detail::describe_expert(exec, router.weights(), tokens) +
                          "); " + std::to_string(router.k()) + " of " + std::to_string(router.experts()) +
                          " experts a token: " + detail::describe_family(exec, w.experts(), rows);
        if constexpr (requires { w.shared().expert(); })
            out += "; shared expert: " + detail::describe_expert(exec, w.shared().expert(), tokens);
        return out;
    }
}

/// The members of `apply_grouped`, for m rows each.
template <execution_policy Exec, linear_operator Op>
std::string describe_grouped(Exec const& exec, std::span<Op const> family, index_t m) {
    if constexpr (std::is_same_v<Exec, reference>)
        return static_cast<void>(exec), static_cast<void>(family), static_cast<void>(m), "reference";
    else
        return std::string{Exec::arch_type::name} + ": " + detail::describe_family(exec, family, m);
}

} // namespace tessera::inline TESSERA_ABI
