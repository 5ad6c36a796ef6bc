// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Neighborhood attention in one, two or three dimensions, by NATTEN's rule (Hassani et al. 2024, arXiv:2403.04690; stride as
/// in Generalized Neighborhood Attention, arXiv:2504.16922). Axes are judged one by one. On an axis of length L with window w,
/// dilation d and stride s, position i is number q = i div d of the group i mod d, which has n = ceil((L - i mod d) / d)
/// positions; with wl = w div 2 and wr = w - 1 - wl it sees the numbers [start, end) of its own group:
///
///     leader = min((q div s) s + s div 2, n - 1)     start = max(leader - wl, 0), end = start + w,
///                                                    start = n - w where leader + wr >= n
///     causal:  leader = min((q div s) s + s - 1, n - 1)    start = max(leader - wl - wr, 0), end = q + 1
///
/// Windows are moved at borders, not cut, and even ones lean to the left. Tokens lie in row-major order, the last axis
/// fastest; positions beyond the axes are refused, fewer (decoding on causal axes) are not. Positions below 0, the first
/// queries where they are more than the keys, see nothing.

#include "../core/error.hpp"
#include "../kernels/score.hpp"

#include <array>
#include <cmath>
#include <cstddef>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// One axis of a neighborhood.
struct neighborhood_axis {
    index_t length;
    index_t window;
    index_t dilation = 1;
    index_t stride = 1;
    bool causal = false;

    struct range {
        index_t first;
        index_t last; ///< the last one seen
    };
    /// What position i sees: every `dilation`-th of the range.
    TESSERA_HOST_DEVICE constexpr range seen_by(index_t i) const noexcept {
        if (dilation == 1 && stride == 1 && !causal) {
            index_t const start = maximum(minimum(i - window / 2, length - window), 0);
            return {start, start + window - 1};
        }
        index_t const group = i % dilation;
        index_t const q = i / dilation;
        index_t const n = (length - group + dilation - 1) / dilation;
        index_t const left = window / 2;
        index_t const right = window - 1 - left;
        index_t start = 0;
        index_t end = 0;
        if (causal) {
            start = maximum(minimum(q / stride * stride + stride - 1, n - 1) - left - right, 0);
            end = minimum(q + 1, n);
        } else {
            index_t const leader = minimum(q / stride * stride + stride / 2, n - 1);
            start = maximum(leader - left, 0) + (leader + right >= n ? n - right - leader - 1 : 0);
            end = start + window;
        }
        return {start * dilation + group, (end - 1) * dilation + group};
    }
    /// What positions [q0, q1] see. It moves to the right in steps of the dilation: its ends are among the first or last few.
    TESSERA_HOST_DEVICE constexpr range seen_by(index_t q0, index_t q1) const noexcept {
        range seen{length, -1};
        for (index_t i = q0; i <= minimum(q0 + dilation - 1, q1); ++i) seen.first = minimum(seen.first, seen_by(i).first);
        for (index_t i = q1; i >= maximum(q1 - dilation + 1, q0); --i) seen.last = maximum(seen.last, seen_by(i).last);
        return seen;
    }
};

namespace detail {

/// floor(i / n) for whole i in [0, 2^21] and n: half a step lies between i + 1/2 and a multiple of n, more than the product's
/// rounding.
template <class V>
TESSERA_HOST_DEVICE V whole_quotient(V i, index_t n) noexcept {
    using std::floor;
    if (n == 1) return i;
    return floor((i + V(0.5f)) * V(1.0f / static_cast<float>(n)));
}

// std::min and operator[] of std::array are host functions to nvcc without --expt-relaxed-constexpr, which a user would have to pass;
// `minimum` and `maximum` of core/types.hpp are of index_t, and V may be a register of floats, whose min and max its library has.
template <class V>
TESSERA_HOST_DEVICE V lesser_of(V a, V b) noexcept {
    if constexpr (std::is_floating_point_v<V>)
        return b < a ? b : a;
    else
        return min(a, b);
}
template <class V>
TESSERA_HOST_DEVICE V greater_of(V a, V b) noexcept {
    if constexpr (std::is_floating_point_v<V>)
        return a < b ? b : a;
    else
        return max(a, b);
}

/// 1 where the query's window on an axis holds the key, else 0.
template <class V>
TESSERA_HOST_DEVICE V in_neighborhood(neighborhood_axis const& a, V query, V key) noexcept {
    V const q = whole_quotient(query, a.dilation);
    V const k = whole_quotient(key, a.dilation);
    V const d = position_as<V>(a.dilation);
    V const group = query - q * d;
    index_t const most = ceil_div(a.length, a.dilation); // the groups from `short_groups` on have one position less
    index_t const short_groups = a.length - (most - 1) * a.dilation;
    V const n = select(group < position_as<V>(short_groups), position_as<V>(most), position_as<V>(most - 1));
    V const step = position_as<V>(a.stride);
    V const nominal = whole_quotient(q, a.stride) * step + position_as<V>(a.causal ? a.stride - 1 : a.stride / 2);
    V const leader = lesser_of<V>(nominal, n - V(1.0f));
    V const left = position_as<V>(a.causal ? a.window - 1 : a.window / 2);
    V const right = position_as<V>(a.window - 1 - a.window / 2);
    V const first = greater_of<V>(leader - left, V(0.0f));
    V const start = a.causal ? first : select(leader + right < n, first, first + (n - right - leader - V(1.0f)));
    V const end = a.causal ? lesser_of<V>(q + V(1.0f), n) : start + position_as<V>(a.window);
    V const in_group = select(key - k * d == group, V(1.0f), V(0.0f));
    return select(k < start, V(0.0f), select(k < end, in_group, V(0.0f)));
}

} // namespace detail

