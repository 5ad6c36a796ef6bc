// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The sizes of a model of GGUF's `llama` architecture, from the file's metadata. A key that is missing or makes no sense
/// is a format_error that names it.

#include <tessera/interop/gguf.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace generate {

using tessera::index_t;

struct hyperparameters {
    index_t layers = 0;
    index_t width = 0; ///< of the residual stream
    index_t heads = 0;
    index_t kv_heads = 0; ///< divides heads
    index_t head_dim = 0;
    index_t feed_forward = 0;
    index_t context = 0; ///< positions the model was trained for
    index_t rope_dims = 0;
    double rope_base = 10000.0;
    float epsilon = 0.0f; ///< of the norms
};

/// @throws tessera::format_error, tessera::unsupported_error
inline hyperparameters read_hyperparameters(tessera::gguf::file const& file) {
    auto const fail = [&](std::string const& what) {
        tessera::detail::raise<tessera::format_error>(file.name() + ": " + what);
    };
    auto const unsupported = [&](std::string const& what) {
        tessera::detail::raise<tessera::unsupported_error>(file.name() + ": " + what);
    };
    auto const architecture = file.get<std::string_view>("general.architecture");
    if (architecture != "llama")
        unsupported("architecture is " + tessera::gguf::detail::quoted_name(architecture) + ", expected 'llama'");
    auto const size = [&](std::string const& key) {
        index_t const value = static_cast<index_t>(file.get<std::uint32_t>(key));
        if (value < 1 || value > 1 << 24)
            fail("metadata '" + key + "' is " + std::to_string(value) + ", expected 1 to 16777216");
        return value;
    };
    auto const size_or = [&](std::string const& key, index_t fallback) {
        return file.contains(key) ? size(key) : fallback;
    };

    hyperparameters h;
    h.layers = size("llama.block_count");
    h.width = size("llama.embedding_length");
    h.heads = size("llama.attention.head_count");
    h.kv_heads = size_or("llama.attention.head_count_kv", h.heads);
    h.feed_forward = size("llama.feed_forward_length");
    h.context = size("llama.context_length");
    h.epsilon = file.get<float>("llama.attention.layer_norm_rms_epsilon");
    h.rope_base = static_cast<double>(file.get_or<float>("llama.rope.freq_base", 10000.0f));
    if (h.heads % h.kv_heads != 0)
        fail(std::to_string(h.heads) + " heads do not divide among " + std::to_string(h.kv_heads) + " KV heads");
    if (!file.contains("llama.attention.key_length") && h.width % h.heads != 0)
        fail("metadata 'llama.embedding_length' is " + std::to_string(h.width) + ", expected a multiple of " +
             std::to_string(h.heads) + " (heads)");
    h.head_dim = size_or("llama.attention.key_length", h.width / h.heads);
    if (size_or("llama.attention.value_length", h.head_dim) != h.head_dim)
        unsupported("keys and values have different lengths");
    h.rope_dims = size_or("llama.rope.dimension_count", h.head_dim);
    if (h.rope_dims > h.head_dim || h.rope_dims % 2 != 0)
        fail("metadata 'llama.rope.dimension_count' is " + std::to_string(h.rope_dims) + ", expected an even number of at most " +
             std::to_string(h.head_dim));
    if (!(h.epsilon >= 0.0f && h.epsilon < 1.0f))
        fail("metadata 'llama.attention.layer_norm_rms_epsilon' is " + std::to_string(h.epsilon) + ", expected 0 to 1");
    if (!(h.rope_base >= 1.0 && h.rope_base < 1e12))
        fail("metadata 'llama.rope.freq_base' is " + std::to_string(h.rope_base) + ", expected 1 to 1e12");
    if (file.get_or<std::string_view>("llama.rope.scaling.type", "none") != "none")
        unsupported("scaled rotary embeddings are not supported");
    if (file.contains("llama.expert_count") && file.get<std::uint32_t>("llama.expert_count") != 0)
        unsupported("mixtures of experts are not supported");
    return h;
}

} // namespace generate
