// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Blocks of GGUF's formats with scales of two levels (`q2_k` to `q6_k`, `iq1_s` to `iq3_s`), encoded for the least squared error:
///
///     std::vector<ts::q4_k::block> blocks(static_cast<std::size_t>(k / 256));
///     ts::encode_row_least_error<ts::q4_k>(&x(0, 0), k, blocks.data());
///
/// Where `encode_row` takes every group's scale and minimum from its extremes, this looks for those that leave least of
///
///     sum over the block of (x - S a_g c_i - M b_g)^2,    S, M: super scale and super minimum, a_g, b_g: integers of a group, c_i: codes
///
/// by coordinates. K-quants in three steps: of every group the real scale and minimum (from 20 shares of its range, each followed by
/// least squares for the codes that it gives); S and M from the largest of them; then, in turn, the a_g and b_g next to the best for S
/// and M, and the S and M of least squares for these. Grids (no M) start from `encode_row`'s codes: in turn the S of least squares, and of
/// the a_g next to the best for it the one whose vectors leave least. The best block on the way is kept, `encode_row`'s among them: it is
/// never worse.
///
/// Mean squared errors on N(0, 1), of K-quants 524288 numbers (examples/rate_distortion), of grids 65536, to 0.9 %; ggml's encoders are asked with
/// an importance of ones, which leaves less than without one (262144 numbers, to 0.4 %, tests/data/gguf/ggml_gauss.py). Time of one thread:
///
/// | format  | `encode_row` | this     | ggml 0.25.3 | microseconds a number |
/// |---------|--------------|----------|-------------|-----------------------|
/// | q2_k    | 0.1077       | 0.0670   | 0.0718      | 0.5                   |
/// | q3_k    | 0.0240       | 0.02066  | 0.02089     | 0.5                   |
/// | q4_k    | 0.00614      | 0.00493  | 0.00501     | 0.4                   |
/// | q5_k    | 0.001458     | 0.001192 | 0.001247    | 0.3                   |
/// | q6_k    | 0.000353     | 0.000277 | 0.000299    | 0.5                   |
/// | iq3_s   | 0.0193       | 0.0171   | 0.0187      | 4                     |
/// | iq3_xxs | 0.0352       | 0.0317   | 0.0329      | 3                     |
/// | iq2_s   | 0.0706       | 0.0585   | 0.0618      | 5                     |
/// | iq2_xs  | 0.0967       | 0.0824   | 0.0894      | 4                     |
/// | iq2_xxs | 0.1185       | 0.1081   | 0.1177      | 3                     |
/// | iq1_m   | 0.2029       | 0.1728   | 0.2030      | 16                    |
/// | iq1_s   | 0.2491       | 0.1994   | 0.2351      | 16                    |
///
/// Decisions are taken in double: a compiler that contracts products may choose another of two scales that are equally good.

#include "../storage/blocked.hpp"
#include "../storage/grid_formats.hpp"
#include "../storage/k_formats.hpp"

#include <cmath>
#include <cstdint>
#include <limits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// The squared error of a block; not finite where it decodes to something that is not.
template <class Format>
double squared_error(float const* x, typename Format::block const& b) noexcept {
    double sum = 0;
    for (int i = 0; i < Format::block_size; ++i) {
        double const d = static_cast<double>(x[i]) - static_cast<double>(Format::decode(b, i));
        sum += d * d;
    }
    return sum;
}

/// A finite fp16.
inline fp16 narrowed_scale(double v) noexcept {
    constexpr double most = 65504;
    return fp16{static_cast<float>(std::fmax(std::fmin(v, most), -most))};
}

/// The search for one block of a format of two_level_blocks.
template <class Format>
class block_search {
    using block = typename Format::block;
    static constexpr int size = Format::group_size;
    static constexpr int groups = Format::block_size / size;
    static constexpr int low = Format::min_code;
    static constexpr int high = Format::min_code + (1 << Format::code_bits) - 1;
    static constexpr bool is_affine = Format::has_minimum;
    static constexpr int shares = 20;
    static constexpr int rounds = 4;
    /// How far a group's integers are looked for from the best real ones: two, where they have but four bits.
    static constexpr int reach = Format::largest_sub == 15 ? 2 : 1;

