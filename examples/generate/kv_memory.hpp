// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The keys and values of all layers, in formats that are chosen at run time, and what is forgotten when they are too many.
///
/// Keys keep the rotations of their places in the text, which go on counting where tokens have been forgotten. After a chunk
/// of tokens a layer with more than it may keep forgets
///
///     window        all but the first tokens ("attention sinks", Xiao et al. 2023, arXiv:2309.17453) and the last ones
///     heavy_hitters all but those that attention used most and the last ones, every KV head its own (H2O, attention/heavy_hitters.hpp)
///
/// so that memory is that of what is kept and a chunk. A ring forgets the oldest.

#include <tessera/attention/attention.hpp>
#include <tessera/attention/heavy_hitters.hpp>
#include <tessera/storage/any_kv_cache.hpp>

#include <algorithm>
#include <string>
#include <vector>

namespace generate {

namespace ts = tessera;
using ts::index_t;
using ts::kv_layout;

enum class eviction { none, window, heavy_hitters };

constexpr char const* name_of(eviction e) noexcept {
    constexpr char const* names[] = {"none", "window", "h2o"};
    return names[static_cast<int>(e)];
}

struct kv_options {
    std::string formats = "fp16"; ///< "KEYS,VALUES" or one for both, as kv_formats::parse reads them
    kv_layout layout = kv_layout::contiguous;
    index_t tokens = 0; ///< room; 0: for the whole context, or what is kept and a chunk
    eviction evict = eviction::none;
    index_t sinks = 4;     ///< first tokens that the window keeps
    index_t window = 1024; ///< last tokens that are kept, or as many heavy and last ones, half and half

    /// Tokens that a layer keeps.
    index_t kept() const noexcept { return evict == eviction::window ? sinks + window : window; }
    /// Room that a text of so many tokens needs, in chunks of `chunk`.
    index_t room(index_t context, index_t chunk) const noexcept {
        if (tokens != 0) return tokens;
        return evict == eviction::none ? context : ts::minimum(context, kept() + chunk);
    }
};

/// Caches in one of `Formats`.
template <class Formats>
class basic_kv_memory {
    using cache = ts::basic_any_kv_cache<Formats>;

public:
    basic_kv_memory() = default;
    /// @throws tessera::unsupported_error when there is no such format, or no such forgetting in a ring
    basic_kv_memory(kv_options const& options, index_t layers, index_t capacity, index_t kv_heads, index_t head_dim)
        : options_{options}, formats_{Formats::parse(options.formats)} {
        if (options.evict != eviction::none && options.layout == kv_layout::ring)
            ts::detail::raise<ts::unsupported_error>("tessera: kv_memory: a ring forgets its oldest tokens, and no others");
        for (index_t i = 0; i < layers; ++i) {
            caches_.emplace_back(formats_, capacity, kv_heads, head_dim, options.layout);
            if (options.evict == eviction::heavy_hitters) scores_.push_back(fresh_scores(caches_.back()));
        }
    }

    std::string name() const { return Formats::name(formats_); }
    /// Attention must be called with the queries of all tokens appended, because what is forgotten depends on them.
    bool wants_all_queries() const noexcept { return options_.evict == eviction::heavy_hitters; }
    /// Position of the next token in the text.
    index_t position() const noexcept { return position_; }
    /// Tokens that the next step sees.
    index_t tokens() const noexcept { return caches_.empty() ? 0 : caches_.front().tokens(); }
    index_t bytes() const noexcept {
        index_t sum = 0;
        for (cache const& c : caches_) sum += c.bytes();
        return sum;
    }
    void clear() {
        for (cache& c : caches_) c.clear();
        for (ts::heavy_hitters& s : scores_) s = fresh_scores(caches_.front());
        position_ = 0;
    }

    template <class Exec>
    void append(Exec const& exec, index_t layer,
                ts::tensor_view<float const, 3> const& k,   // (tokens, kv_heads, head_dim)
                ts::tensor_view<float const, 3> const& v) { // (tokens, kv_heads, head_dim)
        ts::append(exec, caches_[static_cast<std::size_t>(layer)], k, v);
        if (layer == 0) position_ += k.extent(0);
    }

    template <class Exec>
    void attend(Exec const& exec, index_t layer,
                ts::tensor_view<float const, 3> const& q,  // (tokens, heads, head_dim)
                ts::tensor_view<float, 3> const& out) {    // (tokens, heads, head_dim)
        auto const at = static_cast<std::size_t>(layer);
        if (options_.evict == eviction::heavy_hitters)
            scores_[at].attend(exec, q, caches_[at], out, ts::causal);
        else
            ts::attention(exec, q, caches_[at], out, ts::causal);
    }

    /// Forgets what is too much; the last queries of the layer have been there.
    template <class Exec>
    void forget(Exec const& exec, index_t layer) {
        auto const at = static_cast<std::size_t>(layer);
        if (options_.evict == eviction::heavy_hitters) scores_[at].evict(exec, caches_[at]);
        if (options_.evict == eviction::window && caches_[at].tokens() > options_.kept())
            drop(caches_[at], options_.sinks, caches_[at].tokens() - options_.window);
    }

private:
    ts::heavy_hitters fresh_scores(cache const& kv) const {
        return {kv.kv_heads(), kv.capacity(), options_.window - options_.window / 2, options_.window / 2};
    }
    /// Forgets tokens [first, last); those after them move up.
    static void drop(cache& kv, index_t first, index_t last) {
        index_t const left = kv.tokens() - last;
        auto const move = [&](auto const& rows) {
            for (index_t h = 0; h < kv.kv_heads(); ++h) {
                std::copy_n(rows.row(h, last), left * rows.slot_stride, rows.row(h, first));
                if (rows.scales != nullptr) std::copy_n(rows.scale_row(h, last), left, rows.scale_row(h, first));
            }
        };
        move(kv.key_rows());
        move(kv.value_rows());
        kv.truncate(first + left);
    }

    kv_options options_;
    ts::kv_choice formats_;
    std::vector<cache> caches_;
    std::vector<ts::heavy_hitters> scores_; // of each layer, or none
    index_t position_ = 0;
};

/// Every format that the library names.
using kv_memory = basic_kv_memory<ts::standard_kv_formats>;

} // namespace generate
