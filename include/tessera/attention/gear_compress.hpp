// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A block of keys or values, compressed: X = D + L + S (GEAR, arXiv:2403.05527, as its repository does it, its faults apart).
///
/// 1. Outliers S: of every vector (a channel of a head along the tokens for keys, all heads of a token for values) the s/2 largest and
///    s/2 smallest parts, rounded to nearest, ties going to lower places. They are kept as they are.
/// 2. In their places goes the mean of their vector, outliers included.
/// 3. D: groups of a vector (within a head) from their least to their largest number in 2^Bits - 1 steps: scale = (high - low) /
///    (2^Bits - 1), rounded to T as low is, code = round_half_even((x - low) / scale), in float32.
/// 4. R = X - D, 0 in the outliers' places.
/// 5. L = Q (Qᵀ R) for every head: three times q = R p, p = Rᵀ q from random p; p and q are made orthonormal in the last round.
///
/// What is read back is D, or the outlier, plus L. A group with a NaN or infinity, or with an outlier of a vector
/// that has one, is NaN but for its outliers, which stay what they were.

#include "../core/philox.hpp"
#include "../core/workspace.hpp"
#include "../storage/gear_rows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tessera::inline TESSERA_ABI {

/// How a GEAR cache compresses.
struct gear_options {
    double outliers = 0.02;   ///< part of every vector, 0 to 1
    index_t group = 64;       ///< numbers that share a scale; 0: all of a vector (within a head)
    index_t buffer = 64;      ///< tokens that wait uncompressed
    index_t prefill_rank = 4; ///< where an `append` completes more than one buffer
    index_t stream_rank = 2;  ///< where it completes one
};

namespace detail {

/// Columns of m (rows, rank) made orthonormal, twice; those that depend on others become zeros.
inline void orthonormalise(double* m, index_t rows, index_t rank) noexcept {
    auto const dot = [&](index_t i, index_t j) {
        double sum = 0;
        for (index_t r = 0; r < rows; ++r) sum += m[r * rank + i] * m[r * rank + j];
        return sum;
    };
    for (index_t j = 0; j < rank; ++j) {
        double const before = std::sqrt(dot(j, j));
        for (int pass = 0; pass < 2; ++pass)
            for (index_t i = 0; i < j; ++i) {
                double const part = dot(i, j);
                for (index_t r = 0; r < rows; ++r) m[r * rank + j] -= part * m[r * rank + i];
            }
        double const norm = std::sqrt(dot(j, j));
        double const inverse = norm > 1e-12 * before ? 1 / norm : 0.0;
        for (index_t r = 0; r < rows; ++r) m[r * rank + j] *= inverse;
    }
}

/// Compresses x (kv_heads, tokens, dim), which becomes the residual.
template <int Bits, class T>
class gear_compressor {
    static constexpr float levels = static_cast<float>((1 << Bits) - 1);

public:
    gear_compressor(gear_options const& options, bool is_keys, index_t kv_heads, index_t tokens, index_t dim, index_t rank)
        : options_{options}, is_keys_{is_keys}, heads_{kv_heads}, tokens_{tokens}, dim_{dim},
          rank_{minimum(rank, minimum(tokens, dim))} {}

