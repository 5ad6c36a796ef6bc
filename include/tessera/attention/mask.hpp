// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Masks beside `causal` and `window` (score.hpp). A query sees a key where all masks of a pipeline let it; `either` is where
/// one of two does:
///
///     auto const prefix = ts::either(ts::keys_before{prompt}, ts::causal); // the prompt sees itself, the rest is causal
///     auto const chunks = ts::causal | ts::chunked{8192};                  // within chunks only
///     auto const packed = ts::causal | ts::segments{offsets};              // sequences one after the other
///
/// All know what tiles hold, so that what nobody sees costs nothing. Positions are those of the whole sequence, the last
/// query at the last key; with more queries than keys the first ones are at positions below 0, and no chunk, sequence or block
/// has them.

#include "../core/error.hpp"
#include "../core/view.hpp"
#include "score.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// Query i sees keys up to i + offset. With n queries at the end of m keys, offset n - m aligns the first query with the first
/// key (`top_left_causal`); 0 is `causal`.
struct shifted_causal {
    index_t offset;

    constexpr explicit shifted_causal(index_t o) noexcept : offset{o} {}
    template <class V>
    TESSERA_HOST_DEVICE constexpr V operator()(V s, coord<V> at) const noexcept {
        V const d = detail::position_as<V>(at.first_query + offset - at.first_key) + (at.query_lane - at.key_lane);
        return select(d < V(0.0f), V(minus_infinity), s);
    }
    TESSERA_HOST_DEVICE constexpr tessera::visibility visibility(score_tile t) const noexcept {
        t.first_query += offset;
        t.last_query += offset;
        return causal_t{}.visibility(t);
    }
    TESSERA_HOST_DEVICE constexpr key_span keys_of(index_t, index_t last_query) const noexcept { return {0, last_query + offset}; }
    void check(char const* operation, index_t) const { check::within(operation, "offset of shifted_causal", offset, -(index_t{1} << 60), index_t{1} << 60); }
};

/// Query i of `queries` sees keys 0 to i of `keys`, as if both began at the same position.
constexpr shifted_causal top_left_causal(index_t queries, index_t keys) noexcept {
    return shifted_causal{queries - keys};
}

/// A query sees keys from `before` positions before it to `after` positions after it.
struct band {
    index_t before;
    index_t after;

    constexpr band(index_t b, index_t a) noexcept : before{b}, after{a} {}
    template <class V>
    TESSERA_HOST_DEVICE constexpr V operator()(V s, coord<V> at) const noexcept {
        V const d = at.distance();
        V const seen = select(d < detail::position_as<V>(-after), V(minus_infinity), s);
        return select(d > detail::position_as<V>(before), V(minus_infinity), seen);
    }
    TESSERA_HOST_DEVICE constexpr tessera::visibility visibility(score_tile t) const noexcept {
        index_t const nearest = t.first_query - (t.last_key - 1);
        index_t const farthest = t.last_query - 1 - t.first_key;
        if (farthest < -after || nearest > before) return tessera::visibility::none;
        return nearest >= -after && farthest <= before ? tessera::visibility::full : tessera::visibility::partial;
    }
    TESSERA_HOST_DEVICE constexpr key_span keys_of(index_t first_query, index_t last_query) const noexcept {
        constexpr index_t far = index_t{1} << 60; // so that any number stands for no limit
        return {first_query - minimum(before, far), last_query + minimum(after, far)};
    }
    void check(char const* operation, index_t) const {
        check::at_least(operation, "before of band", before, 0);
        check::at_least(operation, "after of band", after, 0);
    }
};

/// Keys [0, count) are seen by all.
struct keys_before {
    index_t count;

    constexpr explicit keys_before(index_t c) noexcept : count{c} {}
    template <class V>
    TESSERA_HOST_DEVICE constexpr V operator()(V s, coord<V> at) const noexcept {
        return select(detail::position_as<V>(at.first_key - count) + at.key_lane < V(0.0f), s, V(minus_infinity));
    }
    TESSERA_HOST_DEVICE constexpr tessera::visibility visibility(score_tile t) const noexcept {
        if (t.first_key >= count) return tessera::visibility::none;
        return t.last_key <= count ? tessera::visibility::full : tessera::visibility::partial;
    }
    TESSERA_HOST_DEVICE constexpr key_span keys_of(index_t, index_t) const noexcept { return {0, count}; }
    void check(char const* operation, index_t) const { check::at_least(operation, "count of keys_before", count, 0); }
};

