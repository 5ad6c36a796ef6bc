// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A product y = x Wᵀ as a case that tests and benchmarks share: inputs, the reference result, work, and how far a float32
/// kernel may be from the reference.
///
/// The tolerance is computed. A term of y passes through at most `roundings` roundings, so (Higham, section 3.1)
///
///     |y - exact| <= gamma(roundings) * sum over k of |x_k| |w|_k + half the gap between numbers of y's type
///
/// where x_k is what the preparation made of x and |w|_k = |scale| (|value| + |zero point|) + |minimum|, because kernels may
/// apply the offset apart from the value.

#include "guarded.hpp"

#include <tessera/numerics/convert.hpp>
#include <tessera/numerics/error_bounds.hpp>
#include <tessera/operators/apply_reference.hpp>
#include <tessera/storage/integer_codes.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace tessera_test {

using row_of_doubles = std::vector<double>;

/// Largest sum of magnitudes that an element of W can stand for; `together`: value and zero point are subtracted exactly.
template <class Storage>
double element_magnitude(Storage const& w, index_t n, index_t k, bool together) {
    if constexpr (ts::coded_storage<Storage>) {
        using source = ts::code_source<Storage>;
        double const value = double{source::value(source::code(w, n, k))};
        double const zero = source::zero_point(w, n, k);
        double const integer = together ? std::abs(value - zero) : std::abs(value) + std::abs(zero);
        return std::abs(double{source::scale(w, n, k)}) * integer + std::abs(double{source::minimum(w, n, k)});
    } else {
        return std::abs(static_cast<double>(static_cast<float>(w(n, k))));
    }
}

/// Roundings to float32 that what integer products make of a table's values is worth; 0 where they are exact, and where a value is
/// farther away than storage/integer_codes.hpp says: half of largest / 8191.
template <class Source>
index_t const table_roundings = [] {
    double worst = 0, largest = 0;
    for (std::uint32_t c = 0; c < 1u << Source::bits; ++c) largest = std::max(largest, std::abs(double{Source::value(c)}));
    if constexpr (ts::integer_codes<Source>::kind == ts::integer_codes_kind::pair)
        for (std::uint32_t c = 0; c < 1u << Source::bits; ++c) {
            using codes = ts::integer_codes<Source>;
            double const value = double{Source::value(c)};
            double const kept = double{codes::unit} * (128 * (codes::high_bytes[c] - codes::zero) + codes::bytes[c]);
            if (std::abs(kept - value) > largest / 8191 * (0.5 + 0x1p-10)) return index_t{0}; // the quotient is a float
            if (value != 0) worst = std::max(worst, std::abs(kept - value) / std::abs(value));
        }
    return static_cast<index_t>(std::ceil(worst / ts::unit_roundoff<float>));
}();

/// `roundings(op)`, and `magnitude(op, x)`: the sums of magnitudes of the row x Wᵀ.
template <class Op>
struct error_model;

template <class Storage, class P>
struct error_model<ts::linear<Storage, P>> {
    using op = ts::linear<Storage, P>;
    static constexpr bool is_integer = ts::detail::activation_group<P> >= 0;

    static index_t roundings(op const& w) {
        if constexpr (is_integer) {
            using source = ts::code_source<Storage>;
            // Integer sums are exact: what rounds are sums over blocks, and a few products with scales.
            index_t const block = source::group == 0 || source::group % 32 == 0 ? 32 : source::group;
            return ts::ceil_div(w.cols(), block) + 10 + table_roundings<source>;
        } else if constexpr (std::is_same_v<P, ts::as_bf16>) {
            return w.cols() + 8 + (1 << 16); // W may be rounded to bf16, as far as 2^16 roundings to float32 go
        } else {
            return w.cols() + 8;
        }
    }
    static row_of_doubles magnitude(op const& w, row_of_doubles x) {
        ts::detail::reference_prepare<P>(x.data(), w.cols(), x.data());
        row_of_doubles y(static_cast<std::size_t>(w.rows()), 0.0);
        for (index_t n = 0; n < w.rows(); ++n)
            for (index_t k = 0; k < w.cols(); ++k)
                y[static_cast<std::size_t>(n)] +=
                    std::abs(x[static_cast<std::size_t>(k)]) * element_magnitude(w.storage(), n, k, is_integer);
        return y;
    }
};

template <class Storage, class P>
struct error_model<ts::transposed_operator<ts::linear<Storage, P>>> {
    using op = ts::transposed_operator<ts::linear<Storage, P>>;
    static index_t roundings(op const& t) { return t.cols() + ts::ceil_div(t.cols(), 64) + 8; }
    static row_of_doubles magnitude(op const& t, row_of_doubles const& x) {
        row_of_doubles y(static_cast<std::size_t>(t.rows()), 0.0);
        for (index_t k = 0; k < t.rows(); ++k)
            for (index_t n = 0; n < t.cols(); ++n)
                y[static_cast<std::size_t>(k)] +=
                    std::abs(x[static_cast<std::size_t>(n)]) * element_magnitude(t.inner().storage(), n, k, true);
        return y;
    }
};

template <class A, class B>
struct error_model<ts::sum<A, B>> {
    static index_t roundings(ts::sum<A, B> const& s) {
        return ts::maximum(error_model<A>::roundings(s.first()), error_model<B>::roundings(s.second())) + 1;
    }
    static row_of_doubles magnitude(ts::sum<A, B> const& s, row_of_doubles const& x) {
        row_of_doubles y = error_model<A>::magnitude(s.first(), x);
        row_of_doubles const b = error_model<B>::magnitude(s.second(), x);
        for (std::size_t i = 0; i < y.size(); ++i) y[i] += b[i];
        return y;
    }
};

