// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// VPTQ (arXiv:2409.17066): vectors of v rows of a column by codebooks (storage/vector_codebooks.hpp), data-free or weighted by the
/// diagonal of a Hessian.
///
///     auto const q = quantize_vptq(w, {.vector = 8, .index_bits = 8, .residual_bits = 8});      // 2 bits a weight, and the codebooks
///     apply(exec, linear{q}, x, y);
///
/// 1. Columns are normalised: bias = least weight, scale = largest - least, in fp16 (`normalise::no` leaves them out).
/// 2. They are ordered by falling importance; the first `outliers` have a codebook of vectors of their own length and width, the
///    rest lie in `groups` equal groups. Columns of importance 0 are dead: they become 0.
/// 3. k-means of the vectors of a codebook, each weighted by the importance of its column, from vectors that philox draws, for at
///    most `iterations` steps or until the error falls by less than 1e-5 of itself; an empty cluster keeps its centroid.
/// 4. The code is the nearest centroid (Euclidean: in one column a Hessian weighs all alike), a tie the lowest. What is left is
///    clustered into the residual codebook in the same way.
///
/// The published method also carries errors over to columns that come later. That needs the whole Hessian, and from here
/// `encode_nearest`, which codes some columns of a matrix with the codebooks that there are.
///
/// Without an importance all columns count alike, and outliers are the columns with the largest sums of squares. A column with a
/// weight that is not finite has scale NaN and takes part in nothing.

#include "../core/error.hpp"
#include "../core/philox.hpp"
#include "../core/view.hpp"
#include "../kernels/cpu/vector_codebooks.hpp"
#include "../storage/tensor.hpp"
#include "kmeans.hpp"
#include "table_quantize.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// Whether columns have a scale and a bias.
enum class normalise { columns, no };

/// How vectors are coded; see the file comment.
struct vptq_options {
    int vector = 8;
    int index_bits = 8;
    int residual_bits = 0;
    index_t groups = 1;
    index_t outliers = 0; ///< columns
    int outlier_vector = 4;
    int outlier_index_bits = 8;
    normalise columns = normalise::columns;
    int iterations = 100;
    std::uint64_t seed = 0;
};

namespace detail {

/// Vectors and their weights; k-means over them.
class vector_samples {
public:
    explicit vector_samples(index_t length) : length_{length} {}
    void add(float const* v, double weight) {
        numbers_.insert(numbers_.end(), v, v + length_);
        weight_.push_back(weight);
    }
    index_t size() const noexcept { return static_cast<index_t>(weight_.size()); }
    float* at(index_t i) noexcept { return numbers_.data() + i * length_; }

    /// The nearest of `count` centroids, the lowest of equals, and its squared distance.
    static index_t nearest(float const* v, std::vector<float> const& centroids, index_t length, double& distance) noexcept {
        auto const count = static_cast<index_t>(centroids.size()) / length;
        index_t best = 0;
        float least = std::numeric_limits<float>::infinity();
        for (index_t c = 0; c < count; ++c) {
            float const* const point = centroids.data() + c * length;
            float d = 0;
            for (index_t i = 0; i < length; ++i) d += (v[i] - point[i]) * (v[i] - point[i]);
            if (d < least) {
                least = d;
                best = c;
            }
        }
        distance = static_cast<double>(least);
        return best;
    }