/// A query sees keys of its own chunk of `size` positions.
struct chunked {
    index_t size;

    constexpr explicit chunked(index_t s) noexcept : size{s} {}
    template <class V>
    TESSERA_HOST_DEVICE V operator()(V s, coord<V> at) const noexcept {
        return detail::keep_where(s, at, [this](index_t query, index_t key) noexcept {
            index_t const first = query - query % size;
            return query >= 0 && key >= first && key < first + size;
        });
    }
    TESSERA_HOST_DEVICE constexpr tessera::visibility visibility(score_tile t) const noexcept {
        index_t const first = t.first_query / size;
        index_t const last = (t.last_query - 1) / size;
        if ((t.last_key - 1) / size < first || t.first_key / size > last) return tessera::visibility::none;
        return t.first_query >= 0 && first == last && t.first_key / size == first && (t.last_key - 1) / size == first
                   ? tessera::visibility::full
                   : tessera::visibility::partial;
    }
    TESSERA_HOST_DEVICE constexpr key_span keys_of(index_t first_query, index_t last_query) const noexcept {
        return {first_query - first_query % size, (last_query - 1) / size * size + size};
    }
    void check(char const* operation, index_t) const { check::at_least(operation, "size of chunked", size, 1); }
};

/// Sequences of unequal lengths, one after the other: sequence i is at positions [offsets[i], offsets[i + 1]), and sees itself
/// only (cu_seqlens). attention/packing.hpp packs them.
struct segments {
    vector_view<std::int32_t const> offsets; // (sequences + 1), ascending from 0

    constexpr explicit segments(vector_view<std::int32_t const> o) noexcept : offsets{o} {}
    template <class V>
    TESSERA_HOST_DEVICE V operator()(V s, coord<V> at) const noexcept {
        index_t i = of(at.first_query);
        return detail::keep_where(s, at, [&](index_t query, index_t key) noexcept {
            while (i < count() && query >= offsets[i + 1]) ++i;
            return query >= 0 && i < count() && key >= offsets[i] && key < offsets[i + 1];
        });
    }
    TESSERA_HOST_DEVICE constexpr tessera::visibility visibility(score_tile t) const noexcept {
        index_t const first = of(t.first_query);
        index_t const last = of(t.last_query - 1);
        if (first == count() || t.last_key <= offsets[first] || t.first_key >= offsets[minimum(last + 1, count())])
            return tessera::visibility::none;
        return t.first_query >= 0 && first == last && t.first_key >= offsets[first] && t.last_key <= offsets[first + 1]
                   ? tessera::visibility::full
                   : tessera::visibility::partial;
    }
    TESSERA_HOST_DEVICE constexpr key_span keys_of(index_t first_query, index_t last_query) const noexcept {
        return {offsets[minimum(of(first_query), count())], offsets[minimum(of(last_query - 1) + 1, count())]};
    }
    void check(char const* operation, index_t) const {
        check::at_least(operation, "number of offsets of segments", offsets.extent(0), 1);
        check::not_null(operation, "offsets of segments", offsets.data_handle(), offsets.extent(0));
    }
    void check_contents(char const* operation) const {
        check::equal(operation, "first offset of segments", offsets[0], 0, "where the first sequence begins");
        for (index_t i = 0; i < count(); ++i)
            check::at_least(operation, "an offset of segments", offsets[i + 1], offsets[i]);
    }
    template <class Visit>
    void for_each_array(Visit const& visit) const {
        visit("offsets of segments", offsets.data_handle(), offsets.size());
    }

private:
    TESSERA_HOST_DEVICE constexpr index_t count() const noexcept { return offsets.extent(0) - 1; }
    /// The sequence at a position; `count` behind the last.
    TESSERA_HOST_DEVICE constexpr index_t of(index_t position) const noexcept {
        index_t low = 0;
        index_t high = count();
        while (low < high) {
            index_t const middle = low + (high - low) / 2;
            if (offsets[middle + 1] <= position)
                low = middle + 1;
            else
                high = middle;
        }
        return low;
    }
};

/// A tree of drafted tokens at positions `first`, first + 1, ...: token i, the child of parents[i] < i (-1: of the last
/// token before the tree), sees what is before the tree, its ancestors and itself. Tokens before the tree are causal.
struct token_tree {
    vector_view<std::int32_t const> parents; // (tokens of the tree)
    index_t first;

