// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The keys and values of all layers, in a format that is chosen at run time.

#include <tessera/attention/attention.hpp>
#include <tessera/storage/kv_cache.hpp>

#include <cstddef>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

namespace generate {

namespace ts = tessera;
using ts::index_t;

enum class kv_format { fp32, fp16, bf16, int8 };

constexpr char const* name_of(kv_format f) noexcept {
    constexpr char const* names[] = {"fp32", "fp16", "bf16", "int8"};
    return names[static_cast<int>(f)];
}

/// contiguous: every token up to the capacity; ring: the last ones.
enum class kv_layout { contiguous, ring };

namespace detail {

template <class Format, class Layout>
using cache_of = ts::kv_cache<ts::key<Format>, ts::value<Format>, Layout>;

} // namespace detail

/// One of the caches that it is compiled for, `Cache...`.
template <class... Cache>
class basic_kv_memory {
public:
    basic_kv_memory() = default;
    /// @throws tessera::unsupported_error when it is not compiled for the format and layout
    basic_kv_memory(kv_format format, kv_layout layout, index_t layers, index_t capacity, index_t kv_heads, index_t head_dim) {
        auto const make = [&]<class Format, class Layout>(std::type_identity<Format>, std::type_identity<Layout>) {
            using cache = detail::cache_of<Format, Layout>;
            if constexpr ((std::is_same_v<cache, Cache> || ...)) {
                auto& all = caches_.template emplace<std::vector<cache>>();
                for (index_t i = 0; i < layers; ++i) all.emplace_back(capacity, kv_heads, head_dim);
            } else {
                ts::detail::raise<ts::unsupported_error>(std::string{"the program is not compiled for KV caches in "} + name_of(format));
            }
        };
        auto const with_layout = [&](auto f) {
            if (layout == kv_layout::ring)
                make(f, std::type_identity<ts::ring>{});
            else
                make(f, std::type_identity<ts::contiguous>{});
        };
        switch (format) {
        case kv_format::fp32: with_layout(std::type_identity<float>{}); break;
        case kv_format::fp16: with_layout(std::type_identity<ts::fp16>{}); break;
        case kv_format::bf16: with_layout(std::type_identity<ts::bf16>{}); break;
        case kv_format::int8: with_layout(std::type_identity<ts::int8_per_token>{}); break;
        }
    }

    /// Position of the next token.
    index_t position() const {
        return std::visit([](auto const& c) { return c.empty() ? index_t{0} : c.front().end_position(); }, caches_);
    }
    index_t bytes() const {
        return std::visit([](auto const& all) {
            index_t sum = 0;
            for (auto const& c : all) sum += c.bytes();
            return sum;
        }, caches_);
    }
    void clear() {
        std::visit([](auto& all) {
            for (auto& c : all) c.clear();
        }, caches_);
    }

    template <class Exec>
    void append(Exec const& exec, index_t layer,
                ts::tensor_view<float const, 3> const& k,   // (tokens, kv_heads, head_dim)
                ts::tensor_view<float const, 3> const& v) { // (tokens, kv_heads, head_dim)
        std::visit([&](auto& c) { ts::append(exec, c[static_cast<std::size_t>(layer)], k, v); }, caches_);
    }

    template <class Exec>
    void attend(Exec const& exec, index_t layer,
                ts::tensor_view<float const, 3> const& q,    // (tokens, heads, head_dim)
                ts::tensor_view<float, 3> const& out) const { // (tokens, heads, head_dim)
        std::visit([&](auto const& c) { ts::attention(exec, q, c[static_cast<std::size_t>(layer)], out, ts::causal); },
                   caches_);
    }

private:
    std::variant<std::vector<Cache>...> caches_;
};

/// Every format in every layout.
using kv_memory =
    basic_kv_memory<detail::cache_of<float, ts::contiguous>, detail::cache_of<ts::fp16, ts::contiguous>,
                    detail::cache_of<ts::bf16, ts::contiguous>, detail::cache_of<ts::int8_per_token, ts::contiguous>,
                    detail::cache_of<float, ts::ring>, detail::cache_of<ts::fp16, ts::ring>,
                    detail::cache_of<ts::bf16, ts::ring>, detail::cache_of<ts::int8_per_token, ts::ring>>;

} // namespace generate