template <class A, class B>
struct error_model<ts::product<A, B>> {
    static index_t roundings(ts::product<A, B> const& p) {
        return error_model<A>::roundings(p.first()) + error_model<B>::roundings(p.second());
    }
    static row_of_doubles magnitude(ts::product<A, B> const& p, row_of_doubles const& x) {
        return error_model<A>::magnitude(p.first(), error_model<B>::magnitude(p.second(), x));
    }
};

template <class A>
struct error_model<ts::scaled_operator<A>> {
    static index_t roundings(ts::scaled_operator<A> const& s) { return error_model<A>::roundings(s.inner()) + 1; }
    static row_of_doubles magnitude(ts::scaled_operator<A> const& s, row_of_doubles const& x) {
        row_of_doubles y = error_model<A>::magnitude(s.inner(), x);
        for (double& v : y) v *= std::abs(double{s.factor()});
        return y;
    }
};

template <class B, class A>
struct error_model<ts::low_rank<B, A>> : error_model<ts::scaled_operator<ts::product<B, A>>> {};

template <class A>
struct error_model<ts::row_slice<A>> {
    static index_t roundings(ts::row_slice<A> const& s) { return error_model<A>::roundings(s.inner()); }
    static row_of_doubles magnitude(ts::row_slice<A> const& s, row_of_doubles const& x) {
        row_of_doubles const y = error_model<A>::magnitude(s.inner(), x);
        return {y.begin() + s.first(), y.begin() + s.first() + s.rows()};
    }
};

template <class A>
struct error_model<ts::column_slice<A>> {
    static index_t roundings(ts::column_slice<A> const& s) { return error_model<A>::roundings(s.inner()); }
    static row_of_doubles magnitude(ts::column_slice<A> const& s, row_of_doubles const& x) {
        row_of_doubles wide(static_cast<std::size_t>(s.inner().cols()), 0.0);
        for (std::size_t k = 0; k < x.size(); ++k) wide[k + static_cast<std::size_t>(s.first())] = x[k];
        return error_model<A>::magnitude(s.inner(), wide);
    }
};

/// y (m, n) = x (m, k) Wᵀ for a canonical operator W.
template <class Op, class X = float>
class apply_case {
public:
    apply_case(Op const& w, ts::matrix_view<X const> x) : apply_case{w, x, error_model<Op>::roundings(w)} {}
    /// For a kernel in whose results a term passes through so many roundings.
    apply_case(Op const& w, ts::matrix_view<X const> x, index_t roundings)
        : w_{w}, x_{x}, roundings_{roundings}, expected_(x.extent(0), w.rows()),
          magnitude_(static_cast<std::size_t>(x.extent(0))) {
        ts::apply(ts::reference{}, w_, x_, expected_.view());
        for (index_t m = 0; m < x.extent(0); ++m) {
            row_of_doubles row(static_cast<std::size_t>(w.cols()));
            for (index_t k = 0; k < w.cols(); ++k)
                row[static_cast<std::size_t>(k)] = static_cast<double>(static_cast<float>(x(m, k)));
            magnitude_[static_cast<std::size_t>(m)] = error_model<Op>::magnitude(w, std::move(row));
        }
    }

    ts::matrix_view<X const> inputs() const { return x_; }
    ts::matrix_view<float const> reference() const { return expected_.view(); }
    double flops() const { return 2.0 * static_cast<double>(x_.extent(0) * w_.rows() * w_.cols()); }
    /// Bytes of the operator as it is stored.
    template <class Storage>
    static double bytes(Storage const& w) {
        return static_cast<double>(w.bytes());
    }

    template <class Y = float>
    double tolerance(index_t m, index_t n) const {
        double const sum = magnitude_[static_cast<std::size_t>(m)][static_cast<std::size_t>(n)];
        double const y = std::abs(double{expected_.view()(m, n)});
        // The reference is rounded to float32; products below the normal range round by half of its smallest number.
        double const before = ts::gamma(roundings_, ts::unit_roundoff<float>) * sum +
                              ts::unit_roundoff<float> * y + 0x1p-150 * static_cast<double>(w_.cols() + 1);
        if constexpr (std::is_same_v<Y, float>)
            return before;
        else
            return before + ts::half_step<ts::format_of_t<Y>>(static_cast<float>(y + before));
    }

    /// The largest |y - reference| / tolerance; infinite for NaN.
    template <class Y>
    double worst_ratio(ts::matrix_view<Y const> y) const {
        double worst = 0;
        for (index_t m = 0; m < y.extent(0); ++m)
            for (index_t n = 0; n < y.extent(1); ++n) {
                double const error = std::abs(static_cast<double>(static_cast<float>(y(m, n))) - double{expected_.view()(m, n)});
                double const ratio = error == 0 ? 0 : error / tolerance<Y>(m, n);
                worst = ratio >= worst || ratio != ratio ? (ratio == ratio ? ratio : HUGE_VAL) : worst;
            }
        return worst;
    }

private:
    Op w_;
    ts::matrix_view<X const> x_;
    index_t roundings_;
    guarded<float> expected_;
    std::vector<row_of_doubles> magnitude_;
};

} // namespace tessera_test
