// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Operands of products without a code for every weight (vector codes, tables that are data, pyramids) for tests of every backend:
/// owners of random storage, and how far a float32 kernel may be from the reference.

#include "apply_case.hpp"
#include "operands.hpp"

#include <tessera/kernels/ref/pvq.hpp>
#include <tessera/kernels/ref/vector.hpp>
#include <tessera/storage/any_precision.hpp>
#include <tessera/storage/table_quantized.hpp>
#include <tessera/storage/vector_codebooks.hpp>
#include <tessera/storage/vector_grid.hpp>

#include <utility>
#include <vector>

namespace tessera_test {

/// W by its definition.
template <class Storage>
ts::matrix<float> decoded(Storage const& w) {
    ts::matrix<float> out{w.rows(), w.cols()};
    w.decode_tile(0, w.rows(), 0, w.cols(), out.data(), w.cols());
    return out;
}

/// Besides the sum over k: its parts of 256 columns, the factor.
template <ts::tile_storage Storage, class P>
struct error_model<ts::linear<Storage, P>> {
    using op = ts::linear<Storage, P>;
    static constexpr bool is_integer = ts::detail::activation_group<P> >= 0;
    /// Integer sums are exact: what rounds are sums over segments, of a point at least, and a few products with scales.
    static index_t roundings(op const& w) {
        if constexpr (std::is_same_v<P, ts::as_bf16>) return w.cols() + w.cols() / 256 + 10 + (1 << 16); // W may be rounded to bf16
        return is_integer ? w.cols() / 2 + 10 : w.cols() + w.cols() / 256 + 10;
    }
    static row_of_doubles magnitude(op const& w, row_of_doubles x) {
        row_of_doubles y(static_cast<std::size_t>(w.rows()), 0.0);
        ts::detail::reference_prepare<P>(x.data(), w.cols(), x.data());
        if constexpr (is_integer) {
            row_of_doubles row(x.size());
            for (index_t n = 0; n < w.rows(); ++n) {
                ts::detail::decode_rounded_row(w.storage(), n, row.data());
                for (std::size_t k = 0; k < x.size(); ++k) y[static_cast<std::size_t>(n)] += std::abs(x[k] * row[k]);
            }
            return y;
        }
        ts::matrix<float> const dense = decoded(w.storage());
        for (index_t n = 0; n < w.rows(); ++n)
            for (index_t k = 0; k < w.cols(); ++k)
                y[static_cast<std::size_t>(n)] += std::abs(x[static_cast<std::size_t>(k)] * double{dense(n, k)});
        return y;
    }
};
template <ts::tile_storage Storage, class P>
struct error_model<ts::transposed_operator<ts::linear<Storage, P>>> {
    using op = ts::transposed_operator<ts::linear<Storage, P>>;
    static index_t roundings(op const& t) { return t.cols() + t.cols() / 64 + 10; }
    static row_of_doubles magnitude(op const& t, row_of_doubles const& x) {
        row_of_doubles y(static_cast<std::size_t>(t.rows()), 0.0);
        ts::matrix<float> const dense = decoded(t.inner().storage());
        for (index_t k = 0; k < t.rows(); ++k)
            for (index_t n = 0; n < t.cols(); ++n)
                y[static_cast<std::size_t>(k)] += std::abs(x[static_cast<std::size_t>(n)] * double{dense(n, k)});
        return y;
    }
};

/// There is no random access: magnitudes are those of decoded rows.
template <class Format, class Gain, class P>
struct error_model<ts::linear<ts::pvq_matrix<Format, Gain>, P>> {
    using op = ts::linear<ts::pvq_matrix<Format, Gain>, P>;
    /// Integer sums are exact: what rounds are sums over groups.
    static index_t roundings(op const& w) {
        return ts::detail::activation_group<P> >= 0 ? ts::ceil_div(w.cols(), Format::group) + 10 : w.cols() + 8;
    }
    static row_of_doubles magnitude(op const& w, row_of_doubles x) {
        ts::detail::reference_prepare<P>(x.data(), w.cols(), x.data());
        row_of_doubles y(static_cast<std::size_t>(w.rows()), 0.0);
        std::vector<float> row(static_cast<std::size_t>(w.cols()));
        for (index_t n = 0; n < w.rows(); ++n) {
            w.storage().decode(n, n + 1, 0, w.cols(), row.data(), w.cols());
            for (std::size_t k = 0; k < row.size(); ++k) y[static_cast<std::size_t>(n)] += std::abs(x[k] * static_cast<double>(row[k]));
        }
        return y;
    }
};
template <class Format, class Gain, class P>
struct error_model<ts::transposed_operator<ts::linear<ts::pvq_matrix<Format, Gain>, P>>> {
    using op = ts::transposed_operator<ts::linear<ts::pvq_matrix<Format, Gain>, P>>;
    static index_t roundings(op const& t) { return t.cols() + ts::ceil_div(t.cols(), 64) + 8; }
    static row_of_doubles magnitude(op const& t, row_of_doubles const& x) {
        row_of_doubles y(static_cast<std::size_t>(t.rows()), 0.0);
        std::vector<float> row(static_cast<std::size_t>(t.rows()));
        for (index_t n = 0; n < t.cols(); ++n) {
            t.inner().storage().decode(n, n + 1, 0, t.rows(), row.data(), t.rows());
            for (std::size_t k = 0; k < row.size(); ++k) y[k] += std::abs(x[static_cast<std::size_t>(n)] * static_cast<double>(row[k]));
        }
        return y;
    }
};

/// Random codes, tables and scales.
template <int Bits, class Granularity, class Value = ts::fp16, class Scale = ts::unscaled>
struct random_tables {
    using tensor = ts::table_quantized_tensor<Bits, Granularity, Value, Scale>;
    tensor owner;
    random_tables(index_t n, index_t k, std::uint64_t seed = 7) : owner{n, k} {
        using view_type = typename tensor::view_type;
        ts::philox const random{seed};
        for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j < k; ++j)
                ts::bitpack::set<Bits>(owner.codes() + i * ts::bitpack::bytes(k, Bits), j,
                                       random.bits(static_cast<std::uint64_t>(i * k + j)) & ((1u << Bits) - 1u));
        for (index_t i = 0; i < view_type::table_count(n, k) * view_type::table_size; ++i)
            owner.values()[i] = static_cast<Value>(random.normal(static_cast<std::uint64_t>(i)));
        if constexpr (view_type::has_scale)
            for (index_t i = 0; i < view_type::scale_count(n, k); ++i)
                owner.scales()[i] = static_cast<typename view_type::stored_scale>(0.1f + random.uniform(static_cast<std::uint64_t>(i)));
    }
    auto view() const { return owner.view(); }
};