    /// w = scale * code + minimum in a group.
    struct line {
        double scale = 0;
        double minimum = 0;
        double error = std::numeric_limits<double>::infinity();
    };

public:
    explicit block_search(float const* x) noexcept : x_{x} {}

    void run(block& best) noexcept {
        double least = squared_error<Format>(x_, best);
        if (least == 0 || !std::isfinite(least)) return; // exact; or a scale beyond fp16, a NaN
        line lines[groups];
        for (int g = 0; g < groups; ++g) lines[g] = fitted(x_ + g * size);
        double super_scale = 0;
        double super_minimum = 0;
        for (line const& l : lines) {
            super_scale = std::fabs(l.scale) > std::fabs(super_scale) ? l.scale : super_scale;
            super_minimum = std::fmin(super_minimum, l.minimum);
        }
        super_scale /= Format::largest_sub;
        super_minimum /= Format::largest_sub;
        block current{};
        for (int round = 0; round < rounds; ++round) {
            current = block{};
            current.scale = narrowed_scale(super_scale);
            if constexpr (is_affine) current.minimum = narrowed_scale(-super_minimum);
            for (int g = 0; g < groups; ++g) choose_integers(current, g, lines[g]);
            double const error = squared_error<Format>(x_, current);
            if (error < least) {
                least = error;
                best = current;
            }
            fit_supers(current, super_scale, super_minimum);
        }
    }

private:
    static int code_of(double x, double minimum, double inverse) noexcept {
        double const c = std::nearbyint((x - minimum) * inverse);
        return c < low ? low : c > high ? high : static_cast<int>(c);
    }
    /// Rounds a group's numbers to l, and says what that costs.
    static double cost(float const* x, line const& l) noexcept {
        double const inverse = l.scale != 0 ? 1 / l.scale : 0;
        double sum = 0;
        for (int i = 0; i < size; ++i) {
            double const v = static_cast<double>(x[i]);
            double const d = v - l.minimum - l.scale * code_of(v, l.minimum, inverse);
            sum += d * d;
        }
        return sum;
    }
    /// The line of least squares for the codes that l gives; a minimum is never above 0, and of such formats no scale below it.
    static line refitted(float const* x, line const& l) noexcept {
        double const inverse = l.scale != 0 ? 1 / l.scale : 0;
        double sum_c = 0, sum_cc = 0, sum_x = 0, sum_xc = 0;
        for (int i = 0; i < size; ++i) {
            double const v = static_cast<double>(x[i]);
            double const c = code_of(v, l.minimum, inverse);
            sum_c += c;
            sum_cc += c * c;
            sum_x += v;
            sum_xc += v * c;
        }
        line out = l;
        double const determinant = size * sum_cc - sum_c * sum_c;
        if (is_affine && determinant > 0) {
            out.scale = (size * sum_xc - sum_x * sum_c) / determinant;
            out.minimum = (sum_x - out.scale * sum_c) / size;
        }
        if (!is_affine || out.minimum > 0 || out.scale < 0) {
            out.minimum = is_affine && out.scale < 0 ? std::fmin(sum_x / size, 0.0) : 0;
            out.scale = sum_cc > 0 ? (sum_xc - out.minimum * sum_c) / sum_cc : 0;
            if (is_affine) out.scale = std::fmax(out.scale, 0.0);
        }
        out.error = cost(x, out);
        return out;
    }
    static line fitted(float const* x) noexcept {
        auto const range = range_of(x, size);
        line best;
        double const least = is_affine ? std::fmin(static_cast<double>(range.low), 0.0) : 0;
        double const width = is_affine ? std::fmax(static_cast<double>(range.high), 0.0) - least : static_cast<double>(range.extreme);
        if (width == 0) return {0, 0, 0};
        for (int i = 0; i < shares; ++i) {
            double const share = 0.5 + i * (0.6 / (shares - 1));
            for (double const sign : {1.0, -1.0}) {
                line l;
                l.minimum = is_affine ? least * share : 0;
                l.scale = is_affine ? width * share / high : sign * width * share / low;
                for (int pass = 0; pass < 2; ++pass) {
                    l = refitted(x, l);
                    if (l.error < best.error) best = l;
                }
                if (is_affine) break; // one sign only
            }
        }
        return best;
    }
    /// The integers of group g near those of l, and its codes.
    void choose_integers(block& b, int g, line& l) const noexcept {
        float const* const x = x_ + g * size;
        double const unit = static_cast<double>(Format::super_scale(b));
        double const unit_minimum = static_cast<double>(Format::super_minimum(b));
        constexpr int most = Format::largest_sub > 0 ? Format::largest_sub : -Format::largest_sub - 1;
        constexpr int least = Format::largest_sub > 0 ? 0 : Format::largest_sub;
        auto const within = [](int v, int first, int last) { return v < first ? first : v > last ? last : v; };
        // A quotient by a small unit may be larger than an int, and one of infinities is NaN: bounded before it becomes one.
        auto const nearest = [](double v, double unit_of, int first, int last) {
            double const q = unit_of != 0 ? std::nearbyint(v / unit_of) : 0;
            return q > first ? (q < last ? static_cast<int>(q) : last) : first;
        };
        int const a0 = nearest(l.scale, unit, least, most);
        int const b0 = nearest(l.minimum, unit_minimum, 0, most);
        line best;
        int best_a = 0;
        int best_b = 0;
        for (int a = within(a0 - reach, least, most); a <= within(a0 + reach, least, most); ++a)
            for (int m = is_affine ? within(b0 - reach, 0, most) : 0; m <= (is_affine ? within(b0 + reach, 0, most) : 0); ++m) {
                line candidate{unit * a, unit_minimum * m, 0};
                candidate.error = cost(x, candidate);
                if (candidate.error < best.error) {
                    best = candidate;
                    best_a = a;
                    best_b = m;
                }
            }
        Format::set_sub(b, g, best_a, best_b);
        double const inverse = best.scale != 0 ? 1 / best.scale : 0;
        for (int i = 0; i < size; ++i)
            Format::set_code(b, g * size + i, code_of(static_cast<double>(x[i]), best.minimum, inverse));
        l = refitted(x, best); // where the next round looks
    }
    /// S and M of least squares for the integers and codes of a block.
    void fit_supers(block const& b, double& super_scale, double& super_minimum) const noexcept {
        double pp = 0, pq = 0, qq = 0, xp = 0, xq = 0;
        for (int i = 0; i < Format::block_size; ++i) {
            double const v = static_cast<double>(x_[i]);
            double const p = static_cast<double>(Format::sub_scale(b, i / size)) * Format::code(b, i);
            double const q = static_cast<double>(Format::sub_minimum(b, i / size));
            pp += p * p;
            pq += p * q;
            qq += q * q;
            xp += v * p;
            xq += v * q;
        }
        double const determinant = pp * qq - pq * pq;
        if (determinant > 0) {
            super_scale = (xp * qq - xq * pq) / determinant;
            super_minimum = std::fmin((xq * pp - xp * pq) / determinant, 0.0);
        } else if (pp > 0) {
            super_scale = xp / pp;
        }
    }