    /// Centroids, rounded to fp16.
    std::vector<float> kmeans(index_t count, int iterations, philox const& random) {
        std::vector<float> centroids = draw(count, random);
        if (size() == 0) return centroids;
        double before = std::numeric_limits<double>::infinity();
        for (int step = 0; step < iterations && size() > count; ++step) {
            std::vector<double> sum(centroids.size(), 0.0);
            std::vector<double> total(static_cast<std::size_t>(count), 0.0);
            double error = 0;
            for (index_t i = 0; i < size(); ++i) {
                double distance = 0;
                auto const c = static_cast<std::size_t>(nearest(at(i), centroids, length_, distance));
                double const w = weight_[static_cast<std::size_t>(i)];
                error += w * distance;
                total[c] += w;
                for (index_t d = 0; d < length_; ++d)
                    sum[c * static_cast<std::size_t>(length_) + static_cast<std::size_t>(d)] += w * static_cast<double>(at(i)[d]);
            }
            for (std::size_t j = 0; j < centroids.size(); ++j)
                if (double const w = total[j / static_cast<std::size_t>(length_)]; w > 0) centroids[j] = static_cast<float>(sum[j] / w);
            if (step > 0 && !(before - error > 1e-5 * before)) break; // infinity less anything is not above itself
            before = error;
        }
        for (float& c : centroids) c = static_cast<float>(saturated<fp16>(c));
        return centroids;
    }

private:
    /// Samples drawn without replacement; all of them and zeros where there are no more.
    std::vector<float> draw(index_t count, philox const& random) {
        std::vector<index_t> order(weight_.size());
        for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<index_t>(i);
        std::vector<float> centroids(static_cast<std::size_t>(count * length_), 0.0f);
        for (index_t c = 0; c < minimum(count, size()); ++c) {
            auto const left = static_cast<std::uint64_t>(size() - c);
            auto const from = static_cast<std::size_t>(c) + static_cast<std::size_t>(random.bits(static_cast<std::uint64_t>(c)) % left);
            std::swap(order[static_cast<std::size_t>(c)], order[from]);
            for (index_t d = 0; d < length_; ++d)
                centroids[static_cast<std::size_t>(c * length_ + d)] = static_cast<float>(saturated<fp16>(at(order[static_cast<std::size_t>(c)])[d]));
        }
        return centroids;
    }

    index_t length_;
    std::vector<float> numbers_;
    std::vector<double> weight_;
};

/// Vector j of column k of w as its codebook sees it; zeros behind the last row. A column without a finite scale is zeros.
inline void normalised_vector(matrix_view<float const> const& w, vector_codebooks const& q, index_t k, index_t j, int length, float* out) noexcept {
    float const scale = q.scale(k);
    for (index_t i = 0; i < length; ++i) {
        index_t const n = j * length + i;
        float const v = n < w.extent(0) ? w(n, k) - q.bias(k) : 0.0f;
        out[i] = n < w.extent(0) && scale > 0 && std::isfinite(v) ? v / scale : 0.0f;
    }
}

inline std::vector<float> codebook_of(fp16 const* from, index_t count) {
    std::vector<float> out(static_cast<std::size_t>(count));
    for (index_t i = 0; i < count; ++i) out[static_cast<std::size_t>(i)] = static_cast<float>(from[i]);
    return out;
}

class vptq_encoder {
public:
    vptq_encoder(matrix_view<float const> const& w, std::vector<double> importance, vptq_options const& options)
        : w_{w}, importance_{std::move(importance)}, options_{options} {}

