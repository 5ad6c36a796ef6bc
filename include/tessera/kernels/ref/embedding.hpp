// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of embedding: row t of y is row ids[t] of the table, decoded.

#include "../../core/view.hpp"
#include "../kernel.hpp"

namespace tessera::inline TESSERA_ABI {

template <class Storage>
struct kernel<op::embedding, reference, Storage> {
    template <class Id, class Y>
    static void run(reference const&, Storage const& table, vector_view<Id const> ids, matrix_view<Y> y) noexcept {
        static_assert(requires { static_cast<float>(table(index_t{0}, index_t{0})); },
                      "tessera: the reference reads storage with random access; prepacked storage needs a cpu policy");
        for (index_t t = 0; t < ids.extent(0); ++t)
            for (index_t k = 0; k < y.extent(1); ++k)
                y(t, k) = static_cast<Y>(static_cast<float>(table(static_cast<index_t>(ids[t]), k)));
    }
};

} // namespace tessera::inline TESSERA_ABI