    float const* x_;
};

/// The search for one block of a grid format.
template <class Format>
class grid_search {
    using block = typename Format::block;
    static constexpr int size = Format::group_size;
    static constexpr int groups = Format::block_size / size;
    static constexpr int rounds = 3;

public:
    explicit grid_search(float const* x) noexcept : x_{x} {}

    void run(block& best) const noexcept {
        double least = squared_error<Format>(x_, best);
        if (least == 0 || !std::isfinite(least)) return; // exact; or a scale beyond fp16, a NaN
        block current = best;
        for (int round = 0; round < rounds; ++round) {
            double scales[groups];
            double const super_scale = fitted(current, scales);
            if (!(super_scale > 0)) return;
            fp16 const super = narrowed_scale(super_scale);
            int subs[groups];
            for (int g = 0; g < groups; ++g) subs[g] = best_sub(super, g, scales[g] / super_scale);
            current = with(super, subs);
            double const error = squared_error<Format>(x_, current);
            if (error < least) {
                least = error;
                best = current;
            }
        }
    }

private:
    /// The super scale of least squares for the rest of a block, and each group's scale likewise.
    double fitted(block const& b, double (&scales)[groups]) const noexcept {
        double xp = 0, pp = 0;
        for (int g = 0; g < groups; ++g) {
            double xv = 0, vv = 0;
            for (int i = g * size; i < (g + 1) * size; ++i) {
                double const v = static_cast<double>(Format::value(Format::code(b, i)));
                xv += static_cast<double>(x_[i]) * v;
                vv += v * v;
            }
            double const sub = Format::sub_scale(b, g);
            scales[g] = vv > 0 ? xv / vv : 0;
            xp += sub * xv;
            pp += sub * sub * vv;
        }
        return pp > 0 ? xp / pp : 0;
    }
    /// The s next to (ratio - 1) / 2 whose entries leave least of the group.
    int best_sub(fp16 super, int g, double ratio) const noexcept {
        constexpr int most = Format::largest_sub;
        double const wanted = std::nearbyint((ratio - 1) / 2);
        int const middle = !(wanted > 0) ? 0 : wanted > most ? most : static_cast<int>(wanted);
        int best = middle;
        float least = std::numeric_limits<float>::infinity();
        for (int s = middle > 0 ? middle - 1 : 0; s <= (middle < most ? middle + 1 : most); ++s) {
            block trial{};
            Format::set_super(trial, super);
            Format::set_sub(trial, g, s);
            if (float const error = Format::encode_group(x_, g, trial); error < least) {
                least = error;
                best = s;
            }
        }
        return best;
    }
    block with(fp16 super, int const (&subs)[groups]) const noexcept {
        block out{};
        Format::set_super(out, super);
        for (int g = 0; g < groups; ++g) Format::set_sub(out, g, subs[g]);
        for (int g = 0; g < groups; ++g) Format::encode_group(x_, g, out);
        return out;
    }

