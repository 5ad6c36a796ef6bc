// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `place`: an operator's storage in the order in which a backend reads it (contract 9). Codes are moved, never
/// requantised, so results are the same bits as without; what changes is speed.
///
///     auto const layer = place(exec, linear{q, int8_per_group<32>{}} + adapter);      // owns the panels
///     apply(exec, layer, x, y);
///
/// The result owns its memory and does not refer to the argument's. Its layout depends on the architecture alone. With an
/// arena that is a `placed_cache` (storage/placed_cache.hpp) the panels come from a file that an earlier run wrote.

#include "../kernels/cpu/apply.hpp"
#include "../storage/placed_key.hpp"
#include "placed.hpp"

#include <string>
#include <utility>

namespace tessera::inline TESSERA_ABI {

/// A stored matrix in panels.
template <class Arch, class Parallel, class Storage, class Preparation>
class placed<cpu<Arch, Parallel>, linear<Storage, Preparation>> {
    using weights = typename detail::panel_form<Arch, Storage>::type;
    using owner = prepacked_tensor<typename weights::layout, typename weights::storage>;

public:
    using operator_type = linear<weights, Preparation>;

    placed(cpu<Arch, Parallel> const& exec, linear<Storage, Preparation> const& w, memory_arena* arena = nullptr)
        : panels_{detail::place_in<owner>(arena, w.storage(), w.rows(), w.cols())} {
        weights const packed = panels_.view();
        std::byte* const data = panels_.data();
        if (data == nullptr) return; // the arena knew the bytes
        // Each panel is written, and its pages first touched, by the thread that packs it.
        parallel_for(exec.parallel(), packed.panels(), 4, [&](index_t first, index_t last, index_t) noexcept {
            for (index_t p = first; p < last; ++p) {
                std::byte* const out = data + p * packed.panel_bytes();
                if constexpr (detail::panel_form<Arch, Storage>::is_placed)
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

/// Places an operator for a policy; see the file comment. Throws std::bad_alloc.
template <execution_policy Exec, linear_operator Op>
    requires detail::is_cpu<Exec>
placed<Exec, Op> place(Exec const& exec, Op const& w) {
    return {exec, w};
}

/// The same, in an arena that must outlive the result: operands of one model, placed in the order of their use, are read as
/// one stream, across their ends.
template <execution_policy Exec, linear_operator Op>
    requires detail::is_cpu<Exec>
placed<Exec, Op> place(Exec const& exec, Op const& w, memory_arena& arena) {
    return {exec, w, &arena};
}

/// The name of a file of placed operands (storage/placed_cache.hpp): whose they are, the panels of the policy's architecture and
/// the version of their layout.
template <class Arch, class Parallel>
std::string placed_cache_name(cpu<Arch, Parallel> const&, content_id const& model) {
    return model.text() + "-panel" + std::to_string(simd::lanes<Arch>) + "-v" + std::to_string(panel_layout_version) + ".placed";
}

} // namespace tessera::inline TESSERA_ABI
