// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Ways to store a matrix. Each is a class that rounds float32 weights when it is made, and says
///
/// * `multiple`: what a row's length must be a multiple of;
/// * `bytes()`: of what it stores;
/// * `add_row(n, out)`: out += row n, decoded;
/// * `op<Preparation>()`: the linear operator that multiplies by it, a view.
///
/// A quantiser of your own is such a class (see `narrowed`). One keeps a part of the weights (`pruned`). Two are compositions: what
/// is added to a base is one more term of the operator, multiplied in the same pass.

#include <tessera/core/philox.hpp>
#include <tessera/operators/linear_operator.hpp>
#include <tessera/quant/block_search.hpp>
#include <tessera/quant/quantize.hpp>
#include <tessera/sparse/sparsify.hpp>
#include <tessera/storage/blocked.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace compress {

namespace ts = tessera;
using ts::index_t;
using weight_view = ts::matrix_view<float const>; // (n, k)

namespace detail {

/// out += row n of anything that is indexed.
template <class W>
void add_elements(W const& w, index_t n, index_t k, float* out) {
    for (index_t i = 0; i < k; ++i) out[i] += static_cast<float>(w(n, i));
}

/// w minus the rows of an encoding.
template <class Encoding>
ts::matrix<float> error_of(weight_view const& w, Encoding const& encoding) {
    ts::matrix<float> out{w.extent(0), w.extent(1)};
    std::vector<float> row(static_cast<std::size_t>(w.extent(1)));
    for (index_t n = 0; n < w.extent(0); ++n) {
        row.assign(row.size(), 0.0f);
        encoding.add_row(n, row.data());
        for (index_t k = 0; k < w.extent(1); ++k) out(n, k) = w(n, k) - row[static_cast<std::size_t>(k)];
    }
    return out;
}

} // namespace detail

/// A scheme of the library, every weight rounded to the nearest; `Range` is what scales cover.
template <class Scheme, class Range = ts::min_max_range>
class rounded {
public:
    static constexpr index_t multiple = 1;
    explicit rounded(weight_view const& w)
        : stored_{ts::quantize<Scheme>(ts::cpu<ts::native_arch, ts::serial>{}, w, Range{})} {}
    index_t bytes() const { return stored_.bytes(); }
    void add_row(index_t n, float* out) const { detail::add_elements(stored_.view(), n, stored_.cols(), out); }
    template <class Preparation>
    auto op() const {
        return ts::linear<ts::quantized<Scheme>, Preparation>{stored_.view()};
    }

private:
    ts::quantized_tensor<Scheme> stored_;
};

/// A block format of GGUF's files, its scales from extremes or looked for.
template <ts::block_format Format, bool IsSearched = false>
class blocks {
public:
    static constexpr index_t multiple = Format::block_size;
    explicit blocks(weight_view const& w)
        : stored_{w.extent(0) * (w.extent(1) / multiple)}, rows_{w.extent(0)}, cols_{w.extent(1)} {
        for (index_t n = 0; n < rows_; ++n) {
            typename Format::block* const row = stored_.data() + n * (cols_ / multiple);
            if constexpr (IsSearched)
                ts::encode_row_least_error<Format>(&w(n, 0), cols_, row);
            else
                ts::encode_row<Format>(&w(n, 0), cols_, row);
        }
    }
    index_t bytes() const { return view().bytes(); }
    void add_row(index_t n, float* out) const { detail::add_elements(view(), n, cols_, out); }
    template <class Preparation>
    auto op() const {
        return ts::linear<ts::blocked<Format>, Preparation>{view()};
    }

private:
    ts::blocked<Format> view() const { return {stored_.data(), rows_, cols_}; }
    ts::buffer<typename Format::block> stored_;
    index_t rows_;
    index_t cols_;
};

/// A matrix of fp16 or bf16.
template <class T>
class narrowed {
public:
    static constexpr index_t multiple = 1;
    explicit narrowed(weight_view const& w) : stored_{w.extent(0), w.extent(1)} {
        for (index_t n = 0; n < w.extent(0); ++n)
            for (index_t k = 0; k < w.extent(1); ++k) stored_(n, k) = static_cast<T>(w(n, k));
    }
    index_t bytes() const { return stored_.size() * static_cast<index_t>(sizeof(T)); }
    void add_row(index_t n, float* out) const { detail::add_elements(stored_, n, stored_.extent(1), out); }
    template <class Preparation>
    auto op() const {
        return ts::linear<ts::matrix_view<T const>, Preparation>{stored_.view()};
    }

private:
    ts::matrix<T> stored_;
};

/// A matrix without its smaller weights: csr keeps the PerMille / 1000 largest of all, n_of_m (without a number) those that its name says.
template <ts::sparse_storage Storage, int... PerMille>
class pruned {
public:
    static constexpr index_t multiple = 1;
    explicit pruned(weight_view const& w) : kept_{ts::sparsify<Storage>(w, ts::keep_fraction{PerMille * 0.001}...)} {}
    index_t bytes() const { return kept_.bytes(); }
    void add_row(index_t n, float* out) const {
        kept_.view().for_each_entry(n, [&](index_t k, float weight) { out[k] += weight; });
    }
    template <class Preparation>
    auto op() const {
        return ts::linear<Storage, Preparation>{kept_.view()};
    }

private:
    decltype(ts::sparsify<Storage>(std::declval<weight_view>(), ts::keep_fraction{PerMille * 0.001}...)) kept_;
};

