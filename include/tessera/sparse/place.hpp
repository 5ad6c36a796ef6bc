// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `place` and the products of sparse operands: `linear{csr}` and `linear{n_of_m}` are leaves like any other, alone or as
/// terms of a sum.
///
///     auto const layer = place(exec, linear{base, int8_per_token{}} + linear{outliers});
///     apply(exec, layer, x, y);                                   // one pass over y
///     apply(exec, transposed(linear{outliers}), dy, dx);          // the gradient with respect to x

#include "../kernels/cpu/sparse_transposed.hpp"
#include "../kernels/ref/sparse.hpp"
#include "../operators/apply.hpp"
#include "../operators/place.hpp"

#include <cstring>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// Compressed rows in panels.
template <class Arch, class Parallel, detail::csr_storage Storage, class Preparation>
class placed<cpu<Arch, Parallel>, linear<Storage, Preparation>> {
    using staged = detail::csr_windows<Arch, Storage>;
    using weights = typename staged::weights;

public:
    using operator_type = linear<weights, Preparation>;

    placed(cpu<Arch, Parallel> const& exec, linear<Storage, Preparation> const& w, memory_arena* arena = nullptr) {
        detail::require_as_is<Preparation>();
        weights const packed = staged::shape(w.storage());
        index_t const windows = packed.windows();
        if constexpr (staged::form::is_placed) {
            std::byte* const data = allocate(packed.bytes(), arena);
            if (packed.bytes() > 0) std::memcpy(data, packed.data(), static_cast<std::size_t>(packed.bytes()));
            view_ = weights{data, packed.bytes(), packed.nonzeros(), packed.rows(), packed.cols()};
        } else {
            std::vector<index_t> offsets(static_cast<std::size_t>(windows + 1));
            index_t at = packed.table_bytes();
            for (index_t i = 0; i < windows; ++i) {
                offsets[static_cast<std::size_t>(i)] = at;
                at += packed.window_bytes(window_nonzeros(w.storage(), packed, i));
            }
            offsets[static_cast<std::size_t>(windows)] = at;
            std::byte* const data = allocate(at + weights::slack, arena);
            std::memset(data + at, 0, static_cast<std::size_t>(weights::slack));
            std::memcpy(data, offsets.data(), offsets.size() * sizeof(index_t));
            view_ = weights{data, at + weights::slack, packed.nonzeros(), packed.rows(), packed.cols()};
            parallel_for(exec.parallel(), windows, 4, [&](index_t first, index_t last, index_t) noexcept {
                for (index_t i = first; i < last; ++i)
                    pack_window(w.storage(), view_.get(), i, data + reinterpret_cast<index_t const*>(data)[i]);
            });
        }
    }

    operator_type view() const& noexcept { return operator_type{view_.get()}; }
    void view() const&& = delete;
    index_t bytes() const noexcept { return view_.get().bytes(); }

private:
    std::byte* allocate(index_t bytes, memory_arena* arena) {
        if (arena != nullptr) return arena->allocate(bytes);
        own_ = buffer<std::byte>{bytes};
        return own_.data();
    }

    buffer<std::byte> own_;
    detail::emptied_by_move<weights> view_;
};

namespace detail {

template <index_t R, index_t N, index_t M, class T, class Granularity>
struct placed_layout<prepacked<kept<R>, n_of_m<N, M, T, Granularity>>> {
    static constexpr bool is_named = true;
    static std::string text() {
        return std::to_string(N) + ":" + std::to_string(M) + " " + sparse_value<T>::name + ", scales of " +
               std::to_string(Granularity::rows) + " rows, kept<" + std::to_string(R) + ">";
    }
};

} // namespace detail

/// N of every M weights in panels.
template <class Arch, class Parallel, detail::n_of_m_storage Storage, class Preparation>
class placed<cpu<Arch, Parallel>, linear<Storage, Preparation>> {
    using staged = detail::n_of_m_panels<Arch, Storage>;
    using weights = typename staged::weights;
    using owner = prepacked_tensor<typename weights::layout, typename weights::storage>;

public:
    using operator_type = linear<weights, Preparation>;

    placed(cpu<Arch, Parallel> const& exec, linear<Storage, Preparation> const& w, memory_arena* arena = nullptr)
        : panels_{detail::place_in<owner>(arena, w.storage(), w.rows(), w.cols())} {
        detail::require_as_is<Preparation>();
        weights const packed = panels_.view();
        std::byte* const data = panels_.data();
        if (data == nullptr) return; // the arena knew the bytes
        parallel_for(exec.parallel(), packed.panels(), 4, [&](index_t first, index_t last, index_t) noexcept {
            for (index_t p = first; p < last; ++p) {
                std::byte* const out = data + p * packed.panel_bytes();
                if constexpr (staged::form::is_placed)
                    std::memcpy(out, w.storage().data() + p * packed.panel_bytes(),
                                static_cast<std::size_t>(packed.panel_bytes()));
                else
                    pack_panel(w.storage(), packed, p, out);
            }
        });
    }

    operator_type view() const& noexcept { return operator_type{panels_.view()}; }
    void view() const&& = delete;
    index_t bytes() const noexcept { return panels_.bytes(); }

private:
    owner panels_;
};

} // namespace tessera::inline TESSERA_ABI
