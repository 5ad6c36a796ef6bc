// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Matrices with gaps: rows and columns of a guarded matrix lie apart, and everything between them keeps a pattern, so a
/// test sees a write that misses.

#include <tessera/core/philox.hpp>
#include <tessera/core/view.hpp>

#include <cstring>
#include <vector>

namespace tessera_test {

namespace ts = tessera;
using ts::index_t;

template <class T>
T element(double value) {
    return static_cast<T>(static_cast<float>(value));
}

/// (m, n); rows n * step + gap elements apart after an offset of gap, columns step apart.
template <class T>
class guarded {
public:
    guarded(index_t m, index_t n, index_t gap = 0, index_t step = 1)
        : m_{m}, n_{n}, gap_{gap}, step_{step},
          data_(static_cast<std::size_t>((m + 1) * (n * step + gap) + 1), pattern()) {}

    ts::matrix_view<T> view() {
        index_t const strides[] = {n_ * step_ + gap_, step_};
        return {data_.data() + gap_, typename ts::matrix_view<T>::mapping_type{ts::dynamic_extents<2>{m_, n_}, strides}};
    }
    ts::matrix_view<T const> view() const { return const_cast<guarded*>(this)->view(); }

    /// Numbers of mean 0 and standard deviation `scale`.
    void fill(std::uint64_t seed, double scale = 1) {
        ts::philox const random{seed};
        for (index_t i = 0; i < m_; ++i)
            for (index_t k = 0; k < n_; ++k)
                view()(i, k) = element<T>(scale * double{random.normal(static_cast<std::uint64_t>(i * n_ + k))});
    }
    void clear() { data_.assign(data_.size(), pattern()); }

    /// Nothing between the elements was written.
    bool is_intact() const { return count_changed(false) == 0; }
    /// Nothing at all was written since `clear`.
    bool is_untouched() const { return count_changed(false) + count_changed(true) == 0; }

private:
    static T pattern() { return element<T>(-123.0); }

    index_t count_changed(bool elements) const {
        std::vector<bool> is_element(data_.size(), false);
        for (index_t i = 0; i < m_; ++i)
            for (index_t k = 0; k < n_; ++k)
                is_element[static_cast<std::size_t>(gap_ + i * (n_ * step_ + gap_) + k * step_)] = true;
        index_t changed = 0;
        T const expected = pattern();
        for (std::size_t i = 0; i < data_.size(); ++i)
            changed += is_element[i] == elements && std::memcmp(&data_[i], &expected, sizeof(T)) != 0;
        return changed;
    }

    index_t m_;
    index_t n_;
    index_t gap_;
    index_t step_;
    std::vector<T> data_;
};

/// Same shape and same bits of every element.
template <class T>
bool same_bits(ts::matrix_view<T const> a, ts::matrix_view<T const> b) {
    if (a.extent(0) != b.extent(0) || a.extent(1) != b.extent(1)) return false;
    for (index_t i = 0; i < a.extent(0); ++i)
        for (index_t k = 0; k < a.extent(1); ++k)
            if (std::memcmp(&a(i, k), &b(i, k), sizeof(T)) != 0) return false;
    return true;
}
template <class T>
bool same_bits(guarded<T> const& a, guarded<T> const& b) {
    return same_bits<T>(a.view(), b.view());
}

} // namespace tessera_test
