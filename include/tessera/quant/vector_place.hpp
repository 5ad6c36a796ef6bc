// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `place`, `apply` and `describe` for storage that is read by tiles (tables, nested codes, grids, codebooks of vectors):
/// leaves like any other, alone or as terms of a sum.
///
///     auto const layer = place(exec, linear{q} + adapter);           // codes moved, never requantised
///     apply(exec, layer, x, y);
///     apply(exec, transposed(linear{q}), dy, dx);                    // the gradient with respect to x
///
/// Panels are packed each time that an operand is placed: files of placed operands (storage/placed_cache.hpp) do not keep them, but for
/// those of codes whose format is known at run time (dispatch/any_coded.hpp).

#include "../kernels/cpu/grid_int8.hpp"
#include "../kernels/cpu/table_panels.hpp"
#include "../kernels/cpu/vector_bf16.hpp"
#include "../kernels/ref/vector.hpp"
#include "../operators/apply.hpp"
#include "../operators/place.hpp"

#include <cstring>

namespace tessera::inline TESSERA_ABI {

/// Storage that is read by tiles, in panels.
template <class Arch, class Parallel, tile_storage Storage, class Preparation>
class placed<cpu<Arch, Parallel>, linear<Storage, Preparation>> {
    using decoder = typename kernel<op::apply, cpu<Arch, Parallel>, linear<Storage, Preparation>>::decoder;
    using weights = typename decoder::weights;

public:
    using operator_type = linear<weights, Preparation>;

    placed(cpu<Arch, Parallel> const& exec, linear<Storage, Preparation> const& w, memory_arena* arena = nullptr) {
        detail::require_vector_preparation<Storage, Preparation>();
        weights const packed = decoder::shape(w.storage(), nullptr);
        placement const place = find_place(arena, w.storage(), packed.bytes());
        view_ = decoder::shape(w.storage(), place.data);
        std::byte* const data = place.target;
        if (packed.bytes() == 0 || data == nullptr) return; // the arena knew the bytes
        if constexpr (decoder::is_placed) {
            std::memcpy(data, w.storage().data(), static_cast<std::size_t>(packed.bytes()));
        } else {
            weights const target = view_.get();
            pack_shared(w.storage(), target, data);
            // Each panel is written, and its pages first touched, by the thread that packs it.
            parallel_for(exec.parallel(), target.panels(), 4, [&](index_t first, index_t last, index_t) noexcept {
                for (index_t p = first; p < last; ++p)
                    pack_panel(w.storage(), target, p, data + target.shared_bytes() + p * target.panel_bytes());
            });
        }
    }

    operator_type view() const& noexcept { return operator_type{view_.get()}; }
    void view() const&& = delete;
    index_t bytes() const noexcept { return view_.get().bytes(); }

private:
    /// Memory of its own, in the arena, or what the arena knows. A storage that files of placed operands may keep has
    /// `has_placed_key()` and `placed_key_of(content_check)`.
    placement find_place(memory_arena* arena, Storage const& w, index_t bytes) {
        if (arena == nullptr) {
            own_ = buffer<std::byte>{bytes};
            return {own_.data(), own_.data()};
        }
        if constexpr (requires { w.placed_key_of(content_check::whole); })
            if (bytes > 0 && arena->source_check() != content_check::none && w.has_placed_key())
                return arena->find_or_allocate(w.placed_key_of(arena->source_check()));
        std::byte* const data = arena->allocate(bytes);
        return {data, data};
    }

    buffer<std::byte> own_;
    detail::emptied_by_move<weights> view_;
};

} // namespace tessera::inline TESSERA_ABI