    template <class Exec>
    gear_block<T> run(Exec const& exec, float* x) {
        gear_block<T> block = make_block();
        index_t const workers = exec.parallel().concurrency();
        workspace_scope scope{exec.scratch()};
        is_outlier_ = scope.template carve<std::uint8_t>(heads_ * tokens_, dim_);
        means_ = scope.template carve<float>(vectors());
        auto* const places = scope.template carve<index_t>(workers, vector_size());
        auto* const p = scope.template carve<double>(workers, dim_ * rank_);
        auto* const q = scope.template carve<double>(workers, tokens_ * rank_);
        std::fill_n(is_outlier_, heads_ * tokens_ * dim_, std::uint8_t{0});
        parallel_for(exec.parallel(), vectors(), 16, [&](index_t first, index_t last, index_t worker) noexcept {
            for (index_t v = first; v < last; ++v) find_outliers(x, v, places + worker * vector_size());
        });
        keep_outliers(x, block);
        parallel_for(exec.parallel(), heads_, 1, [&](index_t h, index_t, index_t worker) noexcept {
            for (index_t first = 0; first < along(); first += block.group)
                for (index_t i = 0; i < across(); ++i) quantise(x, h, first, minimum(first + block.group, along()), i, block);
            low_rank(x + h * tokens_ * dim_, h, p + worker * dim_ * rank_, q + worker * tokens_ * rank_, block);
        });
        return block;
    }

private:
    // Vectors of a head for keys are dims (along: tokens); for values tokens (along: dims).
    index_t along() const noexcept { return is_keys_ ? tokens_ : dim_; }
    index_t across() const noexcept { return is_keys_ ? dim_ : tokens_; }
    index_t vectors() const noexcept { return is_keys_ ? heads_ * dim_ : tokens_; }
    index_t vector_size() const noexcept { return is_keys_ ? tokens_ : heads_ * dim_; }
    index_t at(index_t h, index_t t, index_t d) const noexcept { return (h * tokens_ + t) * dim_ + d; }
    /// Number i of vector v.
    index_t place(index_t v, index_t i) const noexcept {
        return is_keys_ ? at(v / dim_, i, v % dim_) : at(i / dim_, v, i % dim_);
    }
    index_t vector_of(index_t h, index_t t, index_t d) const noexcept { return is_keys_ ? h * dim_ + d : t; }

    gear_block<T> make_block() const {
        gear_block<T> b;
        index_t const rows = heads_ * tokens_;
        b.tokens = tokens_;
        b.rank = rank_;
        b.group = maximum(options_.group == 0 ? along() : options_.group, 1);
        index_t const groups = ceil_div(along(), b.group);
        (is_keys_ ? b.token_groups : b.row_groups) = groups;
        b.codes = buffer<std::uint8_t>{rows * bitpack::bytes(dim_, Bits)};
        std::fill_n(b.codes.data(), b.codes.size(), std::uint8_t{0});
        b.scales = buffer<T>{heads_ * groups * across()};
        b.lows = buffer<T>{heads_ * groups * across()};
        b.a = buffer<T>{rows * rank_};
        b.b = buffer<T>{heads_ * rank_ * dim_};
        b.starts = buffer<std::uint32_t>{rows + 1};
        b.dims = buffer<std::uint16_t>{vectors() * 2 * half()};
        b.exact = buffer<T>{vectors() * 2 * half()};
        return b;
    }
    /// Largest, and smallest, outliers of a vector.
    index_t half() const noexcept {
        double const n = static_cast<double>(vector_size());
        return minimum(static_cast<index_t>(std::floor(n * options_.outliers / 2 + 0.5)), vector_size() / 2);
    }

    void find_outliers(float const* x, index_t v, index_t* places) noexcept {
        index_t const n = vector_size();
        double sum = 0;
        for (index_t i = 0; i < n; ++i) sum += static_cast<double>(x[place(v, i)]);
        means_[v] = static_cast<float>(sum / static_cast<double>(n));
        index_t const count = half();
        if (count == 0) return;
        auto const mark = [&](float sign) {
            auto const rank = [&](index_t i) { // a NaN would have no place in an order
                float const y = sign * x[place(v, i)];
                return y == y ? y : -std::numeric_limits<float>::infinity();
            };
            for (index_t i = 0; i < n; ++i) places[i] = i;
            std::nth_element(places, places + count - 1, places + n,
                             [&](index_t i, index_t j) { return rank(i) > rank(j) || (rank(i) == rank(j) && i < j); });
            for (index_t i = 0; i < count; ++i) is_outlier_[place(v, places[i])] |= sign > 0 ? 1 : 2;
        };
        mark(1.0f);
        mark(-1.0f);
    }

    void keep_outliers(float const* x, gear_block<T>& block) const noexcept {
        std::uint32_t count = 0;
        for (index_t row = 0; row < heads_ * tokens_; ++row) {
            block.starts[row] = count;
            for (index_t d = 0; d < dim_; ++d)
                if (is_outlier_[row * dim_ + d] != 0) {
                    block.dims[count] = static_cast<std::uint16_t>(d);
                    block.exact[count++] = T{x[row * dim_ + d]};
                }
        }
        block.starts[heads_ * tokens_] = count;
    }

