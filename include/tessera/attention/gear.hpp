// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A KV cache that is quantised, low-rank and sparse at once (GEAR: Kang et al. 2024, arXiv:2403.05527). Tokens wait in a buffer in
/// float32; whenever an `append` fills it, the tokens that it completes are compressed together (gear_compress.hpp).
///
///     ts::gear_kv_cache<4> kv{capacity, kv_heads, head_dim};       // 4 bits, outliers and factors in fp16
///     ts::append(exec, kv, k, v);
///     ts::attention(exec, q, kv, out, ts::causal);                 // any score and mask
///
/// A row of keys or values is put together when attention of many queries reads it, once for all queries of a tile: codes times scales,
/// outliers, and `rank` multiply-adds a number. Decoding keeps the low-rank terms apart: (q Bᵀ) Aᵀ and (p A) B, `rank` multiply-adds
/// a token and query. What an `append` compresses depends on how tokens are cut into calls: a prompt that comes at
/// once is one block, whose channels have their outliers and ranks in common.
///
/// Memory, in bits a number, for 4 bits, groups of 64, dims of 128 and a block of 64 tokens: codes 4, scales 0.5, outliers 0.64
/// (2 % in fp16 with 16 bits of place; of keys, whose vectors of 64 have two, 1) and 0.25 to find a row's, factors of rank 2
/// 0.75. `bytes` counts what there is.

#include "../kernels/cpu/attention_gear.hpp"
#include "attention.hpp"
#include "gear_compress.hpp"

#include <type_traits>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// See the file comment. `Bits` 1 to 8 a code; T, fp16 or float: what scales, factors and outliers are kept as. A move leaves one
/// without tokens, heads or capacity.
template <int Bits, class T = fp16>
class gear_kv_cache {
    static_assert(Bits >= 1 && Bits <= 8 && (std::is_same_v<T, fp16> || std::is_same_v<T, float>),
                  "tessera: gear_kv_cache has codes of 1 to 8 bits, and scales in fp16 or float");

public:
    using key_element = gear_code<Bits, T>;
    using value_element = gear_code<Bits, T>;
    using view_type = kv_view<key_element, value_element>;

    gear_kv_cache(index_t capacity, index_t kv_heads, index_t head_dim, gear_options const& options = {})
        : gear_kv_cache{capacity, kv_heads, head_dim, head_dim, options} {}
    gear_kv_cache(index_t capacity, index_t kv_heads, index_t key_dim, index_t value_dim, gear_options const& options = {})
        : options_{checked(options)}, capacity_{checked("capacity", capacity, index_t{1} << 40)},
          kv_heads_{checked("kv_heads", kv_heads, 1 << 16)}, keys_{checked("key_dim", key_dim, 1 << 16), kv_heads, options.buffer},
          values_{checked("value_dim", value_dim, 1 << 16), kv_heads, options.buffer} {}

    gear_options const& options() const noexcept { return options_; }
    index_t tokens() const noexcept { return tokens_; }
    /// Of them, those that are compressed.
    index_t compressed() const noexcept { return compressed_; }
    index_t capacity() const noexcept { return capacity_; }
    index_t kv_heads() const noexcept { return kv_heads_; }
    index_t key_dim() const noexcept { return keys_.dim; }
    index_t value_dim() const noexcept { return values_.dim; }
    index_t end_position() const noexcept { return tokens_; }
    /// Bytes allocated.
    index_t bytes() const noexcept { return keys_.bytes() + values_.bytes(); }
    /// Forgets everything.
    void clear() noexcept {
        for (side* const s : {&keys_, &values_}) s->blocks.clear();
        block_of_.clear();
        tokens_ = 0;
        compressed_ = 0;
    }

    view_type view() const& noexcept {
        view_type v;
        v.keys = rows(keys_);
        v.values = rows(values_);
        v.tokens = tokens_;
        v.kv_heads = kv_heads_;
        v.key_dim = keys_.dim;
        v.value_dim = values_.dim;
        return v;
    }
    void view() const&& = delete;

    /// What `append` does, after the checks. No allocation that fails changes what the cache holds.
    template <class Exec, class K, class V>
    void append(Exec const& exec, tensor_view<K const, 3> const& k, tensor_view<V const, 3> const& v) {
        index_t const n = k.extent(0);
        index_t const waiting = tokens_ - compressed_;
        index_t const size = (waiting + n) / options_.buffer * options_.buffer;
        if (size > 0) {
            index_t const rank = size > options_.buffer ? options_.prefill_rank : options_.stream_rank;
            gear_block<T> keys = compress(exec, keys_, k, size, rank, true);
            gear_block<T> values = compress(exec, values_, v, size, rank, false);
            std::size_t const chunks = block_of_.size() + static_cast<std::size_t>(size / options_.buffer);
            block_of_.reserve(chunks);
            keys_.blocks.reserve(keys_.blocks.size() + 1);
            values_.blocks.reserve(values_.blocks.size() + 1);
            block_of_.resize(chunks, static_cast<std::int32_t>(keys_.blocks.size()));
            keys_.blocks.push_back(std::move(keys));
            values_.blocks.push_back(std::move(values));
            compressed_ = compressed_ + size;
        }
        index_t const kept = maximum(size - waiting, 0); // of k, in the block
        index_t const to = size > 0 ? 0 : waiting;
        copy(k, kept, n, keys_.tail.data(), options_.buffer, to);
        copy(v, kept, n, values_.tail.data(), options_.buffer, to);
        tokens_ = tokens_ + n;
    }

private:
    struct side {
        side(index_t d, index_t kv_heads, index_t buffer_size) : dim{d}, tail{maximum(kv_heads * buffer_size * d, 1)} {}
        detail::emptied_by_move<index_t> dim;
        std::vector<gear_block<T>> blocks;
        buffer<float> tail; // (kv_heads, buffer, dim)

