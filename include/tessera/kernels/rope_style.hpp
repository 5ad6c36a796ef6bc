// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Which elements of a head rope turns together, as types. Both turn pair i by the same angle; a model's weights fix the
/// style.

#include "../core/types.hpp"

#include <concepts>

namespace tessera::inline TESSERA_ABI {

/// Elements 2i and 2i + 1: the original form (Su et al. 2021), and what GGUF files of the llama family are permuted for.
struct rope_interleaved {
    static constexpr char const* name = "rope_interleaved";
    TESSERA_HOST_DEVICE static constexpr index_t first(index_t i, index_t) noexcept { return 2 * i; }
    TESSERA_HOST_DEVICE static constexpr index_t second(index_t i, index_t) noexcept { return 2 * i + 1; }
};

/// Elements i and i + dims / 2: the form of GPT-NeoX and of the checkpoints of Hugging Face.
struct rope_halves {
    static constexpr char const* name = "rope_halves";
    TESSERA_HOST_DEVICE static constexpr index_t first(index_t i, index_t) noexcept { return i; }
    TESSERA_HOST_DEVICE static constexpr index_t second(index_t i, index_t pairs) noexcept { return i + pairs; }
};

/// A type like those above: the places of pair i of `pairs`.
template <class S>
concept rope_style = requires(index_t i) {
    { S::first(i, i) } noexcept -> std::same_as<index_t>;
    { S::second(i, i) } noexcept -> std::same_as<index_t>;
};

namespace detail {

/// The rotations of some tokens: row positions[t] (or first_position + t where that is null) of the cosines and sines.
struct rotations {
    float const* cosines; ///< (positions, pairs)
    float const* sines;   ///< (positions, pairs)
    index_t pairs;
    index_t const* positions;
    index_t first_position;

    TESSERA_HOST_DEVICE float const* cosine(index_t t) const noexcept { return cosines + row(t) * pairs; }
    TESSERA_HOST_DEVICE float const* sine(index_t t) const noexcept { return sines + row(t) * pairs; }

private:
    TESSERA_HOST_DEVICE index_t row(index_t t) const noexcept { return positions != nullptr ? positions[t] : first_position + t; }
};

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