    /// Numbers [first, last) of vector i of a head; x becomes the residual.
    void quantise(float* x, index_t h, index_t first, index_t last, index_t i, gear_block<T>& block) noexcept {
        auto const at_of = [&](index_t j) { return is_keys_ ? at(h, j, i) : at(h, i, j); };
        auto const filled = [&](index_t j) {
            index_t const k = at_of(j);
            return is_outlier_[k] != 0 ? means_[vector_of(h, is_keys_ ? j : i, is_keys_ ? i : j)] : x[k];
        };
        float low = filled(first);
        float high = low;
        float poison = 0; // NaN once a number is not finite
        for (index_t j = first; j < last; ++j) {
            float const y = filled(j);
            low = y < low ? y : low;
            high = y > high ? y : high;
            poison += y * 0.0f;
        }
        index_t const g = first / block.group;
        index_t const s = is_keys_ ? (h * block.token_groups + g) * dim_ + i : (h * tokens_ + i) * block.row_groups + g;
        block.scales[s] = T{static_cast<float>((double{high} - double{low}) / double{levels}) + poison};
        block.lows[s] = T{low + poison};
        float const scale = static_cast<float>(block.scales[s]);
        float const base = static_cast<float>(block.lows[s]);
        for (index_t j = first; j < last; ++j) {
            index_t const k = at_of(j);
            float const exact = std::nearbyint((filled(j) - base) / scale);
            float const code = exact > 0 ? (exact < levels ? exact : levels) : 0.0f; // 0 for NaN, of a scale of 0 too
            index_t const row = h * tokens_ + (is_keys_ ? j : i);
            bitpack::set<Bits>(block.codes.data() + row * bitpack::bytes(dim_, Bits), is_keys_ ? i : j, static_cast<std::uint32_t>(code));
            float const rest = x[k] - std::fma(code, scale, base);
            x[k] = is_outlier_[k] != 0 || rest - rest != 0.0f ? 0.0f : rest;
        }
    }

    /// A and B of a head: r (tokens, dim) is about A Bᵀ.
    void low_rank(float const* r, index_t h, double* p, double* q, gear_block<T>& block) const noexcept {
        philox const random{0, static_cast<std::uint64_t>(h)};
        for (index_t i = 0; i < dim_ * rank_; ++i) p[i] = static_cast<double>(random.uniform(static_cast<std::uint64_t>(i)));
        for (int round = 0; round < 3; ++round) {
            if (round == 2) orthonormalise(p, dim_, rank_);
            for (index_t t = 0; t < tokens_; ++t)
                for (index_t j = 0; j < rank_; ++j) {
                    double sum = 0;
                    for (index_t d = 0; d < dim_; ++d) sum += static_cast<double>(r[t * dim_ + d]) * p[d * rank_ + j];
                    q[t * rank_ + j] = sum;
                }
            if (round == 2) orthonormalise(q, tokens_, rank_);
            for (index_t i = 0; i < dim_ * rank_; ++i) p[i] = 0;
            for (index_t t = 0; t < tokens_; ++t)
                for (index_t d = 0; d < dim_; ++d)
                    for (index_t j = 0; j < rank_; ++j) p[d * rank_ + j] += static_cast<double>(r[t * dim_ + d]) * q[t * rank_ + j];
        }
        for (index_t t = 0; t < tokens_; ++t)
            for (index_t j = 0; j < rank_; ++j)
                block.a[(h * tokens_ + t) * rank_ + j] = T{static_cast<float>(q[t * rank_ + j])};
        for (index_t d = 0; d < dim_; ++d)
            for (index_t j = 0; j < rank_; ++j) block.b[(h * rank_ + j) * dim_ + d] = T{static_cast<float>(p[d * rank_ + j])};
    }

    gear_options options_;
    bool is_keys_;
    index_t heads_;
    index_t tokens_;
    index_t dim_;
    index_t rank_;
    std::uint8_t* is_outlier_ = nullptr; // (kv_heads, tokens, dim)
    float* means_ = nullptr;             // (vectors)
};

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