        index_t bytes() const noexcept {
            index_t sum = tail.bytes();
            for (auto const& b : blocks) sum += b.bytes();
            return sum;
        }
    };

    static index_t checked(char const* argument, index_t n, index_t most) {
        check::within("gear_kv_cache", argument, n, 0, most);
        return n;
    }
    static gear_options const& checked(gear_options const& o) {
        check::within("gear_kv_cache", "group", o.group, 0, index_t{1} << 30);
        check::within("gear_kv_cache", "buffer", o.buffer, 1, 1 << 16);
        check::within("gear_kv_cache", "prefill_rank", o.prefill_rank, 0, 1 << 10);
        check::within("gear_kv_cache", "stream_rank", o.stream_rank, 0, 1 << 10);
        if (!(o.outliers >= 0 && o.outliers <= 1))
            detail::raise<shape_error>("tessera: gear_kv_cache: outliers is " + std::to_string(o.outliers) + ", expected 0 to 1");
        return o;
    }

    /// Tokens [first, last) of x to rows from number `at` on: to[(h * stride + at + i) * dim + d].
    template <class X>
    static void copy(tensor_view<X const, 3> const& x, index_t first, index_t last, float* to, index_t stride, index_t at) noexcept {
        for (index_t h = 0; h < x.extent(1); ++h)
            for (index_t t = first; t < last; ++t)
                for (index_t d = 0; d < x.extent(2); ++d)
                    to[(h * stride + at + t - first) * x.extent(2) + d] = static_cast<float>(x(t, h, d));
    }

    /// The tokens that wait and those of x that make them `size`.
    template <class Exec, class X>
    gear_block<T> compress(Exec const& exec, side const& s, tensor_view<X const, 3> const& x, index_t size, index_t rank,
                           bool is_keys) const {
        index_t const waiting = tokens_ - compressed_;
        workspace_scope scope{exec.scratch()};
        float* const rows_of_block = scope.template carve<float>(kv_heads_ * size, s.dim.get());
        for (index_t h = 0; h < kv_heads_; ++h)
            std::copy_n(s.tail.data() + h * options_.buffer * s.dim, waiting * s.dim, rows_of_block + h * size * s.dim);
        copy(x, 0, size - waiting, rows_of_block, size, waiting);
        detail::gear_compressor<Bits, T> compressor{options_, is_keys, kv_heads_, size, s.dim, rank};
        gear_block<T> block = compressor.run(exec, rows_of_block);
        block.first = compressed_;
        return block;
    }

    auto rows(side const& s) const noexcept {
        kv_rows<key_element const> r;
        r.blocks = s.blocks.data();
        r.block_of = block_of_.data();
        r.chunk = options_.buffer;
        r.compressed = compressed_;
        r.tail = s.tail.data();
        r.data = reinterpret_cast<key_element const*>(s.tail.data());
        r.dim = s.dim;
        return r;
    }

    gear_options options_;
    detail::emptied_by_move<index_t> capacity_;
    detail::emptied_by_move<index_t> kv_heads_;
    detail::emptied_by_move<index_t> tokens_;
    detail::emptied_by_move<index_t> compressed_;
    side keys_;
    side values_;
    std::vector<std::int32_t> block_of_; // by chunk of `buffer` tokens
};

/// Appends the tokens of k and v, and compresses what fills the buffer.
template <execution_policy Exec, int Bits, class T>
void append(Exec const& exec, gear_kv_cache<Bits, T>& kv,
            array3_argument auto const& k,   // (tokens, kv_heads, key_dim)
            array3_argument auto const& v) { // (tokens, kv_heads, value_dim)
    detail::require_backend<Exec>();
    auto const keys = detail::input(k);
    auto const values = detail::input(v);
    check::equal("append", "heads of k", keys.extent(1), kv.kv_heads(), "heads of the cache");
    check::equal("append", "head_dim of k", keys.extent(2), kv.key_dim(), "key_dim of the cache");
    check::equal("append", "tokens of v", values.extent(0), keys.extent(0), "tokens of k");
    check::equal("append", "heads of v", values.extent(1), kv.kv_heads(), "heads of the cache");
    check::equal("append", "head_dim of v", values.extent(2), kv.value_dim(), "value_dim of the cache");
    check::elements("append", "k", keys);
    check::elements("append", "v", values);
    check::within("append", "tokens of k", keys.extent(0), 0, kv.capacity() - kv.tokens());
    kv.append(exec, keys, values);
}

} // namespace tessera::inline TESSERA_ABI