/// Random codes, points and scales.
template <index_t Dims, int Bits>
struct random_grid_codes {
    ts::vector_grid_tensor<Dims, Bits> owner;
    random_grid_codes(index_t n, index_t k, std::uint64_t seed = 7) : owner{points(), n, k, group(k)} {
        ts::philox const random{seed};
        for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j < ts::ceil_div(k, Dims); ++j)
                owner.set_code(i, j, random.bits(static_cast<std::uint64_t>(i * 5000 + j)) & ((1u << Bits) - 1u));
        for (index_t i = 0; i < n * ts::ceil_div(k, group(k)); ++i)
            owner.scales()[i] = ts::fp16{0.5f + random.uniform(static_cast<std::uint64_t>(i))};
    }
    static float const* points() {
        static std::vector<float> const grid = [] {
            std::vector<float> g;
            for (index_t i = 0; i < (index_t{1} << Bits) * Dims; ++i) g.push_back(ts::philox{3}.normal(static_cast<std::uint64_t>(i)));
            return g;
        }();
        return grid.data();
    }
    static index_t group(index_t k) { return k % 2 == 0 ? 64 : 3 * Dims; }
    auto view() const { return owner.view(); }
};

/// Random codes and codebooks; columns in a random order, an eighth of them outliers.
template <int Vector, int IndexBits, int ResidualBits, int OutlierVector = 4>
struct random_vectors {
    ts::vector_codebooks_tensor owner;
    static ts::vector_codebooks_shape shape(index_t n, index_t k) {
        ts::vector_codebooks_shape s{n, {}};
        index_t const outliers = k / 8;
        s.part[0] = {outliers, ts::maximum(outliers, 1), OutlierVector, 5, 0};
        s.part[1] = {k - outliers, ts::maximum(ts::ceil_div(k - outliers, 3), 1), Vector, IndexBits, ResidualBits};
        return s;
    }
    random_vectors(index_t n, index_t k, std::uint64_t seed = 31) : owner{shape(n, k)} {
        ts::philox const random{seed};
        std::uint64_t at = 0;
        for (int p = 0; p < 2; ++p) {
            auto const& s = owner.shape().part[p];
            for (index_t i = 0; i < s.centroid_count(); ++i) owner.centroids(p)[i] = ts::fp16{random.normal(at++)};
            for (index_t i = 0; i < s.residual_count(); ++i) owner.residuals(p)[i] = ts::fp16{0.1f * random.normal(at++)};
        }
        for (index_t j = k; j > 1; --j) std::swap(owner.positions()[j - 1], owner.positions()[random.bits(at++) % static_cast<std::uint64_t>(j)]);
        auto const view = owner.view();
        for (index_t j = 0; j < k; ++j) {
            owner.scale()[j] = ts::fp16{0.5f + random.uniform(at++)};
            owner.bias()[j] = ts::fp16{random.uniform(at++) - 0.5f};
            auto const place = view.place(j);
            auto const& s = owner.shape().part[place.part];
            for (index_t i = 0; i < s.vectors(n); ++i)
                owner.set_code(place, i, random.bits(at++) & static_cast<std::uint32_t>((std::uint64_t{1} << (s.index_bits + s.residual_bits)) - 1));
        }
    }
    auto view() const { return owner.view(); }
};