    vector_codebooks_tensor run() {
        index_t const k = w_.extent(1);
        index_t const rest = k - options_.outliers;
        vector_codebooks_shape shape{w_.extent(0), {}};
        shape.part[0] = {options_.outliers, maximum(options_.outliers, 1), options_.outlier_vector, options_.outlier_index_bits, 0};
        shape.part[1] = {rest, maximum(ceil_div(rest, options_.groups), 1), options_.vector, options_.index_bits, options_.residual_bits};
        vector_codebooks_tensor q{shape};
        set_columns(q);
        for (int p = 0; p < 2; ++p)
            for (index_t g = 0; g < (shape.part[p].columns == 0 ? 0 : shape.part[p].groups()); ++g) fit(q, p, g);
        return q;
    }

private:
    void set_columns(vector_codebooks_tensor& q) {
        index_t const k = w_.extent(1);
        std::vector<index_t> order(static_cast<std::size_t>(k));
        std::vector<double> rank(static_cast<std::size_t>(k), 0.0);
        for (index_t c = 0; c < k; ++c) {
            order[static_cast<std::size_t>(c)] = c;
            double squares = 0;
            float low = std::numeric_limits<float>::infinity();
            float high = -low;
            bool is_finite = true;
            for (index_t n = 0; n < w_.extent(0); ++n) {
                float const v = w_(n, c);
                is_finite = is_finite && std::isfinite(v);
                low = v < low ? v : low;
                high = v > high ? v : high;
                squares += static_cast<double>(v) * static_cast<double>(v);
            }
            bool const is_dead = !importance_.empty() && importance_[static_cast<std::size_t>(c)] == 0;
            rank[static_cast<std::size_t>(c)] = !is_finite ? -1 : importance_.empty() ? squares : importance_[static_cast<std::size_t>(c)];
            if (!is_finite)
                q.scale()[c] = saturated<fp16>(std::numeric_limits<float>::quiet_NaN());
            else if (is_dead || w_.extent(0) == 0)
                q.scale()[c] = q.bias()[c] = fp16{0.0f};
            else if (options_.columns == normalise::columns) {
                q.bias()[c] = saturated<fp16>(low);
                q.scale()[c] = saturated<fp16>(high - low);
            }
        }
        if (importance_.empty() && options_.outliers == 0) return; // in their order
        std::sort(order.begin(), order.end(), [&](index_t a, index_t b) {
            double const one = rank[static_cast<std::size_t>(a)];
            double const two = rank[static_cast<std::size_t>(b)];
            return one > two || (one == two && a < b);
        });
        for (index_t at = 0; at < k; ++at) q.positions()[order[static_cast<std::size_t>(at)]] = static_cast<std::int32_t>(at);
    }

    void fit(vector_codebooks_tensor& q, int p, index_t g) {
        codebook_layout const& s = q.shape().part[p];
        vector_codebooks const view = q.view();
        std::vector<index_t> columns;
        for (index_t k = 0; k < w_.extent(1); ++k)
            if (auto const at = view.place(k); at.part == p && at.group == g) columns.push_back(k);
        vector_samples samples{s.vector};
        std::vector<float> v(static_cast<std::size_t>(s.vector));
        for (index_t const k : columns)
            for (index_t j = 0; j < s.vectors(w_.extent(0)); ++j) {
                normalised_vector(w_, view, k, j, s.vector, v.data());
                if (view.scale(k) > 0) samples.add(v.data(), importance_.empty() ? 1.0 : importance_[static_cast<std::size_t>(k)]);
            }
        philox const random{options_.seed, static_cast<std::uint64_t>(2 * g + p)};
        std::vector<float> const centroids = samples.kmeans(index_t{1} << s.index_bits, options_.iterations, random);
        store(centroids, q.centroids(p) + (g * s.vector << s.index_bits));
        std::vector<float> residuals;
        if (s.residual_bits > 0) {
            for (index_t i = 0; i < samples.size(); ++i) {
                double distance = 0;
                index_t const c = vector_samples::nearest(samples.at(i), centroids, s.vector, distance);
                for (index_t d = 0; d < s.vector; ++d) samples.at(i)[d] -= centroids[static_cast<std::size_t>(c * s.vector + d)];
            }
            residuals = samples.kmeans(index_t{1} << s.residual_bits, options_.iterations, philox{options_.seed + 1, static_cast<std::uint64_t>(g)});
            store(residuals, q.residuals(p) + (g * s.vector << s.residual_bits));
        }
        for (index_t const k : columns) encode_column(q, view, w_, k, centroids, residuals);
    }

