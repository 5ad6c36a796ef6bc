// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Least squares with no negative part: the x >= 0 for which |A x - b| is least, where A has few numbers in a column (Lawson and Hanson,
/// "Solving least squares problems", 1974). A set of columns grows by the one that helps most; a step that would make an x negative
/// stops there, and that column leaves.
///
/// The set's normal equations are kept as the triangle R of Cholesky's, which gains a column by substitution and loses one by rotations;
/// a solution is refined once by the residual of A itself. What leaves |A x - b| as it is up to 1e-10 of its gradient is no help.

#include "../core/types.hpp"

#include <cmath>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace tessera::inline TESSERA_ABI::detail {

/// A column's numbers: up to three, in different rows.
struct sparse_column {
    struct entry {
        index_t row;
        double value;
    };
    entry entries[3] = {};
    int count = 0;

    void add(index_t row, double value) noexcept { entries[count++] = {row, value}; }
    double dot(std::span<double const> b) const noexcept {
        double sum = 0;
        for (int i = 0; i < count; ++i) sum += entries[i].value * b[static_cast<std::size_t>(entries[i].row)];
        return sum;
    }
    double dot(sparse_column const& other) const noexcept {
        double sum = 0;
        for (int i = 0; i < count; ++i)
            for (int j = 0; j < other.count; ++j)
                if (entries[i].row == other.entries[j].row) sum += entries[i].value * other.entries[j].value;
        return sum;
    }
};

/// See the file comment.
class non_negative_least_squares {
public:
    non_negative_least_squares(std::span<sparse_column const> columns, std::span<double const> right)
        : columns_{columns}, right_{right}, residual_(right.begin(), right.end()), state_(columns.size(), state::out) {}

    /// x by column.
    std::vector<double> solve() {
        double largest = 0;
        for (sparse_column const& c : columns_) largest = std::fmax(largest, std::fabs(c.dot(right_)));
        // Each round makes |A x - b| less, so that no set comes twice; the limit is for what rounding may do.
        for (std::size_t round = 0; round < 3 * columns_.size(); ++round) {
            std::size_t const column = best(1e-10 * largest);
            if (column == columns_.size()) break;
            if (enter(column)) {
                for (state& s : state_)
                    if (s == state::useless) s = state::out;
            } else {
                state_[column] = state::useless; // until x has changed
            }
        }
        std::vector<double> x(columns_.size());
        for (std::size_t i = 0; i < set_.size(); ++i) x[set_[i]] = x_[i];
        return x;
    }

private:
    enum class state : unsigned char { out, in, useless };

    /// The column outside with the steepest way down; the number of columns if none is steeper than `least`.
    std::size_t best(double least) const noexcept {
        std::size_t at = columns_.size();
        for (std::size_t j = 0; j < columns_.size(); ++j) {
            if (state_[j] != state::out) continue;
            double const slope = columns_[j].dot(residual_);
            if (slope > least) {
                least = slope;
                at = j;
            }
        }
        return at;
    }

    bool enter(std::size_t column) {
        if (!append(column)) return false;
        std::vector<double> wanted = solve_set();
        if (!(wanted.back() > 0)) {
            remove(set_.size() - 1);
            return false;
        }
        for (;;) {
            double part = 1; // of the way to `wanted` that leaves no x negative
            std::size_t first = set_.size();
            for (std::size_t i = 0; i < set_.size(); ++i)
                if (!(wanted[i] > 0) && x_[i] <= part * (x_[i] - wanted[i])) {
                    part = x_[i] > 0 ? x_[i] / (x_[i] - wanted[i]) : 0.0;
                    first = i;
                }
            if (first == set_.size()) break;
            for (std::size_t i = 0; i < set_.size(); ++i) x_[i] += part * (wanted[i] - x_[i]);
            x_[first] = 0;
            for (std::size_t i = set_.size(); i-- > 0;)
                if (!(x_[i] > 0)) remove(i);
            wanted = solve_set();
        }
        x_ = std::move(wanted);
        residual_of(x_, residual_);
        return true;
    }

    /// Adds a column to R; false if it depends on those there.
    bool append(std::size_t column) {
        sparse_column const& c = columns_[column];
        std::vector<double> r;
        r.reserve(set_.size() + 1);
        for (std::size_t const j : set_) r.push_back(columns_[j].dot(c));
        forward(r);
        double const whole = c.dot(c);
        double rest = whole;
        for (double const x : r) rest -= x * x;
        if (!(rest > 1e-12 * whole)) return false;
        r.push_back(std::sqrt(rest));
        triangle_.push_back(std::move(r));
        set_.push_back(column);
        x_.push_back(0);
        state_[column] = state::in;
        return true;
    }

    void remove(std::size_t at) {
        auto const offset = static_cast<std::ptrdiff_t>(at);
        state_[set_[at]] = state::out;
        set_.erase(set_.begin() + offset);
        x_.erase(x_.begin() + offset);
        triangle_.erase(triangle_.begin() + offset);
        for (std::size_t i = at; i < triangle_.size(); ++i) { // column i has a number below its diagonal
            double const a = triangle_[i][i], b = triangle_[i][i + 1];
            double const r = std::hypot(a, b);
            double const c = a / r, s = b / r;
            for (std::size_t j = i; j < triangle_.size(); ++j) {
                double& up = triangle_[j][i];
                double& down = triangle_[j][i + 1];
                double const below = c * down - s * up;
                up = c * up + s * down;
                down = below;
            }
            triangle_[i].pop_back();
        }
    }

    std::vector<double> solve_set() const {
        std::vector<double> x(set_.size()), more(set_.size()), rest(right_.size());
        for (std::size_t i = 0; i < set_.size(); ++i) x[i] = columns_[set_[i]].dot(right_);
        forward(x);
        backward(x);
        residual_of(x, rest);
        for (std::size_t i = 0; i < set_.size(); ++i) more[i] = columns_[set_[i]].dot(rest);
        forward(more);
        backward(more);
        for (std::size_t i = 0; i < set_.size(); ++i) x[i] += more[i];
        return x;
    }
    /// rest = b - A x.
    void residual_of(std::span<double const> x, std::span<double> rest) const noexcept {
        for (std::size_t i = 0; i < rest.size(); ++i) rest[i] = right_[i];
        for (std::size_t i = 0; i < set_.size(); ++i) {
            sparse_column const& c = columns_[set_[i]];
            for (int e = 0; e < c.count; ++e) rest[static_cast<std::size_t>(c.entries[e].row)] -= c.entries[e].value * x[i];
        }
    }
    /// y becomes R⁻ᵀ y.
    void forward(std::vector<double>& y) const noexcept {
        for (std::size_t i = 0; i < y.size(); ++i) {
            double const* const r = triangle_[i].data();
            double sum = y[i];
            for (std::size_t j = 0; j < i; ++j) sum -= r[j] * y[j];
            y[i] = sum / r[i];
        }
    }
    /// y becomes R⁻¹ y.
    void backward(std::vector<double>& y) const noexcept {
        for (std::size_t i = y.size(); i-- > 0;) {
            double const* const r = triangle_[i].data();
            double const x = y[i] / r[i];
            y[i] = x;
            for (std::size_t j = 0; j < i; ++j) y[j] -= r[j] * x;
        }
    }

    std::span<sparse_column const> columns_;
    std::span<double const> right_;
    std::vector<double> residual_;
    std::vector<state> state_;
    std::vector<std::size_t> set_; // columns that may be positive
    std::vector<double> x_;        // of the set
    std::vector<std::vector<double>> triangle_; // R's columns, down to the diagonal
};

} // namespace tessera::inline TESSERA_ABI::detail