    float const* x_;
};

/// Formats that a class above searches.
template <class F>
concept sets_subs_and_codes = two_level_format<F> && requires(typename F::block& b) { F::set_sub(b, 0, 0, 0), F::set_code(b, 0, 0); };
template <class F>
concept has_grid = two_level_format<F> && requires(float const* x, typename F::block& b) { F::encode_group(x, 0, b); };

} // namespace detail

/// A block format whose scales can be looked for.
template <class F>
concept searched_block_format = detail::sets_subs_and_codes<F> || detail::has_grid<F>;

/// k numbers, a multiple of 256, as the blocks of the least squared error that was found. A block that holds a NaN or an infinity
/// decodes to NaN. O(k), for grids times their vectors.
/// @throws shape_error for another k
template <searched_block_format Format>
void encode_row_least_error(float const* x, index_t k, typename Format::block* blocks) {
    check::multiple("encode_row_least_error", "k", k, Format::block_size);
    for (index_t i = 0; i < k / Format::block_size; ++i) {
        float const* const from = x + i * Format::block_size;
        Format::encode(from, blocks[i]);
        if constexpr (detail::has_grid<Format>)
            detail::grid_search<Format>{from}.run(blocks[i]);
        else
            detail::block_search<Format>{from}.run(blocks[i]);
    }
}

} // namespace tessera::inline TESSERA_ABI
