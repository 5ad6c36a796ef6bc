// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The keys and values of all layers, in formats that are chosen at run time, and what is forgotten when they are too many, or not read.
///
/// Keys keep the rotations of their places in the text, which go on counting where tokens have been forgotten. With a policy
/// (attention/eviction.hpp) every layer has a cache in pages, of which after a chunk of tokens
///
///     window        keeps the first tokens ("attention sinks", Xiao et al. 2023, arXiv:2309.17453) and the last ones, in whole pages
///     heavy_hitters keeps those that attention used most and the last ones, every KV head its own (H2O)
///     top_k         keeps all: a step reads the first and the last tokens and the best blocks of each KV head, but for the first layer,
///                   which reads all (Kinetics)
///
/// so that memory, or what a step reads, is that of what is kept and a chunk. Without a policy a cache is contiguous, or a ring, which
/// forgets the oldest.

#include <tessera/attention/attention.hpp>
#include <tessera/attention/eviction.hpp>
#include <tessera/storage/any_kv_cache.hpp>
#include <tessera/storage/kv_pages.hpp>

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace generate {

namespace ts = tessera;
using ts::index_t;
using ts::kv_layout;

enum class eviction { none, window, heavy_hitters, top_k };

constexpr char const* name_of(eviction e) noexcept {
    constexpr char const* names[] = {"none", "window", "h2o", "top-k"};
    return names[static_cast<int>(e)];
}

struct kv_options {
    std::string formats = "fp16"; ///< "KEYS,VALUES" or one for both, as kv_formats::parse reads them
    kv_layout layout = kv_layout::contiguous;
    index_t tokens = 0; ///< room; 0: for the whole context, or what is kept and a chunk
    eviction evict = eviction::none;
    index_t sinks = 4;     ///< first tokens that the window keeps, or top_k reads
    index_t window = 1024; ///< last tokens that are kept, or as many heavy, or best, and last ones, half and half
    index_t page = 64;     ///< tokens of a page, where there is a policy: decoding reads as many at a time
    index_t block = 16;    ///< tokens that top_k chooses together

    /// Most tokens that a layer keeps.
    index_t kept() const noexcept { return evict == eviction::window ? ts::round_up(sinks, page) + window + page - 1 : window; }
    /// Room that a text of so many tokens needs, in chunks of `chunk`.
    index_t room(index_t context, index_t chunk) const noexcept {
        if (tokens != 0) return tokens;
        return evict == eviction::none || evict == eviction::top_k ? context : ts::minimum(context, kept() + chunk);
    }
};

/// A policy that reads and keeps all.
struct keep_all {
    template <class Exec, class Cache, class Score>
    void attend(Exec const& exec, ts::tensor_view<float const, 3> const& q, Cache const& kv, ts::tensor_view<float, 3> const& out,
                Score const& score) {
        ts::attention(exec, q, kv, out, score);
    }
    template <class Exec, class Cache>
    void evict(Exec const&, Cache&) noexcept {}
};

/// Caches in one of `Formats`.
template <class Formats>
class basic_kv_memory {
    using cache = ts::basic_any_kv_cache<Formats>;
    using pool = ts::basic_any_kv_page_pool<Formats>;
    using policy = std::variant<keep_all, ts::sink_window, ts::heavy_hitters, ts::block_top_k>;

    struct paged_layer {
        std::unique_ptr<pool> pages;
        ts::paged_sequence<pool> kv;
        policy rule;
    };

public:
    basic_kv_memory() = default;
    /// @throws tessera::unsupported_error when there is no such format, or no such forgetting in a ring
    basic_kv_memory(kv_options const& options, index_t layers, index_t capacity, index_t kv_heads, index_t head_dim)
        : options_{options}, formats_{Formats::parse(options.formats)}, capacity_{capacity}, kv_heads_{kv_heads}, head_dim_{head_dim} {
        if (options.evict != eviction::none && options.layout == kv_layout::ring)
            ts::detail::raise<ts::unsupported_error>("tessera: kv_memory: a ring forgets its oldest tokens, and no others");
        for (index_t i = 0; i < layers; ++i) {
            if (options.evict == eviction::none) {
                caches_.emplace_back(formats_, capacity, kv_heads, head_dim, options.layout);
            } else {
                auto pages = std::make_unique<pool>(formats_, ts::ceil_div(capacity, options.page), options.page, kv_heads, head_dim);
                ts::paged_sequence<pool> kv{*pages};
                paged_.push_back({std::move(pages), std::move(kv), fresh_rule(i)});
            }
        }
    }

    std::string name() const { return Formats::name(formats_); }
    /// Attention must be called with the queries of all tokens appended, because what is forgotten depends on them.
    bool wants_all_queries() const noexcept { return options_.evict == eviction::heavy_hitters; }
    /// Position of the next token in the text.
    index_t position() const noexcept { return position_; }
    /// Tokens that the next step sees, or chooses from.
    index_t tokens() const noexcept { return !paged_.empty() ? paged_.front().kv.tokens() : !caches_.empty() ? caches_.front().tokens() : 0; }
    index_t bytes() const noexcept {
        index_t sum = 0;
        for (cache const& c : caches_) sum += c.bytes();
        for (paged_layer const& l : paged_) sum += l.pages->bytes();
        return sum;
    }
    void clear() {
        for (cache& c : caches_) c.clear();
        for (std::size_t i = 0; i < paged_.size(); ++i) {
            paged_[i].kv.truncate(0);
            paged_[i].rule = fresh_rule(static_cast<index_t>(i));
        }
        position_ = 0;
    }

    template <class Exec>
    void append(Exec const& exec, index_t layer,
                ts::tensor_view<float const, 3> const& k,   // (tokens, kv_heads, head_dim)
                ts::tensor_view<float const, 3> const& v) { // (tokens, kv_heads, head_dim)
        auto const at = static_cast<std::size_t>(layer);
        if (paged_.empty())
            ts::append(exec, caches_[at], k, v);
        else
            ts::append(exec, paged_[at].kv, k, v);
        appended_ = k.extent(0);
        if (layer == 0) position_ += appended_;
    }

    template <class Exec>
    void attend(Exec const& exec, index_t layer,
                ts::tensor_view<float const, 3> const& q,  // (tokens, heads, head_dim)
                ts::tensor_view<float, 3> const& out) {    // (tokens, heads, head_dim)
        auto const at = static_cast<std::size_t>(layer);
        if (paged_.empty()) return ts::attention(exec, q, caches_[at], out, ts::causal);
        paged_layer& l = paged_[at];
        if (options_.evict == eviction::top_k && appended_ > 1) // a prompt's last token is none of decoding
            return ts::attention(exec, q, l.kv, out, ts::causal);
        std::visit([&](auto& rule) { rule.attend(exec, q, l.kv, out, ts::causal); }, l.rule);
    }

    /// Forgets what is too much; the last queries of the layer have been there.
    template <class Exec>
    void forget(Exec const& exec, index_t layer) {
        if (paged_.empty()) return;
        paged_layer& l = paged_[static_cast<std::size_t>(layer)];
        std::visit([&](auto& rule) { rule.evict(exec, l.kv); }, l.rule);
    }

private:
    policy fresh_rule(index_t layer) const {
        index_t const last = options_.window / 2, others = options_.window - last;
        switch (options_.evict) {
        case eviction::window: return ts::sink_window{options_.sinks, options_.window};
        case eviction::heavy_hitters: return ts::heavy_hitters{kv_heads_, capacity_, others, last};
        case eviction::top_k:
            if (layer == 0) return keep_all{};
            return ts::block_top_k{kv_heads_, head_dim_, options_.block, {options_.sinks, last, ts::ceil_div(others, options_.block)}};
        case eviction::none: break;
        }
        return keep_all{};
    }

    kv_options options_;
    ts::kv_choice formats_;
    index_t capacity_ = 0;
    index_t kv_heads_ = 0;
    index_t head_dim_ = 0;
    std::vector<cache> caches_; // of each layer, where there is no policy
    std::vector<paged_layer> paged_;
    index_t position_ = 0;
    index_t appended_ = 0; ///< tokens of the last call
};

/// Every format that the library names.
using kv_memory = basic_kv_memory<ts::standard_kv_formats>;

} // namespace generate