    constexpr token_tree(vector_view<std::int32_t const> p, index_t f) noexcept : parents{p}, first{f} {}
    template <class V>
    TESSERA_HOST_DEVICE V operator()(V s, coord<V> at) const noexcept {
        return detail::keep_where(s, at, [this](index_t query, index_t key) noexcept {
            if (key < first || query < first) return key <= query;
            index_t i = query - first;
            if (i >= parents.extent(0)) return false;
            while (i > key - first) i = parents[i];
            return i == key - first;
        });
    }
    TESSERA_HOST_DEVICE constexpr tessera::visibility visibility(score_tile t) const noexcept {
        tessera::visibility const before = causal_t{}.visibility(t);
        if (before != tessera::visibility::full) return before; // a tree sees no more than `causal`
        return t.last_key <= first ? tessera::visibility::full : tessera::visibility::partial;
    }
    TESSERA_HOST_DEVICE constexpr key_span keys_of(index_t, index_t last_query) const noexcept { return {0, last_query}; }
    void check(char const* operation, index_t) const {
        check::at_least(operation, "first of token_tree", first, 0);
        check::not_null(operation, "parents of token_tree", parents.data_handle(), parents.extent(0));
    }
    void check_contents(char const* operation) const {
        for (index_t i = 0; i < parents.extent(0); ++i)
            check::within(operation, "a parent of token_tree", parents[i], -1, i - 1);
    }
    template <class Visit>
    void for_each_array(Visit const& visit) const {
        visit("parents of token_tree", parents.data_handle(), parents.size());
    }
};

/// Any mask, a byte for every head, query and key, 0: not seen. One head stands for all of them. Row 0 is the query at position
/// `first_query`.
struct dense_mask {
    tensor_view<std::uint8_t const, 3> seen; // (heads or 1, queries, keys)
    index_t first_query = 0;

    constexpr explicit dense_mask(tensor_view<std::uint8_t const, 3> s, index_t first = 0) noexcept
        : seen{s}, first_query{first} {}
    template <class V>
    TESSERA_HOST_DEVICE V operator()(V s, coord<V> at) const noexcept {
        index_t const head = plane(at.head);
        return detail::keep_where(s, at, [&](index_t query, index_t key) noexcept { return sees(head, query, key); });
    }
    TESSERA_HOST_DEVICE tessera::visibility visibility([[maybe_unused]] score_tile t) const noexcept {
#if defined(__CUDA_ARCH__) // every thread of a block would read all bytes of the tile, one after the other
        return tessera::visibility::partial;
#else
        bool any = false;
        bool every = true;
        for (index_t q = t.first_query; q < t.last_query && !(any && !every); ++q)
            for (index_t k = t.first_key; k < t.last_key; ++k) {
                bool const here = sees(plane(t.head), q, k);
                any = any || here;
                every = every && here;
            }
        return every ? tessera::visibility::full : any ? tessera::visibility::partial : tessera::visibility::none;
#endif
    }
    void check(char const* operation, index_t heads) const {
        if (seen.extent(0) != 1) check::equal(operation, "heads of dense_mask", seen.extent(0), heads, "heads of q");
        check::within(operation, "first query of dense_mask", first_query, -(index_t{1} << 60), index_t{1} << 60);
        check::not_null(operation, "dense_mask", seen.data_handle(), seen.size());
    }
    template <class Visit>
    void for_each_array(Visit const& visit) const {
        visit("dense_mask", seen.data_handle(), seen.size());
    }

private:
    TESSERA_HOST_DEVICE constexpr index_t plane(index_t head) const noexcept { return seen.extent(0) == 1 ? 0 : head; }
    TESSERA_HOST_DEVICE bool sees(index_t head, index_t query, index_t key) const noexcept {
        index_t const row = query - first_query;
        return row >= 0 && row < seen.extent(1) && key < seen.extent(2) && seen(head, row, key) != 0;
    }
};

/// Blocks of `query_block` by `key_block` positions that are seen whole or not at all, a byte each.
struct block_mask {
    tensor_view<std::uint8_t const, 3> seen; // (heads or 1, query blocks, key blocks)
    index_t query_block;
    index_t key_block;