/// See the file comment: `neighborhood{{{{height, 7}, {width, 7}}}}`, or `neighborhood_1d(length, 7)`.
template <std::size_t Rank>
struct neighborhood {
    static_assert(Rank >= 1 && Rank <= 3, "tessera: a neighborhood has one to three dimensions");
    neighborhood_axis axes[Rank];

    constexpr explicit neighborhood(std::array<neighborhood_axis, Rank> const& a) noexcept : axes{} {
        for (std::size_t r = 0; r < Rank; ++r) axes[r] = a[r];
    }

    template <class V>
    TESSERA_HOST_DEVICE V operator()(V s, coord<V> at) const noexcept {
        V query = at.query();
        V key = at.key();
        V seen = select(query < V(0.0f), V(0.0f), V(1.0f));
        for (std::size_t r = Rank; r-- > 0;) {
            index_t const length = axes[r].length;
            V const next_query = r == 0 ? V(0.0f) : detail::whole_quotient(query, length);
            V const next_key = r == 0 ? V(0.0f) : detail::whole_quotient(key, length);
            V const n = detail::position_as<V>(length);
            seen = seen * detail::in_neighborhood(axes[r], query - next_query * n, key - next_key * n);
            query = next_query;
            key = next_key;
        }
        return select(seen > V(0.0f), s, V(minus_infinity));
    }

    TESSERA_HOST_DEVICE constexpr tessera::visibility visibility(score_tile t) const noexcept {
        if (t.last_query <= 0) return tessera::visibility::none;
        bool every = t.first_query >= 0;
        box const queries = around(maximum(t.first_query, 0), t.last_query - 1);
        box const keys = around(t.first_key, t.last_key - 1);
        for (std::size_t r = 0; r < Rank; ++r) {
            neighborhood_axis const& a = axes[r];
            index_t const q0 = queries.first[r];
            index_t const q1 = queries.last[r];
            neighborhood_axis::range const seen = a.seen_by(q0, q1);
            if (keys.last[r] < seen.first || keys.first[r] > seen.last) return tessera::visibility::none;
            every = every && a.dilation == 1 && keys.first[r] >= a.seen_by(q1).first && keys.last[r] <= a.seen_by(q0).last;
        }
        return every ? tessera::visibility::full : tessera::visibility::partial;
    }

    /// Whole planes of the first axis.
    TESSERA_HOST_DEVICE constexpr key_span keys_of(index_t first_query, index_t last_query) const noexcept {
        if (last_query <= 0) return {0, 0};
        first_query = maximum(first_query, 0);
        index_t inner = 1;
        for (std::size_t r = 1; r < Rank; ++r) inner *= axes[r].length;
        index_t const last = minimum((last_query - 1) / inner, axes[0].length - 1);
        neighborhood_axis::range const seen = axes[0].seen_by(minimum(first_query / inner, last), last);
        return {seen.first * inner, (seen.last + 1) * inner};
    }

    void check(char const* operation, index_t, index_t end_position) const {
        index_t tokens = 1;
        for (neighborhood_axis const& a : axes) {
            check::at_least(operation, "length of neighborhood", a.length, 1);
            check::within(operation, "window of neighborhood", a.window, 1, a.length);
            check::at_least(operation, "dilation of neighborhood", a.dilation, 1);
            check::within(operation, "stride of neighborhood", a.stride, 1, a.window);
            check::within(operation, "dilation of neighborhood", a.dilation, 1, a.length / a.window);
            check::within(operation, "length of neighborhood", a.length, 1, (index_t{1} << 21) / tokens);
            tokens *= a.length;
        }
        check::within(operation, "number of positions under neighborhood", end_position, 0, tokens);
    }

private:
    struct box {
        index_t first[Rank];
        index_t last[Rank];
    };
    /// The least box that holds tokens [first, last].
    TESSERA_HOST_DEVICE constexpr box around(index_t first, index_t last) const noexcept {
        box b{};
        bool same = true; // on all axes before
        for (std::size_t r = 0; r < Rank; ++r) {
            index_t inner = 1;
            for (std::size_t i = r + 1; i < Rank; ++i) inner *= axes[i].length;
            b.first[r] = same ? first / inner % axes[r].length : 0;
            b.last[r] = same ? minimum(last / inner, axes[r].length - 1) : axes[r].length - 1;
            if (same && r > 0) b.last[r] = last / inner % axes[r].length;
            same = same && b.first[r] == b.last[r];
        }
        return b;
    }
};

/// A line of tokens that see `window` keys each.
constexpr neighborhood<1> neighborhood_1d(index_t length, index_t window, index_t dilation = 1) noexcept {
    return neighborhood<1>{{neighborhood_axis{length, window, dilation}}};
}

} // namespace tessera::inline TESSERA_ABI