/// Random nested codes of 3 to 8 bits, the first Bits planes of them.
template <int Bits>
struct random_nested {
    ts::any_precision_tensor owner;
    random_nested(index_t n, index_t k) : owner{n, k, 3, 8} {
        ts::philox const random{13};
        std::uint64_t at = 0;
        for (index_t i = 0; i < n; ++i) {
            for (index_t j = 0; j < k; ++j) owner.set_code(i, j, random.bits(at++) & 255u);
            for (int bits = 3; bits <= 8; ++bits)
                for (index_t c = 0; c < index_t{1} << bits; ++c) owner.table(bits, i)[c] = ts::fp16{random.normal(at++)};
        }
    }
    auto view() const { return owner.template prefix<Bits>(); }
};

/// Random points of a pyramid and gains.
template <class Format>
struct random_pyramids {
    static constexpr index_t group = Format::group;
    static constexpr index_t column_unit = 1;
    ts::pvq_tensor<Format, ts::gain_as<float>> owner;
    random_pyramids(index_t n, index_t k) : owner{n, k} {
        ts::philox const random{15};
        std::uint64_t at = 0;
        index_t const groups = ts::ceil_div(k, group);
        for (index_t i = 0; i < n; ++i)
            for (index_t g = 0; g < groups; g += Format::together) {
                std::vector<typename Format::index_type> indices;
                for (index_t j = g; j < ts::minimum(g + Format::together, groups); ++j) indices.push_back(random_index(random, at));
                owner.set_word(i, g, indices.data(), static_cast<index_t>(indices.size()));
            }
        for (index_t i = 0; i < n * groups; ++i) owner.gain_arrays().gains()[i] = 0.5f + random.uniform(at++);
    }
    static typename Format::index_type random_index(ts::philox const& random, std::uint64_t& at) {
        std::int8_t p[Format::group] = {};
        for (index_t pulse = 0; pulse < Format::pulses;) {
            std::uint32_t const bits = random.bits(at++);
            std::int8_t& v = p[bits / 2 % static_cast<std::uint32_t>(Format::group)];
            if (v == 0) v = bits % 2 == 0 ? 1 : -1;
            else if (v >= Format::largest || v <= -Format::largest) continue;
            else v = static_cast<std::int8_t>(v > 0 ? v + 1 : v - 1);
            ++pulse;
        }
        return Format::index(p);
    }
    auto view() const { return owner.view(); }
};

} // namespace tessera_test
