// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Biases that are added to scores, with the gradients of their numbers.
///
/// **dense_bias**: b(head, query, key). **relative_bias** (T5: Raffel et al. 2020, arXiv:1910.10683): b(bucket, head) of the distance
/// n between query and key. With B buckets a direction (half of all where keys lie on both sides, those after the query in the
/// second half) and E = B / 2,
///
///     bucket = n                                               where n < E
///     bucket = min(E + floor(log(n / E) / log(far / E) (B - E)), B - 1)    elsewhere
///
/// Where keys lie on one side only, those after the query are in bucket 0. `far` is the distance from which on all are in
/// the last bucket, 128 in T5.
///
/// A gradient, where there is one, is added to; every head has its own numbers.

#include "../core/error.hpp"
#include "../core/view.hpp"
#include "../kernels/score.hpp"

#include <cmath>
#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// s -> s + bias(head, query - first_query, key); what lies outside adds nothing.
struct dense_bias {
    tensor_view<float const, 3> bias; // (heads, queries, keys); a stride of 0 shares numbers
    tensor_view<float, 3> gradient;   // the same shape, or null
    index_t first_query = 0;          ///< position of row 0

    constexpr explicit dense_bias(tensor_view<float const, 3> b, index_t first = 0) noexcept : bias{b}, first_query{first} {}
    constexpr dense_bias(tensor_view<float const, 3> b, tensor_view<float, 3> g, index_t first = 0) noexcept
        : bias{b}, gradient{g}, first_query{first} {}

    template <class V>
    TESSERA_HOST_DEVICE V operator()(V s, coord<V> at) const noexcept {
        return s + detail::per_lane(at, [&](index_t query, index_t key) noexcept {
                   return has(query, key) ? bias(at.head, query - first_query, key) : 0.0f;
               });
    }
    template <class V>
    constexpr V derivative(V, coord<V>) const noexcept {
        return V(1.0f);
    }
    template <class V>
    void accumulate(V ds, coord<V> at) const noexcept {
        if (gradient.data_handle() == nullptr) return;
        detail::for_each_lane_of(ds, at, [&](auto d, index_t query, index_t key) noexcept {
            if (has(query, key)) gradient(at.head, query - first_query, key) += static_cast<float>(d);
        });
    }
    template <class Visit>
    void for_each_array(Visit const& visit) const {
        visit("dense_bias", bias.data_handle(), bias.size());
    }
    void check(char const* operation, index_t heads) const {
        check::equal(operation, "heads of dense_bias", bias.extent(0), heads, "heads of q");
        check::within(operation, "first query of dense_bias", first_query, -(index_t{1} << 60), index_t{1} << 60);
        check::not_null(operation, "dense_bias", bias.data_handle(), bias.size());
        if (gradient.data_handle() == nullptr) return;
        for (std::size_t r = 0; r < 3; ++r)
            check::equal(operation, "an extent of the gradient of dense_bias", gradient.extent(r), bias.extent(r),
                         "that of dense_bias");
        if (heads > 1) // heads may be the work of several threads
            check::at_least(operation, "stride over heads of the gradient of dense_bias", gradient.stride(0), 1);
    }

private:
    TESSERA_HOST_DEVICE bool has(index_t query, index_t key) const noexcept {
        return query >= first_query && query - first_query < bias.extent(1) && key < bias.extent(2);
    }
};

/// On which side of a query its keys lie.
enum class key_side { both, before };

/// The buckets of `relative_bias`.
class distance_buckets {
public:
    static constexpr index_t most = 128; ///< buckets of all directions

    distance_buckets(index_t buckets, index_t far, key_side side) : buckets_{buckets}, side_{side} {
        check::within("distance_buckets", "number of buckets", buckets, 2, most);
        if (side == key_side::both) check::multiple("distance_buckets", "number of buckets", buckets, 4);
        index_t const direction = side == key_side::both ? buckets / 2 : buckets;
        index_t const exact = direction / 2;
        check::within("distance_buckets", "far", far, exact + 1, index_t{1} << 30);
        count_ = direction;
        for (index_t b = 0; b < direction; ++b) {
            double const share = static_cast<double>(b - exact) / static_cast<double>(direction - exact);
            double const from = static_cast<double>(exact) *
                                std::pow(static_cast<double>(far) / static_cast<double>(exact), share);
            // The least whole distance at or above, which a rounding of the power must not move.
            first_[b] =
                static_cast<std::int32_t>(b < exact ? b : static_cast<index_t>(std::ceil(from * (1 - 1e-12))));
        }
    }
    TESSERA_HOST_DEVICE constexpr index_t count() const noexcept { return buckets_; }

    /// The bucket of a key `distance` positions before the query.
    TESSERA_HOST_DEVICE constexpr index_t operator()(index_t distance) const noexcept {
        index_t const offset = side_ == key_side::both && distance < 0 ? count_ : 0;
        index_t const n = distance >= 0 ? distance : side_ == key_side::both ? -distance : 0;
        index_t low = 0;
        index_t high = count_ - 1;
        while (low < high) {
            index_t const middle = (low + high + 1) / 2;
            if (first_[middle] <= n)
                low = middle;
            else
                high = middle - 1;
        }
        return offset + low;
    }

private:
    index_t buckets_;
    index_t count_ = 0;
    key_side side_;
    std::int32_t first_[most] = {}; // not std::array: devices read it
};

/// s -> s + bias(bucket of the distance, head).
struct relative_bias {
    matrix_view<float const> bias; // (buckets, heads)
    distance_buckets buckets;
    matrix_view<float> gradient; // the same shape, or null

    relative_bias(matrix_view<float const> b, distance_buckets const& n) noexcept : bias{b}, buckets{n} {}
    relative_bias(matrix_view<float const> b, distance_buckets const& n, matrix_view<float> g) noexcept
        : bias{b}, buckets{n}, gradient{g} {}

    template <class V>
    TESSERA_HOST_DEVICE V operator()(V s, coord<V> at) const noexcept {
        return s + detail::per_lane(at, [&](index_t query, index_t key) noexcept {
                   return bias(buckets(query - key), at.head);
               });
    }
    template <class V>
    constexpr V derivative(V, coord<V>) const noexcept {
        return V(1.0f);
    }
    template <class V>
    void accumulate(V ds, coord<V> at) const noexcept {
        if (gradient.data_handle() == nullptr) return;
        detail::for_each_lane_of(ds, at, [&](auto d, index_t query, index_t key) noexcept {
            gradient(buckets(query - key), at.head) += static_cast<float>(d);
        });
    }
    template <class Visit>
    void for_each_array(Visit const& visit) const {
        visit("relative_bias", bias.data_handle(), bias.size());
    }
    void check(char const* operation, index_t heads) const {
        check::equal(operation, "rows of relative_bias", bias.extent(0), buckets.count(), "number of buckets");
        check::equal(operation, "columns of relative_bias", bias.extent(1), heads, "heads of q");
        check::not_null(operation, "relative_bias", bias.data_handle(), bias.size());
        if (gradient.data_handle() == nullptr) return;
        check::equal(operation, "rows of the gradient of relative_bias", gradient.extent(0), buckets.count(), "number of buckets");
        check::equal(operation, "columns of the gradient of relative_bias", gradient.extent(1), heads, "heads of q");
        if (heads > 1) // heads may be the work of several threads
            check::at_least(operation, "stride over heads of the gradient of relative_bias", gradient.stride(1), 1);
    }
};

} // namespace tessera::inline TESSERA_ABI