/// The PerMille / 1000 largest weights as compressed rows of fp16; the base rounds the others, so its scales need not reach
/// so far.
template <class Base, int PerMille>
class with_outliers {
public:
    static constexpr index_t multiple = Base::multiple;
    explicit with_outliers(weight_view const& w)
        : outliers_{ts::sparsify<ts::csr<ts::fp16>>(w, ts::keep_fraction{PerMille * 0.001})}, base_{rest_of(w, outliers_)} {}
    index_t bytes() const { return base_.bytes() + outliers_.bytes(); }
    void add_row(index_t n, float* out) const {
        base_.add_row(n, out);
        outliers_.view().for_each_entry(n, [&](index_t k, float weight) { out[k] += weight; });
    }
    template <class Preparation>
    auto op() const {
        return base_.template op<Preparation>() + ts::linear<ts::csr<ts::fp16>>{outliers_.view()};
    }

private:
    static Base rest_of(weight_view const& w, ts::csr_tensor<ts::fp16> const& outliers) {
        ts::matrix<float> rest{w.extent(0), w.extent(1)};
        for (index_t n = 0; n < w.extent(0); ++n) {
            for (index_t k = 0; k < w.extent(1); ++k) rest(n, k) = w(n, k);
            outliers.view().for_each_entry(n, [&](index_t k, float) { rest(n, k) = 0.0f; });
        }
        return Base{rest.view()};
    }

    ts::csr_tensor<ts::fp16> outliers_;
    Base base_;
};

/// The error E of the base, approximated by B A of rank `Rank` in fp16: B spans the leading left singular vectors of E, found
/// by subspace iteration, and A = Bᵀ E.
template <class Base, index_t Rank>
class with_low_rank {
public:
    static constexpr index_t multiple = Base::multiple;
    explicit with_low_rank(weight_view const& w) : base_{w}, b_{w.extent(0), Rank}, a_{Rank, w.extent(1)} {
        ts::matrix<float> const error = detail::error_of(w, base_);
        index_t const rows = w.extent(0);
        index_t const cols = w.extent(1);
        factor left(static_cast<std::size_t>(rows)), right(static_cast<std::size_t>(cols));
        auto const for_each_error = [&](auto const& f) {
            for (index_t n = 0; n < rows; ++n)
                for (index_t k = 0; k < cols; ++k)
                    f(left[static_cast<std::size_t>(n)], error(n, k), right[static_cast<std::size_t>(k)]);
        };
        ts::philox const random{1};
        for (std::size_t k = 0; k < right.size(); ++k)
            for (index_t r = 0; r < Rank; ++r) right[k].value[r] = random.normal(k * Rank + static_cast<std::size_t>(r));
        for (int iteration = 0; iteration < 4; ++iteration) {
            left.assign(left.size(), {});
            for_each_error([](coefficients& l, float e, coefficients const& r) { add(l, e, r); });
            orthonormalise(left);
            right.assign(right.size(), {});
            for_each_error([](coefficients const& l, float e, coefficients& r) { add(r, e, l); });
            if (iteration < 3) orthonormalise(right);
        }
        for (index_t r = 0; r < Rank; ++r) {
            for (index_t n = 0; n < rows; ++n) b_(n, r) = static_cast<ts::fp16>(left[static_cast<std::size_t>(n)].value[r]);
            for (index_t k = 0; k < cols; ++k) a_(r, k) = static_cast<ts::fp16>(right[static_cast<std::size_t>(k)].value[r]);
        }
    }
    index_t bytes() const { return base_.bytes() + (b_.size() + a_.size()) * static_cast<index_t>(sizeof(ts::fp16)); }
    void add_row(index_t n, float* out) const {
        base_.add_row(n, out);
        for (index_t r = 0; r < Rank; ++r) {
            float const factor = static_cast<float>(b_(n, r));
            for (index_t k = 0; k < a_.extent(1); ++k) out[k] += factor * static_cast<float>(a_(r, k));
        }
    }
    template <class Preparation>
    auto op() const {
        return base_.template op<Preparation>() + ts::low_rank{b_.view(), a_.view()};
    }

private:
    struct coefficients {
        float value[Rank] = {};
    };
    using factor = std::vector<coefficients>;

    static void add(coefficients& sum, float weight, coefficients const& x) noexcept {
        for (index_t r = 0; r < Rank; ++r) sum.value[r] += weight * x.value[r];
    }
    /// Gram and Schmidt, twice: once leaves what rounding put back.
    static void orthonormalise(factor& x) {
        for (index_t r = 0; r < Rank; ++r)
            for (int pass = 0; pass < 2; ++pass) {
                for (index_t other = 0; other < r; ++other) subtract(x, r, other, dot(x, r, other));
                double const length = std::sqrt(dot(x, r, r));
                float const inverse = length > 0 ? static_cast<float>(1 / length) : 0.0f;
                for (coefficients& c : x) c.value[r] *= inverse;
            }
    }
    static double dot(factor const& x, index_t a, index_t b) noexcept {
        double sum = 0;
        for (coefficients const& c : x) sum += static_cast<double>(c.value[a]) * static_cast<double>(c.value[b]);
        return sum;
    }
    static void subtract(factor& x, index_t from, index_t what, double times) noexcept {
        for (coefficients& c : x) c.value[from] -= static_cast<float>(times) * c.value[what];
    }

    Base base_;
    ts::matrix<ts::fp16> b_; // (n, Rank)
    ts::matrix<ts::fp16> a_; // (Rank, k)
};

} // namespace compress