    static void store(std::vector<float> const& from, fp16* to) {
        for (std::size_t i = 0; i < from.size(); ++i) to[i] = fp16{from[i]};
    }

public:
    static void encode_column(vector_codebooks_tensor& q, vector_codebooks const& view, matrix_view<float const> const& w, index_t k,
                              std::vector<float> const& centroids, std::vector<float> const& residuals) {
        auto const at = view.place(k);
        codebook_layout const& s = view.shape().part[at.part];
        std::vector<float> v(static_cast<std::size_t>(s.vector));
        for (index_t j = 0; j < s.vectors(w.extent(0)); ++j) {
            normalised_vector(w, view, k, j, s.vector, v.data());
            double distance = 0;
            index_t const c = vector_samples::nearest(v.data(), centroids, s.vector, distance);
            auto code = static_cast<std::uint32_t>(c);
            if (!residuals.empty()) {
                for (index_t d = 0; d < s.vector; ++d) v[static_cast<std::size_t>(d)] -= centroids[static_cast<std::size_t>(c * s.vector + d)];
                code |= static_cast<std::uint32_t>(vector_samples::nearest(v.data(), residuals, s.vector, distance)) << s.index_bits;
            }
            q.set_code(at, j, code);
        }
    }

private:
    matrix_view<float const> w_;
    std::vector<double> importance_;
    vptq_options options_;
};

} // namespace detail

/// w (n, k) in vector codes; see the file comment. @param importance (k), of at least 0, or empty. O(iterations n k 2^bits).
inline vector_codebooks_tensor quantize_vptq(matrix_view<float const> const& w, vptq_options const& options = {},
                                             vector_view<float const> const& importance = {}) {
    check::elements("quantize_vptq", "w", w);
    check::within("quantize_vptq", "groups", options.groups, 1, index_t{1} << 31);
    check::within("quantize_vptq", "outliers", options.outliers, 0, w.extent(1));
    std::vector<double> h;
    if (importance.extent(0) > 0) {
        check::equal("quantize_vptq", "numbers of the importance", importance.extent(0), w.extent(1), "columns of w");
        check::elements("quantize_vptq", "the importance", importance);
        for (index_t k = 0; k < w.extent(1); ++k) {
            if (!(importance[k] >= 0 && std::isfinite(importance[k])))
                detail::raise<shape_error>("tessera: quantize_vptq: the importance of column " + std::to_string(k) + " is " +
                                           std::to_string(importance[k]) + ", expected 0 or more");
            h.push_back(static_cast<double>(importance[k]));
        }
    }
    return detail::vptq_encoder{w, std::move(h), options}.run();
}
inline vector_codebooks_tensor quantize_vptq(matrix<float> const& w, vptq_options const& options = {},
                                             vector_view<float const> const& importance = {}) {
    return quantize_vptq(w.view(), options, importance);
}

/// Codes columns [first, last) of w (n, k) anew with the codebooks, scales and biases of q; see the file comment.
inline void encode_nearest(vector_codebooks_tensor& q, matrix_view<float const> const& w, index_t first, index_t last) {
    check::elements("encode_nearest", "w", w);
    check::equal("encode_nearest", "rows of w", w.extent(0), q.rows(), "rows of the codes");
    check::equal("encode_nearest", "columns of w", w.extent(1), q.cols(), "columns of the codes");
    check::within("encode_nearest", "last", last, 0, q.cols());
    check::within("encode_nearest", "first", first, 0, last);
    vector_codebooks const view = q.view();
    for (index_t k = first; k < last; ++k) {
        auto const at = view.place(k);
        codebook_layout const& s = view.shape().part[at.part];
        auto const residuals = s.residual_bits == 0 ? std::vector<float>{} : detail::codebook_of(view.residual(at.part, at.group, 0), index_t{s.vector} << s.residual_bits);
        detail::vptq_encoder::encode_column(q, view, w, k, detail::codebook_of(view.centroid(at.part, at.group, 0), index_t{s.vector} << s.index_bits), residuals);
    }
}

} // namespace tessera::inline TESSERA_ABI