    constexpr block_mask(tensor_view<std::uint8_t const, 3> s, index_t queries, index_t keys) noexcept
        : seen{s}, query_block{queries}, key_block{keys} {}
    template <class V>
    TESSERA_HOST_DEVICE V operator()(V s, coord<V> at) const noexcept {
        index_t const head = seen.extent(0) == 1 ? 0 : at.head;
        return detail::keep_where(s, at, [&](index_t query, index_t key) noexcept {
            return query >= 0 && sees(head, query / query_block, key / key_block);
        });
    }
    TESSERA_HOST_DEVICE tessera::visibility visibility(score_tile t) const noexcept {
        bool any = false;
        bool every = true;
        index_t const head = seen.extent(0) == 1 ? 0 : t.head;
        for (index_t q = t.first_query / query_block; q <= (t.last_query - 1) / query_block; ++q)
            for (index_t k = t.first_key / key_block; k <= (t.last_key - 1) / key_block; ++k) {
                bool const here = sees(head, q, k);
                any = any || here;
                every = every && here;
            }
        every = every && t.first_query >= 0;
        return every ? tessera::visibility::full : any ? tessera::visibility::partial : tessera::visibility::none;
    }
    void check(char const* operation, index_t heads) const {
        if (seen.extent(0) != 1) check::equal(operation, "heads of block_mask", seen.extent(0), heads, "heads of q");
        check::not_null(operation, "block_mask", seen.data_handle(), seen.size());
        check::at_least(operation, "query_block of block_mask", query_block, 1);
        check::at_least(operation, "key_block of block_mask", key_block, 1);
    }
    template <class Visit>
    void for_each_array(Visit const& visit) const {
        visit("block_mask", seen.data_handle(), seen.size());
    }

private:
    TESSERA_HOST_DEVICE bool sees(index_t head, index_t query, index_t key) const noexcept {
        return query >= 0 && query < seen.extent(1) && key < seen.extent(2) && seen(head, query, key) != 0;
    }
};

/// A user's rule, one score at a time: seen(query, key, head) says whether it is visible. Slower than a functor on registers,
/// and tiles are not skipped.
template <class Predicate>
struct seen_where {
    Predicate seen;

    constexpr explicit seen_where(Predicate p) noexcept : seen{p} {}
    template <class V>
    TESSERA_HOST_DEVICE V operator()(V s, coord<V> at) const noexcept {
        static_assert(std::is_nothrow_invocable_r_v<bool, Predicate const&, index_t, index_t, index_t>,
                      "tessera: the rule of seen_where must be noexcept: bool operator()(index_t query, index_t key, index_t "
                      "head) const noexcept");
        return detail::keep_where(s, at, [&](index_t query, index_t key) noexcept { return seen(query, key, at.head); });
    }
    TESSERA_HOST_DEVICE constexpr tessera::visibility visibility(score_tile) const noexcept { return tessera::visibility::partial; }
};

/// A mask, or a pipeline of masks.
template <class F>
concept score_masks = score_functor<F> && !detail::has_transform<F>;

/// Seen where one of two masks lets it.
template <score_masks First, score_masks Second>
struct either_mask {
    First first;
    Second second;

    template <class V>
    TESSERA_HOST_DEVICE constexpr V operator()(V s, coord<V> at) const noexcept {
        V const seen = first(s, at);
        return select(seen == V(minus_infinity), second(s, at), seen);
    }
    TESSERA_HOST_DEVICE constexpr tessera::visibility visibility(score_tile t) const noexcept {
        tessera::visibility const a = visibility_of(first, t);
        if (a == tessera::visibility::full) return a;
        tessera::visibility const b = visibility_of(second, t);
        return a == tessera::visibility::none || b == tessera::visibility::full ? b : a;
    }
    TESSERA_HOST_DEVICE constexpr key_span keys_of(index_t first_query, index_t last_query) const noexcept {
        key_span const a = tessera::keys_of(first, first_query, last_query);
        key_span const b = tessera::keys_of(second, first_query, last_query);
        return {minimum(a.first, b.first), maximum(a.last, b.last)};
    }
    void check(char const* operation, index_t heads, index_t end_position) const {
        detail::check_score_extents(operation, first, heads, end_position);
        detail::check_score_extents(operation, second, heads, end_position);
    }
    void check_contents(char const* operation) const {
        detail::check_score_contents(operation, first);
        detail::check_score_contents(operation, second);
    }
    template <class Visit>
    void for_each_array(Visit const& visit) const {
        detail::for_each_score_array(first, visit);
        detail::for_each_score_array(second, visit);
    }
};
/// A query sees what either mask lets it see; of a pipeline of masks what all of them do.
template <score_masks First, score_masks Second>
constexpr either_mask<First, Second> either(First first, Second second) noexcept {
    static_assert(!detail::has_sink<First> && !detail::has_sink<Second>,
                  "tessera: either takes masks alone; sinks follow it in the pipeline");
    return {first, second};
}

} // namespace tessera::inline TESSERA_ABI
